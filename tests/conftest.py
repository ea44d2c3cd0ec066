"""Small real inputs shared by tests: games between scripted strategies as a steps table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agents
from bargain_env import RoutedPolicy, play, rng, sample
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table


@pytest.fixture(scope="session")
def steps() -> pa.Table:
    """Decisions of 300 paper games between random strategies."""
    names = agents.list_strategies(split="train")
    games = sample("paper", 300, seed=5)
    drawn = (rng.uniform(5, games.id, stream=rng.Stream.PAIRING, n=2) * len(names)).astype(int)
    players = [[agents.make(name, assumed_zopa_width=500.0) for name in names] for _ in range(2)]
    result = play(games, RoutedPolicy(players[0], drawn[:, 0]), RoutedPolicy(players[1], drawn[:, 1]))
    rows = rows_of_games(result, "test", np.array(names)[drawn[:, 0]].tolist(), np.array(names)[drawn[:, 1]].tolist())
    return steps_table(rows)


@pytest.fixture(scope="session")
def training_data(steps, tmp_path_factory):
    """A folder with these decisions as ``steps.parquet``, those of the first 40 episodes or so in the eval split."""
    folder = tmp_path_factory.mktemp("data")
    ids = steps["trajectory_id"].to_pylist()
    split = ["eval" if i in set(ids[:40]) else "train" for i in ids]
    column = steps.column_names.index("split")
    pq.write_table(steps.set_column(column, "split", pa.array(split)), folder / "steps.parquet")
    return folder


@pytest.fixture(scope="session")
def tiny_base(training_data, tmp_path_factory):
    """The folder of a base model of two small layers, trained for 20 steps."""
    from experiments import pretrain

    return pretrain.run(
        pretrain.Settings(
            data=training_data,
            out=tmp_path_factory.mktemp("base") / "nano",
            hidden=32,
            layers=2,
            heads=2,
            intermediate=48,
            max_steps=20,
            batch_size=16,
            quiet=True,
        )
    )
