"""Games just played as `StepRows`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bargain_env import MoveKind, Trajectories

from . import records
from .step_rows import StepRows


def rows_of_games(result: Trajectories, run: str, buyers: Sequence[str], sellers: Sequence[str]) -> StepRows:
    """The decisions of finished games, sorted by game, then turn.

    A wasted turn (`MoveKind.INVALID`) decides nothing and makes no row; a game of nothing else is left out.

    Args:
        result: B games.
        run: see `records.run_name`.
        buyers: ``[B]`` strategy names.
        sellers: ``[B]`` strategy names.
    """
    games = result.scenarios
    decided = (result.kinds == MoveKind.OFFER) | (result.kinds == MoveKind.ACCEPT)
    game, column = np.nonzero(decided)
    played = decided.any(axis=1)
    role = result.sides()[game, column]
    limits = np.stack([games.buyer_max, games.seller_min], axis=1)
    names = np.stack([np.asarray(buyers, dtype=object), np.asarray(sellers, dtype=object)], axis=1)
    ids = records.trajectory_ids(run, games.id)
    return StepRows(
        ids=ids[played],
        strategies=names[played],
        seeds=games.seed[played].astype(np.float64),
        episode=(np.cumsum(played) - 1)[game],
        turn=column + 1,
        role=role,
        max_turns=games.max_turns[game],
        reservation=limits[game, role],
        price_low=games.price_low[game],
        price_high=games.price_high[game],
        last_offer=_acceptable(result)[game, column],
        accept=result.kinds[game, column] == MoveKind.ACCEPT,
        price=result.prices[game, column],
        zopa_low=games.seller_min[game],
        zopa_high=games.buyer_max[game],
    )


def _acceptable(result: Trajectories) -> np.ndarray:
    """``[B, T]`` the offer of the other seat that stands before each turn, NaN where none."""
    if not (result.kinds == MoveKind.INVALID).any():  # then every turn before was an offer
        return np.concatenate([np.full((len(result), 1), np.nan), result.prices[:, :-1]], axis=1)
    turns = np.arange(result.prices.shape[1])
    offered = ~np.isnan(result.prices)
    latest = np.maximum.accumulate(np.where(offered, turns, -1), axis=1)
    latest = np.concatenate([np.full((len(result), 1), -1), latest[:, :-1]], axis=1)
    standing = np.take_along_axis(result.prices, np.maximum(latest, 0), axis=1)
    by_the_other = (latest >= 0) & ((turns - latest) % 2 == 1)
    return np.where(by_the_other, standing, np.nan)
