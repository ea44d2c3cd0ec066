"""Two ways for a learner to spell a move, each a pair of pure functions.

``grid``: ``Discrete(1 + K)``. Action 0 is ACCEPT; action ``i >= 1`` offers the ``i``-th of K evenly spaced prices from
``price_low`` to ``price_high``, both included. With the default K = 131 on [200, 1500] the step is 10. Masked.

``box``: ``Box(-1, 1, (1,))``. -1 is ``price_low``, 1 is ``price_high``. A price that is as good for the other seat as its
own standing offer, or better, *crosses* it and means ACCEPT at the standing price; any other price is an offer. Nothing is
ever illegal, so there is no mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core import Move, Seat

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
    """The move that ``action`` stands for on the grid.

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


def decode_box(
    value: ArrayLike, price_low: ArrayLike, price_high: ArrayLike, seat: Seat, standing: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """``(accept, price)`` of box actions; all arguments but ``seat`` broadcast to ``[B]``.

    Args:
        value: the action, in [-1, 1].
        price_low: lower end of the public range.
        price_high: upper end.
        seat: who moves.
        standing: the offer that the seat may accept, NaN where there is none.
    """
    low = np.asarray(price_low, dtype=np.float64)
    price = low + (np.asarray(value, dtype=np.float64) + 1.0) * 0.5 * (np.asarray(price_high) - low)
    return _crosses(price, standing, seat), price


def _crosses(price: ArrayLike, standing: ArrayLike, seat: Seat) -> NDArray[np.bool_]:
    """Where ``price`` is as good for the other seat as its own standing offer; never where nothing stands (NaN)."""
    compare = np.greater_equal if seat == Seat.BUYER else np.less_equal
    return np.asarray(compare(price, standing))


def encode_box(
    accept: ArrayLike, price: ArrayLike, price_low: ArrayLike, price_high: ArrayLike, seat: Seat, standing: ArrayLike
) -> NDArray[np.float32]:
    """Box actions of moves, arguments as in `decode_box`; ACCEPT is spelled as the far end of the range.

    ``decode_box(encode_box(m))`` is ``m`` up to the rounding of float32 (1e-7 of the range).

    Raises:
        ValueError: an offer outside the range, an offer that crosses the standing one (it would be read as ACCEPT), or an
            ACCEPT with nothing standing.
    """
    accept, price, standing = np.asarray(accept), np.asarray(price, dtype=np.float64), np.asarray(standing)
    crosses, outside = _crosses(price, standing, seat), ~((price >= price_low) & (price <= price_high))
    for wrong, why in (
        (~accept & outside, "an offer is outside the public range"),
        (
            ~accept & crosses,
            "an offer that crosses the standing offer cannot be spelled as a box action; accept instead",
        ),
        (accept & np.isnan(standing), "there is no standing offer to accept"),
    ):
        if np.any(wrong):
            raise ValueError(why)
    value = 2.0 * (price - price_low) / np.subtract(price_high, price_low) - 1.0
    return np.where(accept, 1.0 if seat == Seat.BUYER else -1.0, value).astype(np.float32)
