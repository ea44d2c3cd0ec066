"""Reading decisions from a Parquet table of steps, anybody's that has the columns of the seed, as `CLAIMS`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env import Seat
from bargain_env.errors import InputError

from . import records
from .claims import CLAIMS, FAULT_CODE, NO_FAULT, TEXT

BATCH_ROWS = 131_072
OPTIONAL = ("strategy", "opponent_strategy", "zopa_low", "zopa_high", "seed")
_OURS = (*OPTIONAL, "turns_remaining", "starter", "split", "schema_version")
REQUIRED = tuple(f.name for f in records.STEPS if f.name not in _OURS)
_NUMBERS = {
    "reservation_price": "reservation",
    "price_low": "price_low",
    "price_high": "price_high",
    "last_offer_price": "last_offer",
    "target_price": "price",
    "rho_train": "rho",
    "zopa_low": "zopa_low",
    "zopa_high": "zopa_high",
    "seed": "seed",
}
"""Column by name in the file and in `CLAIMS`."""
_NEEDED_NUMBERS = ("reservation_price", "price_low", "price_high")
_WORDS = {
    "role": pa.array([seat.label for seat in Seat]),
    "target_action": pa.array(["OFFER", "ACCEPT"]),
}


def read_table(path: Path) -> Iterator[tuple[pa.Table, int]]:
    """Batches of a table: `CLAIMS`, ``place`` being the number of the row from 0, and how many rows there were so far.

    Raises:
        InputError: not a Parquet file, or one without the columns of a table of steps.
    """
    with _readable(path):
        schema = pq.read_schema(path)
        missing = [name for name in REQUIRED if name not in schema.names]
        if missing:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}; is it a table of steps?")
        wanted = [name for name in schema.names if name in REQUIRED + OPTIONAL]
        done = 0
        with pq.ParquetFile(path, read_dictionary=_texts(schema)) as file:
            for group in range(file.num_row_groups):  # one at a time: each has its own dictionaries
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
                    yield _Batch(path, batch, done).table(), done + len(batch)
                    done += len(batch)


def rows_of(path: Path) -> int:
    """How many rows a table says that it has.

    Raises:
        InputError: not a Parquet file.
    """
    with _readable(path), pq.ParquetFile(path) as file:
        return file.metadata.num_rows


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a readable Parquet file ({reason}); collect again, or name another") from None


def _texts(schema: pa.Schema) -> list[str]:
    """Paths of the columns of texts, which are read as dictionaries."""
    found = []
    for name in (*_WORDS, "trajectory_id", "strategy", "opponent_strategy"):
        if name in schema.names and _is_text(schema.field(name).type):
            found.append(name)
    roles = schema.field("history_roles").type
    if (pa.types.is_list(roles) or pa.types.is_large_list(roles)) and _is_text(roles.value_type):
        found.append(f"history_roles.list.{roles.value_field.name}")
    return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


class _Batch:
    """Some rows on their way to `CLAIMS`, and what is wrong with each."""

    def __init__(self, path: Path, batch: pa.RecordBatch, first: int) -> None:
        self._path, self._batch, self._first = path, batch, first
        self._fault = np.full(len(batch), NO_FAULT, dtype=np.int8)

    def table(self) -> pa.Table:
        """All columns of `CLAIMS`."""
        n = len(self._batch)
        ids = self._text("trajectory_id")
        if ids.null_count:
            self._mark(_nulls(ids), "missing_field")
        columns = {
            "place": np.arange(self._first, self._first + n),
            "trajectory_id": ids,
            "turn": self._whole("turn"),
            "role": self._word("role"),
            "max_turns": self._whole("max_turns"),
            "accept": self._word("target_action").astype(bool),
            "success": self._flag("success"),
            "turns": np.full(n, np.nan),
            "strategy": self._text("strategy"),
            "opponent_strategy": self._text("opponent_strategy"),
            **{ours: self._number(name) for name, ours in _NUMBERS.items()},
            **self._histories(),
        }
        columns["fault"] = self._fault
        return pa.table([pa.array(columns[field.name], field.type) for field in CLAIMS], schema=CLAIMS)

    def _mark(self, rows: NDArray[np.bool_], kind: str) -> None:
        self._fault[rows & (self._fault == NO_FAULT)] = FAULT_CODE[kind]

    def _column(self, name: str, kind: pa.DataType) -> pa.Array:
        if name not in self._batch.schema.names:
            return pa.nulls(len(self._batch), kind)
        column = self._batch.column(name)
        try:
            return column if column.type == kind else column.cast(kind)
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self._path}: column {name} is {column.type}, expected {kind} ({reason})") from None

    def _text(self, name: str) -> pa.Array:
        found = self._column(name, TEXT) if self._is_dictionary(name) else self._column(name, pa.string())
        return found if found.type == TEXT else found.dictionary_encode()

    def _is_dictionary(self, name: str) -> bool:
        return name in self._batch.schema.names and pa.types.is_dictionary(self._batch.schema.field(name).type)

    def _word(self, name: str) -> NDArray[np.int8]:
        """Which of `_WORDS` it is."""
        text = self._text(name)
        if text.null_count:
            self._mark(_nulls(text), "missing_field")
        code = _codes(text, _WORDS[name])
        if (code < 0).any():
            self._mark(code < 0, "wrong_type")
        return np.maximum(code, 0)

    def _whole(self, name: str) -> NDArray[np.int64]:
        if pa.types.is_floating(self._batch.column(name).type):
            number = self._number(name, needed=True)
            broken = ~(np.trunc(number) == number) | (np.abs(number) >= 2**31)
            self._mark(broken, "wrong_type")
            return np.where(broken, 0, number).astype(np.int64)
        column = self._column(name, pa.int64())
        if column.null_count:
            self._mark(_nulls(column), "missing_field")
            column = column.fill_null(0)
        whole = column.to_numpy()
        self._mark(np.abs(whole) >= 2**31, "wrong_type")
        return whole

    def _flag(self, name: str) -> NDArray[np.bool_]:
        column = self._column(name, pa.bool_())
        if column.null_count:
            self._mark(_nulls(column), "missing_field")
            column = column.fill_null(False)
        return column.to_numpy(zero_copy_only=False)

    def _number(self, name: str, needed: bool = False) -> NDArray[np.float64]:
        """NaN where there is none; pandas writes NaN for null."""
        column = self._column(name, pa.float64())
        needed = needed or name in _NEEDED_NUMBERS
        if needed and column.null_count:
            self._mark(_nulls(column), "missing_field")
        number = _floats(column)
        self._mark(~np.isfinite(number) if needed else np.isinf(number), "not_finite")
        return number

    def _histories(self) -> dict[str, pa.ListArray]:
        roles, prices = (self._list(name) for name in ("history_roles", "history_prices"))
        length, of_prices = np.diff(roles.offsets.to_numpy()), np.diff(prices.offsets.to_numpy())
        self._mark(length != of_prices, "wrong_type")
        number = _floats(prices.values)
        self._mark(_in_lists(prices, ~np.isfinite(number)), "not_finite")
        code = _codes(roles.values, _WORDS["role"])
        self._mark(_in_lists(roles, code < 0), "wrong_type")
        return {
            "history_roles": _tail(roles.offsets.to_numpy(), code),
            "history_prices": _tail(prices.offsets.to_numpy(), number),
        }

    def _list(self, name: str) -> pa.ListArray:
        column = self._batch.column(name)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise InputError(f"{self._path}: column {name} is {column.type}, expected a list")
        if column.null_count:
            self._mark(_nulls(column), "missing_field")
        kind = pa.float64() if name == "history_prices" else TEXT
        values = column.flatten()
        try:
            if kind != TEXT:
                values = values.cast(kind)
            elif values.type != TEXT:
                values = values.cast(pa.string()).dictionary_encode()
        except pa.ArrowException:
            raise InputError(f"{self._path}: column {name} is {column.type}, expected a list of {kind}") from None
        if not column.null_count:
            starts = column.offsets.to_numpy()
            return pa.ListArray.from_arrays(pa.array((starts - starts[0]).astype(np.int32)), values)
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


def _nulls(column: pa.Array) -> NDArray[np.bool_]:
    return column.is_null().to_numpy(zero_copy_only=False)


def _floats(column: pa.DoubleArray) -> NDArray[np.float64]:
    """Null is NaN. Filling nulls copies, so that it is left where there are none."""
    return (column.fill_null(np.nan) if column.null_count else column).to_numpy(zero_copy_only=False)


def _codes(text: pa.DictionaryArray, words: pa.Array) -> NDArray[np.int8]:
    """Which of ``words`` each text is, -1 where none."""
    known = pc.index_in(text.dictionary, words).fill_null(-1).to_numpy(zero_copy_only=False)
    codes = text.indices.fill_null(-1) if text.null_count else text.indices
    return np.append(known, -1).astype(np.int8)[codes.to_numpy()]


def _in_lists(lists: pa.ListArray, marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``[N]`` which lists hold a marked value."""
    found = np.zeros(len(lists), dtype=bool)
    if marked.any():
        found[np.searchsorted(lists.offsets.to_numpy(), np.flatnonzero(marked), side="right") - 1] = True
    return found


def _tail(offsets: NDArray[np.int32], values: NDArray) -> pa.ListArray:
    """Lists of ``values`` of which only the last `records.HISTORY_LENGTH` are kept."""
    starts = np.maximum(offsets[:-1], offsets[1:] - records.HISTORY_LENGTH)
    if (starts != offsets[:-1]).any():
        kept = offsets[1:] - starts
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
        values = values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], kept)]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
