"""Several processes train what one process does with as many micro-batches, bit for bit; the base whole or sharded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from bargain_env.errors import InputError
from experiments import train
from hyperlora.checkpoint import read_config, read_state
from hyperlora.workers import Workers, join

SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}


def options(data, base, out, **changes):
    """Of a short run; dropout and the gate terms are on, since their randomness must not depend on who draws it."""
    return {
        "data": data, "out": out, "model_name": str(base), "max_steps": 4, "save_every": 0, "eval_every": 4,
        "play_games": 0, "rank": 2, "batch_size": 4, "grad_accum": 1, "lr": 3e-3, "warmup_steps": 1, "dropout": 0.2,
        "lambda_sep": 0.5, "lambda_smooth": 0.01, "quiet": True, "device": "cpu", **changes,
    }  # fmt: skip


def alone(data, base, out, **changes):
    return read_state(train.run(train.Settings(**options(data, base, out, **changes))))


def together(data, base, out, processes, environment=None, **changes):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    given = options(data, base, out, **changes)
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in given.items()]
    done = subprocess.run(
        [*command, "-m", "experiments.train", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **(environment or {})},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return read_state(out / "final")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_micro_batches(training_data, tiny_base, tmp_path):
    half = alone(training_data, tiny_base, tmp_path / "half")
    one = alone(training_data, tiny_base, tmp_path / "one", grad_accum=2)
    two = together(training_data, tiny_base, tmp_path / "two", 2)
    assert not same(half, one)
    assert same(one, two)
    assert read_config(tmp_path / "two" / "final")["run"]["processes"] == 2
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_a_sharded_base_changes_nothing(training_data, tiny_base, tmp_path):
    one = alone(training_data, tiny_base, tmp_path / "one", grad_accum=2, gradient_checkpointing=True)
    two = together(training_data, tiny_base, tmp_path / "two", 2, SHARDED, gradient_checkpointing=True)
    assert same(one, two)


def test_sums_are_over_all_processes_and_alone_nothing_is_sent():
    tensors = [torch.ones(2), torch.ones(3, dtype=torch.float64)]
    Workers().add_up(tensors)
    assert torch.equal(tensors[0], torch.ones(2))


def test_what_cannot_be_joined_is_said(monkeypatch):
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        join("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not there"):
            join("cuda")
    assert join("cpu") == Workers()
