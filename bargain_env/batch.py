"""The rules of `bargain_env.core` for B games at once, as arrays.

The games may differ in everything, the turn included: `play` keeps them in lockstep, the vector environment starts a new
game wherever one has ended. Equality with `core`, bit for bit, is a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .core import MoveKind, Scenario, Seat, State, quantise_array
from .scenarios import DRAWN, Scenarios

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_INVALID = np.int8(MoveKind.INVALID)
_NOW = ("turn", "mover", "standing", "standing_seat", "agreement")


@dataclass(slots=True)
class BatchState:
    """B games in progress.

    What was played is kept on a tape, one row for each call of `move`, newest last, so that a move of all games is written
    in one piece. The turns of a game are the last ``turn - 1`` rows before its ``end``.

    Attributes:
        scenarios: the games.
        turn: ``[B]`` the turn about to be played, from 1.
        mover: ``[B]`` whose turn that is (`Seat`), int8.
        standing: ``[B]`` latest offer, NaN before the first.
        standing_seat: ``[B]`` who made it, -1 before the first.
        agreement: ``[B]``.
        prices: ``[L, B]`` offers, NaN where a turn made none.
        kinds: ``[L, B]`` `MoveKind` of each turn, int8.
        at: rows of the tape that are written.
        end: ``[B]`` where on the tape each game stands; ``at`` unless it is over.
    """

    scenarios: Scenarios
    turn: NDArray[np.int64]
    mover: NDArray[np.int8]
    standing: Floats
    standing_seat: NDArray[np.int8]
    agreement: Bools
    prices: Floats
    kinds: NDArray[np.int8]
    at: int
    end: Ints
    _tick: NDArray[np.float64]

    @classmethod
    def start(cls, scenarios: Scenarios, length: int | None = None, at: int = 0) -> BatchState:
        """Before the first move.

        Args:
            scenarios: the games.
            length: L, by default the largest ``max_turns``.
            at: rows of the tape that count as written, with nothing in them.
        """
        n = len(scenarios)
        length = int(scenarios.max_turns.max(initial=1)) if length is None else length
        return cls(
            scenarios=scenarios,
            turn=np.ones(n, dtype=np.int64),
            mover=scenarios.starter.astype(np.int8),
            standing=np.full(n, np.nan),
            standing_seat=np.full(n, -1, dtype=np.int8),
            agreement=np.zeros(n, dtype=bool),
            prices=np.full((length, n), np.nan),
            kinds=np.zeros((length, n), dtype=np.int8),
            at=at,
            end=np.full(n, at),
            _tick=np.asarray(scenarios.tick[0])
            if n and (scenarios.tick == scenarios.tick[0]).all()
            else scenarios.tick,
        )

    @classmethod
    def of(cls, scenario: Scenario, state: State) -> BatchState:
        """One game as a batch of one."""
        batch = cls.start(Scenarios.of([scenario]), at=len(state.kinds))
        batch.turn[0], batch.agreement[0] = state.turn, state.agreement
        batch.mover[0] = (scenario.starter + state.turn - 1) % 2
        if state.standing is not None and state.standing_seat is not None:
            batch.standing[0], batch.standing_seat[0] = state.standing, state.standing_seat
        batch.prices[: batch.at, 0] = [np.nan if price is None else price for price in state.prices]
        batch.kinds[: batch.at, 0] = state.kinds
        return batch

    def row(self, row: int) -> tuple[Scenario, State]:
        """One game of the batch, as `core` holds it."""
        past = slice(int(self.end[row] - self.turn[row]) + 1, int(self.end[row]))
        prices = tuple(None if np.isnan(price) else price for price in self.prices[past, row].tolist())
        kinds = tuple(MoveKind(kind) for kind in self.kinds[past, row].tolist())
        maker = int(self.standing_seat[row])
        standing, standing_seat = (None, None) if maker < 0 else (float(self.standing[row]), Seat(maker))
        state = State(int(self.turn[row]), standing, standing_seat, prices, kinds, bool(self.agreement[row]))
        return self.scenarios[row], state

    def __len__(self) -> int:
        return len(self.turn)

    @property
    def live(self) -> Bools:
        """``[B]`` games that are not over."""
        return ~self.agreement & (self.turn <= self.scenarios.max_turns)

    def rows_of(self, seat: Seat) -> Rows:
        """Live games in which ``seat`` is to move."""
        return np.flatnonzero(self.live & (self.mover == seat))

    def may_accept(self) -> Bools:
        """``[B]`` where the seat to move faces an offer of the other seat."""
        return self.standing_seat == 1 - self.mover

    def acceptable(self) -> Floats:
        """``[B]`` the offer that the seat to move may accept; NaN where there is none."""
        return np.where(self.may_accept(), self.standing, np.nan)

    def history(self, rows: Rows) -> Floats:
        """``[b, max(turn) - 1]`` the offers of live ``rows``, oldest first; younger games have NaN on the left."""
        turn = self.turn[rows]
        width = int(turn.max(initial=1)) - 1
        past = np.ascontiguousarray(self.prices[self.at - width : self.at, rows].T)
        if (turn <= width).any():
            past[np.arange(width) < (width + 1 - turn)[:, None]] = np.nan
        return past

    def move(self, active: Bools | None, accept: Bools, price: Floats, *, rounded: bool = False) -> NDArray[np.int8]:
        """Play one move in each of the ``active`` games, which must be live, and go to their next turn.

        Args:
            active: ``[B]``, or None for all.
            accept: ``[B]``; read where ``active``.
            price: ``[B]``; read where ``active`` and not ``accept``.
            rounded: the prices are known to be multiples of the tick.

        Returns:
            ``[B]`` what each move amounted to (`MoveKind`), int8; 0 where not ``active``.
        """
        games, at = self.scenarios, self._room()
        offered = price if rounded else quantise_array(price, self._tick)
        # NaN is in no range, so it is no offer.
        offers = ~accept & (offered >= games.price_low) & (offered <= games.price_high)
        deals = accept & self.may_accept()
        if active is None:
            kinds, step = _INVALID - 2 * offers.view(np.int8) - deals.view(np.int8), np.int8(1)
        else:
            offers, deals = offers & active, deals & active
            kinds = _INVALID * active.view(np.int8) - 2 * offers.view(np.int8) - deals.view(np.int8)
            step = active.view(np.int8)  # type: ignore[assignment]
        self.prices[at], self.kinds[at] = np.where(offers, offered, np.nan), kinds
        np.copyto(self.standing, offered, where=offers)
        np.copyto(self.standing_seat, self.mover, where=offers)
        self.agreement |= deals
        self.turn += step
        self.end += step
        self.mover ^= step
        self.at = at + 1
        return kinds

    def _room(self) -> int:
        """The row of the tape to write next; a full tape is wound back, keeping the turns of every game."""
        if self.at == len(self.prices):
            back = int((self.end - self.turn).min(initial=self.at - 1)) + 1
            for tape in (self.prices, self.kinds):
                tape[: self.at - back] = tape[back : self.at].copy()
            self.at -= back
            self.end -= back
        return self.at

    def restart(self, rows: Rows, mover: Seat) -> None:
        """Let ``rows`` count as live, on turn 1 and with ``mover`` to move."""
        self.turn[rows], self.mover[rows], self.agreement[rows], self.end[rows] = 1, mover, False, self.at

    def replace(self, rows: Rows, source: BatchState, source_rows: Rows) -> None:
        """Put the games of ``source_rows`` of ``source`` in the place of ``rows``.

        Both batches must have been drawn from one preset with one set of options, so only what is drawn is copied.
        """
        for name in DRAWN:
            getattr(self.scenarios, name)[rows] = getattr(source.scenarios, name)[source_rows]
        for name in _NOW:
            getattr(self, name)[rows] = getattr(source, name)[source_rows]
        self.end[rows] = self.at
        past = slice(self.at - source.at, self.at)
        self.prices[past, rows] = source.prices[: source.at, source_rows]
        self.kinds[past, rows] = source.kinds[: source.at, source_rows]
