"""The statistics that tournaments need: rank correlation, and intervals for means, ratios and rates of clustered games.

Games against many opponents in one scenario share that scenario, so they are not independent. Intervals therefore
resample whole scenarios (clusters): draw G scenarios with replacement, add up what happened in them, form the figure,
and repeat (Efron and Tibshirani 1993, chapters 8 and 13). The draws are a pure function of the seed and of G, so every
figure of one tournament is resampled with the same scenarios and differences between agents stay paired. No library
shares draws between thousands of columns in one product, which is why the resampling is ours; the rest is scipy's and
statsmodels'.

Percentile intervals of few clusters are too narrow, as the variance of the draws lacks the factor G / (G - 1) and normal
quantiles stand where Student's should. So the percentiles are moved outwards until they would be right for a normal mean:
``α' / 2 = Φ(-√(G / (G - 1)) t_{1 - α/2, G - 1})``, the expanded percentile interval of T. C. Hesterberg, "What teachers
should know about the bootstrap", The American Statistician 69 (2015), pp. 371-386. Of 4000 simulated tournaments each,
so many percent of the intervals that say 95 % held the truth (``tests/test_coverage.py`` measures it again):

=======================  ===  ==========  ========  =========  ===========  ====
what is estimated          G  percentile  expanded  Student t  bootstrap t   BCa
=======================  ===  ==========  ========  =========  ===========  ====
utility, one cell         10        90.1      94.3       94.7         96.1  91.4
…                         20        92.3      94.5       94.5         95.8  92.8
…                         40        93.8      94.7       94.8         95.2  94.1
utility, 10 opponents     20        92.7      95.0       95.1         96.0  93.3
ρ of deals, one cell      10        88.7      94.5       92.7         95.3  88.1
…                         20        90.8      94.5       93.7         94.2  90.8
utility, 1 deal in 4      10        88.0      91.1       90.6         75.6  91.3
…                         20        92.1      94.1       93.3         89.8  95.2
=======================  ===  ==========  ========  =========  ===========  ====

With fewer than some ten clusters nothing covers what it should where games are rarely settled. Rates near 0 or 1 need
`rate_intervals`: resampling covers 67 % for a rate of .99 in 20 clusters of 20 games, that 97 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bargain_env import rng
from bargain_env.rng import Stream

Floats = NDArray[np.float64]

DRAWS = 1000
LEVEL = 0.95
_CHUNK = 2_000_000
"""Resampled entries held in memory at a time."""


# ── correlation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation of two ``[n]`` arrays, ties sharing the mean of their ranks; NaN where either is constant."""
    from scipy import stats  # a second to import, which a command that only plays should not wait for

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


def spearman_rows(x: ArrayLike, rows: ArrayLike) -> Floats:
    """`spearman` of ``x`` ``[K]`` with each row of ``[D, K]``: ``[D]``; where a row is NaN, ``x`` is left out too."""
    from scipy import stats

    y = np.asarray(rows, dtype=np.float64)
    x = np.where(np.isnan(y), np.nan, np.asarray(x, dtype=np.float64))
    a, b = (stats.rankdata(values, axis=1, nan_policy="omit") for values in (x, y))
    counts = np.maximum((~np.isnan(b)).sum(axis=1, keepdims=True), 1)
    a, b = (np.nan_to_num(ranks - np.nansum(ranks, axis=1, keepdims=True) / counts) for ranks in (a, b))
    return np.clip(safe_ratio((a * b).sum(axis=1), np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))), -1.0, 1.0)


# ── intervals of rates ────────────────────────────────────────────────────────────────────────────────────────────────


