"""Reading decisions back from files that may be anybody's: logs, tables, or a folder of them.

Whatever the file, the result is a `Corpus`: the decisions as `StepRows`, grouped by trajectory id as the file has them
(whether an id is one episode is for `experiments.corpus.checks` to say), and beside them the labels that the file
claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env import Seat
from bargain_env.errors import InputError

from . import records
from .jsonl import read_jsonl
from .step_rows import StepRows

OPTIONAL = ("turns_remaining", "strategy", "opponent_strategy", "starter", "zopa_low", "zopa_high", "seed", "split")
REQUIRED = tuple(f.name for f in records.STEPS if f.name not in (*OPTIONAL, "schema_version"))
_NULLABLE = ("last_offer_price", "target_price", "rho_train")
_NAMES = ("steps.parquet", "decision_steps.parquet", "steps/*.parquet", "episodes.jsonl", "*.jsonl")


@dataclass(frozen=True, slots=True)
class Corpus:
    """N decisions and what their file claims about them; all ``[N]``, in the order of ``rows``.

    Attributes:
        files: what was read.
        rows: the decisions; equal turns of one id keep the order of the file.
        rho: label claimed, NaN where none.
        success: claimed.
        players: ``[N, 2]`` strategy of the seat that decides and of the other one, claimed row by row; None where unknown.
        history_roles: list array of the claimed history, its last `records.HISTORY_LENGTH` entries.
        history_prices: likewise.
    """

    files: list[Path]
    rows: StepRows
    rho: NDArray[np.float64]
    success: NDArray[np.bool_]
    players: NDArray[np.object_]
    history_roles: pa.ListArray
    history_prices: pa.ListArray


def read_corpus(path: Path) -> Corpus:
    """Read a JSONL log, a Parquet table of steps, or a folder that holds one of them.

    Raises:
        InputError: absent, empty, cut short, or lacking columns; names the file and, for a log, the line.
    """
    files = _files(path)
    tables = []
    for file in files:
        table = read_jsonl(file) if file.suffix != ".parquet" else _read_parquet(file)
        if not table.num_rows:
            raise InputError(f"{file} is empty; collect again, or name another input")
        tables.append(_checked(table, file))
    return _corpus(files, pa.concat_tables(tables))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path} does not exist; name a JSONL log, a Parquet file of steps, or a folder with one")
    if path.is_file():
        if path.suffix not in (".parquet", ".jsonl", ".ndjson", ".json"):
            raise InputError(f"{path} is neither .jsonl nor .parquet; rename it or name another input")
        return [path]
    for pattern in _NAMES:
        found = sorted(path.glob(pattern))
        if found:
            return found
    raise InputError(f"folder {path} holds none of {', '.join(_NAMES)}; collect into it first, or name the file")


def _read_parquet(path: Path) -> pa.Table:
    try:
        names = pq.read_schema(path).names
        return pq.read_table(path, columns=[n for n in names if n in REQUIRED + OPTIONAL])
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a readable Parquet file ({reason}); collect again, or name another") from None


def _checked(table: pa.Table, file: Path) -> pa.Table:
    """``table`` with the types of `records.STEPS`, unknown columns null; refuses what cannot be decisions at all."""
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise InputError(f"{file} lacks the columns {', '.join(missing)}; is it a table of steps?")
    fields = [records.STEPS.field(name) for name in REQUIRED + OPTIONAL]
    columns = []
    for field in fields:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if field.name in REQUIRED and field.name not in _NULLABLE and column.null_count:
            row = column.is_null().index(True).as_py()
            raise InputError(f"{file}: {field.name} is null in row {row}; mend or delete the row")
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException as error:
            raise InputError(f"{file}: column {field.name} is {column.type}, expected {field.type} ({error})") from None
    checked = pa.Table.from_arrays(columns, schema=pa.schema([f.remove_metadata() for f in fields]))
    for name, allowed in (("role", ["buyer", "seller"]), ("target_action", ["OFFER", "ACCEPT"])):
        position = pa.compute.is_in(checked[name], pa.array(allowed)).index(False).as_py()
        if position >= 0:
            value = checked[name][position].as_py()
            raise InputError(f"{file}: {name} is {value!r} in row {position}, expected {' or '.join(allowed)}")
    return checked


def _corpus(files: list[Path], table: pa.Table) -> Corpus:
    ids = table["trajectory_id"].combine_chunks().dictionary_encode()
    code = ids.indices.to_numpy()
    order = np.lexsort((table["turn"].to_numpy(), code))
    table, episode = table.take(pa.array(order)), code[order].astype(np.intp)
    names = np.array(ids.dictionary.to_pylist(), dtype=object)
    role = np.where(_text(table, "role") == Seat.BUYER.label, Seat.BUYER, Seat.SELLER).astype(np.int64)
    accept = _text(table, "target_action") == "ACCEPT"
    rows = StepRows(
        ids=names,
        strategies=_strategies(table, episode, role, len(names)),
        seeds=_seeds(table, episode, names),
        episode=episode,
        turn=table["turn"].to_numpy(),
        role=role,
        max_turns=table["max_turns"].to_numpy(),
        reservation=_floats(table, "reservation_price"),
        price_low=_floats(table, "price_low"),
        price_high=_floats(table, "price_high"),
        last_offer=_floats(table, "last_offer_price"),
        accept=accept,
        price=np.where(accept, np.nan, _floats(table, "target_price")),
        zopa_low=_floats(table, "zopa_low"),
        zopa_high=_floats(table, "zopa_high"),
    )
    success = table["success"].to_numpy().astype(bool)
    histories = (_tail(table[name].combine_chunks()) for name in ("history_roles", "history_prices"))
    players = np.stack([_text(table, "strategy"), _text(table, "opponent_strategy")], axis=1)
    return Corpus(files, rows, _floats(table, "rho_train"), success, players, *histories)


def _text(table: pa.Table, name: str) -> NDArray[np.object_]:
    return table[name].to_numpy()


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return table[name].to_numpy().astype(np.float64)


def _strategies(table: pa.Table, episode: np.ndarray, role: np.ndarray, n: int) -> NDArray[np.object_]:
    names = np.full((n, 2), None, dtype=object)
    names[episode, 1 - role] = _text(table, "opponent_strategy")
    own = _text(table, "strategy")
    known = np.flatnonzero(own != None)  # noqa: E711  (element by element)
    names[episode[known], role[known]] = own[known]
    return names


def _seeds(table: pa.Table, episode: np.ndarray, names: np.ndarray) -> NDArray[np.float64]:
    """What the id says, else the column."""
    seeds = np.full(len(names), np.nan)
    seeds[episode] = _floats(table, "seed")
    said = [records.origin(name)[0] for name in names]
    return np.array([column if seed is None else seed for seed, column in zip(said, seeds, strict=True)], dtype=float)


def _tail(lists: pa.ListArray) -> pa.ListArray:
    if not len(lists):
        return lists
    ends = lists.offsets.to_numpy()
    starts = np.maximum(ends[:-1], ends[1:] - records.HISTORY_LENGTH)
    kept = ends[1:] - starts
    offsets = np.concatenate([[0], np.cumsum(kept)])
    source = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], kept)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lists.values.take(pa.array(source)))
