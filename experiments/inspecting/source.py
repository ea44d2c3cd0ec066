"""The tables of a data set, one file or many, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env.errors import InputError
from experiments.corpus import manifest, records

BATCH = 1 << 16
"""Rows in memory at a time."""
_TEXT = ("trajectory_id", "role", "target_action", "starter", "split", "buyer_strategy", "seller_strategy")
"""Columns of few different values a batch: read as dictionaries, which spares a string for every row."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set on disk.

    Attributes:
        folder: of `experiments.collect` or `experiments.prepare`.
        steps: files of decisions, in order.
        episodes: files of games, in order.
        manifest: what the folder says of itself; None where it says nothing that can be read.
    """

    folder: Path
    steps: Sequence[Path]
    episodes: Sequence[Path]
    manifest: Mapping[str, Any] | None

    def rows(self, table: str) -> int:
        """Rows of ``steps`` or ``episodes``, from the files' footers."""
        return sum(pq.read_metadata(path).num_rows for path in getattr(self, table))

    def batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns of ``steps`` or ``episodes``, at most `BATCH` rows at a time."""
        for path in getattr(self, table):
            with _opened(path) as file:
                yield from file.iter_batches(batch_size=BATCH, columns=list(columns))


def located(folder: Path) -> Source:
    """The tables in ``folder``: ``steps.parquet`` or ``steps/*.parquet``, and ``episodes`` likewise.

    Raises:
        InputError: there are none, or a column is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the --out folder of experiments.collect or experiments.prepare")
    found = {}
    for table, schema in (("steps", records.STEPS), ("episodes", records.EPISODES)):
        whole = folder / f"{table}.parquet"
        found[table] = [whole] if whole.is_file() else sorted((folder / table).glob("*.parquet"))
        if not found[table]:
            raise InputError(
                f"{folder} holds no {table}.parquet and no {table}/*.parquet; "
                f"make them: python -m experiments.prepare {folder} --out OUT"
            )
        for path in found[table]:
            _check_columns(path, schema)
    return Source(folder, found["steps"], found["episodes"], _manifest(folder))


def _check_columns(path: Path, schema: pa.Schema) -> None:
    try:
        present = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}; make it again") from error
    missing = [name for name in schema.names if name not in present]
    if missing:
        raise InputError(f"{path} lacks the column {missing[0]}; make it again with experiments.prepare")


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    try:
        return manifest.read(folder)
    except InputError:  # what is wrong with it is for a check to say
        return None


def _opened(path: Path) -> pq.ParquetFile:
    # Without pre_buffer: it keeps the bytes of the whole file.
    text = [name for name in _TEXT if name in pq.read_schema(path).names]
    return pq.ParquetFile(path, read_dictionary=text, pre_buffer=False)


@dataclass(frozen=True, slots=True)
class Group:
    """A row group of a file of steps: ``rows`` rows, the first of which is row ``first`` of the table."""

    path: Path
    number: int
    first: int
    rows: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of it."""
        with _opened(self.path) as file:
            return file.read_row_group(self.number, columns=list(columns))


def groups(source: Source) -> list[Group]:
    """All row groups of the steps, in order."""
    found, first = [], 0
    for path in source.steps:
        metadata = pq.read_metadata(path)
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            found.append(Group(path, number, first, rows))
            first += rows
    return found


def coded(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.intp], list[str | None]]:
    """A text column as ``[n]`` places in a list of names; null is the last place, whose name is None."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # what has no rows stays chunked
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    names: list[str | None] = column.dictionary.to_pylist()
    places = column.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.intp)
    return places, [*names, None]


def recoded(column: pa.Array | pa.ChunkedArray, order: Sequence[str]) -> NDArray[np.intp]:
    """A text column as ``[n]`` places in ``order``; -1 for null and for what is not in it."""
    places, names = coded(column)
    return np.array([order.index(name) if name in order else -1 for name in names], dtype=np.intp)[places]


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A numeric or boolean column as ``[n]`` float64, NaN for null."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
