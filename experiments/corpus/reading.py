"""Reading decisions back from files that may be anybody's: logs, tables, or a folder of them, a batch at a time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bargain_env.errors import InputError
from experiments.match.engines import Warn
from experiments.progress import Tell

from .claims import CLAIMS
from .log_blocks import read_logs
from .overlap import ahead
from .parquet_claims import read_table, rows_of

_NAMES = (
    "steps.parquet",
    "steps/*.parquet",
    "decision_steps.parquet",
    "log/*.jsonl",
    "*.jsonl",
)
_LOGS = (".jsonl", ".ndjson", ".json")
_BYTES_OF_A_STEP = 250
"""The least that a line of a log takes: only memory depends on it."""
_AHEAD = 2
"""Batches that are read before they are asked for."""


def _say_nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Effort:
    """How an input is read; what is read does not depend on it.

    Attributes:
        workers: processes and threads at a time, about; 1 for this process and thread alone.
        warn: told of a worker that died.
        tell: told how many rows were read, and how many there are, about.
    """

    workers: int = 1
    warn: Warn = _say_nothing
    tell: Tell = _say_nothing


class _Piece(NamedTuple):
    """Some rows: index of the file, `CLAIMS` with places in it, its rows and its size (see `Reader`) up to their end."""

    file: int
    table: pa.Table
    rows: int
    size: int


class Reader:
    """The rows of one input, in the order of its files.

    A row's place is a number that grows with its position; `locate` turns it back into file and row.

    Args:
        path: a JSONL log, a Parquet table of steps, or a folder that holds one of them, perhaps in several parts.

    Raises:
        InputError: there is no such input.

    Attributes:
        files: what is read.
        effort: how it is read.
        rows: how many rows were read so far, those that cannot be understood included.
    """

    def __init__(self, path: Path) -> None:
        self.files = _files(path)
        self._are_logs = self.files[0].suffix in _LOGS
        self.folder = path if path.is_dir() else path.parent
        self.effort = Effort()
        self.rows = 0
        self._bases: list[int] = []

    @property
    def names(self) -> list[str]:
        """Of the files, within their folder."""
        return [file.relative_to(self.folder).as_posix() for file in self.files]

    def tables(self, rows: int) -> Generator[pa.Table, None, None]:
        """Everything from the beginning on, as `CLAIMS` in batches of about ``rows`` rows.

        Raises:
            InputError: a file is empty or cannot be read at all; names it.
        """
        self.rows, self._bases = 0, []
        waiting: list[pa.Table] = []
        with contextlib.closing(self._batches()) as batches:
            for table in batches:
                waiting.append(table)
                if sum(map(len, waiting)) >= rows:
                    yield _joined(waiting)
                    waiting = []
        if waiting:
            yield _joined(waiting)

    def _batches(self) -> Generator[pa.Table, None, None]:
        base, read = 0, 0
        with contextlib.closing(ahead(self._pieces(), 0 if self.effort.workers == 1 else _AHEAD)) as pieces:
            for file, of_file in itertools.groupby(pieces, key=lambda piece: piece.file):
                self._bases.append(base)
                before = self.rows
                for piece in of_file:
                    rows, size = piece.rows, read + piece.size
                    if len(piece.table):
                        self.rows += len(piece.table)
                        self.effort.tell(self.rows, max(self.rows, round(self.rows * sum(self._sizes) / max(size, 1))))
                        yield piece.table.set_column(0, CLAIMS.field("place"), pc.add(piece.table["place"], base))
                if self.rows == before:
                    raise InputError(f"{self.files[file]} is empty; collect again, or name another input")
                base += rows + self._are_logs  # lines are counted from 1
                read += self._sizes[file]

    def _pieces(self) -> Generator[_Piece, None, None]:
        """All rows in order; at least one piece of each file, which may be empty."""
        if self._are_logs:
            with contextlib.closing(read_logs(self.files, self.effort.workers, self.effort.warn)) as blocks:
                for block, table, lines in blocks:
                    yield _Piece(block.file, table, lines, block.stop)
            return
        for number, file in enumerate(self.files):
            yield _Piece(number, CLAIMS.empty_table(), 0, 0)
            for table, rows in read_table(file):
                yield _Piece(number, table, rows, rows)

    @cached_property
    def _sizes(self) -> list[int]:
        """Of each file: bytes of a log, rows of a table."""
        if self._are_logs:
            return [file.stat().st_size for file in self.files]
        return [rows_of(file) for file in self.files]

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``[N]`` index of the file of each place, and ``[N]`` its row there from 0, or its line from 1."""
        bases = np.array(self._bases, dtype=np.int64)
        file = np.searchsorted(bases, places, side="right") - 1
        return file, places - bases[file]

    @property
    def counted(self) -> str:
        """What is counted in a file: ``line`` or ``row``."""
        return "line" if self._are_logs else "row"

    def about(self) -> int:
        """How many rows there are, or somewhat more."""
        return sum(self._sizes) // (_BYTES_OF_A_STEP if self._are_logs else 1)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path} does not exist; name a JSONL log, a Parquet file of steps, or a folder with one")
    if path.is_file():
        if path.suffix not in (".parquet", *_LOGS):
            raise InputError(f"{path} is neither .jsonl nor .parquet; rename it or name another input")
        return [path]
    for pattern in _NAMES:
        found = sorted(path.glob(pattern))
        if found:
            return found
    raise InputError(f"folder {path} holds none of {', '.join(_NAMES)}; collect into it first, or name the file")
