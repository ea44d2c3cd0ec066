"""The rules of `bargain_env.core` for B games at once, as arrays.

The games may differ in everything, the turn included: `play` keeps them in lockstep, the vector environment starts a new
game wherever one has ended. Equality with `core`, bit for bit, is a test.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .core import MoveKind, Scenario, Seat, State, quantise_array
from .scenarios import Scenarios

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ALL = slice(None)


class Played(NamedTuple):
    """What `BatchState.move` did, one entry for each row it moved in.

    Attributes:
        mover: ``[b]`` who moved (`Seat`), int8.
        offered: ``[b]`` the rounded price, NaN where the move was no legal offer.
        kinds: ``[b]`` `MoveKind`, int8.
    """

    mover: NDArray[np.int8]
    offered: Floats
    kinds: NDArray[np.int8]


@dataclass(slots=True)
class BatchState:
    """B games in progress; T is the largest ``max_turns``. Column ``k`` of a history belongs to turn ``k + 1``.

    Attributes:
        scenarios: the games.
        turn: ``[B]`` the turn about to be played, from 1.
        mover: ``[B]`` whose turn that is (`Seat`), int8.
        standing: ``[B]`` latest offer, NaN before the first.
        standing_seat: ``[B]`` who made it, -1 before the first.
        prices: ``[B, T]`` offers, NaN where the turn made none.
        kinds: ``[B, T]`` `MoveKind` of each turn, int8.
        agreement: ``[B]``.
    """

    scenarios: Scenarios
    turn: NDArray[np.int64]
    mover: NDArray[np.int8]
    standing: Floats
    standing_seat: NDArray[np.int8]
    prices: Floats
    kinds: NDArray[np.int8]
    agreement: Bools

    @classmethod
    def start(cls, scenarios: Scenarios) -> BatchState:
        """Before the first move."""
        n, turns = len(scenarios), int(scenarios.max_turns.max(initial=1))
        return cls(
            scenarios=scenarios,
            turn=np.ones(n, dtype=np.int64),
            mover=scenarios.starter.astype(np.int8),
            standing=np.full(n, np.nan),
            standing_seat=np.full(n, -1, dtype=np.int8),
            prices=np.full((n, turns), np.nan),
            kinds=np.zeros((n, turns), dtype=np.int8),
            agreement=np.zeros(n, dtype=bool),
        )

    @classmethod
    def of(cls, scenario: Scenario, state: State) -> BatchState:
        """One game as a batch of one."""
        batch = cls.start(Scenarios.of([scenario]))
        past = len(state.kinds)
        batch.turn[0], batch.agreement[0] = state.turn, state.agreement
        batch.mover[0] = (scenario.starter + state.turn - 1) % 2
        if state.standing is not None and state.standing_seat is not None:
            batch.standing[0], batch.standing_seat[0] = state.standing, state.standing_seat
        batch.prices[0, :past] = [np.nan if price is None else price for price in state.prices]
        batch.kinds[0, :past] = state.kinds
        return batch

    def row(self, row: int) -> tuple[Scenario, State]:
        """One game of the batch, as `core` holds it."""
        past = int(self.turn[row]) - 1
        prices = tuple(None if np.isnan(price) else price for price in self.prices[row, :past].tolist())
        maker = int(self.standing_seat[row])
        kinds = tuple(MoveKind(kind) for kind in self.kinds[row, :past].tolist())
        standing, standing_seat = (None, None) if maker < 0 else (float(self.standing[row]), Seat(maker))
        state = State(past + 1, standing, standing_seat, prices, kinds, bool(self.agreement[row]))
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

    def may_accept(self, rows: Rows | slice = ALL) -> Bools:
        """``[b]`` where the seat to move faces an offer of the other seat."""
        return self.standing_seat[rows] == 1 - self.mover[rows]

    def acceptable(self, rows: Rows | slice = ALL) -> Floats:
        """``[b]`` the offer that the seat to move may accept; NaN where there is none."""
        return np.where(self.may_accept(rows), self.standing[rows], np.nan)

    def move(self, rows: Rows | slice, accept: Bools, price: Floats) -> Played:
        """Play one move in each of ``rows``, which must be live, and go to the next turn there.

        Args:
            rows: ``[b]`` distinct rows, or ``ALL``.
            accept: ``[b]``.
            price: ``[b]``; read where ``accept`` is false.
        """
        games = self.scenarios
        column, mover = self.turn[rows] - 1, self.mover[rows].copy()
        deal = accept & (self.standing_seat[rows] == 1 - mover)
        offered = quantise_array(price, games.tick[rows])
        valid = ~accept & (offered >= games.price_low[rows]) & (offered <= games.price_high[rows])  # NaN is neither
        kinds = MoveKind.INVALID - 2 * valid.view(np.int8) - deal.view(np.int8)
        offered = np.where(valid, offered, np.nan)
        index = np.arange(len(self)) if isinstance(rows, slice) else rows
        self.prices[index, column], self.kinds[index, column] = offered, kinds
        self.standing[rows] = np.where(valid, offered, self.standing[rows])
        self.standing_seat[rows] = np.where(valid, mover, self.standing_seat[rows])
        self.agreement[rows] |= deal
        self.turn[rows] += 1
        self.mover[rows] = 1 - mover
        return Played(mover, offered, kinds)

    def replace(self, rows: Rows, source: BatchState, source_rows: Rows) -> None:
        """Put the games of ``source_rows`` of ``source`` (of the same T) in the place of ``rows``."""
        for f in fields(Scenarios):
            getattr(self.scenarios, f.name)[rows] = getattr(source.scenarios, f.name)[source_rows]
        for f in fields(self)[1:]:
            getattr(self, f.name)[rows] = getattr(source, f.name)[source_rows]
