"""The opponent's decisions as it saw them itself, but for its limit: views of the other seat from public information."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.situations import acceptable
from bargain_env.policy import Floats, Rows, SeatGames, SeatView
from hyperlora.outside import public_limit

_PUBLIC = ("price_low", "price_high", "max_turns", "starter", "tick", "discount", "id", "seed")


def other_seat(games: SeatGames) -> SeatGames:
    """What is public of the games, from the other seat: its limit is the worst that it could have."""
    seat = games.seat.other
    columns: dict[str, Any] = {name: getattr(games, name) for name in _PUBLIC}
    columns["reservation"] = public_limit(seat.label, games.price_low, games.price_high)
    return SeatGames(seat, columns)


def decision_after(games: SeatGames, prices: Floats, rows: Rows | None = None) -> SeatView:
    """The other seat about to move after these turns.

    Args:
        games: of the other seat, from `other_seat`.
        prices: ``[n, turn - 1]`` of every past turn, oldest first; NaN where a turn made no offer.
        rows: ``[n]`` which of the games each row is of; None for all in order.
    """
    at = np.arange(len(games)) if rows is None else rows
    return SeatView(at, games.take(at), prices.shape[1] + 1, acceptable(prices), prices)
