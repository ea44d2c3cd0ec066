"""From shards to ``episodes.parquet``, row group by row group: memory does not grow with the number of games.

A cell is agent, seat, ρ and opponent; every shard of a team at a seat has the same cells in the same order, and within a
cell scenarios ascend, as they do from shard to shard. So the sorted whole is read off the shards front to back, without
comparing a row. At most `arena.MOST_SHARDS` shards at either seat are open at once, each with one row group in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import results
from .arena import Plan, Shard, Team, cells
from .results import SCHEMA


class Reader:
    """Rows of one shard, front to back.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self._next = 0
        self.held = SCHEMA.empty_table()
        """Rows read and not yet taken: less than a row group between calls."""

    def take(self, count: int) -> Iterator[pa.Table]:
        """The next ``count`` rows, in pieces of at most a row group."""
        while count:
            if not len(self.held):
                self.held = self._file.read_row_group(self._next).cast(SCHEMA)
                self._next += 1
            piece = self.held.slice(0, count)
            self.held = self.held.slice(len(piece)) if len(piece) < len(self.held) else SCHEMA.empty_table()
            count -= len(piece)
            yield piece
        if self._next == self._file.num_row_groups and not len(self.held):
            self._file.close()


def merged(teams: Sequence[Team], plan: Plan, shards: Sequence[Shard], paths: Mapping[int, Path]) -> Iterator[pa.Table]:
    """All rows, sorted by ``episode_id``, in pieces.

    Args:
        teams: of the contestants.
        plan: what they play.
        shards: all of the plan.
        paths: file of each shard, by its number.
    """
    places = {(shard.team, shard.seat) for shard in shards}
    order = sorted(
        (cell.prefix.encode(), *place) for place in places for cell in cells(teams[place[0]], plan, place[1])
    )
    some = max(1, results.GROUP_ROWS // plan.games)
    readers: dict[tuple[int, int], list[tuple[Shard, Reader]]] = {}
    for place, run in itertools.groupby(order, key=lambda entry: entry[1:]):
        if place not in readers:
            readers[place] = [(s, Reader(paths[k])) for k, s in enumerate(shards) if (s.team, s.seat) == place]
        left = len(list(run))
        while left:
            many = min(some, left)
            yield from _cells(readers[place], many)
            left -= many


def _cells(readers: Sequence[tuple[Shard, Reader]], count: int) -> Iterator[pa.Table]:
    """The next ``count`` cells of a team at a seat; one cell alone may be larger than memory, several are not."""
    taken = (reader.take(count * shard.count) for shard, reader in readers)
    if count == 1:
        yield from itertools.chain.from_iterable(taken)
    else:
        yield results.by_cell([pa.concat_tables(list(pieces)) for pieces in taken], count)
