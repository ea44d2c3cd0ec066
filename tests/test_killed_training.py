"""A training run that is killed at a random point and resumed ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_training.py"


def killed(data, base, out, seeds):
    command = [sys.executable, str(SCRIPT), str(data), str(base), str(out), *map(str, seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(rows):
    whole, *resumed = rows
    assert whole["events"] > 60
    assert not any(row["survived"] for row in resumed)
    assert [row["digest"] for row in resumed] == [whole["digest"]] * len(resumed)
    return {row["killed_at"] for row in resumed}


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(training_data, tiny_base, tmp_path):
    assert len(check(killed(training_data, tiny_base, tmp_path, range(4)))) > 1


@pytest.mark.slow
def test_twenty_kills(training_data, tiny_base, tmp_path):
    assert len(check(killed(training_data, tiny_base, tmp_path, range(100, 120)))) > 4
