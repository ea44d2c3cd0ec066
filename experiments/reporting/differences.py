"""By how much two tournaments differ: figures of groups of games in either, second minus first, with 95 % intervals.

Where both played the same scenarios, each is one cluster of games in either, and what it adds to both is resampled
together: what a scenario does to everybody cancels out (Efron and Tibshirani 1993, section 8.3). Otherwise each
tournament's scenarios are resampled on their own. The rest is as in `experiments.reporting.statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import statistics
from .columns import Columns, Floats, Index
from .measures import Sums, tally
from .significance import NOTHING, p_value

FIGURES = {"utility": ("utility", "n"), "agreement_rate": ("agreements", "n"), "rho_achieved": ("rho", "settled")}
"""What is compared, each a ratio of two sums of `experiments.reporting.measures.tally`."""
SEEDS = (0, 1)
"""Of the resampling of either tournament; pairs are drawn with the first."""
Sides = tuple[Columns, Columns]


def differences(sides: Sides, groups: Sequence[tuple[Index, Index]], *, paired: bool) -> list[dict[str, Any]]:
    """Figures of each group in either tournament, and their differences.

    Args:
        sides: both; where they are paired, with the same scenarios.
        groups: which cells of the first and of the second belong together.
        paired: whether scenarios are the same games.

    Returns:
        Of each group, for each of `FIGURES`: ``…_one``, ``…_two``, ``…_difference`` (second minus first), its ``…_low`` and
        ``…_high``; ``n_one`` and ``n_two`` games; and ``p`` of the difference in utility, two-sided: of Student's t-test
        over the differences of scenarios where they are paired, else of Welch's over their means.
    """
    if not groups:
        return []
    sums = tally(sides[0], [one for one, _ in groups]), tally(sides[1], [two for _, two in groups])
    rows: list[dict[str, Any]] = [
        {"n_one": int(a), "n_two": int(b)} for a, b in zip(*(s["n"].sum(axis=0) for s in sums), strict=True)
    ]
    for name, (top, bottom) in FIGURES.items():
        one, two = (statistics.safe_ratio(s[top].sum(axis=0), s[bottom].sum(axis=0)) for s in sums)
        if name == "agreement_rate" and not paired:
            low, high = _rate_bounds(sums, one, two)
        else:
            low, high = _bounds(sums, top, bottom, paired)
        for i, row in enumerate(rows):
            row |= {f"{name}_one": one[i], f"{name}_two": two[i], f"{name}_difference": two[i] - one[i]}
            row |= {f"{name}_low": low[i], f"{name}_high": high[i]}
    means = [statistics.safe_ratio(s["utility"], s["n"]) for s in sums]
    for i, row in enumerate(rows):
        row["p"] = _p(means[0][:, i], means[1][:, i], paired)
    return rows


def _bounds(sums: tuple[Sums, Sums], top: str, bottom: str, paired: bool) -> tuple[Floats, Floats]:
    """Intervals of the differences of Σ top / Σ bottom, each ``[groups]``."""
    stacked = [np.concatenate([s[top], s[bottom]], axis=1) for s in sums]
    clusters = np.min([(s[bottom] != 0).sum(axis=0) for s in sums], axis=0)
    if min(map(len, stacked)) < 2:
        return np.full(clusters.shape, np.nan), np.full(clusters.shape, np.nan)
    if paired:
        drawn = np.split(statistics.resampled_sums(np.concatenate(stacked, axis=1), seed=SEEDS[0]), 2, axis=1)
    else:
        drawn = [statistics.resampled_sums(s, seed=seed) for s, seed in zip(stacked, SEEDS, strict=True)]
    one, two = (statistics.safe_ratio(*np.split(draws, 2, axis=1)) for draws in drawn)
    return statistics.expanded_interval(two - one, clusters)


def _rate_bounds(sums: tuple[Sums, Sums], one: Floats, two: Floats) -> tuple[Floats, Floats]:
    """Intervals of differences of independent rates from those of either (R. G. Newcombe, Statistics in Medicine 17
    (1998), pp. 873-890, method 10), which hold near 0 and 1 too.
    """
    (l1, u1), (l2, u2) = (statistics.rate_intervals(s["agreements"], s["n"]) for s in sums)
    return two - one - np.hypot(two - l2, u1 - one), two - one + np.hypot(u2 - two, one - l1)


def _p(one: Floats, two: Floats, paired: bool) -> float:
    """Of the mean utilities of scenarios in either, NaN where a scenario has no game."""
    from scipy import stats

    if paired:
        gaps = two - one
        return p_value(gaps[~np.isnan(gaps)])
    one, two = one[~np.isnan(one)], two[~np.isnan(two)]
    if min(len(one), len(two)) < 2:
        return float("nan")
    if max(np.ptp(one), np.ptp(two)) <= NOTHING:
        return float(abs(one[0] - two[0]) <= NOTHING)
    return float(stats.ttest_ind(one, two, equal_var=False).pvalue)
