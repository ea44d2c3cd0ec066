"""A tournament that is killed at a random point and run again writes the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_tournament.py"


def killed(kind, out, seeds):
    command = [sys.executable, str(SCRIPT), kind, str(out), *map(str, seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    whole, *resumed = [json.loads(line) for line in done.stdout.splitlines()]
    assert whole["events"].count("after play") >= 10
    assert set(whole["digests"]) >= {"episodes.parquet", "report.html", "summary.csv", "summary.json"}
    for row in resumed:
        assert not row["survived"]
        assert row["digests"] == whole["digests"], row["killed_at"]
    return resumed, len(whole["events"])


def test_a_killed_tournament_is_finished_by_the_same_command(tmp_path):
    rows, events = killed("scripts", tmp_path, (1, 3))
    assert any(row["kept"] > 3 and row["events"] < events for row in rows)  # what was finished was not played again


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scripts", "janus"])
def test_twenty_kills(tmp_path, kind):
    rows, _ = killed(kind, tmp_path, range(100, 120))
    assert len({row["killed_at"] for row in rows}) > 4
    assert len({row["kept"] for row in rows}) > 4
