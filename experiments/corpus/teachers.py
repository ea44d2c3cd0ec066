"""Who teaches: each seat of each game is a target-seeking teacher with a given chance, whoever sits opposite.

Both the chance and the teacher's parameters are pure functions of (seed, game id, seat). The seats without a teacher are
played by those who would play them anyway, and a larger share keeps every teacher of a smaller one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import agents
from agents.sampling import label
from bargain_env import Scenarios, Seat, rng
from bargain_env.errors import InputError

TEACHER = "target_seeking"
"""The strategy; the ranges are those of its family."""
DIGITS = 4
"""Significant digits of what is drawn: a name is written with every decision, and plays the member again."""
_TURN = 1
"""Where pairs and opponents are drawn too, they are so with turn 0."""


def require_share(share: float) -> None:
    """Refuse what is no share.

    Raises:
        InputError: it is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"--teacher-share {share} must lie in [0, 1]")


def seated(players: NDArray[np.object_], games: Scenarios, share: float) -> NDArray[np.object_]:
    """``[B, 2]`` names of buyer and seller: those of ``players``, ``[B, 2]``, and in a ``share`` of the seats teachers."""
    out = players.copy()
    if not share:
        return out
    spans = agents.describe(TEACHER).ranges
    for seat in Seat:
        drawn = rng.uniform(games.seed, games.id, seat=seat, turn=_TURN, stream=rng.Stream.PAIRING, n=1 + len(spans))
        for row in np.flatnonzero(drawn[:, 0] < share):
            values = [span.at(u) for span, u in zip(spans.values(), drawn[row, 1:].tolist(), strict=True)]
            rounded = (float(f"{value:.{DIGITS}g}") for value in values)
            out[row, seat] = label(TEACHER, dict(zip(spans, rounded, strict=True)))
    return out
