"""A steps table as flat arrays of token ids, spelled in pieces where that gives the same ids as whole prompts do.

Most tokenizers cut a prompt where its parts begin, and then its ids are those of its parts, one after another: each
distinct part is tokenised once, and a row is a gather over them. No tokenizer is believed to do so. In every stretch of the
table some rows, and one of every layout that is new, are tokenised whole too, and where a single token differs all rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from bargain_env.errors import InputError

from .prompt import SEATED, decision_prompt, decision_target, price_axis
from .slots import ENTRY, HISTORY, LAST, TARGET, Codes, Unspellable, codes, cut
from .spelling import Ints, Pieces, joined
from .tokens import encode

SPELLING = 1
"""Raised whenever the same row and tokenizer shall give other ids than before: kept ids of older numbers are not used."""
CHUNK = 20_000
"""Rows at a time."""
CHECKED = 64
"""Of so many rows one is tokenised whole too."""
FACTS = (
    "turn",
    "max_turns",
    "price_low",
    "price_high",
    "reservation_price",
    "last_offer_price",
    "history_roles",
    "history_prices",
    "target_action",
    "target_price",
)
"""Columns that a prompt and its answer are made of, ρ aside."""


class Sequences(NamedTuple):
    """Token sequences of N rows, one after another.

    Attributes:
        ids: of every token, in the narrowest unsigned type that holds the vocabulary.
        places: int8, the decimal place that each token of an answer completes; 0 for all others.
        lengths: ``[N]`` int32, tokens of each row.
        prompt_lengths: ``[N]`` int32, those before its answer.
    """

    ids: NDArray[Any]
    places: NDArray[np.int8]
    lengths: NDArray[np.int32]
    prompt_lengths: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Spelling:
    """How rows become sequences.

    Attributes:
        tokenizer: whose ids to use.
        k_history: history slots.
        max_length: longest sequence; a longer prompt loses tokens at its front, the target never does.
        prompt_format: 1, 2, 3 or 4.
    """

    tokenizer: Any
    k_history: int
    max_length: int
    prompt_format: int

    @property
    def id_type(self) -> DTypeLike:
        """Of ids."""
        return np.min_scalar_type(max(self.tokenizer.get_vocab().values()))


def used_columns(table: pa.Table, prompt_format: int) -> list[str]:
    """The columns that prompts and answers are made of, ρ aside.

    Raises:
        InputError: format 4 without the column ``role``.
    """
    if prompt_format != SEATED:
        return list(FACTS)
    if "role" not in table.column_names:
        raise InputError("prompt format 4 needs the column 'role'; make the table with `python -m experiments.prepare`")
    return [*FACTS, "role"]


def in_pieces(table: pa.Table, said: NDArray[np.float32], how: Spelling) -> Iterator[Sequences]:
    """The sequences of a table, some rows at a time.

    Args:
        table: see `texts`.
        said: ``[N]`` the ρ that prompts ask for.
        how: see `Spelling`.

    Raises:
        Unspellable: the pieces of a row have other ids than the row; what was given before may be wrong as well.
        InputError: see `whole`.
    """
    used_columns(table, how.prompt_format)
    speller = _Speller(how)
    for start in range(0, table.num_rows, CHUNK):
        yield speller.spell(table.slice(start, CHUNK), said[start : start + CHUNK])


def whole(table: pa.Table, said: NDArray[np.float32], how: Spelling) -> Iterator[Sequences]:
    """`in_pieces` by the book: every prompt is written out and tokenised, by the tokenizer's own threads.

    Raises:
        InputError: a target does not fit in ``max_length``, or format 4 without the column ``role``.
    """
    for start in range(0, table.num_rows, CHUNK):
        yield _row_by_row(table.slice(start, CHUNK), said[start : start + CHUNK], how)


def _row_by_row(table: pa.Table, said: NDArray[np.float32], how: Spelling) -> Sequences:
    tokenizer = how.tokenizer
    prompts, targets = texts(table, said, how.k_history, how.prompt_format)
    prompt_ids, target_ids = encode(tokenizer, prompts), encode(tokenizer, targets)
    end = [int(tokenizer.eos_token_id)]
    rows, prompt_lengths, places = [], [], []
    known: dict[tuple[int, ...], int] = {}
    spelled = {tuple(ids): decimal_places(tokenizer, ids, known) for ids in {tuple(t): t for t in target_ids}.values()}
    for prompt, target in zip(prompt_ids, target_ids, strict=True):
        room = how.max_length - len(target) - 1
        if room < 1:
            raise _no_room(how.max_length, len(target) + 1)
        rows.append(prompt[-room:] + target + end)
        prompt_lengths.append(min(len(prompt), room))
        places.append([0] * prompt_lengths[-1] + spelled[tuple(target)] + [0])
    return Sequences(
        np.fromiter(chain.from_iterable(rows), dtype=how.id_type),
        np.fromiter(chain.from_iterable(places), dtype=np.int8),
        np.array([len(row) for row in rows], dtype=np.int32),
        np.array(prompt_lengths, dtype=np.int32),
    )


def _no_room(max_length: int, needed: int) -> InputError:
    return InputError(f"max_length {max_length} leaves no room for a prompt before its {needed} target tokens")


class _Speller:
    """Spells stretches of one table, with the pieces and layouts that it has met so far."""

    def __init__(self, how: Spelling) -> None:
        self.how, self.pieces = how, Pieces(how.tokenizer, partial(decimal_places, known={}))
        self._id_type, self._end = how.id_type, [int(how.tokenizer.eos_token_id)]
        self._layouts: set[int] = set()
        self._order: list[str] = []

    def spell(self, table: pa.Table, said: NDArray[np.float32]) -> Sequences:
        found = codes(table, said, self.how.k_history, self.how.prompt_format)
        if not self._order:
            prompts, _ = texts(table.slice(0, 1), said[:1], self.how.k_history, self.how.prompt_format)
            self._order = list(cut(prompts[0])[0])
            if not set(self._order) <= set(found.lines):
                raise Unspellable
        made = self._gathered(*self._numbers(table, said, found))
        self._check(table, said, found.layout, made)
        return made

    def _numbers(self, table: pa.Table, said: NDArray[np.float32], found: Codes) -> tuple[Ints, Ints]:
        """``[N, P]`` the pieces of each prompt in order, and ``[N]`` the one that is its answer."""
        lines = {name: _Look(found.lines[name][:, None]) for name in self._order}
        looks = lines | {
            ENTRY: _Look(found.entries[:, :-1], found.shown[:, :-1]),
            LAST: _Look(found.entries[:, -1:], found.shown[:, -1:]),
            TARGET: _Look(found.target[:, None]),
        }
        fresh = {name: self.pieces.unknown(name, look.codes) for name, look in looks.items()}
        rows = np.unique(np.concatenate([look.rows[fresh[name]] for name, look in looks.items()]))
        written = self._written(table, said, rows)
        for name, look in looks.items():
            meant = [self._part(written[look.rows[i]], name, look.columns[i]) for i in fresh[name]]
            self.pieces.learn(name, [look.codes[i] for i in fresh[name]], meant, self._end if name == TARGET else ())
        numbers = {name: look.spread(self.pieces.numbers(name, look.codes)) for name, look in looks.items()}
        order = [part for name in self._order for part in ([name, ENTRY, LAST] if name == HISTORY else [name])]
        return np.concatenate([numbers[name] for name in order], axis=1), numbers[TARGET][:, 0]

    def _written(self, table: pa.Table, said: NDArray[np.float32], rows: Ints) -> dict[int, _Written]:
        """Prompt and answer of these rows, the prompt in parts."""
        prompts, targets = texts(table.take(rows), said[rows], self.how.k_history, self.how.prompt_format)
        found = {}
        for row, prompt, target in zip(rows.tolist(), prompts, targets, strict=True):
            lines, entries = cut(prompt)
            if list(lines) != self._order:
                raise Unspellable
            found[row] = lines, entries, target
        return found

    def _part(self, written: _Written, name: str, column: int) -> str:
        lines, entries, target = written
        if name == TARGET:
            return target
        if name not in (ENTRY, LAST):
            return lines[name]
        from_end = 1 if name == LAST else self.how.k_history - column
        if from_end > len(entries):
            raise Unspellable
        return entries[-from_end]

    def _gathered(self, prompts: Ints, targets: Ints) -> Sequences:
        """The ids of the pieces, row by row, without what ``max_length`` cuts off in front."""
        ids, places, starts, lengths = self.pieces.flat()
        prompt_lengths, target_lengths = lengths[prompts].sum(axis=1), lengths[targets]
        room = self.how.max_length - target_lengths
        if (room < 1).any():
            raise _no_room(self.how.max_length, int(target_lengths[np.argmax(room < 1)]))
        numbers = np.concatenate([prompts, targets[:, None]], axis=1).reshape(-1)
        where = joined(starts[numbers], lengths[numbers])
        surplus = np.maximum(prompt_lengths - room, 0)
        if surplus.any():
            full = prompt_lengths + target_lengths
            column = np.arange(len(where)) - np.repeat(np.cumsum(full) - full, full)
            where = where[column >= np.repeat(surplus, full)]
        prompt_lengths = prompt_lengths - surplus
        total = prompt_lengths + target_lengths
        return Sequences(
            ids[where].astype(self._id_type), places[where], total.astype(np.int32), prompt_lengths.astype(np.int32)
        )

    def _check(self, table: pa.Table, said: NDArray[np.float32], layout: Ints, made: Sequences) -> None:
        """Raise `Unspellable` unless some rows, tokenised whole, are what was made of their pieces."""
        layouts, first = np.unique(layout, return_index=True)
        new = [row for number, row in zip(layouts.tolist(), first.tolist(), strict=True) if number not in self._layouts]
        self._layouts.update(layouts.tolist())
        rows = np.unique(np.concatenate([np.arange(0, len(layout), CHECKED), np.array(new, dtype=np.int64)]))
        lengths = made.lengths.astype(np.int64)
        where = joined((np.cumsum(lengths) - lengths)[rows], lengths[rows])
        mine = Sequences(made.ids[where], made.places[where], made.lengths[rows], made.prompt_lengths[rows])
        book = _row_by_row(table.take(rows), said[rows], self.how)
        if not all(np.array_equal(getattr(mine, name), getattr(book, name)) for name in Sequences._fields):
            raise Unspellable


_Written = tuple[dict[str, str], list[str], str]


class _Look:
    """The distinct ones among ``[N, c]`` codes, of which some may not count, and one place where each stands."""

    def __init__(self, block: Ints, shown: NDArray[np.bool_] | None = None) -> None:
        self._shape = block.shape
        self._at = np.arange(block.size) if shown is None else np.flatnonzero(shown)
        distinct, first, self._inverse = np.unique(block.reshape(-1)[self._at], return_index=True, return_inverse=True)
        self.codes: list[int] = distinct.tolist()
        self.rows, self.columns = np.divmod(self._at[first], max(block.shape[1], 1))

    def spread(self, numbers: Ints) -> Ints:
        """``[N, c]`` the number of each code; 0 where none counts."""
        out = np.zeros(self._shape, dtype=np.int64)
        out.reshape(-1)[self._at] = numbers[self._inverse]
        return out


def decimal_places(tokenizer: Any, target: Sequence[int], known: dict[tuple[int, ...], int] | None = None) -> list[int]:
    """For each token of an answer the decimal place that it completes; 0 for those that write no decimal.

    ``known`` remembers the beginnings of answers, most of which begin as others do.
    """
    known = {} if known is None else known
    begun = [tuple(target[: i + 1]) for i in range(len(target))]
    for ids in begun:
        if ids not in known:
            known[ids] = min(len(tokenizer.decode(list(ids)).partition(".")[2]), 4)
    return [known[ids] for ids in begun]


def texts(table: pa.Table, rho: NDArray[np.float32], k: int, prompt_format: int) -> tuple[list[str], list[str]]:
    """Prompt and answer of every row, none of which has a degenerate price range.

    Args:
        table: columns `FACTS`, and ``role`` for format 4.
        rho: ``[N]`` what the prompts ask for.
        k: history slots.
        prompt_format: 1, 2, 3 or 4.

    Raises:
        InputError: format 4 without the column ``role``.
    """
    columns = {name: table[name].to_pylist() for name in used_columns(table, prompt_format)}
    prompts, targets = [], []
    for i in range(table.num_rows):
        row = {name: values[i] for name, values in columns.items()}
        low, high = row["price_low"], row["price_high"]
        prompts.append(
            decision_prompt(
                rho=float(rho[i]),
                turn=row["turn"],
                max_turns=row["max_turns"],
                reservation=row["reservation_price"],
                roles=row["history_roles"],
                prices=row["history_prices"],
                last_offer=row["last_offer_price"],
                low=low,
                high=high,
                k=k,
                prompt_format=prompt_format,
                seat=row.get("role"),
            )
        )
        axis = price_axis(prompt_format, low, high, row["reservation_price"], row.get("role"))
        targets.append(decision_target(row["target_action"], row["target_price"], axis))
    return prompts, targets
