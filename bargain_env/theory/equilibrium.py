"""Subgame-perfect play between sides that know each other's limit, by backward induction on a grid of prices.

Sources: I. Ståhl, "Bargaining Theory", 1972 (finite horizon); A. Rubinstein, Econometrica 50 (1982), pp. 97-109. The
closed form for a continuous price is `rubinstein.finite_horizon`; a grid of step h stays within h for each period of it.

Ties are broken so that there is one solution: a responder that gains the same either way accepts, and a proposer that
gains the same by settling now and by waiting settles now. Two different prices are never worth the same to a proposer.
Wherever a deal is possible it is therefore made at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import Scenario, Seat
from ..outcome import settlement
from ..policy import Moves, SeatGames, SeatView
from ..scenarios import Scenarios
from .grid import TIE, best_first, checked
from .known_games import KnownGames

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """What both seats do on every turn of B games, on the path of play or off it. T is the largest ``max_turns``.

    Attributes:
        scenarios: the games.
        offers: ``[B, T]`` what the mover of each turn offers unless it accepts; NaN after the end of a game.
        thresholds: ``[B, T]`` the worst standing price that the mover of each turn accepts: the highest for a buyer, the
            lowest for a seller. Never beyond its limit; NaN after the end.
        price: ``[B]`` of the deal, offered on turn 1 and accepted on turn 2; NaN where there is none.
    """

    scenarios: Scenarios
    offers: Floats
    thresholds: Floats
    price: Floats

    @property
    def rho(self) -> Floats:
        """``[B]`` settlement of the deal, NaN without one."""
        return settlement(self.price, self.scenarios.buyer_max, self.scenarios.seller_min)


def solve(
    scenario: Scenario | Scenarios,
    prices: ArrayLike,
    *,
    buyer_discount: float | None = None,
    seller_discount: float | None = None,
) -> Equilibrium:
    """The equilibrium of one game, or of B at once.

    Without a ZOPA, or with no price of the grid inside it, there is no deal: each seat keeps offering the price that it
    likes best of those that the other refuses, and wastes its turns (NaN) where there is none.

    Args:
        scenario: the games; one is a batch of one.
        prices: ``[K]`` or ``[B, K]`` what may be offered; rounded to the tick.
        buyer_discount: factor a turn of the buyer; None for the ``discount`` of the game.
        seller_discount: of the seller. `play` scores both seats with the game's, so compare prices where these differ.

    Raises:
        ValueError: prices as in `grid.checked`, or a discount outside (0, 1].
    """
    games = Scenarios.of([scenario]) if isinstance(scenario, Scenario) else scenario
    induction = _Induction(games, checked(prices, games), _discounts(games, buyer_discount, seller_discount))
    shape = (len(games), int(games.max_turns.max(initial=1)))
    offers, thresholds = np.full(shape, np.nan), np.full(shape, np.nan)
    for turn in range(shape[1], 0, -1):
        alive = games.max_turns >= turn
        offer, settles, threshold = induction.step_back(turn)
        offers[alive, turn - 1], thresholds[alive, turn - 1] = offer[alive], threshold[alive]
    return Equilibrium(games, offers, thresholds, np.where(settles, offer, np.nan))


def _discounts(games: Scenarios, buyer: float | None, seller: float | None) -> Floats:
    """``[B, 2]``."""
    columns = []
    for name, value in (("buyer_discount", buyer), ("seller_discount", seller)):
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"{name} {value} must lie in (0, 1]")
        columns.append(games.discount if value is None else np.full(len(games), value))
    return np.stack(columns, axis=1)


class _Induction:
    """Backward induction over B games in step. Surplus is in currency units, seen from the turn in hand.

    Attributes:
        worth: ``[B, 2]`` what play from the next turn on gives buyer and seller if its mover refuses.
        threshold: ``[B]`` the worst price that the next mover accepts.
    """

    def __init__(self, games: Scenarios, grid: Floats, discounts: Floats) -> None:
        self._games, self._discounts = games, discounts
        self._limits = np.stack([games.buyer_max, games.seller_min], axis=1)
        self._grids = np.stack([best_first(grid, seat) for seat in Seat])  # [2, B, K]
        self._rows = np.arange(len(games))
        self.worth, self.threshold = np.zeros((len(games), 2)), np.full(len(games), np.nan)

    def step_back(self, turn: int) -> tuple[Floats, NDArray[np.bool_], Floats]:
        """``(offer, whether it is accepted, acceptance threshold)`` of the mover of ``turn``, each ``[B]``."""
        mover = (self._games.starter + turn - 1) % 2
        grid = self._grids[mover, self._rows]
        answered = (self._games.max_turns > turn)[:, None]
        taken = answered & accepts(grid, self.threshold[:, None], self._limit(1 - mover), _sign(1 - mover), self._tie)
        # The grid is ordered by the mover's taste: its first acceptable price is its best. Waiting is never better, since
        # what the other would offer on the next turn is acceptable to it already.
        good = taken & (_sign(mover) * (self._limit(mover) - grid) >= 0)
        pick = np.argmax(good, axis=1)
        settles = good[self._rows, pick]
        held = np.where(~taken.all(axis=1), grid[self._rows, np.argmin(taken, axis=1)], np.nan)
        offer = np.where(settles, grid[self._rows, pick], held)
        both = np.stack([self._games.buyer_max - offer, offer - self._games.seller_min], axis=1)
        self.worth = np.where(settles[:, None], both, self._discounts * self.worth)
        own = (self._discounts * self.worth)[self._rows, mover]
        self.threshold = self._limit(mover)[:, 0] - _sign(mover)[:, 0] * own
        return offer, settles, self.threshold

    def _limit(self, seat: Ints) -> Floats:
        """``[B, 1]``."""
        return self._limits[self._rows, seat, None]

    @property
    def _tie(self) -> Floats:
        return TIE * self._games.tick[:, None]


def _sign(seat: Ints) -> Floats:
    """``[B, 1]`` +1 for a buyer, who gains when the price falls; -1 for a seller."""
    return np.where(seat == Seat.BUYER, 1.0, -1.0)[:, None]


def accepts(standing: Floats, threshold: Floats, limit: Floats, sign: Floats | float, tie: Floats) -> NDArray[np.bool_]:
    """Where a standing price is within the limit and no worse than the threshold, equality included."""
    with np.errstate(invalid="ignore"):
        return (sign * (standing - limit) <= 0) & (sign * (standing - threshold) <= tie)


class EquilibriumPolicy:
    """Plays a solved `Equilibrium`: an omniscient oracle, which knew both limits when it was solved.

    It plays either seat, in the games that were solved and no others, and finds them by ``view.games.id``. Make two for
    the two seats of a game.

    Args:
        equilibrium: what to play.
    """

    name = "equilibrium (omniscient)"
    memoryless: ClassVar[bool] = True
    mixed_turns: ClassVar[bool] = True

    def __init__(self, equilibrium: Equilibrium) -> None:
        self._solved, self._known = equilibrium, KnownGames(equilibrium.scenarios)

    def reset(self, games: SeatGames) -> None:
        """Refuse games that were not solved, with a ValueError; there is nothing to forget."""
        self._known.rows(games)

    def act(self, view: SeatView) -> Moves:
        """Accept at the threshold or better, else make the equilibrium offer."""
        at = self._known.rows(view.games), np.broadcast_to(view.turn, len(view)) - 1
        games = view.games
        threshold, tie = self._solved.thresholds[at], TIE * games.tick
        return Moves(accepts(view.standing, threshold, games.reservation, games.sign, tie), self._solved.offers[at])
