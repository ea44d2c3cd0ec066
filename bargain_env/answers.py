"""The opponent's side of many games that are on different turns, and the games that come next."""

from __future__ import annotations

import copy

import numpy as np

from .batch import BatchState, Floats, Ints, Rows
from .core import Seat
from .observation import Watcher
from .play import view_of
from .policy import Moves, Policy, SeatGames, SeatView, act_on_any_turns
from .settings import GameSettings

AHEAD = 16
"""Games drawn at a time for each slot; drawing them one by one would cost more than playing them."""


class Answers:
    """One opponent for B slots: asked for all of them at once if it is memoryless, else a copy of it in each slot.

    Args:
        policy: the opponent.
        seat: where it sits.
        n: B.
    """

    def __init__(self, policy: Policy, seat: Seat, n: int) -> None:
        self.policy, self.seat = policy, seat
        self.memoryless = bool(getattr(policy, "memoryless", False))
        self._copies = [] if self.memoryless else [copy.deepcopy(policy) for _ in range(n)]

    def reset(self, state: BatchState, slots: Rows) -> None:
        """New games, one in each of ``slots``."""
        games = SeatGames.of(state.scenarios, self.seat)
        if self.memoryless:
            self.policy.reset(games)
            return
        for row, slot in enumerate(slots.tolist()):
            self._copies[slot].reset(games.take(np.array([row])))

    def act(self, state: BatchState, rows: Rows, slots: Rows) -> Moves:
        """The moves in ``rows`` of ``state``, where the opponent is to move; row i is played in slot ``slots[i]``."""
        games = SeatGames.of(state.scenarios, self.seat)
        if self.memoryless:
            return act_on_any_turns(self.policy, _view(state, games, rows))
        accept, price = np.zeros(len(rows), dtype=bool), np.full(len(rows), np.nan)
        for i, (row, slot) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
            view = view_of(state, games, np.array([row]), int(state.turn[row])).take(
                np.zeros(1, dtype=np.intp), rows=_ONE
            )
            moves = self._copies[slot].act(view)
            accept[i], price[i] = moves.accept[0], moves.price[0]
        return Moves(accept, price)


_ONE = np.zeros(1, dtype=np.intp)


def _view(state: BatchState, games: SeatGames, rows: Rows) -> SeatView:
    turn = state.turn[rows]
    return SeatView(rows, games.take(rows), turn, state.acceptable(rows), lambda: _aligned(state.prices[rows], turn))


def _aligned(prices: Floats, turn: Ints) -> Floats:
    """``[b, max(turn) - 1]`` the offers of each row, moved to the right end; NaN on the left of the younger games."""
    width = int(turn.max(initial=1)) - 1
    column = np.arange(width) + (turn[:, None] - 1 - width)
    shifted = np.take_along_axis(prices, np.maximum(column, 0), axis=1)
    return np.where(column < 0, np.nan, shifted)


class Upcoming:
    """The next games of each of B slots, drawn in blocks, with the opponent's opening offers already made.

    Args:
        settings: of every game.
        seat: the learner's.
        answers: the opponent.
        n: B.
    """

    def __init__(self, settings: GameSettings, seat: Seat, answers: Answers, n: int) -> None:
        self._settings, self._seat, self._answers = settings, seat, answers
        self._depth = AHEAD if answers.memoryless else 1  # a copy with memory can be in one game only
        self._seed, self._used = np.zeros(n, dtype=np.int64), np.full(n, self._depth)
        self._first_id = np.zeros(n, dtype=np.int64)
        self.state = BatchState.start(settings.draw(0, np.arange(n * self._depth)))
        self.watcher = Watcher(seat, n * self._depth)

    def seed(self, slots: Rows, seeds: Ints) -> None:
        """From now on ``slots`` play games 0, 1, … of ``seeds``."""
        self._seed[slots] = seeds
        self._used[slots], self._first_id[slots] = self._depth, -self._depth

    def take(self, slots: Rows) -> Rows:
        """The rows of `state` and `watcher` that hold the next game of each of ``slots``."""
        if (self._used[slots] == self._depth).any():
            self._refill(slots if self._depth == 1 else np.flatnonzero(self._used > self._depth // 2))
        rows = slots * self._depth + self._used[slots]
        self._used[slots] += 1
        return rows

    def _refill(self, slots: Rows) -> None:
        self._first_id[slots] += self._used[slots]
        self._used[slots] = 0
        ahead = np.arange(self._depth)
        ids = (self._first_id[slots][:, None] + ahead).ravel()
        state = BatchState.start(self._settings.draw(np.repeat(self._seed[slots], self._depth), ids))
        watcher, each = Watcher(self._seat, len(ids)), np.repeat(slots, self._depth)
        self._answers.reset(state, each)
        opened = state.rows_of(self._seat.other)
        if len(opened):
            moves = self._answers.act(state, opened, each[opened])
            watcher.record(state, opened, state.move(opened, moves.accept, moves.price))
        into = (slots[:, None] * self._depth + ahead).ravel()
        self.state.replace(into, state, np.arange(len(ids)))
        self.watcher.offers[into] = watcher.offers
