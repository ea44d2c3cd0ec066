"""Reading the seed's log of decisions (`experiments.corpus.dataset_writer`) as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from bargain_env.errors import InputError

from . import records

_PATHS = {
    "trajectory_id": ("trajectory_id",),
    "turn": ("turn",),
    "role": ("state", "role"),
    "max_turns": ("state", "max_turns"),
    "reservation_price": ("state", "reservation_price"),
    "price_low": ("state", "price_range", 0),
    "price_high": ("state", "price_range", 1),
    "last_offer_price": ("state", "last_offer_price"),
    "history": ("state", "offer_history"),
    "target_action": ("action", "type"),
    "target_price": ("action", "price"),
    "success": ("meta", "episode_outcome", "agreement_bool"),
    "rho_train": ("rho",),
    "strategy": ("agent", "strategy"),
    "zopa_low": ("meta", "zopa_low"),
    "zopa_high": ("meta", "zopa_high"),
}


def read_jsonl(path: Path) -> pa.Table:
    """The records of a log, in their order, with the columns of `records.STEPS` that a log has.

    Raises:
        InputError: a line is cut short, not JSON, or lacks a field; names the file and the line.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _PATHS if name != "history"}
    columns |= {"history_roles": [], "history_prices": []}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                _add(columns, _record(path, number, line))
    return pa.table({name: _column(path, name, values) for name, values in columns.items()})


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        raise InputError(f"{path}, line {number} is cut short or not JSON; delete the line or collect again") from None
    values = {}
    for name, keys in _PATHS.items():
        value = record
        try:
            for key in keys:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            field = ".".join(map(str, keys))
            raise InputError(f"{path}, line {number} lacks {field}; is this a log of steps?") from None
        values[name] = value
    try:
        recent = values.pop("history")[-records.HISTORY_LENGTH :]
        values["history_roles"], values["history_prices"] = [r for r, _ in recent], [float(p) for _, p in recent]
    except (TypeError, ValueError):
        raise InputError(f"{path}, line {number}: state.offer_history is not a list of [role, price]") from None
    return values


def _add(columns: dict[str, list[Any]], values: dict[str, Any]) -> None:
    for name, value in values.items():
        columns[name].append(value)


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    kind = records.STEPS.field(name).type
    try:
        return pa.array(values, kind)
    except pa.ArrowException:
        for number, value in enumerate(values, start=1):
            try:
                pa.array([value], kind)
            except pa.ArrowException:
                raise InputError(f"{path}, record {number}: {name} is {value!r}, expected {kind}") from None
        raise
