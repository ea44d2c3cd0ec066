"""Taking apart several episodes that were written under one trajectory id.

A row on turn ``t`` continues a row on turn ``t - 1`` of the same id if the seats alternate, its ``last_offer_price`` is
what that row offered, and its seat's reservation is the one it had before. Every way to deal the rows out into complete
episodes is searched; where there are several that differ, the id is given up, unless the ZOPA has the same width all
over the corpus and that width decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .step_rows import StepRows

UNLINKED, REPEATED = -1, -2
_MOST_ROWS = 400
_MOST_NODES = 20_000
_MOST_WAYS = 64
_WIDTH_NOISE = 0.05
"""Two limits rounded to cents differ by the width up to this."""


class Row(NamedTuple):
    """One decision; ``last_offer`` is None where none stands."""

    turn: int
    role: int
    reservation: float
    last_offer: float | None
    accept: bool
    price: float
    game: tuple[float, ...]


class Chain(NamedTuple):
    """An episode so far: equal chains are interchangeable."""

    turns: int
    next_role: int
    standing: float | None
    limits: tuple[float | None, float | None]
    accepted: bool
    game: tuple[float, ...]

    def takes(self, row: Row) -> bool:
        """Whether ``row`` can be this episode's next move."""
        known = self.limits[row.role]
        return (
            not self.accepted
            and self.turns == row.turn - 1
            and self.next_role == row.role
            and self.standing == row.last_offer
            and known in (None, row.reservation)
            and self.game == row.game
        )

    def after(self, row: Row) -> Chain:
        """The episode once ``row`` is played."""
        buyer, seller = self.limits
        limits = (row.reservation, seller) if row.role == 0 else (buyer, row.reservation)
        return Chain(self.turns + 1, 1 - row.role, row.price, limits, row.accept, self.game)

    @property
    def finished(self) -> bool:
        """Whether it ended in a deal or at the deadline."""
        return self.accepted or self.turns == self.game[0]


@dataclass(slots=True)
class Search:
    """All ways to deal out the rows of one id, as the index of the episode that each row goes to."""

    rows: list[Row]
    ways: list[tuple[float, list[int]]] = field(default_factory=list)
    width: float | None = None
    nodes: int = 0
    seen: set[tuple[str, ...]] = field(default_factory=set)

    def run(self, chains: tuple[Chain, ...] = (), dealt: tuple[int, ...] = ()) -> None:
        """Deal out ``rows[len(dealt):]`` in every way; fills ``ways`` with (misfit of the width, assignment)."""
        self.nodes += 1
        if self.nodes > _MOST_NODES or len(self.ways) >= _MOST_WAYS:
            return
        if len(dealt) == len(self.rows):
            if all(chain.finished for chain in chains):
                self._keep(chains, dealt)
            return
        row = self.rows[len(dealt)]
        if any(not chain.finished and chain.turns < row.turn - 1 for chain in chains):
            return
        if row.turn == 1:
            start = Chain(0, row.role, None, (None, None), False, row.game)
            self.run((*chains, start.after(row)), (*dealt, len(chains)))
            return
        tried = set()
        for k, chain in enumerate(chains):
            if chain not in tried and chain.takes(row):
                tried.add(chain)
                self.run((*chains[:k], chain.after(row), *chains[k + 1 :]), (*dealt, k))

    def best(self) -> list[int] | None:
        """The only way, or the one that the width singles out; None where there is neither."""
        if self.nodes > _MOST_NODES or not self.ways or len(self.ways) >= _MOST_WAYS:
            return None
        ranked = sorted(self.ways, key=lambda way: way[0])
        if len(ranked) > 1 and not (ranked[0][0] <= len(self.rows) * _WIDTH_NOISE < ranked[1][0]):
            return None
        return ranked[0][1]

    def _keep(self, chains: tuple[Chain, ...], dealt: tuple[int, ...]) -> None:
        """Remember a way unless one with the same episodes is known."""
        episodes = ([self.rows[i] for i, k in enumerate(dealt) if k == mine] for mine in range(len(chains)))
        key = tuple(sorted(map(str, episodes)))
        if key in self.seen:
            return
        self.seen.add(key)
        self.ways.append((sum(self._misfit(chain) for chain in chains), list(dealt)))

    def _misfit(self, chain: Chain) -> float:
        high, low = chain.limits
        if self.width is None or high is None or low is None:
            return 0.0
        return abs(high - low - self.width)


class Widths:
    """Whether the ZOPA is as wide in every id, seen batch by batch."""

    def __init__(self) -> None:
        self._least, self._most = math.inf, -math.inf

    def add(self, rows: StepRows) -> None:
        """Ids that hold one episode each."""
        limits = rows.limits
        widths = limits[:, 0] - limits[:, 1]
        widths = widths[np.isfinite(widths)]
        if len(widths):
            self._least, self._most = min(self._least, float(widths.min())), max(self._most, float(widths.max()))

    @property
    def constant(self) -> float | None:
        """The width where there is only one, but for the rounding of limits to cents; None otherwise."""
        return (self._least + self._most) / 2 if 0 <= self._most - self._least <= _WIDTH_NOISE else None


def link(rows: StepRows, width: float | None) -> NDArray[np.intp]:
    """Which episode of its id each row belongs to.

    Args:
        rows: decisions of ids that hold more than one episode, sorted by id and turn.
        width: of the ZOPA in all episodes; None where it varies or is not known.

    Returns:
        ``[N]`` 0, 1, … in the order of the first rows; `UNLINKED` where rows cannot be told apart or are missing;
        `REPEATED` where an episode of the same id has the very same rows.
    """
    part = np.full(len(rows), UNLINKED, dtype=np.intp)
    for start, end in zip(rows.first.tolist(), (rows.last + 1).tolist(), strict=True):
        if end - start <= _MOST_ROWS:
            search = Search(_rows(rows, slice(start, end)), width=width)
            search.run()
            way = search.best()
            if way is not None:
                part[start:end] = _once(search.rows, way)
    return part


def _once(rows: list[Row], way: list[int]) -> list[int]:
    """``way`` with `REPEATED` in place of an episode that is there already."""
    episodes = {k: str([row for row, mine in zip(rows, way, strict=True) if mine == k]) for k in dict.fromkeys(way)}
    kept = {text: k for k, text in reversed(episodes.items())}
    return [k if kept[episodes[k]] == k else REPEATED for k in way]


def _rows(rows: StepRows, at: slice) -> list[Row]:
    columns = (rows.turn, rows.role, rows.reservation, rows.last_offer, rows.accept, rows.price)
    games = (rows.max_turns, rows.price_low, rows.price_high)
    fixed = zip(*(c[at].tolist() for c in games), strict=True)
    moves = zip(*(c[at].tolist() for c in columns), strict=True)
    return [
        Row(turn, role, reservation, None if math.isnan(last) else last, accept, price, game)
        for (turn, role, reservation, last, accept, price), game in zip(moves, fixed, strict=True)
    ]
