"""Prompts spelled in pieces: each distinct piece is tokenised once, and a row is a gather over the pieces.

A prompt is a line for each fact, and there are few facts: some 10^4 prices, 10^4 values of ρ, a few clocks. So its ids are
those of its pieces one after another, for every tokenizer that never joins a piece to its neighbour. Nothing here checks
that it does not: whoever uses these pieces has to compare some rows with the same rows spelled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tokens import encode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCALE = 10_000
"""Prompts say prices and ρ to four decimals."""
_SPLIT = 2.0**27 + 1.0


def rounded(shares: Floats, scale: int = SCALE) -> Ints:
    """``shares * scale`` to the nearest integer as Python's ``f"{x:.4f}"`` rounds: by the exact value, ties to even.

    The product of floats is rounded itself, so one that lies a hair beside a tie may look like one. Its error, which
    Dekker's product gives exactly (T. J. Dekker, "A floating-point technique for extending the available precision",
    Numerische Mathematik 18, 1971), says on which side.

    Args:
        shares: finite numbers in [-1, 1].
        scale: a power of ten up to 10^4.
    """
    product = shares * scale
    high = _SPLIT * shares
    high = high - (high - shares)
    error = (high * scale - product) + (shares - high) * scale
    below = np.floor(product)
    beside = (product == below + 0.5) & (error != 0.0)  # not product - below, which is rounded where product is small
    return np.where(beside, below + (error > 0.0), np.rint(product)).astype(np.int64)


class Pieces:
    """Token ids of every piece met so far; number 0 is the empty one."""

    def __init__(self, tokenizer: Any, places: Callable[[Sequence[int]], list[int]] | None = None) -> None:
        self._tokenizer, self._places = tokenizer, places
        self._numbers: dict[tuple[str, Any], int] = {}
        self.texts: list[str] = [""]
        self._rows: list[list[int]] = [[]]
        self._marks: list[list[int]] = [[]]
        self._flat: tuple[NDArray[np.int32], NDArray[np.int8], Ints, Ints] | None = None

    def numbers(self, slot: str, codes: Ints, text: Callable[[int], str], end: Sequence[int] = ()) -> Ints:
        """``[M]`` the piece of each entry.

        Args:
            slot: what kind of piece; the same code means another text in another slot.
            codes: ``[M]``, equal only for entries with one text.
            text: of an entry, by its place in ``codes``; asked once for each code that is new.
            end: ids behind the text's own.
        """
        distinct, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        keys = [(slot, code) for code in distinct.tolist()]
        fresh = [(key, place) for key, place in zip(keys, first.tolist(), strict=True) if key not in self._numbers]
        texts = [text(place) for _, place in fresh]
        for (key, _), piece, ids in zip(fresh, texts, encode(self._tokenizer, texts), strict=True):
            self._numbers[key] = len(self.texts)
            self.texts.append(piece)
            self._rows.append([*ids, *end])
            marks = self._places(ids) if self._places and end else [0] * len(ids)
            self._marks.append([*marks, *(0 for _ in end)])
            self._flat = None
        return np.array([self._numbers[key] for key in keys], dtype=np.int64)[inverse.reshape(-1)]

    def flat(self) -> tuple[NDArray[np.int32], NDArray[np.int8], Ints, Ints]:
        """Ids and places of all pieces, and where each begins and how long it is."""
        if self._flat is None:
            lengths = np.array([len(row) for row in self._rows], dtype=np.int64)
            ids = np.array([i for row in self._rows for i in row], dtype=np.int32)
            marks = np.array([i for row in self._marks for i in row], dtype=np.int8)
            self._flat = ids, marks, np.cumsum(lengths) - lengths, lengths
        return self._flat


def joined(starts: Ints, lengths: Ints) -> Ints:
    """Where the elements of runs lie that begin at ``starts`` and are ``lengths`` long, one run after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
