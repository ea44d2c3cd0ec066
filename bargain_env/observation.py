"""What one seat sees, as a float32 vector in [-1, 1].

Prices are scaled so that ``price_low`` is -1 and ``price_high`` is 1:

| index | meaning |
|---|---|
| 0 | own seat: -1 buyer, 1 seller |
| 1 | clock: -1 before turn 1, 1 when no turn is left |
| 2 | 1 if this seat is to move, -1 if not |
| 3 | own reservation |
| 4 | standing offer, 0 where none |
| 5 | who made it: 1 the other seat (it may be accepted), -1 this seat, 0 none |
| 6 … 13 | the offers of the last 8 turns, newest first, 0 where a turn made none |
| 14 … 21 | who made each of them: 1 the other seat, -1 this seat, 0 none |

`Film` shows one game, `Watcher` many and `observe_view` what a `Policy` is shown; a test holds them equal, bit for bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch import BatchState, Bools, Floats, Rows
from .core import MoveKind, Scenario, Seat, State, is_over, mover
from .policy import SeatView

REMEMBERED = 8
HEAD = 6
SIZE = HEAD + 2 * REMEMBERED
SIDES = HEAD + REMEMBERED
_DIAGONAL = SIZE + 1
_REACH = REMEMBERED * _DIAGONAL


def scaled(price: Any, low: Any, high: Any) -> Any:
    """``price`` on the scale of the table above; numbers or arrays."""
    return 2.0 * (price - low) / (high - low) - 1.0


def observe(scenario: Scenario, state: State, seat: Seat) -> NDArray[np.float32]:
    """``[SIZE]`` what ``seat`` sees of ``state``; see the table above."""
    film = Film(scenario, state)
    if is_over(scenario, state):
        film.end(state.turn)
    return film.show(state.turn) if seat == mover(scenario, state) else film.show_other(state.turn)


class Film:
    """What the seats see of one game: a frame for each turn, as the seat to move sees it.

    An offer of turn t is column 6 of the next frame, column 7 of the one after, and so on: a diagonal, which is written at
    once when the offer is made. All signs are known beforehand, since the seats alternate. So a turn costs two assignments,
    and an observation next to nothing.

    Args:
        scenario: the game.
        state: how far it is.

    Attributes:
        frames: ``[(max_turns + 1) * SIZE]`` what the seat to move sees on each turn.
    """

    __slots__ = ("_limits", "frames")

    def __init__(self, scenario: Scenario, state: State) -> None:
        low, high, first = scenario.price_low, scenario.price_high, scenario.starter
        self._limits = limits = (scaled(scenario.buyer_max, low, high), scaled(scenario.seller_min, low, high))
        self.frames = flat = _blank(scenario.max_turns, first).copy()
        flat[3 :: 2 * SIZE], flat[3 + SIZE :: 2 * SIZE] = limits[first], limits[1 - first]
        if state.prices:
            self._replay(state, low, high)

    def _replay(self, state: State, low: float, high: float) -> None:
        standing: float | None = None
        mine = False  # whether the offer that stands was made by the seat to move
        for turn, price in enumerate(state.prices, start=1):
            mine = not mine
            if price is None:
                self.record_nothing(turn, standing, mine)
            else:
                standing, mine = scaled(price, low, high), False
                self.record(turn, standing)

    def record(self, turn: int, offer: float) -> None:
        """Turn ``turn`` was played and made this offer, on the scale of the table above."""
        at, flat = turn * SIZE + HEAD, self.frames
        flat[at : at + _REACH : _DIAGONAL] = flat[at - 2] = offer

    def record_nothing(self, turn: int, standing: float | None, mine: bool) -> None:
        """Turn ``turn`` was played and made no offer; ``standing`` goes on standing, made by the seat to move now or not."""
        at, flat = turn * SIZE + HEAD, self.frames
        flat[at + REMEMBERED : at + REMEMBERED + _REACH : _DIAGONAL] = 0.0
        flat[at - 2] = standing or 0.0
        flat[at - 1] = 0.0 if standing is None else -1.0 if mine else 1.0

    def show(self, turn: int) -> NDArray[np.float32]:
        """``[SIZE]`` what the seat to move sees before ``turn`` is played: the frame itself, which is not read again."""
        end = turn * SIZE
        return self.frames[end - SIZE : end]

    def show_other(self, turn: int) -> NDArray[np.float32]:
        """``[SIZE]`` what the seat that waits sees before ``turn`` is played."""
        frame = self.show(turn).copy()
        frame[0], frame[2], frame[5] = -frame[0], -1.0, -frame[5]
        frame[3] = self._limits[0 if frame[0] < 0 else 1]
        frame[SIDES:] *= -1.0
        frame += 0.0  # no negative zeros
        return frame

    def end(self, turn: int) -> None:
        """Nobody moves on ``turn``: the game is over."""
        self.frames[(turn - 1) * SIZE + 2] = -1.0


@lru_cache(maxsize=64)
def _blank(max_turns: int, starter: Seat) -> NDArray[np.float32]:
    """``[(max_turns + 1) * SIZE]`` the frames if every turn makes an offer, without any price."""
    frames = np.zeros((max_turns + 1, SIZE), dtype=np.float32)
    row, place = np.arange(max_turns + 1), np.arange(REMEMBERED)
    frames[:, 0] = np.where((starter + row) % 2 == Seat.BUYER, -1.0, 1.0)
    frames[:, 1] = 2.0 * row / max_turns - 1.0
    frames[:, 2] = 1.0
    frames[:, SIDES:] = np.where(place < row[:, None], np.where(place % 2 == 0, 1.0, -1.0), 0.0)
    frames[:, 5] = frames[:, SIDES]
    return frames.reshape(-1)


class Watcher:
    """What one seat sees of B games as they go on, told of every move of a `BatchState`.

    Like that, it keeps the past on tapes, one row a move, whose last rows before ``at`` are the remembered turns.

    Args:
        seat: who looks.
        state: the games, before their first move.
        length: rows of the tapes.
    """

    def __init__(self, seat: Seat, state: BatchState, length: int = 8 * REMEMBERED) -> None:
        games, n = state.scenarios, len(state)
        limit = games.buyer_max if seat == Seat.BUYER else games.seller_min
        self.seat, self.at = seat, REMEMBERED
        self.head = np.zeros((HEAD, n), dtype=np.float32)
        self.head[0] = -1.0 if seat == Seat.BUYER else 1.0
        self.head[3] = scaled(limit, games.price_low, games.price_high)
        self._width = games.price_high - games.price_low
        self.offers = np.zeros((length + 1, n), dtype=np.float32)
        self.sides = np.zeros((length + 1, n), dtype=np.float32)

    def record(self, state: BatchState, maker: Seat, kinds: NDArray[np.int8]) -> None:
        """Remember the moves of ``maker`` that `BatchState.move` just made and reported as ``kinds``."""
        if self.at == len(self.offers):
            for tape in (self.offers, self.sides):
                tape[:REMEMBERED] = tape[self.at - REMEMBERED :].copy()
            self.at = REMEMBERED
        made = kinds == _OFFER
        side = -_ONE if maker == self.seat else _ONE
        shown = (2.0 * (state.standing - state.scenarios.price_low) / self._width - 1.0).astype(np.float32)
        self.offers[self.at], self.sides[self.at] = np.where(made, shown, _ZERO), np.where(made, side, _ZERO)
        np.copyto(self.head[4], shown, where=made)
        np.copyto(self.head[5], side, where=made)
        self.at += 1

    def hold(self, rows: Rows) -> None:
        """As `BatchState.hold`."""
        for tape in (self.offers, self.sides):
            tape[self.at - REMEMBERED : self.at, rows] = tape[self.at - REMEMBERED - 1 : self.at - 1, rows]

    def replace(self, rows: Rows, source: Watcher, source_rows: Rows) -> None:
        """As `BatchState.replace`, for games of at most one turn."""
        self.head[3:, rows] = source.head[3:, source_rows]
        for mine, theirs in ((self.offers, source.offers), (self.sides, source.sides)):
            mine[self.at - REMEMBERED : self.at - 1, rows] = 0.0
            mine[self.at - 1, rows] = theirs[source.at - 1, source_rows]

    def look(self, state: BatchState, to_move: Bools) -> NDArray[np.float32]:
        """``[B, SIZE]`` what the seat sees now, in column-major order; ``to_move`` ``[B]`` says where it is to move."""
        turn, head = state.turn, self.head
        head[1] = 2.0 * (turn - 1) / state.scenarios.max_turns - 1.0
        head[2] = np.where(to_move, _ONE, -_ONE)
        window = slice(self.at - REMEMBERED, self.at)
        out = np.empty((SIZE, len(turn)), dtype=np.float32)
        out[:HEAD], out[HEAD:SIDES], out[SIDES:] = head, self.offers[window][::-1], self.sides[window][::-1]
        return out.T


_OFFER = int(MoveKind.OFFER)
_ZERO, _ONE = np.float32(0), np.float32(1)


def observe_view(view: SeatView) -> NDArray[np.float32]:
    """``[b, SIZE]`` what the seat of ``view`` sees; it is the seat to move."""
    games, out = view.games, np.zeros((len(view), SIZE), dtype=np.float32)
    low, high = games.price_low, games.price_high
    prices = view.prices[:, : -REMEMBERED - 1 : -1]
    sides = np.where(view.sides[:, : -REMEMBERED - 1 : -1] == games.seat, -1.0, 1.0)
    made, n = ~np.isnan(prices), prices.shape[1]
    out[:, 0] = -1.0 if games.seat == Seat.BUYER else 1.0
    out[:, 1] = 2.0 * (view.turn - 1) / games.max_turns - 1.0
    out[:, 2] = 1.0
    out[:, 3] = scaled(games.reservation, low, high)
    out[:, HEAD : HEAD + n] = np.where(made, scaled(prices, low[:, None], high[:, None]), 0.0)
    out[:, SIDES : SIDES + n] = np.where(made, sides, 0.0)
    latest, maker = _latest(view)
    out[:, 4] = np.where(maker == 0, 0.0, scaled(latest, low, high))
    out[:, 5] = maker
    return out


def _latest(view: SeatView) -> tuple[Floats, Floats]:
    """``[b]`` the standing offer, whoever made it (NaN for none), and who did: 1 the other seat, -1 this seat, 0 none."""
    prices = view.prices
    if not prices.shape[1]:
        return np.full(len(view), np.nan), np.zeros(len(view))
    seen = ~np.isnan(prices)
    last = prices.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)[:, None]
    side = np.where(np.take_along_axis(view.sides, last, axis=1)[:, 0] == view.games.seat, -1.0, 1.0)
    return np.take_along_axis(prices, last, axis=1)[:, 0], np.where(seen.any(axis=1), side, 0.0)
