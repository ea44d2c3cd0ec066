"""Games in which two entries of the ranking can be compared: same scenario, same opponent, same seat, same luck.

Who of the two gained more there has won that pair; a utility that differs by no more than `SAME` is a tie. The two need
not have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Index

Floats = NDArray[np.float64]
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Entry:
    """One that is ranked.

    Attributes:
        agent: its label.
        configuration: what its dial was set to, by name; None for an agent without one.
        requests: requested ρ of each seat that was played, None for an agent without a dial.
        cells: which cells of `Columns` are its games.
    """

    agent: str
    configuration: str | None
    requests: dict[str, float | None]
    cells: Index

    @property
    def names(self) -> dict[str, str | None]:
        """As a row of the summary names it."""
        return {"agent": self.agent, "configuration": self.configuration}


@dataclass(frozen=True, slots=True)
class Duels:
    """Paired games of E entries.

    Attributes:
        points: ``[G, E, E]`` of each cluster, a win of the first over the second counted 1 and a tie one half.
        wins: ``[E, E]`` how often the first gained more than the second.
        ties: ``[E, E]`` how often neither did.
    """

    points: Floats
    wins: NDArray[np.int64]
    ties: NDArray[np.int64]


def duels(columns: Columns, entries: Sequence[Entry]) -> Duels:
    """Everybody against everybody; it takes 8·G·E² bytes."""
    count = len(entries)
    clusters = len(columns.pooled(np.zeros(len(columns.scenarios))))
    points = np.zeros((clusters, count, count))
    wins, ties = np.zeros((2, count, count), dtype=np.int64)
    where = [_by_place(columns, entry) for entry in entries]
    for i in range(count):
        for j in range(i + 1, count):
            a, b = _shared(where[i], where[j])
            gap = columns.utility[a] - columns.utility[b]
            won, lost = ((gap * sign > SAME).sum(axis=0) for sign in (1.0, -1.0))
            tied = (np.abs(gap) <= SAME).sum(axis=0)
            wins[i, j], wins[j, i], ties[i, j] = won.sum(), lost.sum(), tied.sum()
            ties[j, i] = ties[i, j]
            points[:, i, j] = columns.pooled(won + tied / 2.0)
            points[:, j, i] = columns.pooled(lost + tied / 2.0)
    return Duels(points, wins, ties)


def paired_gaps(columns: Columns, one: Entry, other: Entry) -> tuple[Floats, Floats]:
    """Utility of ``one`` minus that of ``other`` added up over their paired games, and how many: each ``[G]``."""
    a, b = _shared(_by_place(columns, one), _by_place(columns, other))
    gap = columns.utility[a] - columns.utility[b]
    return columns.pooled(np.nansum(gap, axis=0)), columns.pooled((~np.isnan(gap)).sum(axis=0))


def _by_place(columns: Columns, entry: Entry) -> dict[Any, int]:
    return {(columns.cells[i].agent_seat, columns.cells[i].opponent): int(i) for i in entry.cells}


def _shared(one: dict[Any, int], other: dict[Any, int]) -> tuple[Index, Index]:
    """Cells of either at the places that both have."""
    both = [(cell, other[place]) for place, cell in one.items() if place in other]
    pairs = np.array(both, dtype=np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def table(entries: Sequence[Entry], found: Duels) -> dict[str, Any]:
    """As the summary holds it: ``entries`` and the ``[E, E]`` ``wins`` (of the row over the column) and ``ties``."""
    return {"entries": [entry.names for entry in entries], "wins": found.wins, "ties": found.ties}