def wilson_intervals(successes: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    """Wilson's 95 % intervals of rates of independent games, each ``[C]``; NaN without trials."""
    from statsmodels.stats.proportion import proportion_confint

    k, trials = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    some = trials > 0
    low, high = np.full(trials.shape, np.nan), np.full(trials.shape, np.nan)
    if some.any():
        low[some], high[some] = proportion_confint(k[some], trials[some], alpha=1.0 - LEVEL, method="wilson")
    return low, high


def rate_intervals(successes: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    """Intervals of rates of clustered games: Wilson's for so many independent games as would tell as much.

    That number is ``p(1 - p) / v``, v the variance of the rate between clusters, times ``(z / t_{G - 1})²`` for few
    clusters; at most the games that there are (Korn and Graubard, Survey Methodology 24 (1998), pp. 193-201; with
    Wilson's interval: Dean and Pagano, J. of Survey Statistics and Methodology 3 (2015), pp. 484-503). A rate of 0 or 1
    says nothing of v: each cluster then counts as one game.

    Args:
        successes: ``[G, C]``.
        n: ``[G, C]`` trials.

    Returns:
        Bounds, each ``[C]``; NaN where fewer than two clusters have trials.
    """
    from scipy import stats

    k, trials = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    clusters, total = (trials > 0).sum(axis=0), trials.sum(axis=0)
    rate, degrees = safe_ratio(k.sum(axis=0), total), np.maximum(clusters - 1, 1)
    variance = ((k - rate * trials) ** 2).sum(axis=0) * clusters / degrees / np.maximum(total, 1) ** 2
    inner = (rate > 0) & (rate < 1)
    effective = np.where(inner, np.minimum(safe_ratio(rate * (1 - rate), variance), total), clusters)
    effective = np.where(inner & (variance == 0), total, effective)
    tail = (1.0 + LEVEL) / 2.0
    effective = np.where(clusters > 1, effective * (stats.norm.ppf(tail) / stats.t.ppf(tail, degrees)) ** 2, 0.0)
    return wilson_intervals(rate * effective, effective)


# ── resampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    if draws * len(values) <= _CHUNK:
        return _resampled(len(values), seed, draws) @ values
    return np.concatenate([counts @ values for counts in _resample(len(values), seed, draws)])


@lru_cache(maxsize=2)
def _resampled(n: int, seed: int, draws: int) -> Floats:
    """`_resample` in one piece; a summary asks for the same one again and again."""
    return np.concatenate(list(_resample(n, seed, draws)))


def _resample(n: int, seed: int, draws: int) -> Iterator[Floats]:
    """How often each of ``n`` clusters occurs in each draw, ``[some draws, n]`` at a time."""
    step = max(1, _CHUNK // n)
    for first in range(0, draws, step):
        ids = np.arange(first, min(first + step, draws))
        picked = (rng.uniform(seed, ids, stream=Stream.PAIRING, n=n) * n).astype(np.intp)
        flat = (picked + n * np.arange(len(ids))[:, None]).ravel()
        yield np.bincount(flat, minlength=n * len(ids)).reshape(len(ids), n).astype(np.float64)


def expanded_interval(samples: ArrayLike, clusters: ArrayLike) -> tuple[Floats, Floats]:
    """95 % intervals from resampled figures: the expanded percentiles of the module's head.

    Args:
        samples: ``[draws, C]``; NaN samples are left out.
        clusters: ``[C]`` or one number: how many clusters tell anything of each figure.

    Returns:
        Bounds, each ``[C]``; NaN where there are fewer than two clusters or no samples.
    """
    from scipy import stats

    x = np.sort(np.asarray(samples, dtype=np.float64), axis=0)  # NaN come last
    g = np.broadcast_to(np.asarray(clusters, dtype=np.float64), x.shape[1:])
    degrees = np.maximum(g - 1.0, 1.0)
    tail = stats.norm.cdf(-np.sqrt(g / degrees) * stats.t.ppf((1.0 + LEVEL) / 2.0, degrees))
    known = (~np.isnan(x)).sum(axis=0)
    some = (known > 0) & (g > 1)
    low, high = (np.where(some, _quantile(x, known, share), np.nan) for share in (tail, 1.0 - tail))
    return low, high


def _quantile(x: Floats, known: NDArray[np.intp], share: Floats) -> Floats:
    """Of each sorted column the quantile of its own ``share`` among its first ``known``, linear between two samples."""
    place = share * np.maximum(known - 1, 0)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(known - 1, 0))
    a, b = (np.take_along_axis(x, i[None], axis=0)[0] for i in (below, above))
    return a + (b - a) * (place - below)


def ratio_intervals(
    numerator: ArrayLike, denominator: ArrayLike, *, seed: int, draws: int = DRAWS
) -> tuple[Floats, Floats]:
    """Intervals of Σ numerator / Σ denominator with clusters resampled.

    Args:
        numerator: ``[G, C]``, for example the sum of utilities in each scenario.
        denominator: ``[G, C]``, for example the number of games in each.
        seed: run seed.
        draws: number of resamples.

    Returns:
        Lower and upper bounds, each ``[C]``; NaN where fewer than two clusters have a denominator other than 0.
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if len(top) < 2:
        nothing = np.full(top.shape[1], np.nan)
        return nothing, nothing.copy()
    sums = resampled_sums(np.concatenate([top, bottom], axis=1), seed=seed, draws=draws)
    width = top.shape[1]
    return expanded_interval(safe_ratio(sums[:, :width], sums[:, width:]), (bottom != 0).sum(axis=0))


def safe_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """``numerator / denominator`` with NaN where the denominator is 0."""
    bottom = np.asarray(denominator, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, np.asarray(numerator, dtype=np.float64) / bottom, np.nan)
