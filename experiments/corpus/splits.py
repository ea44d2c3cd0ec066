"""Which episodes train, which evaluate, which test: by episode, stratified by outcome.

Episodes are put in the order (stratum, hash of seed and id) and taken from it at even distances, so every stratum (an
impasse, or a tenth of ρ) is represented in proportion, and the order of the rows in the input makes no difference.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO

TRAIN, EVAL, TEST = "train", "eval", "test"


def assign_splits(
    ids: NDArray[np.object_], rho: NDArray[np.float64], *, seed: int, eval_share: float, test_share: float
) -> NDArray[np.object_]:
    """``[E]`` split of each episode: a pure function of the set of (id, ρ) and the seed.

    Args:
        ids: ``[E]`` trajectory ids, all different.
        rho: ``[E]`` labels, -1 at an impasse.
        seed: shuffles within a stratum.
        eval_share: share of episodes in ``eval``, rounded up.
        test_share: share in ``test``, rounded up.
    """
    stratum = np.where(rho == IMPASSE_RHO, -1, np.clip(np.floor(rho * 10), 0, 9))
    draw = np.array([hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in ids], dtype="S8")
    order = np.lexsort((draw.view(">u8") if len(draw) else draw, stratum))
    split = np.full(len(ids), TRAIN, dtype=object)
    rest = order[~_every(len(order), eval_share)]
    split[order[_every(len(order), eval_share)]] = EVAL
    split[rest[_every(len(rest), test_share / (1 - eval_share))]] = TEST
    return split


def _every(n: int, share: float) -> NDArray[np.bool_]:
    """``[n]`` true at ``ceil(n * share)`` evenly spaced places, the first included."""
    reached = np.ceil(np.arange(n + 1) * share - 1e-9)
    return np.diff(reached) > 0
