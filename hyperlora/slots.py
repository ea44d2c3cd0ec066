"""What a prompt says, as numbers: for each of its parts a code by row, equal only where the part's text is.

Prompts have few distinct parts: some 10^4 prices, 10^4 values of ρ, a few clocks. The texts themselves come from the one
place that writes them, `hyperlora.prompt`; here is only what settles them. A table with anything unusual in it (nulls where
there should be none, prices that are no finite numbers, seats without a name) has no codes, and is spelled row by row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .prompt import CONCEDED, FROM_SEAT, STATIC_FIRST, Axis, answer_axis, price_axis
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
        prompt_format: one of `hyperlora.prompt.PROMPT_FORMATS`.

    Raises:
        Unspellable: see `Unspellable`.
    """
    low, high, limit = (_floats(table, name) for name in ("price_low", "price_high", "reservation_price"))
    seat = _seats(table["role"]) if prompt_format in FROM_SEAT else np.zeros(len(low), dtype=np.int64)
    history = _History.of(table, k)
    range_and_limit = low, high, limit
    axis = _either(seat, *(price_axis(prompt_format, *range_and_limit, name) for name in SEATS))
    latest = history.latest(seat)
    answers = _either(seat, *(answer_axis(prompt_format, *range_and_limit, name, latest) for name in SEATS))
    last, stands = _nullable(table, "last_offer_price")
    turn, turns = _counts(table, "turn"), _counts(table, "max_turns")
    impasse = np.asarray(said, dtype=np.float64) <= -0.5  # the rule of `hyperlora.prompt.is_failure`
    asked = _rounded(said.astype(np.float64), 0.0, 100 if prompt_format == 1 else SCALE)
    told = _told(axis, history.prices, history.rows)
    if prompt_format == CONCEDED:
        told = _conceded(history, told, axis, seat)
    entries, filled = history.last(told, k)
    accept, target = _answers(table, answers)
    there = np.arange(k) >= k - filled[:, None]
    lines = {
        "RHO": np.where(impasse, NOTHING, asked),
        "SUCCESS": impasse.astype(np.int64),
        "TURN": (turn << 32) + turns,
        "TURNS_REMAINING": turns - turn,
        "RESERVATION_NORM": _rounded((limit - low) / (high - low), 0.0) * 2 + seat,
        "LAST_OFFER_NORM": np.where(stands, _told(axis, np.where(stands, last, axis.origin)), NOTHING),
        "HISTORY_LEN": filled,
        HISTORY: (filled > 0).astype(np.int64) if prompt_format == STATIC_FIRST else np.zeros_like(filled),
        "INSTRUCTION": np.zeros_like(filled),
        "OUTPUT": np.zeros_like(filled),
    }
    layout = (((filled * 2 + stands) * 2 + impasse) * 2 + accept) * 2 + seat
    shown = there if prompt_format == STATIC_FIRST else np.ones_like(there)
    return Codes(lines, np.where(there, entries, NOTHING), shown, target, layout)


def _either(seat: Ints, buys: Axis, sells: Axis) -> Axis:
    """The axes of N rows, each of its own seat."""
    return Axis(np.where(seat == 0, buys.origin, sells.origin), np.where(seat == 0, buys.span, sells.span), buys.least)


def _told(axis: Axis, prices: Floats, row: Ints | slice = slice(None)) -> Ints:
    """``[M]`` codes of prices that rows tell; of the rows one after another by default."""
    with np.errstate(all="ignore"):
        return _rounded((prices - axis.origin[row]) / axis.span[row], axis.least)


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


@dataclass(frozen=True, slots=True)
class _History:
    """The offers of all rows, one row after another.

    Attributes:
        counts: ``[N]`` offers of each row.
        rows: ``[M]`` row of each offer.
        seats: ``[M]`` whose it is, as `_seats`.
        prices: ``[M]`` currency units.
    """

    counts: Ints
    rows: Ints
    seats: Ints
    prices: Floats

    @classmethod
    def of(cls, table: pa.Table, k: int) -> _History:
        roles, prices = (_plain(table[name]) for name in ("history_roles", "history_prices"))
        for lists in (roles, prices):
            if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)) or lists.null_count:
                raise Unspellable
        counts = prices.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        if k < 1 or not np.array_equal(counts, roles.value_lengths().to_numpy(zero_copy_only=False)):
            raise Unspellable
        offers, there = _nullable(pa.table({"price": prices.flatten()}), "price")
        if not there.all():
            raise Unspellable
        return cls(counts, np.repeat(np.arange(len(counts)), counts), _seats(roles.flatten()), offers)

    def latest(self, seat: Ints) -> Floats:
        """``[N]`` the latest offer of the seat of each row, NaN where it has made none."""
        own = np.flatnonzero(self.seats == seat[self.rows])
        found = np.full(len(self.counts), np.nan)
        found[self.rows[own]] = self.prices[own]  # the last assignment to a row stays
        return found

    def last(self, told: Ints, k: int) -> tuple[Ints, Ints]:
        """``[N, k]`` codes of the last offers, the latest last, and ``[N]`` how many of the slots hold one.

        ``told`` ``[M]`` is the number that each offer is told as.
        """
        codes = (told + SCALE) * 2 + self.seats
        first = np.cumsum(self.counts) - k  # of the last k offers of each row, some of which are of the row before
        where = np.clip(first[:, None] + np.arange(k), 0, max(len(codes) - 1, 0))
        filled = np.minimum(self.counts, k)
        return (codes[where] if len(codes) else np.zeros((len(filled), k), dtype=np.int64)), filled


def _conceded(history: _History, told: Ints, axis: Axis, seat: Ints) -> Ints:
    """``told`` with what was given up in the place of offers that their seat has followed up.

    Args:
        history: M offers of N rows.
        told: ``[M]`` their codes.
        axis: of the N rows.
        seat: ``[N]`` who decides.
    """
    told = told.copy()
    for side in range(len(SEATS)):
        offers = np.flatnonzero(history.seats == side)
        here, following = offers[:-1], offers[1:]
        same = history.rows[here] == history.rows[following]
        here, following = here[same], following[same]
        row = history.rows[here]
        toward = np.where(seat[row] == side, -axis.span[row], axis.span[row])
        given = Axis(np.zeros(len(row)), toward, axis.least)
        told[here] = _told(given, history.prices[following] - history.prices[here])
    return told


def _answers(table: pa.Table, axis: Axis) -> tuple[NDArray[np.bool_], Ints]:
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
    offered = np.maximum(_told(axis, price), 0)
    return accept, np.where(accept, NOTHING, offered)
