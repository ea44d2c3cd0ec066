"""Batches in which every trajectory id is whole, out of batches that were cut anywhere.

Where the rows of each id are next to each other, as in all that this project writes, one pass is enough: a batch is cut at
its last change of id. Anything else is first spread over files by a hash of the id, so that each file fits in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .claims import PLAIN
from .decisions import Corpus, group
from .hashing import Words, text_hashes
from .reading import Reader
from .report import Report
from .spill import Stream

BATCH = 65_536
"""Rows at a time."""
PARTITION = 400_000
"""Rows of a spill file, about."""
_MOST_PARTITIONS = 256
_SPREAD = 4
"""Batches that are spread over the files at a time: each file gets few rows of one."""


class ScatteredError(Exception):
    """The rows of an id are not all next to each other."""


class _Seen:
    """Which ids were there before. The earlier ones are sorted anew when as many others have come, so adding is cheap."""

    def __init__(self) -> None:
        self._known, self._recent, self._waiting = np.empty(0, np.uint64), list[Words](), 0

    def add(self, hashes: Words) -> None:
        """Ids that begin.

        Raises:
            ScatteredError: one of them was there before.
        """
        self._recent.append(hashes)
        self._waiting += len(hashes)
        if self._waiting > len(self._known):
            self.check()

    def check(self) -> None:
        """Look at all of them; raises as `add`, which may find out later."""
        known = np.sort(np.concatenate([self._known, *self._recent]))
        if (known[1:] == known[:-1]).any():
            raise ScatteredError
        self._known, self._recent, self._waiting = known, [], 0


def contiguous(reader: Reader, report: Report) -> Generator[Corpus, None, None]:
    """Whole ids in the order of the input.

    Raises:
        ScatteredError: the rows of an id are not all next to each other; perhaps only found after the last batch.
    """
    seen, carried = _Seen(), list[pa.Table]()
    with contextlib.closing(_named(reader, report, BATCH)) as tables:
        for table in tables:
            codes = table["trajectory_id"].chunk(0).indices.to_numpy()
            changes = np.flatnonzero(np.diff(codes)) + 1
            if len(changes):
                yield _whole([*carried, table.slice(0, changes[-1])], seen)
                carried = []
                table = table.slice(changes[-1])
            carried.append(table)
    if carried:
        yield _whole(carried, seen)
    seen.check()


def _whole(tables: list[pa.Table], seen: _Seen) -> Corpus:
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    ids = table["trajectory_id"].chunk(0)
    begins = np.flatnonzero(np.diff(ids.indices.to_numpy(), prepend=-1))
    seen.add(text_hashes(ids.take(pa.array(begins)).dictionary_decode()))
    return group(table)


def scattered(reader: Reader, report: Report, folder: Path) -> Generator[Corpus, None, None]:
    """Whole ids in any order, each batch in that of its first rows; spills files into ``folder``."""
    n = int(np.clip(-(-reader.about() // PARTITION), 1, _MOST_PARTITIONS))
    streams = [Stream(folder / f"ids-{k:03d}.arrow", PLAIN) for k in range(n)]
    with contextlib.ExitStack() as writing:
        for stream in streams:
            writing.enter_context(stream)
        named = writing.enter_context(contextlib.closing(_named(reader, report, _SPREAD * BATCH)))
        for table in named:
            for k, rows in _spread(text_hashes(table["trajectory_id"].chunk(0)) % np.uint64(n)):
                streams[k].append(table.take(pa.array(rows)))
    for stream in streams:
        tables = list(stream.tables())
        if tables:
            yield group(encoded(pa.concat_tables(tables)))


def _spread(part: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    order = np.argsort(part, kind="stable")
    begins = np.flatnonzero(np.diff(part[order], prepend=part[order[0]] + 1))
    for rows in np.split(order, begins[1:]):
        yield int(part[rows[0]]), rows


def _named(reader: Reader, report: Report, rows: int) -> Generator[pa.Table, None, None]:
    """The rows that say whose they are, in one chunk each; the others are reported."""
    with contextlib.closing(reader.tables(rows)) as tables:
        for table in tables:
            ids = table["trajectory_id"]
            if ids.null_count:
                report.add_nameless(table.filter(ids.is_null()))
                table = table.filter(ids.is_valid()).combine_chunks()
            if len(table):
                yield table


def encoded(table: pa.Table) -> pa.Table:
    """A table of `experiments.corpus.claims.PLAIN` as `experiments.corpus.claims.CLAIMS` in one chunk."""
    table = table.combine_chunks()
    for i, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(i, field.name, table[i].dictionary_encode())
    return table.combine_chunks()
