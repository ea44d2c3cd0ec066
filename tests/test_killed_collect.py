"""A collection that is killed at a random point and run again has the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_collect.py"
KINDS = {"steps": "parquet", "episodes": "parquet", "log": "jsonl"}
WHOLE = {f"{kind}/part-0000{n}.{suffix}" for kind, suffix in KINDS.items() for n in range(5)}


def killed(out, seeds):
    command = [sys.executable, str(SCRIPT), str(out), *map(str, seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    whole, *resumed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(whole["events"]) > 100
    assert set(whole["digests"]) == {"manifest.json", *WHOLE}
    for row in resumed:
        assert not row["survived"]
        assert row["digests"] == whole["digests"], row["killed_at"]
    return resumed, len(whole["events"])


def test_a_killed_collection_is_finished_by_the_same_command(tmp_path):
    rows, events = killed(tmp_path, range(4))
    assert any(set(row["left"]) != {"manifest.json", *WHOLE} for row in rows)
    assert any(row["kept"] and row["events"] < events for row in rows), "what was finished was not played again"


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    rows, _ = killed(tmp_path, range(100, 120))
    assert len({row["killed_at"] for row in rows}) > 6
    assert len({row["kept"] for row in rows}) > 3
