"""Price grids: the prices that theory lets a seat offer. All are ``[B, K]``, on the tick and inside the public range."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import Seat, quantise_array
from ..scenarios import Scenarios

Floats = NDArray[np.float64]

STEPS = 32
"""Steps of the default grid from one limit to the other."""
TIE = 1e-6
"""Prices closer than this share of a tick are the same price: offers are rounded decimals, thresholds are not."""


def checked(prices: ArrayLike, scenarios: Scenarios) -> Floats:
    """``prices``, the same ``[K]`` for all games or ``[B, K]``, rounded to the tick as the rules round offers.

    Raises:
        ValueError: no price, a shape that does not fit, or a price outside some game's public range.
    """
    given = np.asarray(prices, dtype=float)
    if given.ndim not in (1, 2) or not given.size or (given.ndim == 2 and len(given) != len(scenarios)):
        raise ValueError(f"prices of shape {given.shape} must be [K], or [{len(scenarios)}, K] for these games")
    grid = quantise_array(np.broadcast_to(given, (len(scenarios), given.shape[-1])), scenarios.tick[:, None])
    if not ((grid >= scenarios.price_low[:, None]) & (grid <= scenarios.price_high[:, None])).all():
        raise ValueError("prices must lie in the public range of every game; drop those outside, NaN included")
    return grid


def between_limits(scenarios: Scenarios, seat: Seat) -> Floats:
    """The default: even steps from one limit to the other, ends included, and the public bound that ``seat`` likes best.

    Limits are rounded to the tick in the favour of their owner. The bound is an offer that hardly anybody
    takes: a way to go on without giving anything away.
    """
    tick = scenarios.tick
    low, high = rounded(scenarios.seller_min, tick, 1.0), rounded(scenarios.buyer_max, tick, -1.0)
    bound = rounded(scenarios.price_low, tick, 1.0) if seat == Seat.BUYER else rounded(scenarios.price_high, tick, -1.0)
    steps = np.linspace(low, high, STEPS + 1, axis=1)
    inside = np.clip(steps, scenarios.price_low[:, None], scenarios.price_high[:, None])
    return quantise_array(np.concatenate([bound[:, None], inside], axis=1), tick[:, None])


def best_first(grid: Floats, seat: Seat) -> Floats:
    """Each game's prices from the best for ``seat`` to the worst."""
    ascending = np.sort(grid, axis=1)
    return ascending if seat == Seat.BUYER else ascending[:, ::-1]


def rounded(price: Floats, tick: Floats, direction: float) -> Floats:
    """``[B]`` prices rounded to the tick, upward for ``direction`` 1, downward for -1."""
    nearest = quantise_array(price, tick)
    wrong_side = direction * (nearest - price) < 0
    return np.where(wrong_side, quantise_array(nearest + direction * tick, tick), nearest)
