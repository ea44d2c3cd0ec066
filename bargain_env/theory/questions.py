"""What the two dynamic programs of `best_response` share: asking the opponent, scoring, and the plan that they fill in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import Seat, quantise_array
from ..outcome import utilities
from ..policy import Bools, Floats, Ints, Policy, SeatGames, SeatView, act_on_any_turns
from ..scenarios import Scenarios

Rows = NDArray[np.intp]
Reward = Callable[[Scenarios, Seat, Floats, "int | Ints"], Floats]
"""What a deal is worth to a planner: arguments and result as those of `worth`. An impasse is worth 0."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planning seat does in B games. T is the largest ``max_turns``; column ``k`` belongs to turn ``k + 1``.

    Attributes:
        values: ``[B]`` its utility.
        offers: ``[B, T]`` what it offers on its own turns; NaN elsewhere.
        going_on: ``[B, T]`` its utility if it does not accept on that turn: it accepts what is worth as much. NaN
            elsewhere.
    """

    values: Floats
    offers: Floats
    going_on: Floats

    @classmethod
    def empty(cls, scenarios: Scenarios) -> Plan:
        """To be filled in."""
        shape = (len(scenarios), int(scenarios.max_turns.max(initial=1)))
        return cls(np.zeros(shape[0]), np.full(shape, np.nan), np.full(shape, np.nan))


def ask(
    opponent: Policy, games: SeatGames, turn: int | Ints, standing: Floats, history: Floats | None = None
) -> tuple[Bools, Floats]:
    """What ``opponent`` does on ``turn`` of n games.

    Args:
        opponent: asked about all of them at once.
        games: n games as its seat knows them.
        turn: from 1; or ``[n]``, each above 1.
        standing: ``[n]`` the planner's offer of the turn before; NaN where there is none.
        history: ``[n, turn - 1]`` offers so far; None shows only the last, ``standing``, to an opponent that needs no
            more.

    Returns:
        ``[n]`` where it accepts, and ``[n]`` what it offers otherwise, as the rules round it; NaN where the rules refuse.
    """

    def last_only() -> Floats:
        past = np.full((len(games), int(np.max(turn)) - 1), np.nan)
        past[:, -1:] = standing[:, None]
        return past

    prices = last_only if history is None else history
    view = SeatView(rows=np.arange(len(games)), games=games, turn=turn, standing=standing, prices=prices)
    if len(view) == 0:
        return np.zeros(0, dtype=bool), np.zeros(0)
    moves = opponent.act(view) if isinstance(turn, int) else act_on_any_turns(opponent, view)
    offer = quantise_array(np.where(moves.accept, np.nan, moves.price), games.tick)
    with np.errstate(invalid="ignore"):
        valid = (offer >= games.price_low) & (offer <= games.price_high)
    return moves.accept & ~np.isnan(standing), np.where(valid, offer, np.nan)


def worth(games: Scenarios, seat: Seat, price: Floats, turns: int | Ints) -> Floats:
    """``[n]`` utility to ``seat`` of a deal at ``price`` accepted on turn ``turns``; ``-inf`` where the price is NaN."""
    scale = games.price_high - games.price_low
    both = utilities(
        price, games.buyer_max, games.seller_min, scale=scale, discount=games.discount, turns=np.asarray(turns)
    )
    return np.where(np.isnan(price), -np.inf, both[:, seat])


def choose(values: Floats, accepted: Bools) -> Rows:
    """``[n]`` the column of the greatest of ``[n, K]`` values; of equals one that settles at once, then the first."""
    best = values == values.max(axis=1, keepdims=True)
    return np.argmax(best * (1 + accepted), axis=1)
