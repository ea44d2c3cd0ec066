"""Which preset each game comes from: the one that draws the very same limits for its seed and id.

No manifest is asked, so this holds after any number of conversions, and it shows limits that were changed on the way.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

import bargain_env
from bargain_env import PRESETS
from experiments.corpus.records import origin

Floats = NDArray[np.float64]

_ROUNDING = 0.0051
"""Limits that differ by less were rounded differently."""
_LISTS = [order for length in range(1, len(PRESETS) + 1) for order in permutations(PRESETS, length)]
"""What ``experiments.collect --scenario`` may have been, the simplest first."""


def named(ids: list[str], buyer_max: Floats, seller_min: Floats) -> NDArray[np.object_]:
    """``[B]`` the preset of each game; "" where none draws these limits, None where the id tells no seed.

    Args:
        ids: trajectory ids.
        buyer_max: ``[B]``.
        seller_min: ``[B]``.
    """
    found = np.full(len(ids), None, dtype=object)
    origins = [origin(name) for name in ids]
    known = np.array([seed is not None for seed, _ in origins], dtype=bool)
    runs = np.array([name.rpartition("-")[0] for name in ids], dtype=object)
    for run in dict.fromkeys(runs[known].tolist()):
        rows = np.flatnonzero(runs == run)
        numbers = np.array([origins[k][1] for k in rows], dtype=np.int64)
        seed = int(origins[rows[0]][0] or 0)
        found[rows] = _of_run(seed, numbers, buyer_max[rows], seller_min[rows])
    return found


def _of_run(seed: int, numbers: NDArray[np.int64], buyer_max: Floats, seller_min: Floats) -> NDArray[np.object_]:
    """``[B]`` the list of presets that explains most games, dealt to them as `experiments.collect` deals it."""
    fits = {}
    for name in PRESETS:
        games = bargain_env.sample(name, seed=seed, ids=numbers)
        off = np.maximum(np.abs(games.buyer_max - buyer_max), np.abs(games.seller_min - seller_min))
        fits[name] = off < _ROUNDING
    best, most = np.full(len(numbers), "", dtype=object), 0
    for order in _LISTS:
        turn = numbers // 2 % len(order)
        right = np.select([turn == k for k in range(len(order))], [fits[name] for name in order], False)
        if right.sum() > most:
            best = np.where(right, np.array(order, dtype=object)[turn], "")
            most = int(right.sum())
    return best
