"""Exact rounding of arrays, and a table of pieces of text whose token ids are known."""

from __future__ import annotations

from array import array
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
    """Token ids of every piece met so far; number 0 is the empty one.

    A piece is known by its slot and a code: equal codes in one slot mean equal texts.

    Args:
        tokenizer: whose ids to keep.
        places: of the ids of an answer, the decimal place that each completes.
    """

    def __init__(self, tokenizer: Any, places: Callable[[Any, Sequence[int]], list[int]]) -> None:
        self._tokenizer, self._of_answer = tokenizer, places
        self._numbers: dict[tuple[str, int], int] = {}
        self._ids, self._places, self._lengths = array("i"), array("b"), array("q", [0])

    def unknown(self, slot: str, codes: Sequence[int]) -> list[int]:
        """Where in ``codes`` those are that have no piece yet."""
        return [i for i, code in enumerate(codes) if (slot, code) not in self._numbers]

    def learn(self, slot: str, codes: Sequence[int], texts: list[str], end: Sequence[int] = ()) -> None:
        """Tokenise the pieces of new codes; with ``end``, ids to put behind them, they are whole answers."""
        for code, ids in zip(codes, encode(self._tokenizer, texts), strict=True):
            self._numbers[slot, code] = len(self._lengths)
            places = self._of_answer(self._tokenizer, ids) if end else [0] * len(ids)
            self._ids.extend((*ids, *end))
            self._places.extend((*places, *(0 for _ in end)))
            self._lengths.append(len(ids) + len(end))

    def numbers(self, slot: str, codes: Sequence[int]) -> Ints:
        """``[M]`` the number of the piece of each code, all of them known."""
        return np.array([self._numbers[slot, code] for code in codes], dtype=np.int64)

    def flat(self) -> tuple[NDArray[np.int32], NDArray[np.int8], Ints, Ints]:
        """Ids and places of all pieces, and by number where each begins and how long it is."""
        lengths = np.array(self._lengths, dtype=np.int64)
        ids, places = np.array(self._ids, dtype=np.int32), np.array(self._places, dtype=np.int8)
        return ids, places, np.cumsum(lengths) - lengths, lengths


def joined(starts: Ints, lengths: Ints) -> Ints:
    """Where the elements of runs lie that begin at ``starts`` and are ``lengths`` long, one run after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
