"""Readings of past offers, ``[n, b]``: a row a turn, oldest first, NaN where a turn was wasted or before the game."""

from __future__ import annotations

from functools import reduce

import numpy as np

from bargain_env.policy import Bools, Floats, Ints


def carried(offers: Floats) -> Floats:
    """``[n, b]`` the latest offer as of each turn: a wasted turn repeats the one before; NaN before the first."""
    missing = np.isnan(offers)
    if not missing.any():
        return offers
    filled = offers.copy()
    for turn in range(1, len(filled)):
        np.copyto(filled[turn], filled[turn - 1], where=missing[turn])
    return filled


def latest(offers: Floats) -> Floats:
    """``[b]`` the last offer; NaN where there is none."""
    if not len(offers):
        return np.full(offers.shape[1], np.nan)
    found = offers[-1]
    for earlier in offers[-2::-1]:
        missing = np.isnan(found)
        if not missing.any():
            break
        found = np.where(missing, earlier, found)
    return found


def total(parts: Floats) -> Floats:
    """The sum over the first axis, in order; NumPy sums single numbers in another order, with another last bit."""
    if parts.ndim > 1 and parts[:1].size > 1:
        return np.add.reduce(parts, axis=0)
    return reduce(np.add, parts, np.zeros(parts.shape[1:]))


def made(offers: Floats) -> Bools:
    """``[n, b]`` where an offer was made."""
    return offers == offers


def count(offers: Floats) -> Ints:
    """``[b]`` how many offers there are."""
    return np.add.reduce(made(offers), axis=0, dtype=np.int64)


def distinct(offers: Floats) -> Ints:
    """``[b]`` how many different offers there are."""
    ordered = np.sort(offers, axis=0)  # NaN last, so no comparison with it counts
    rises = np.add.reduce(ordered[1:] > ordered[:-1], axis=0, dtype=np.int64)
    return rises + (ordered[0] == ordered[0]) if len(ordered) else rises


def mean(offers: Floats) -> Floats:
    """``[b]`` their mean; NaN where there is none."""
    n = count(offers)
    return np.where(n > 0, total(np.where(made(offers), offers, 0.0)) / np.maximum(n, 1), np.nan)
