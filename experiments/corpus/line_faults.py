"""What is wrong with a line of a log of decisions: one of `experiments.corpus.claims.FAULTS`."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from bargain_env import Seat

from .records import HISTORY_LENGTH

NUMBER = frozenset([int, float])
_MAYBE = NUMBER | {type(None)}
FIELDS: dict[str, tuple[frozenset[type], tuple[str | int, ...]]] = {
    "trajectory_id": (frozenset([str]), ("trajectory_id",)),
    "turn": (frozenset([int]), ("turn",)),
    "role": (frozenset([str]), ("state", "role")),
    "max_turns": (frozenset([int]), ("state", "max_turns")),
    "reservation": (NUMBER, ("state", "reservation_price")),
    "price_low": (NUMBER, ("state", "price_range", 0)),
    "price_high": (NUMBER, ("state", "price_range", 1)),
    "last_offer": (_MAYBE, ("state", "last_offer_price")),
    "accept": (frozenset([str]), ("action", "type")),
    "price": (_MAYBE, ("action", "price")),
    "success": (frozenset([bool]), ("meta", "episode_outcome", "agreement_bool")),
    "rho": (_MAYBE, ("rho",)),
    "turns": (frozenset([int]), ("meta", "episode_outcome", "num_turns")),
    "strategy": (frozenset([str, type(None)]), ("agent", "strategy")),
    "zopa_low": (_MAYBE, ("meta", "zopa_low")),
    "zopa_high": (_MAYBE, ("meta", "zopa_high")),
}
"""Types and place of each value of a record."""
WORDS = {"role": {seat.label: int(seat) for seat in Seat}, "accept": {"OFFER": 0, "ACCEPT": 1}}
LARGEST = 2**31
"""Turns are smaller than that."""
_ID = re.compile(rb'"trajectory_id"\s*:\s*"([^"\\]+)"')
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair, which no file can hold."""


def diagnosis(line: bytes) -> tuple[str, str | None]:
    """What is wrong with a line, and whose it is where it says so."""
    try:
        record, strict = orjson.loads(line), True
    except ValueError:
        try:
            record, strict = json.loads(line), False  # which takes NaN and Infinity for numbers
        except (ValueError, RecursionError):
            return "not_json", _said(line)
    kind = fault_of(record)
    if kind is None or not (strict or kind == "not_finite"):
        return "not_json", _said(line)
    name = record.get("trajectory_id") if isinstance(record, dict) else None
    return kind, name if isinstance(name, str) and name and _SURROGATE.search(name) is None else None


def _said(line: bytes) -> str | None:
    """The id in a line that is not JSON."""
    match = _ID.search(line)
    try:
        return None if match is None else match[1].decode()
    except UnicodeDecodeError:
        return None


def fault_of(record: Any) -> str | None:
    """What is wrong with a record; None if nothing is."""
    values = {}
    for name, (allowed, keys) in FIELDS.items():
        value = record
        for key in keys:
            try:
                value = value[key]
            except (KeyError, IndexError):
                return "missing_field"
            except TypeError:
                return "wrong_type"
        if isinstance(value, float) and not math.isfinite(value):
            return "not_finite"
        if type(value) not in allowed:
            return "missing_field" if value is None else "wrong_type"
        values[name] = value
    state = record["state"]
    if "offer_history" not in state:
        return "missing_field"
    fitting = all(values[name] in known for name, known in WORDS.items()) and values["trajectory_id"] != ""
    fitting &= max(abs(values["turn"]), abs(values["max_turns"])) < LARGEST
    fitting &= isinstance(state["price_range"], list) and len(state["price_range"]) == 2
    return _kind_of_history(state["offer_history"]) if fitting else "wrong_type"


def _kind_of_history(history: Any) -> str | None:
    if not isinstance(history, list):
        return "wrong_type"
    for entry in history[-HISTORY_LENGTH:]:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[1]) not in NUMBER:
            return "wrong_type"
        if not math.isfinite(entry[1]):
            return "not_finite"
        if not isinstance(entry[0], str) or entry[0] not in WORDS["role"]:
            return "wrong_type"
    return None
