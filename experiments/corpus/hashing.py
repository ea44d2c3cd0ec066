"""64-bit hashes of texts, a column at a time: which spill file an id goes to, and the order of a draw.

Not cryptographic. Each word of eight bytes is mixed in by the finalizer of SplitMix64: G. L. Steele, D. Lea, C. H. Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16 (variant 13 of Stafford).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 8


def mixed(words: Words) -> Words:
    """A bijection of 64 bits that leaves no pattern: the output function of SplitMix64, ``[...]`` to ``[...]``."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def text_hashes(texts: pa.Array, salt: int = 0) -> Words:
    """``[N]`` hash of each text and ``salt``; nulls hash as the empty text does.

    Args:
        texts: ``[N]`` strings, or a dictionary of them.
        salt: any whole number; another salt gives unrelated hashes.
    """
    if isinstance(texts, pa.DictionaryArray):
        own = text_hashes(texts.dictionary, salt)
        codes = texts.indices.fill_null(0).to_numpy()
        unknown = texts.indices.is_null().to_numpy(zero_copy_only=False)
        return np.where(unknown, text_hashes(pa.array([""]), salt), own[codes]) if len(own) else np.resize(own, 0)
    texts = texts.cast(pa.large_string()).fill_null("")
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    padded = np.concatenate([np.frombuffer(data or b"", np.uint8)[: offsets[-1]], np.zeros(_WORD, np.uint8)])
    words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))  # the word from each byte on
    start, left = offsets[:-1], np.diff(offsets)
    start_value = np.uint64((salt * _GOLDEN + 1) % 2**64)
    found = mixed(start_value ^ left.astype(np.uint64) * np.uint64(_GOLDEN))
    rows = np.flatnonzero(left > 0)
    done = 0
    while len(rows):
        word = words[start[rows] + done]
        cut = np.maximum(_WORD - (left[rows] - done), 0).astype(np.uint64) * np.uint64(8)
        word &= np.uint64(2**64 - 1) >> cut
        found[rows] = mixed((found[rows] ^ word) + np.uint64(_GOLDEN))
        done += _WORD
        rows = rows[left[rows] > done]
    return found
