"""Best response to an opponent whose answer depends on the clock and the standing offer alone.

Then the past is worth nothing to know. Let Q_t(p) be the utility of offering p on own turn t, C_t = max_p Q_t(p), and u
the utility of a deal now:

    Q_t(p) = u(p)                    if the opponent accepts p on turn t + 1
           = max(u(o), C_{t + 2})    if it offers o instead

with 0 where the deadline forbids the acceptance (R. Bellman, "Dynamic Programming", 1957). What the opponent would do
does not depend on C, so it is asked first, about all turns of many games at once: K questions for each own turn. The
arithmetic follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import Seat, quantise_array
from ..policy import Bools, Floats, Policy, SeatGames
from ..scenarios import Scenarios
from .grid import TIE, best_first
from .questions import Plan, Reward, Rows, ask, choose, worth

QUESTIONS = 1 << 14
"""Rows of one call of the opponent, about; it bounds memory."""


def solve(
    opponent: Policy, scenarios: Scenarios, seat: Seat, grid: Floats, *, sharpen: bool, reward: Reward = worth
) -> Plan:
    """The plan for ``seat`` in B games.

    Args:
        opponent: plays the other seat.
        scenarios: the games.
        seat: who plans.
        grid: ``[B, K]`` what it may offer.
        sharpen: also offer what lies between the grid's best accepted price of a turn and the refused one before it,
            closer and closer, down to the tick. Exact where an opponent that takes a price takes every better one.
        reward: what is maximised, u above.
    """
    plan, ordered = Plan.empty(scenarios), best_first(grid, seat)
    size = max(1, QUESTIONS // (grid.shape[1] * (plan.offers.shape[1] // 2 + 1)))
    for rows in np.split(np.arange(len(scenarios)), range(size, len(scenarios), size)):
        games = scenarios.take(rows)
        turns = _Turns(opponent, games, seat, ordered[rows])
        while sharpen and turns.ask_closer():
            pass
        plan.values[rows], plan.offers[rows], plan.going_on[rows] = _fold(turns, games, plan.offers.shape[1], reward)
    return plan


class _Turns:
    """R own turns of n games on which an offer can still be answered, and what was asked about each so far.

    Attributes:
        game: ``[R]`` which game.
        turn: ``[R]``.
        prices: ``[R, any]`` offers asked about.
        accepted: the same shape: whether the opponent takes it.
        counter: the same shape: what it offers instead; NaN where nothing.
    """

    def __init__(self, opponent: Policy, games: Scenarios, seat: Seat, grid: Floats) -> None:
        self.opponent, self.games, self.seat, self.grid = opponent, games, seat, grid
        clock = np.arange(1, int(games.max_turns.max(initial=1)))
        mine = ((games.starter[:, None] + clock - 1) % 2 == seat) & (clock < games.max_turns[:, None])
        self.game, column = np.nonzero(mine)
        self.turn = clock[column]
        self._each = np.repeat(np.arange(len(self.game)), grid.shape[1])
        self._theirs = SeatGames.of(games.take(self.game[self._each]), seat.other)
        self._latest = grid[self.game]
        self.prices, self.accepted, self.counter = self._ask()

    def _ask(self) -> tuple[Floats, Bools, Floats]:
        shape = self._latest.shape
        accepted, counter = ask(self.opponent, self._theirs, self.turn[self._each] + 1, self._latest.ravel())
        self._taken = accepted.reshape(shape)
        return self._latest, self._taken, counter.reshape(shape)

    def ask_closer(self) -> bool:
        """Ask about prices from the refused one before the best accepted one to that; False once these are neighbours."""
        rows, tick = np.arange(len(self.game)), self.games.tick[self.game]
        first = np.argmax(self._taken, axis=1)
        refused, taken = self._latest[rows, np.maximum(first - 1, 0)], self._latest[rows, first]
        apart = self._taken[rows, first] & (first > 0) & (np.abs(taken - refused) > tick * (1 + TIE))
        if not apart.any():
            return False
        between = quantise_array(np.linspace(refused, taken, self._latest.shape[1], axis=1), tick[:, None])
        self._latest = np.where(apart[:, None], between, self._latest)
        more = zip((self.prices, self.accepted, self.counter), self._ask(), strict=True)
        self.prices, self.accepted, self.counter = (np.concatenate(pair, axis=1) for pair in more)
        return True

    def utilities(self, reward: Reward) -> tuple[Floats, Floats]:
        """``(u(p), u(o))``, each of the shape of the prices; ``-inf`` where there is no o or no turn to take it on."""
        wide = np.repeat(np.arange(len(self.game)), self.prices.shape[1])
        games, turn = self.games.take(self.game[wide]), self.turn[wide]
        now = reward(games, self.seat, self.prices.ravel(), turn + 1)
        in_time = np.where(turn + 2 <= games.max_turns, self.counter.ravel(), np.nan)
        after = reward(games, self.seat, in_time, turn + 2)
        return now.reshape(self.prices.shape), after.reshape(self.prices.shape)


def _fold(turns: _Turns, games: Scenarios, length: int, reward: Reward) -> tuple[Floats, Floats, Floats]:
    """Values ``[n]``, offers and C ``[n, length]``, from the deadline backwards."""
    offers, going_on = np.full((len(games), length), np.nan), np.full((len(games), length), np.nan)
    now, after = turns.utilities(reward)
    later = np.zeros(len(games))  # C of the next own turn; 0 on the last turn, where offers are dead
    _last_turns(turns, games, offers, going_on)
    for turn in np.unique(turns.turn)[::-1].tolist():
        at: Rows = np.flatnonzero(turns.turn == turn)
        game, each = turns.game[at], np.arange(len(at))
        values = np.where(turns.accepted[at], now[at], np.maximum(after[at], later[game, None]))
        pick = choose(values, turns.accepted[at])
        offers[game, turn - 1] = turns.prices[at, pick]
        going_on[game, turn - 1] = later[game] = values[each, pick]
    return _opening(turns, games, later, reward), offers, going_on


def _last_turns(turns: _Turns, games: Scenarios, offers: Floats, going_on: Floats) -> None:
    """Own last turns: any offer is as good."""
    last: NDArray[np.bool_] = (games.starter + games.max_turns - 1) % 2 == turns.seat
    rows = np.flatnonzero(last)
    offers[rows, games.max_turns[rows] - 1] = turns.grid[rows, 0]
    going_on[rows, games.max_turns[rows] - 1] = 0.0


def _opening(turns: _Turns, games: Scenarios, later: Floats, reward: Reward) -> Floats:
    """Values ``[n]``: where the opponent starts, its first offer may be taken."""
    rows = np.flatnonzero((games.starter != turns.seat) & (games.max_turns > 1))
    they_start, values = games.take(rows), later.copy()
    nothing = np.full(len(rows), np.nan)
    offer = ask(turns.opponent, SeatGames.of(they_start, turns.seat.other), 1, nothing)[1]
    values[rows] = np.maximum(later[rows], reward(they_start, turns.seat, offer, 2))
    return values
