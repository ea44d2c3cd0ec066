"""What one seat sees, as a float32 vector in [-1, 1].

With K = 8 remembered offers; prices are scaled so that ``price_low`` is -1 and ``price_high`` is 1:

| index | meaning |
|---|---|
| 0 | own seat: -1 buyer, 1 seller |
| 1 | clock: -1 before turn 1, 1 when no turn is left |
| 2 | 1 if this seat is to move, -1 if not |
| 3 | own reservation |
| 4 | standing offer, 0 where none |
| 5 | who made it: 1 the other seat (it may be accepted), -1 this seat, 0 none |
| 6 … 13 | the last 8 offers, newest first, 0 where there are fewer |
| 14 … 21 | who made each of them: 1 the other seat, -1 this seat, 0 none |

The functions take the seat's own reservation, never a `Scenario`, so the other one cannot leak.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .core import Seat, State

REMEMBERED = 8
SIZE = 6 + 2 * REMEMBERED


def observe(
    state: State,
    seat: Seat,
    *,
    reservation: float,
    price_low: float,
    price_high: float,
    max_turns: int,
    starter: Seat,
) -> NDArray[np.float32]:
    """``[SIZE]`` what ``seat`` sees of ``state``; see the table above.

    Args:
        state: the public course of the game.
        seat: who looks.
        reservation: its own limit.
        price_low: lower end of the public range.
        price_high: upper end.
        max_turns: moves of both seats together.
        starter: who moved first.
    """

    def scaled(price: float) -> float:
        return 2.0 * (price - price_low) / (price_high - price_low) - 1.0

    def side(maker: int) -> float:
        return -1.0 if maker == seat else 1.0

    out = np.zeros(SIZE, dtype=np.float32)
    to_move = not state.agreement and state.turn <= max_turns and (starter + state.turn - 1) % 2 == seat
    out[0] = -1.0 if seat == Seat.BUYER else 1.0
    out[1] = 2.0 * (state.turn - 1) / max_turns - 1.0
    out[2] = 1.0 if to_move else -1.0
    out[3] = scaled(reservation)
    if state.standing is not None and state.standing_seat is not None:
        out[4], out[5] = scaled(state.standing), side(state.standing_seat)
    offers = [(price, (starter + k) % 2) for k, price in enumerate(state.prices) if price is not None]
    for k, (price, maker) in enumerate(reversed(offers[-REMEMBERED:])):
        out[6 + k], out[6 + REMEMBERED + k] = scaled(price), side(maker)
    return out
