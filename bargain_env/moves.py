"""What a player answers: its moves and, where it has a guard, what it would have done without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RawMoves:
    """What players decided by themselves, before any guard: ``[b]`` in `Moves`, ``[B, T]`` in `Trajectories`.

    What was played is another move exactly where `Moves.guarded` or ``fallback`` says so.

    Attributes:
        accept: accept the standing offer.
        price: otherwise offer this; NaN for none.
        fallback: the answer was none that the game knows, so the player's substitute for it was played.
        told: whether the mover tells all this; where it does not, the others are False, NaN and False.
    """

    accept: Bools
    price: Floats
    fallback: Bools
    told: Bools

    @classmethod
    def of(cls, accept: Bools, price: Floats, fallback: Bools | None = None) -> RawMoves:
        """Told by every row; no fallback by default."""
        none = np.zeros(len(accept), dtype=bool)
        return cls(accept, price, none if fallback is None else fallback, ~none)

    @classmethod
    def blank(cls, *shape: int) -> RawMoves:
        """Told by nobody; to be filled with `put`."""
        return cls(*(np.full(shape, empty) for empty in (False, np.nan, False, False)))

    def put(self, at: Any, other: RawMoves | None) -> None:
        """Write ``other`` to the entries ``at``; None leaves them."""
        if other is not None:
            for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
                mine[at] = theirs

    def take(self, at: Any) -> RawMoves:
        """The entries ``at``."""
        return RawMoves(*(array[at] for array in self._arrays()))

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.accept, self.price, self.fallback, self.told


@dataclass(frozen=True, slots=True)
class Moves:
    """One answer for each row of a `SeatView`.

    Attributes:
        accept: ``[b]`` accept the standing offer.
        price: ``[b]`` otherwise offer this; NaN wastes the turn and is counted as an invalid move.
        guarded: ``[b]`` where a guard of the player replaced its own decision; counted, never silent.
        raw: its own decisions; None where the player has no guard, or does not tell.
    """

    accept: Bools
    price: Floats
    guarded: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    raw: RawMoves | None = None

    def __post_init__(self) -> None:
        if len(self.guarded) == 0:
            object.__setattr__(self, "guarded", np.zeros(len(self.accept), dtype=bool))
        if not len(self.accept) == len(self.price) == len(self.guarded):
            raise ValueError(
                f"accept, price and guarded must have one entry a row, got lengths "
                f"{len(self.accept)}, {len(self.price)} and {len(self.guarded)}"
            )
        if self.raw is not None and len(self.raw.accept) != len(self.accept):
            raise ValueError(f"{len(self.raw.accept)} raw moves for {len(self.accept)} moves; give one a row")
