"""From a reader of anybody's files to the sound games in the order of the input, in bounded memory.

Games wait in files, a row each (`experiments.corpus.games`), until all are known: only then can they be split. What comes
out does not depend on how the input was cut into batches, nor on whether its rows had to be spread over files first.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .claims import PLAIN
from .decisions import Corpus, group, values
from .games import GAMES, games_table, lengths
from .grouping import BATCH, ScatteredError, contiguous, encoded, scattered
from .reading import Reader
from .repair import Sieve, Sound
from .report import Report
from .spill import Stream

_GAMES_AT_A_TIME = 2048
"""Rows of a batch on disk: one of each stream is in memory while they are merged."""


class Games:
    """Sound games on disk: in streams along each of which places rise.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._streams, self._open = folder, list[Stream](), False
        self._first, self._moves = list[NDArray[np.int64]](), list[NDArray[np.int32]]()

    @property
    def count(self) -> int:
        """How many games."""
        return sum(map(len, self._first))

    @property
    def steps(self) -> int:
        """How many moves in all of them."""
        return sum(int(moves.sum(dtype=np.int64)) for moves in self._moves)

    def add(self, sound: Sound) -> None:
        """Keep some games, in the order of their places."""
        if not len(sound.first):
            return
        if not self._open or sound.first[0] < self._first[-1][-1]:
            self.close()
            self._open = True
            self._streams.append(
                Stream(self._folder / f"games-{len(self._streams):04d}.arrow", GAMES, _GAMES_AT_A_TIME)
            )
        games = games_table(sound)
        self._streams[-1].append(games)
        self._first.append(sound.first)
        self._moves.append(lengths(games).astype(np.int32))

    def close(self) -> None:
        """No more to add for now."""
        if self._open:
            self._streams[-1].close()
            self._open = False

    def in_order(self) -> Iterator[pa.Table]:
        """`experiments.corpus.games.GAMES` in the order of the input, some `BATCH` moves at a time, once closed."""
        first = np.concatenate(self._first)
        order = np.argsort(first, kind="stable")
        first = first[order]
        moves = np.cumsum(np.concatenate(self._moves)[order], dtype=np.int64)
        cuts = np.unique(np.searchsorted(moves, np.arange(BATCH, moves[-1], BATCH)) + 1)
        heads = [_Head(stream) for stream in self._streams]
        for end in [*first[cuts[cuts < len(first)]].tolist(), np.iinfo(np.int64).max]:
            parts = [part for head in heads for part in head.before(end)]
            if parts:
                table = pa.concat_tables(parts).combine_chunks()
                yield table.take(pa.array(np.argsort(values(table, "first"), kind="stable"))).combine_chunks()


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left of an input.

    Attributes:
        report: the problems.
        ids: how many trajectory ids the input has.
        games: the sound ones.
    """

    report: Report
    ids: int
    games: Games


class _Head:
    """A stream of games on the way out."""

    def __init__(self, stream: Stream) -> None:
        self._tables, self._waiting = stream.tables(), GAMES.empty_table()

    def before(self, end: int) -> Iterator[pa.Table]:
        """The next games, those of places below ``end``."""
        while True:
            if not len(self._waiting):
                table = next(self._tables, None)
                if table is None:
                    return
                self._waiting = table.combine_chunks()
            n = int(np.searchsorted(values(self._waiting, "first"), end))
            if n:
                yield self._waiting.slice(0, n)
            self._waiting = self._waiting.slice(n).combine_chunks()
            if len(self._waiting):
                return


def sift(reader: Reader, repair: bool, folder: Path) -> Sifted:
    """Read everything and keep what is sound.

    Args:
        reader: of the input.
        repair: see `experiments.corpus.repair.Sieve`.
        folder: for temporary files; must stay until the games were read.

    Raises:
        InputError: a file cannot be read at all.
    """
    whole, spread = folder / "whole", folder / "spread"
    try:
        return _sift(reader, lambda report: contiguous(reader, report), repair, whole)
    except ScatteredError:
        shutil.rmtree(whole)
        return _sift(reader, lambda report: scattered(reader, report, spread), repair, spread)


def _sift(
    reader: Reader, batches: Callable[[Report], Generator[Corpus, None, None]], repair: bool, folder: Path
) -> Sifted:
    folder.mkdir()
    report, games, ids = Report(), Games(folder), 0
    sieve = Sieve(repair, report)
    with (
        contextlib.closing(games),
        Stream(folder / "merged.arrow", PLAIN) as merged,
        contextlib.closing(batches(report)) as corpora,
    ):
        for corpus in corpora:
            sound, several = sieve.sift(corpus)
            games.add(sound)
            if several is not None:
                merged.append(several.table)
            ids += len(corpus.rows.ids)
    with contextlib.closing(games):
        for table in merged.tables():
            games.add(sieve.part(group(encoded(table))))
    return Sifted(report, ids, games)
