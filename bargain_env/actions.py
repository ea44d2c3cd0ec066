"""The grid of actions that learners see: ``Discrete(1 + K)``.

Action 0 is ACCEPT; action ``i >= 1`` offers the ``i``-th of K evenly spaced prices from ``price_low`` to
``price_high``, both included. With the default K = 131 on [200, 1500] the step is 10.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .core import Move

ACCEPT = 0
DEFAULT_PRICES = 131


def grid(price_low: float, price_high: float, n_prices: int = DEFAULT_PRICES) -> NDArray[np.float64]:
    """``[K]`` the prices that can be offered, ascending.

    Raises:
        ValueError: ``n_prices`` below 2.
    """
    if n_prices < 2:
        raise ValueError(f"n_prices {n_prices} must be at least 2")
    return np.linspace(price_low, price_high, n_prices)


def decode(action: int, prices: NDArray[np.float64]) -> Move:
    """The move that ``action`` stands for.

    Args:
        action: 0 to K.
        prices: ``[K]`` as given by `grid`.

    Raises:
        ValueError: the action is outside the space.
    """
    if not 0 <= action <= len(prices):
        raise ValueError(f"action {action} is outside Discrete({len(prices) + 1}): 0 accepts, 1 to {len(prices)} offer")
    return Move(True) if action == ACCEPT else Move(False, float(prices[action - 1]))


def encode(move: Move, prices: NDArray[np.float64]) -> int:
    """The action of ``move``; an offer between two grid prices takes the nearer, a tie the lower.

    ``decode(encode(m)) == m`` for moves on the grid, ``encode(decode(a)) == a`` for every action.

    Raises:
        ValueError: the price is not a number inside the grid.
    """
    if move.accept:
        return ACCEPT
    if not prices[0] <= move.price <= prices[-1]:
        raise ValueError(f"price {move.price} is outside [{prices[0]}, {prices[-1]}]; offer inside the public range")
    return 1 + int(np.argmin(np.abs(prices - move.price)))


def action_mask(to_move: bool, may_accept: bool, n_prices: int) -> NDArray[np.int8]:
    """``[1 + K]`` int8, 1 where the action is legal now; all 0 for a seat that is not to move."""
    mask = np.full(1 + n_prices, int(to_move), dtype=np.int8)
    mask[ACCEPT] = int(to_move and may_accept)
    return mask
