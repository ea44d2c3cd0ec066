"""Several processes on one store of adapters, and one that is killed: nothing is lost, nothing half made is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stored import STEM

from hyperlora.adapters.verify import verify

SCRIPT = Path(__file__).parents[1] / "killed_publish.py"
PUBLISHER = """
import sys
from datetime import UTC, datetime
from hyperlora.adapters.store import AdapterStore
store = AdapterStore(sys.argv[1], clock=lambda: datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    print(store.publish(sys.argv[2], "buyer", sys.argv[3]).name)
"""


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}


def test_two_publishers_in_the_same_minute_both_succeed(store, source):
    command_line = [sys.executable, "-c", PUBLISHER, str(store.root), str(source)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    two = [subprocess.Popen([*command_line, name], **pipes) for name in ("first", "second")]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    for process in two:
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate()[0].split() for process in two]
    assert [process.returncode for process in two] == [0, 0]
    names = [name for names in printed for name in names]
    assert len(names) == len(set(names)) == 8 == len(store.versions("buyer"))
    for adapter_name, mine in zip(("first", "second"), printed, strict=True):
        assert {store.version("buyer", name).manifest["adapter_name"] for name in mine} == {adapter_name}
    assert all(not verify(store, "buyer", name) for name in names)
    newest = store.versions("buyer")[-1].name
    assert store.resolve("buyer").name == store.resolve("buyer@latest").name == newest


def test_a_kill_at_any_write_loses_nothing_and_shows_nothing_half_made(source, tmp_path):
    line = [sys.executable, str(SCRIPT), str(source), str(tmp_path / "work")]
    (tmp_path / "work").mkdir()
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    events = {row["event"] for row in rows}
    assert len(rows) > 30
    assert {"open", "os.mkdir", "os.rename", "os.chmod", "fsync"} <= events
    seen = set()
    for k, row in enumerate(rows, 1):
        after, then = row["after"], row["then"]
        assert not row["survived"], (k, row)
        assert after["problems"] == then["problems"] == [], (k, row)
        assert after["names"] == after["versions"], (k, row)
        assert after["versions"] in ([STEM], [STEM, f"{STEM}-2"]), (k, row)
        assert {after["resolved"], after["latest"]} <= set(after["versions"]), (k, row)
        assert then["versions"] == [*after["versions"], row["again"]], (k, row)
        assert then["resolved"] == then["latest"] == row["again"], (k, row)
        assert row["hidden"] == [], (k, row)
        seen.add(len(after["versions"]))
    assert seen == {1, 2}  # killed before it appeared, and after
