"""What a dial could do at best: the settlements nearest to each request that any player could reach against a pool.

Against an opponent that never takes less than half, no player settles at .1: an error that is the pool's and not the dial's.
See `bargain_env.theory.nearest`; it covers opponents whose moves depend on the clock and the standing offer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import agents
from bargain_env import PRESETS, Scenarios, Seat, sample
from bargain_env.theory.nearest import IMPASSE, nearest

from .targets import NEAR, SLACK

GAMES = 16
"""Scenarios that are looked at, the first ones: a pool costs as many dynamic programs as it has opponents, seats and ρ."""


def ceilings(names: Sequence[str], preset: str, grid: Sequence[float], games: int, seed: int = 0) -> dict[str, Any]:
    """The least possible errors against a pool.

    Args:
        names: its opponents.
        preset: of the scenarios.
        grid: requests, in [0, 1].
        games: scenarios of the tournament that this stands beside.
        seed: of these.

    Returns:
        JSON-ready: ``opponents`` that it is of, and ``of`` how many in the pool; ``games``; ``impasse``, the error that an
        impasse counts as; ``rho``; and for each seat, each by request: ``mae``, the least mean error of single games,
        ``settled``, the mean ρ of the deals that reach it, ``agreement``, the share of games that they are, and
        ``near``, the share of games that can settle within `targets.NEAR` of the request. Without such opponents these are
        empty.
    """
    drawn = sample(preset, min(games, GAMES), seed=seed)
    some = drawn.take(np.flatnonzero(drawn.has_zopa))
    kept = [name for name in names if not agents.describe(name).uses_history]
    found: dict[str, Any] = {
        "opponents": kept, "of": len(names), "games": len(some), "impasse": IMPASSE, "rho": list(grid),
    }  # fmt: skip
    return found | {seat.label: _seat(kept, preset, some, seat, grid) for seat in Seat}


def _seat(names: Sequence[str], preset: str, games: Scenarios, seat: Seat, grid: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"mae": [], "settled": [], "agreement": [], "near": []}
    for rho in grid if names and len(games) else ():
        reached = [nearest(agents.make_for(PRESETS[preset], name), games, seat, rho) for name in names]
        settled = np.concatenate(reached)
        errors = np.where(np.isnan(settled), IMPASSE, np.abs(settled - rho))
        found["mae"].append(float(errors.mean()))
        found["near"].append(float((errors <= NEAR + SLACK).mean()))
        found["agreement"].append(float((~np.isnan(settled)).mean()))
        found["settled"].append(float(np.nanmean(settled)) if (~np.isnan(settled)).any() else None)
    return found
