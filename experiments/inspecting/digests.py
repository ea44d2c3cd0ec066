"""64-bit digests of rows, to find equal ones among many without keeping them.

Two different rows share a digest with chance 2^-64, so among 10⁷ games one in 400,000 data sets has a false pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.corpus.hashing import mixed

Digests = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def distinct(digests: Digests) -> Digests:
    """The different ones, in order. By sorting: `numpy.unique` hashes integers, forty times slower where millions differ."""
    inner = np.sort(digests)
    return inner[np.concatenate([[True], inner[1:] != inner[:-1]])] if len(inner) else inner


def digest(columns: Sequence[ArrayLike]) -> Digests:
    """``[n]`` one digest a row of ``columns``, each ``[n]`` numbers; all NaN are alike, and so are 0 and -0.

    Columns are folded in one after another, each with `experiments.corpus.hashing.mixed`.
    """
    state: Digests | None = None
    for column in columns:
        values = np.asarray(column, dtype=np.float64) + 0.0
        bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)
        state = mixed(bits + _GOLDEN if state is None else (state ^ bits) + _GOLDEN)
    if state is None:
        raise ValueError("no columns to digest")
    return state
