"""The rules of `bargain_env.core` for B games in lockstep, as arrays.

All games of a batch are on the same turn; they may differ in starter and in ``max_turns``. Equality with `core`, bit for
bit, is a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .core import MoveKind, Seat, quantise_array
from .scenarios import Scenarios

Rows = NDArray[np.intp]


@dataclass(slots=True)
class BatchState:
    """B games in progress; T is the largest ``max_turns``. Column ``k`` of a history belongs to turn ``k + 1``.

    Attributes:
        scenarios: the games.
        turn: the turn about to be played, from 1, the same in every game.
        standing: ``[B]`` latest offer, NaN before the first.
        standing_seat: ``[B]`` who made it, -1 before the first.
        prices: ``[B, T]`` offers, NaN where the turn made none.
        kinds: ``[B, T]`` `MoveKind` of each turn, int8.
        agreement: ``[B]``.
    """

    scenarios: Scenarios
    turn: int
    standing: NDArray[np.float64]
    standing_seat: NDArray[np.int8]
    prices: NDArray[np.float64]
    kinds: NDArray[np.int8]
    agreement: NDArray[np.bool_]

    @classmethod
    def start(cls, scenarios: Scenarios) -> BatchState:
        """Before the first move."""
        n, turns = len(scenarios), int(scenarios.max_turns.max(initial=1))
        return cls(
            scenarios=scenarios,
            turn=1,
            standing=np.full(n, np.nan),
            standing_seat=np.full(n, -1, dtype=np.int8),
            prices=np.full((n, turns), np.nan),
            kinds=np.zeros((n, turns), dtype=np.int8),
            agreement=np.zeros(n, dtype=bool),
        )

    @property
    def live(self) -> NDArray[np.bool_]:
        """``[B]`` games that are not over."""
        return ~self.agreement & (self.turn <= self.scenarios.max_turns)

    def rows_of(self, seat: Seat) -> Rows:
        """Live games in which ``seat`` is to move."""
        return np.flatnonzero(self.live & ((self.scenarios.starter + self.turn - 1) % 2 == seat))

    def acceptable(self, rows: Rows, seat: Seat) -> NDArray[np.float64]:
        """The offer that ``seat`` may accept in each of ``rows``; NaN where there is none."""
        return np.where(self.standing_seat[rows] == seat.other, self.standing[rows], np.nan)

    def move(self, rows: Rows, seat: Seat, accept: NDArray[np.bool_], price: NDArray[np.float64]) -> None:
        """Play one move of ``seat`` in ``rows``; `advance` once both seats have moved.

        Args:
            rows: ``[b]`` distinct rows as given by `rows_of`.
            seat: who moves.
            accept: ``[b]``.
            price: ``[b]``; read where ``accept`` is false.
        """
        games, column = self.scenarios, self.turn - 1
        deal = accept & ~np.isnan(self.acceptable(rows, seat))
        offered = quantise_array(np.where(accept, np.nan, price), games.tick[rows])
        with np.errstate(invalid="ignore"):
            valid = (offered >= games.price_low[rows]) & (offered <= games.price_high[rows])
        self.agreement[rows[deal]] = True
        self.kinds[rows, column] = np.select([deal, valid], [MoveKind.ACCEPT, MoveKind.OFFER], MoveKind.INVALID)
        replaced = rows[valid]
        self.prices[replaced, column] = self.standing[replaced] = offered[valid]
        self.standing_seat[replaced] = seat

    def advance(self) -> None:
        """Go to the next turn."""
        self.turn += 1
