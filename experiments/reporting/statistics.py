"""The few statistics that tournaments need: rank correlation, a line, intervals for rates and clustered means.

Games against many opponents in one scenario share that scenario, so they are not independent. Intervals therefore
resample whole scenarios (clusters): draw G scenarios with replacement, add up what happened in them, form the ratio,
and repeat (Efron and Tibshirani 1993, chapters 8 and 13: percentile intervals). The draws are a pure function of the
seed, so every mean of one tournament is resampled with the same scenarios and differences between agents stay paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bargain_env import rng
from bargain_env.rng import Stream

Floats = NDArray[np.float64]

DRAWS = 1000
LEVEL = 0.95
_CHUNK = 2_000_000
"""Resampled entries held in memory at a time."""


def ranks(values: ArrayLike) -> Floats:
    """Ranks from 1 of ``[n]`` values; equal values share the mean of their ranks."""
    x = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Correlation Σ(x-x̄)(y-ȳ) / √(Σ(x-x̄)² Σ(y-ȳ)²) of two ``[n]`` arrays; NaN where either is constant or n < 2."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation: `pearson` of the average `ranks`; NaN where either is constant or n < 2."""
    return pearson(ranks(x), ranks(y))


def wilson_interval(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Interval of a rate: (p + z²/2n ± z√(p(1-p)/n + z²/4n²)) / (1 + z²/n), Wilson 1927; NaN without trials."""
    if n == 0:
        return math.nan, math.nan
    p, zz = successes / n, z * z / n
    centre, half = p + zz / 2, z * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, (centre - half) / (1 + zz)), min(1.0, (centre + half) / (1 + zz))


def resampled_sums(columns: ArrayLike, *, seed: int, draws: int = DRAWS) -> Floats:
    """Column sums over clusters drawn with replacement.

    Args:
        columns: ``[G, C]`` what each of G clusters adds to each of C sums.
        seed: run seed; the clusters drawn depend on it and on G alone.
        draws: number of resamples.

    Returns:
        ``[draws, C]``.
    """
    values = np.asarray(columns, dtype=np.float64)
    return np.concatenate([counts @ values for counts in _resample(len(values), seed, draws)])


def _resample(n: int, seed: int, draws: int) -> Iterator[Floats]:
    """How often each of ``n`` clusters occurs in each draw, ``[some draws, n]`` at a time."""
    step = max(1, _CHUNK // n)
    for first in range(0, draws, step):
        ids = np.arange(first, min(first + step, draws))
        picked = (rng.uniform(seed, ids, stream=Stream.PAIRING, n=n) * n).astype(np.intp)
        flat = (picked + n * np.arange(len(ids))[:, None]).ravel()
        yield np.bincount(flat, minlength=n * len(ids)).reshape(len(ids), n).astype(np.float64)


def percentile_interval(samples: ArrayLike, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Bounds of the middle ``level`` of ``[draws, C]`` samples, each ``[C]``; NaN samples are left out."""
    x = np.asarray(samples, dtype=np.float64)
    low, high = np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)
    some = ~np.isnan(x).all(axis=0)
    tail = 50.0 * (1.0 - level)
    if some.any():
        low[some], high[some] = np.nanpercentile(x[:, some], [tail, 100.0 - tail], axis=0)
    return low, high


def ratio_intervals(
    numerator: ArrayLike, denominator: ArrayLike, *, seed: int, draws: int = DRAWS, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """Intervals of Σ numerator / Σ denominator with clusters resampled.

    Args:
        numerator: ``[G, C]``, for example the sum of utilities in each scenario.
        denominator: ``[G, C]``, for example the number of games in each.
        seed: run seed.
        draws: number of resamples.
        level: coverage.

    Returns:
        Lower and upper bounds, each ``[C]``; NaN where there are fewer than two clusters or the denominator is 0.
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if len(top) < 2:
        nothing = np.full(top.shape[1], np.nan)
        return nothing, nothing.copy()
    sums = resampled_sums(np.concatenate([top, bottom], axis=1), seed=seed, draws=draws)
    width = top.shape[1]
    return percentile_interval(safe_ratio(sums[:, :width], sums[:, width:]), level)


def paired_interval(a: ArrayLike, b: ArrayLike, *, seed: int, draws: int = DRAWS) -> tuple[float, float, float]:
    """Mean of ``a - b`` over G clusters that both played, with its interval: ``(mean, low, high)``."""
    difference = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))[:, None]
    low, high = ratio_intervals(difference, np.ones_like(difference), seed=seed, draws=draws)
    return float(difference.mean()), float(low[0]), float(high[0])


def safe_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """``numerator / denominator`` with NaN where the denominator is 0."""
    bottom = np.asarray(denominator, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, np.asarray(numerator, dtype=np.float64) / bottom, np.nan)
