"""What a prompt says, as numbers: for each of its parts a code by row, equal only where the part's text is.

Prompts have few distinct parts: some 10^4 prices, 10^4 values of ρ, a few clocks. The texts themselves come from the one
place that writes them, `hyperlora.prompt`; here is only what settles them. A table with anything unusual in it (nulls where
there should be none, prices that are no finite numbers, seats without a name) has no codes, and is spelled row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .prompt import SEATED, STATIC_FIRST, price_axis
from .spelling import SCALE, Floats, Ints, rounded

SEATS = ("buyer", "seller")
NOTHING = -(2**40)
"""Code of what is not there: padding, no offer yet, an impasse."""
HISTORY, ENTRY, LAST, TARGET = "HISTORY", "entry", "last entry", "target"
_LINE, _SPACE = re.compile(r"(?<=\n)(?=<)"), re.compile(r"(?= )")


class Unspellable(Exception):
    """These rows, or this tokenizer, are beyond pieces; whole prompts must be tokenised."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Of N rows.

    Attributes:
        lines: by marker, ``[N]`` the code of the line that it begins; of the history, of its marker alone.
        entries: ``[N, k]`` codes of the history's slots, the latest offer last.
        shown: ``[N, k]`` whether the slot has a text, be it of padding.
        target: ``[N]`` code of the answer.
        layout: ``[N]`` equal for rows that have the same parts.
    """

    lines: dict[str, Ints]
    entries: Ints
    shown: NDArray[np.bool_]
    target: Ints
    layout: Ints


def cut(prompt: str) -> tuple[dict[str, str], list[str]]:
    """The lines of a prompt by their markers, in order, and the entries of its history, which its line then lacks.

    Every part begins where a line or an entry does, which is where tokenizers split: at a marker or before a blank.
    """
    lines = {line[1 : line.index(">")]: line for line in _LINE.split(prompt)}
    marker, *entries = _SPACE.split(lines[HISTORY])
    lines[HISTORY] = marker
    return lines, entries


def codes(table: pa.Table, said: NDArray[np.float32], k: int, prompt_format: int) -> Codes:
    """The codes of a piece of a steps table without degenerate ranges.

    Args:
        table: see `hyperlora.tokenise.texts`.
        said: ``[N]`` the ρ that prompts ask for.
        k: history slots.
        prompt_format: 1, 2, 3 or 4.

    Raises:
        Unspellable: see `Unspellable`.
    """
    low, high, limit = (_floats(table, name) for name in ("price_low", "price_high", "reservation_price"))
    seat = _seats(table["role"]) if prompt_format == SEATED else np.zeros(len(low), dtype=np.int64)
    buys, sells = (price_axis(prompt_format, low, high, limit, name) for name in SEATS)
    least = buys.least
    origin, span = buys.origin, np.where(seat == 0, buys.span, sells.span)

    def share(prices: Floats, row: Ints | slice = slice(None)) -> Ints:
        with np.errstate(all="ignore"):
            return _rounded((prices - origin[row]) / span[row], least)

    last, stands = _nullable(table, "last_offer_price")
    turn, turns = _counts(table, "turn"), _counts(table, "max_turns")
    impasse = np.asarray(said, dtype=np.float64) <= -0.5  # the rule of `hyperlora.prompt.is_failure`
    asked = _rounded(said.astype(np.float64), 0.0, 100 if prompt_format == 1 else SCALE)
    entries, filled = _entries(table, k, share)
    accept, target = _answers(table, share)
    there = np.arange(k) >= k - filled[:, None]
    lines = {
        "RHO": np.where(impasse, NOTHING, asked),
        "SUCCESS": impasse.astype(np.int64),
        "TURN": (turn << 32) + turns,
        "TURNS_REMAINING": turns - turn,
        "RESERVATION_NORM": _rounded((limit - low) / (high - low), 0.0) * 2 + seat,
        "LAST_OFFER_NORM": np.where(stands, share(np.where(stands, last, origin)), NOTHING),
        "HISTORY_LEN": filled,
        HISTORY: (filled > 0).astype(np.int64) if prompt_format == STATIC_FIRST else np.zeros_like(filled),
        "INSTRUCTION": np.zeros_like(filled),
        "OUTPUT": np.zeros_like(filled),
    }
    layout = (((filled * 2 + stands) * 2 + impasse) * 2 + accept) * 2 + seat
    shown = there if prompt_format == STATIC_FIRST else np.ones_like(there)
    return Codes(lines, np.where(there, entries, NOTHING), shown, target, layout)


def _rounded(shares: Floats, least: float, scale: int = SCALE) -> Ints:
    if not np.isfinite(shares).all():
        raise Unspellable
    return rounded(np.clip(shares, least, 1.0), scale)


def _plain(values: pa.ChunkedArray) -> pa.Array:
    """One array, of the values themselves."""
    whole = pa.concat_arrays(values.chunks)
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def _floats(table: pa.Table, name: str) -> Floats:
    values, there = _nullable(table, name)
    if not there.all():
        raise Unspellable
    return values


def _nullable(table: pa.Table, name: str) -> tuple[Floats, NDArray[np.bool_]]:
    """A column of float64, and where it has values; those are finite."""
    column = _plain(table[name])
    if not pa.types.is_float64(column.type):
        raise Unspellable
    there = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(0.0).to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all():
        raise Unspellable
    return values, there


def _counts(table: pa.Table, name: str) -> Ints:
    column = _plain(table[name])
    if not pa.types.is_integer(column.type) or column.null_count:
        raise Unspellable
    values = column.to_numpy(zero_copy_only=False).astype(np.int64)
    if (values < 0).any() or (values >= 2**31).any():
        raise Unspellable
    return values


def _seats(roles: pa.ChunkedArray | pa.Array) -> Ints:
    """0 for a buyer, 1 for a seller."""
    values = _plain(roles) if isinstance(roles, pa.ChunkedArray) else roles
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise Unspellable
    found = pc.index_in(values, value_set=pa.array(SEATS, values.type))
    if found.null_count:
        raise Unspellable
    return found.to_numpy(zero_copy_only=False).astype(np.int64)


def _entries(table: pa.Table, k: int, share: Callable[..., Ints]) -> tuple[Ints, Ints]:
    """``[N, k]`` codes of the last offers, the latest last, and ``[N]`` how many of the slots hold one."""
    roles, prices = (_plain(table[name]) for name in ("history_roles", "history_prices"))
    for lists in (roles, prices):
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)) or lists.null_count:
            raise Unspellable
    counts = prices.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    if k < 1 or not np.array_equal(counts, roles.value_lengths().to_numpy(zero_copy_only=False)):
        raise Unspellable
    row = np.repeat(np.arange(len(counts)), counts)
    offers, there = _nullable(pa.table({"price": prices.flatten()}), "price")
    if not there.all():
        raise Unspellable
    codes = (share(offers, row) + SCALE) * 2 + _seats(roles.flatten())
    filled = np.minimum(counts, k)
    first = np.cumsum(counts) - k  # of the last k offers of each row, some of which are of the row before
    where = np.clip(first[:, None] + np.arange(k), 0, max(len(codes) - 1, 0))
    return (codes[where] if len(codes) else np.zeros((len(counts), k), dtype=np.int64)), filled


def _answers(table: pa.Table, share: Callable[..., Ints]) -> tuple[NDArray[np.bool_], Ints]:
    """``[N]`` whether the answer is to accept, and its code."""
    actions = _plain(table["target_action"])
    if not (pa.types.is_string(actions.type) or pa.types.is_large_string(actions.type)):
        raise Unspellable
    known = pc.index_in(actions, value_set=pa.array(["ACCEPT", "OFFER"], actions.type))
    if known.null_count:
        raise Unspellable
    accept = known.to_numpy(zero_copy_only=False) == 0
    price, there = _nullable(table, "target_price")
    if not (there | accept).all():
        raise Unspellable
    offered = np.maximum(share(price), 0)
    return accept, np.where(accept, NOTHING, offered)
