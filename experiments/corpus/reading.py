"""Reading decisions back from files that may be anybody's: logs, tables, or a folder of them, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env.errors import InputError

from .claims import CLAIMS
from .jsonl import read_lines
from .parquet_claims import read_table

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


class Reader:
    """The rows of one input, in the order of its files.

    A row's place is a number that grows with its position; `locate` turns it back into file and row.

    Args:
        path: a JSONL log, a Parquet table of steps, or a folder that holds one of them, perhaps in several parts.

    Raises:
        InputError: there is no such input.

    Attributes:
        files: what is read.
        rows: how many rows were read so far, those that cannot be understood included.
    """

    def __init__(self, path: Path) -> None:
        self.files = _files(path)
        self.folder = path if path.is_dir() else path.parent
        self.rows = 0
        self._bases: list[int] = []

    @property
    def names(self) -> list[str]:
        """Of the files, within their folder."""
        return [file.relative_to(self.folder).as_posix() for file in self.files]

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Everything from the beginning on, as `CLAIMS` in batches of about ``rows`` rows.

        Raises:
            InputError: a file is empty or cannot be read at all; names it.
        """
        self.rows, self._bases = 0, []
        waiting: list[pa.Table] = []
        for table in self._batches():
            waiting.append(table)
            if sum(map(len, waiting)) >= rows:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)

    def _batches(self) -> Iterator[pa.Table]:
        base = 0
        for file in self.files:
            self._bases.append(base)
            is_log = file.suffix in _LOGS
            before, rows = self.rows, 0
            for table, so_far in read_lines(file) if is_log else read_table(file):
                rows = so_far
                if len(table):
                    self.rows += len(table)
                    yield table.set_column(0, CLAIMS.field("place"), pc.add(table["place"], base))
            if self.rows == before:
                raise InputError(f"{file} is empty; collect again, or name another input")
            base += rows + is_log  # lines are counted from 1

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``[N]`` index of the file of each place, and ``[N]`` its row there from 0, or its line from 1."""
        bases = np.array(self._bases, dtype=np.int64)
        file = np.searchsorted(bases, places, side="right") - 1
        return file, places - bases[file]

    def counted(self, file: int) -> str:
        """What is counted in a file: ``line`` or ``row``."""
        return "line" if self.files[file].suffix in _LOGS else "row"

    def about(self) -> int:
        """How many rows there are, or somewhat more."""
        total = 0
        for file in self.files:
            if file.suffix in _LOGS:
                total += file.stat().st_size // _BYTES_OF_A_STEP
            else:
                with pq.ParquetFile(file) as table:
                    total += table.metadata.num_rows
        return total


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
