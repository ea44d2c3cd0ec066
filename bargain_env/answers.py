"""The opponent's side of many games that are on different turns, and the games that come next."""

from __future__ import annotations

import copy

import numpy as np

from .batch import BatchState, Bools, Floats, Ints, Rows
from .core import Seat
from .observation import REMEMBERED, Watcher
from .play import view_of
from .policy import Policy, SeatGames, SeatView, act_on_any_turns
from .scenarios import Scenarios
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

    def act(self, state: BatchState, rows: Rows, slots: Rows) -> tuple[Bools, Floats]:
        """Ask for a move in ``rows`` of ``state``; row ``i`` is played in slot ``slots[i]``.

        Returns:
            ``(accept, price)``, each ``[B]`` like ``state``; meaningless in other rows.
        """
        if self.memoryless and len(rows) == len(state):
            moves = act_on_any_turns(self.policy, _view(state, self.seat, rows))
            return moves.accept, moves.price
        accept, price = np.zeros(len(state), dtype=bool), np.zeros(len(state))
        if self.memoryless:
            moves = act_on_any_turns(self.policy, _view(state, self.seat, rows))
            accept[rows], price[rows] = moves.accept, moves.price
            return accept, price
        for row in rows.tolist():
            alone = BatchState.of(*state.row(row))  # its own arrays: what a policy remembers must not change
            seated = SeatGames.of(alone.scenarios, self.seat)
            moves = self._copies[slots[row]].act(view_of(alone, seated, _ONE, int(state.turn[row])))
            accept[row], price[row] = moves.accept[0], moves.price[0]
        return accept, price


_ONE = np.zeros(1, dtype=np.intp)


def _view(state: BatchState, seat: Seat, rows: Rows) -> SeatView:
    games, turn, standing = SeatGames.of(state.scenarios, seat), state.turn, state.acceptable()
    if len(rows) < len(state):
        games, turn, standing = games.take(rows), turn[rows], standing[rows]
    return SeatView(rows, games, turn, standing, lambda: state.history(rows))


class Upcoming:
    """The next games of each of B slots, drawn in blocks, with the opponent's opening offers already made.

    Args:
        settings: of every game.
        answers: the opponent.
        n: B.

    Attributes:
        state: the games; `take` says which rows are whose.
        watcher: what the learner sees of them.
    """

    def __init__(self, settings: GameSettings, answers: Answers, n: int) -> None:
        self._settings, self._answers = settings, answers
        self._depth = AHEAD if answers.memoryless else 1  # a copy with memory can be in one game only
        self._seed, self._used = np.zeros(n, dtype=np.int64), np.full(n, self._depth)
        self._first_id = np.zeros(n, dtype=np.int64)
        self.state, self.watcher = self._blank(settings.draw(0, np.arange(n * self._depth)))

    def _blank(self, games: Scenarios) -> tuple[BatchState, Watcher]:
        state = BatchState.start(games, length=1)  # room for the opening
        watcher = Watcher(self._answers.seat.other, state, length=REMEMBERED)
        state.at, watcher.at = 1, REMEMBERED + 1
        return state, watcher

    def seed(self, slots: Rows, seeds: Ints) -> None:
        """From now on ``slots`` play games 0, 1, … of ``seeds``."""
        self._seed[slots] = seeds
        self._used[slots], self._first_id[slots] = self._depth, -self._depth

    def take(self, slots: Rows) -> Rows:
        """The rows of `state` that hold the next game of each of ``slots``."""
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
        state, watcher = self._blank(self._settings.draw(np.repeat(self._seed[slots], self._depth), ids))
        each = np.repeat(slots, self._depth)
        self._answers.reset(state, each)
        opening = state.mover == self._answers.seat
        if opening.any():
            accept, price = self._answers.act(state, np.flatnonzero(opening), each)
            state.at, watcher.at = 0, REMEMBERED
            watcher.record(state, self._answers.seat, state.move(opening, accept, price))
        into, everything = (slots[:, None] * self._depth + ahead).ravel(), np.arange(len(ids))
        self.state.replace(into, state, everything)
        self.watcher.replace(into, watcher, everything)
