"""Readings of a row of past offers, ``[b, n]``, oldest first, NaN where a turn was wasted."""

from __future__ import annotations

import numpy as np

from bargain_env.policy import Floats, Ints


def carried(offers: Floats) -> Floats:
    """``[b, n]`` the latest offer as of each turn: a wasted turn repeats the one before; NaN before the first."""
    seen = np.where(np.isnan(offers), 0, np.arange(offers.shape[1]))
    return np.take_along_axis(offers, np.maximum.accumulate(seen, axis=1), axis=1)


def latest(offers: Floats) -> Floats:
    """``[b]`` the last offer; NaN where there is none."""
    return carried(offers)[:, -1] if offers.shape[1] else np.full(len(offers), np.nan)


def count(offers: Floats) -> Ints:
    """``[b]`` how many offers there are."""
    return (~np.isnan(offers)).sum(axis=1)


def distinct(offers: Floats) -> Ints:
    """``[b]`` how many different offers there are."""
    ordered = np.sort(offers, axis=1)  # NaN last, so no comparison with it counts
    return (np.diff(ordered, axis=1) > 0).sum(axis=1) + (count(offers) > 0)


def mean(offers: Floats) -> Floats:
    """``[b]`` their mean; NaN where there is none."""
    n = count(offers)
    return np.where(n > 0, np.nansum(offers, axis=1) / np.maximum(n, 1), np.nan)
