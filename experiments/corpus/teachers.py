"""Who teaches: each seat of each game is a teacher with a given chance, whoever sits opposite.

Both the chance and what the teacher is asked for are pure functions of (seed, game id, seat). The seats without a teacher
are played by those who would play them anyway, and a larger share keeps every teacher of a smaller one.

Teachers are scripted target-seeking players, or one that `experiments.teacher` trained. The name of the latter,
``teacher(target=0.3712)``, says what it was asked to reach, as that of a Janus does; the settlement of a scripted one is
that of the ZOPA which it assumes, so its request is known only where the width is.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

import agents
from agents.sampling import label
from bargain_env import Scenarios, Seat, rng
from bargain_env.errors import InputError

TEACHER = "target_seeking"
"""The scripted strategy; the ranges are those of its family."""
TRAINED = "teacher"
"""What a trained one is called."""
ASKED = re.compile(
    rf"(?P<who>{TRAINED}|janus-nano(?:@text|@gates)?|janus:.+|lora(?::.+)?)\(target=(?P<rho>0(?:\.\d+)?|1(?:\.0+)?)\)"
)
"""Names of players that were asked for ρ of the true ZOPA."""
DIGITS = 4
"""Digits of what is drawn, decimals of a trained one's request: a name is written with every decision, and plays the
member again."""
SPARRING = "sparring"
_SPARRING_TURN = 2
_TURN = 1
"""Where pairs and opponents are drawn too, they are so with turn 0."""


def require_share(share: float, name: str = "--teacher-share") -> None:
    """Refuse what is no share.

    Raises:
        InputError: it is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"{name} {share} must lie in [0, 1]")


def seated(
    players: NDArray[np.object_], games: Scenarios, share: float, *, trained: bool = False
) -> NDArray[np.object_]:
    """``[B, 2]`` names of buyer and seller: those of ``players``, ``[B, 2]``, and in a ``share`` of the seats teachers."""
    out = players.copy()
    if not share:
        return out
    spans = {} if trained else agents.describe(TEACHER).ranges
    for seat in Seat:
        n = 2 if trained else 1 + len(spans)
        drawn = rng.uniform(games.seed, games.id, seat=seat, turn=_TURN, stream=rng.Stream.PAIRING, n=n)
        for row in np.flatnonzero(drawn[:, 0] < share):
            values = drawn[row, 1:].tolist()
            if trained:
                out[row, seat] = label(TRAINED, {"target": round(values[0], DIGITS)})
                continue
            asked = (span.at(u) for span, u in zip(spans.values(), values, strict=True))
            rounded = (float(f"{value:.{DIGITS}g}") for value in asked)
            out[row, seat] = label(TEACHER, dict(zip(spans, rounded, strict=True)))
    return out


def sparred(players: NDArray[np.object_], games: Scenarios, share: float) -> NDArray[np.object_]:
    """``[B, 2]`` names of buyer and seller: those of ``players``, ``[B, 2]``, and in a ``share`` of the seats sparring
    partners (`agents.scripted.sparring`); a pure function of (seed, game id, seat) again.
    """
    drawn = [
        rng.uniform(games.seed, games.id, seat=seat, turn=_SPARRING_TURN, stream=rng.Stream.PAIRING) for seat in Seat
    ]
    return np.where(np.hstack(drawn) < share, SPARRING, players)


def asked_rho(names: NDArray[np.object_]) -> NDArray[np.float64]:
    """``[B]`` what each player was asked to reach, in ρ of the true ZOPA; NaN for who was not asked, or not so."""
    found = {name: ASKED.fullmatch(name) if name else None for name in set(names.tolist())}
    asked = {name: np.nan if match is None else float(match["rho"]) for name, match in found.items()}
    return np.array([asked[name] for name in names.tolist()], dtype=np.float64)
