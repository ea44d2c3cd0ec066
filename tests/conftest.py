"""Small real inputs shared by tests: games between scripted strategies as a steps table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import agents
from bargain_env import RoutedPolicy, play, rng, sample
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table


@pytest.fixture(scope="session")
def steps() -> pa.Table:
    """Decisions of 300 paper games between random strategies."""
    names = agents.list_strategies()
    games = sample("paper", 300, seed=5)
    drawn = (rng.uniform(5, games.id, stream=rng.Stream.PAIRING, n=2) * len(names)).astype(int)
    players = [[agents.make(name, assumed_zopa_width=500.0) for name in names] for _ in range(2)]
    result = play(games, RoutedPolicy(players[0], drawn[:, 0]), RoutedPolicy(players[1], drawn[:, 1]))
    rows = rows_of_games(result, "test", np.array(names)[drawn[:, 0]].tolist(), np.array(names)[drawn[:, 1]].tolist())
    return steps_table(rows)
