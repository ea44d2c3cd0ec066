"""Which prompts go through the model together, and which beginnings they share.

Prompts of about the same length share a micro-batch, so that little is padded; those of one ρ stand side by side, because
in the canonical prompt ρ, the turn and often the limit come first: one third of a tournament's tokens are the same keys and
values over and over. A micro-batch that does not fit into memory is halved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bargain_env.errors import InputError

Ints = NDArray[np.int64]

PASS_TOKENS = 200
"""What a pass costs before its first token, in tokens: a beginning is shared where it saves more than that."""


def micro_batches(
    prompts: Sequence[list[int]], keys: Sequence[Hashable], max_rows: int, max_tokens: int, extra: int
) -> Iterator[Ints]:
    """Rows ``[b]`` of each micro-batch, every prompt in exactly one.

    Args:
        prompts: token ids.
        keys: prompts share a beginning only with those of the same key.
        max_rows: in a micro-batch.
        max_tokens: in a micro-batch, padding and ``extra`` included; a single longer prompt still makes one.
        extra: tokens that follow each prompt.
    """
    rank = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), rank[keys[i]], prompts[i]))
    start = 0
    for end in range(1, len(order) + 1):
        full = end < len(order) and (
            end - start >= max_rows or (end + 1 - start) * (len(prompts[order[end]]) + extra) > max_tokens
        )
        if full or end == len(order):
            yield np.array(order[start:end], dtype=np.int64)
            start = end


@dataclass(frozen=True, slots=True)
class Sharing:
    """The beginning that rows of a batch share.

    Attributes:
        length: tokens of it, P ≥ 1.
        first: ``[U]`` a row with each beginning.
        which: ``[B]`` the beginning of each row.
    """

    length: int
    first: Ints
    which: Ints


def share(prompts: Sequence[list[int]], keys: Sequence[Hashable]) -> Sharing | None:
    """The length at which sharing beginnings saves most tokens; None where it saves less than a pass costs.

    At least one token of each prompt stays behind the beginning.
    """
    rank = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    most = max(0, min(len(p) for p in prompts) - 1)
    table = np.array([[rank[key], *p[:most]] for key, p in zip(keys, prompts, strict=True)])
    order = np.lexsort(table.T[::-1])
    differs = np.cumsum(table[order][1:] != table[order][:-1], axis=1) > 0
    distinct = 1 + differs.sum(axis=0)  # [P + 1] beginnings of 0, 1, … tokens; those of 0 are the keys
    lengths = np.arange(table.shape[1])
    saved = (len(prompts) - distinct) * lengths
    length = int(saved.argmax())
    if saved[length] <= PASS_TOKENS:
        return None
    group = np.concatenate([[0], np.cumsum(differs[:, length])])
    which = np.empty(len(prompts), dtype=np.int64)
    which[order] = group
    return Sharing(length, np.unique(which, return_index=True)[1], which)


class Halving:
    """Runs work over rows and halves them where memory runs out, from then on for every batch.

    Attributes:
        limit: most rows that have been found to fit; None while everything has.
    """

    def __init__(self) -> None:
        self.limit: int | None = None

    def run(self, rows: Ints, work: Callable[[Ints], None]) -> None:
        """``work`` over all ``rows``, in pieces where it must be.

        Raises:
            InputError: not even one row fits.
        """
        waiting = [rows]
        while waiting:
            piece = waiting.pop()
            if self.limit is not None and len(piece) > self.limit:
                waiting += [piece[self.limit :], piece[: self.limit]]
            elif not _fits(piece, work):
                self._halve(len(piece))
                waiting.append(piece)

    def _halve(self, rows: int) -> None:
        if rows == 1:
            raise InputError(
                "out of memory with a single prompt in the batch; use a smaller base model, bf16 or 4 bits"
            )
        if self.limit is None:
            warnings.warn(
                f"out of memory with {rows} prompts in a forward pass; going on with {rows // 2} (give a smaller batch_size "
                "or max_tokens to start there)",
                RuntimeWarning,
                stacklevel=2,
            )
        self.limit = rows // 2


def _fits(rows: Ints, work: Callable[[Ints], None]) -> bool:
    try:
        work(rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    else:
        return True
    if torch.cuda.is_available():  # outside the handler, whose traceback holds the tensors that did not fit
        torch.cuda.empty_cache()
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
