"""Reading lines of a log of decisions: the seed's (`experiments.corpus.dataset_writer`) and whoever writes its fields.

A whole batch of lines is converted at once; only where that fails is each line looked at. What is wrong with a line is one
of `experiments.corpus.claims.FAULTS`, and its number is never lost.
"""

from __future__ import annotations

import contextlib
import gc
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from .claims import CLAIMS, FAULT_CODE, NO_FAULT, TEXT
from .line_faults import FIELDS, LARGEST, NUMBER, WORDS, diagnosis, fault_of
from .records import HISTORY_LENGTH

BATCH_BYTES = 1 << 20
"""Of a block of lines."""
_FLOATS = ("reservation", "price_low", "price_high", "last_offer", "price", "rho", "turns", "zopa_low", "zopa_high")


class _BadValueError(ValueError):
    """A value of the wrong kind."""


def read_lines(lines: list[bytes], is_beginning: bool) -> pa.Table:
    """Some lines of a log: `CLAIMS`, ``place`` being the number of the line from 1.

    Blank lines are no records; they count as lines.

    Args:
        lines: at least one.
        is_beginning: whether the log begins with them.
    """
    if is_beginning:
        lines = [lines[0].removeprefix(b"\xef\xbb\xbf"), *lines[1:]]  # the mark that some editors begin a file with
    with _no_collections():
        return _table(lines, 1)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Records are trees: looking for cycles in them is a fifth of the time and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _table(lines: list[bytes], first: int) -> pa.Table:
    bad, numbers, records = [], [], _Records()
    for number, line in enumerate(lines, start=first):
        try:
            records.add(orjson.loads(line))
            numbers.append(number)
        except (ValueError, KeyError, TypeError, IndexError):
            if not line.isspace():
                bad.append(number)
    try:
        table = records.table(numbers)
    except _BadValueError:
        sound = [number for number in numbers if fault_of(orjson.loads(lines[number - first])) is None]
        bad = sorted({*bad, *numbers}.difference(sound))
        table = _records(lines[number - first] for number in sound).table(sound)
    if not bad:
        return table
    faulty = _faulty(bad, [lines[number - first] for number in bad])
    return pa.concat_tables([table, faulty]).unify_dictionaries().sort_by("place")


class _Records:
    """The values of many records. None of their lists is kept: Python would look through them again and again."""

    def __init__(self) -> None:
        self._values: list[tuple[Any, ...]] = []
        self._offers: list[Any] = []
        self._ends = [0]

    def add(self, record: Any) -> None:
        """Take the values of one record, in the order of `FIELDS`.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it has not the form of a step; nothing is taken.
        """
        state, action, meta = record["state"], record["action"], record["meta"]
        outcome = meta["episode_outcome"]
        low, high = state["price_range"]
        values = (
            record["trajectory_id"],
            record["turn"],
            state["role"],
            state["max_turns"],
            state["reservation_price"],
            low,
            high,
            state["last_offer_price"],
            action["type"],
            action["price"],
            outcome["agreement_bool"],
            record["rho"],
            outcome["num_turns"],
            record["agent"]["strategy"],
            meta["zopa_low"],
            meta["zopa_high"],
        )
        history, offers, end = state["offer_history"][-HISTORY_LENGTH:], self._offers, self._ends[-1]
        try:
            offers.extend(chain.from_iterable(history))
        except TypeError:
            del offers[end:]
            raise
        if len(offers) != end + 2 * len(history) or type(history) is not list:
            del offers[end:]
            raise ValueError("an offer is not a role and a price")
        self._ends.append(len(offers))
        self._values.append(values)

    def table(self, places: list[int]) -> pa.Table:
        """`CLAIMS` of the records, at these places.

        Raises:
            _BadValueError: a value is of the wrong kind.
        """
        if not places:
            return CLAIMS.empty_table()
        given = dict(zip(FIELDS, zip(*self._values, strict=True), strict=True))
        types = {name: set(map(type, values)) for name, values in given.items()}
        _require(all(types[name] <= allowed for name, (allowed, _) in FIELDS.items()))
        _require("" not in given["trajectory_id"])
        columns: dict[str, Any] = {"place": np.array(places), "fault": np.full(len(places), NO_FAULT, np.int8)}
        columns["role"], columns["accept"] = (_coded(name, given[name]) for name in ("role", "accept"))
        columns["accept"] = columns["accept"].astype(bool)
        columns["success"] = np.array(given["success"])
        for name in _FLOATS:
            columns[name] = _floats(given[name], types[name])
        for name in ("turn", "max_turns"):
            _require(max(map(abs, given[name])) < LARGEST)
            columns[name] = np.array(given[name], dtype=np.int64)
        columns["history_roles"], columns["history_prices"] = self._histories()
        for name in ("trajectory_id", "strategy"):
            columns[name] = pa.array(given[name], pa.string()).dictionary_encode()
        columns["opponent_strategy"] = pa.nulls(len(places), TEXT)
        columns["seed"] = np.full(len(places), np.nan)
        return pa.table([pa.array(columns[field.name], field.type) for field in CLAIMS], schema=CLAIMS)

    def _histories(self) -> tuple[pa.Array, pa.Array]:
        prices = self._offers[1::2]
        types = set(map(type, prices))
        _require(types <= NUMBER)
        offsets = pa.array(np.array(self._ends) // 2, pa.int32())
        return (
            pa.ListArray.from_arrays(offsets, pa.array(_coded("role", self._offers[::2]))),
            pa.ListArray.from_arrays(offsets, pa.array(_floats(prices, types))),
        )


def _records(lines: Iterable[bytes]) -> _Records:
    records = _Records()
    for line in lines:
        records.add(orjson.loads(line))
    return records


def _require(true: bool) -> None:
    if not true:
        raise _BadValueError


def _coded(name: str, words: Sequence[Any]) -> NDArray[np.int8]:
    """Which of `WORDS` each is."""
    try:
        return np.frombuffer(bytes(map(WORDS[name].__getitem__, words)), dtype=np.int8)
    except (KeyError, TypeError):
        raise _BadValueError from None


def _floats(values: Sequence[Any], types: set[type]) -> NDArray[np.float64]:
    """Numbers; None is NaN."""
    if type(None) in types:
        return np.array(values, dtype=np.float64)
    return np.frombuffer(array("d", values), dtype=np.float64)


def _faulty(numbers: list[int], lines: list[bytes]) -> pa.Table:
    """Rows that hold the place, the fault and, where the line says so, the id."""
    found = [diagnosis(line) for line in lines]
    columns = {
        "place": pa.array(numbers, pa.int64()),
        "fault": pa.array([FAULT_CODE[kind] for kind, _ in found], pa.int8()),
        "trajectory_id": pa.array([name for _, name in found], pa.string()).dictionary_encode(),
    }
    return pa.table([columns.get(field.name, _nothing(field.type, len(lines))) for field in CLAIMS], schema=CLAIMS)


def _nothing(kind: pa.DataType, n: int) -> pa.Array:
    """``n`` values that mean nothing."""
    if pa.types.is_list(kind):
        return pa.array([[]] * n, kind)
    return pa.nulls(n, kind) if kind == TEXT else pa.array(np.zeros(n, dtype=kind.to_pandas_dtype()))
