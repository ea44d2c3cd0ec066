"""Are two agents different: paired tests over scenarios, corrected for how many there are.

The unit is the scenario, because games that share one are not independent. What counts in each is the mean difference
over the paired games in it, and Student's t-test asks whether the mean of these is 0: an analysis of cluster summaries
(R. J. Hayes and L. H. Moulton, Cluster Randomised Trials, 2009, chapter 10). Means over many games are close enough to
normal for it, and unlike a sign or permutation test it can give the small p-values that a correction for many comparisons
asks for in 20 scenarios. Under no effect its p-values are uniform (``tests/test_significance.py``).

Within a family the p-values are corrected by Holm's method (S. Holm, "A simple sequentially rejective multiple test
procedure", Scandinavian J. of Statistics 6 (1979), pp. 65-70): the chance of one false claim or more in the whole family
stays below .05, however the tests depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .columns import Columns, Index, groups_of
from .duels import Duels, Entry, paired_gaps
from .measures import Row

Floats = NDArray[np.float64]
STANDARD = "standard"
NOTHING = 1e-12
"""Differences smaller than this are rounding."""


def tests(columns: Columns, entries: Sequence[Entry], found: Duels, settings: Mapping[str, Any]) -> list[Row]:
    """Every entry of the ranking against the reference entry, in one family: all rows together.

    The reference is the first agent of ``settings["agents"]`` that is ranked, in its `STANDARD` configuration if it has
    one, else in its first.

    Returns:
        Rows of ``agent``, ``configuration``, ``against``, ``against_configuration`` (the reference), ``difference`` in mean
        utility over paired games with ``low`` and ``high``, of these games ``wins``, ``ties`` and ``losses``, ``p`` and
        ``p_holm``.
    """
    if len(entries) < 2:
        return []
    reference = _reference(entries, settings)
    against = {"against": entries[reference].agent, "against_configuration": entries[reference].configuration}
    rows = []
    for i, entry in enumerate(entries):
        if i != reference:
            counts = {
                "wins": int(found.wins[i, reference]),
                "ties": int(found.ties[i, reference]),
                "losses": int(found.wins[reference, i]),
            }
            compared = difference(*paired_gaps(columns, entry, entries[reference]), int(settings.get("seed", 0)))
            rows.append(entry.names | against | compared | counts)
    return corrected(rows)


def _reference(entries: Sequence[Entry], settings: Mapping[str, Any]) -> int:
    ranked = [entry.agent for entry in entries]
    first = next((agent for agent in settings.get("agents", []) if agent in ranked), ranked[0])
    mine = [i for i, agent in enumerate(ranked) if agent == first]
    return next((i for i in mine if entries[i].configuration == STANDARD), mine[0])


def difference(total: Floats, n: Floats, seed: int) -> Row:
    """Mean difference over paired games with interval and p-value, from sums over games and their number, each ``[G]``."""
    low, high = statistics.ratio_intervals(total[:, None], n[:, None], seed=seed)
    mean = float(statistics.safe_ratio(total.sum(), n.sum()))
    return {"difference": mean, "low": float(low[0]), "high": float(high[0]), "p": p_value(total[n > 0] / n[n > 0])}


def p_value(means: Floats) -> float:
    """Of ``[G]`` mean differences, two-sided; NaN for fewer than two, 1 where all are 0, 0 where all are the same."""
    from scipy import stats

    if len(means) < 2:
        return float("nan")
    if np.ptp(means) <= NOTHING:
        return float(abs(means[0]) <= NOTHING)
    return float(stats.ttest_1samp(means, 0.0).pvalue)


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with ``p`` corrected over all of them, as ``p_holm``; a row without ``p`` is no member of the family."""
    from statsmodels.stats.multitest import multipletests

    p = np.array([row["p"] for row in rows], dtype=np.float64)
    known = ~np.isnan(p)
    holm = np.full(len(p), np.nan)
    if known.any():
        holm[known] = multipletests(p[known], method="holm")[1]
    return [_ordered(row, float(value)) for row, value in zip(rows, holm, strict=True)]


def _ordered(row: Row, p_holm: float) -> Row:
    p = row["p"]
    return {name: value for name, value in row.items() if name != "p"} | {"p": p, "p_holm": p_holm}


def contrasts(columns: Columns, settings: Mapping[str, Any]) -> list[Row]:
    """The first agent against each other one, controls too, seat by seat, over all ρ in [0, 1]; one family.

    Games are paired by scenario and opponent; in each an agent's utility is the mean over its ρ.

    Returns:
        Rows of ``agent``, ``against``, ``agent_seat``, ``utility_difference`` with ``low`` and ``high``, ``p``, ``p_holm``.
    """
    first, *others = settings.get("agents") or list(dict.fromkeys(cell.agent for cell in columns.cells)) or [""]
    asked = [cell.rho_requested is None or cell.rho_requested >= 0 for cell in columns.cells]
    keys = [(cell.agent, cell.agent_seat, cell.opponent) for cell in columns.cells]
    groups = groups_of([key if kept else None for key, kept in zip(keys, asked, strict=True)])
    opponents = list(dict.fromkeys(cell.opponent for cell in columns.cells))
    rows = []
    for seat in ("buyer", "seller"):
        for other in others:
            pairs = [(groups.get((first, seat, o)), groups.get((other, seat, o))) for o in opponents]
            gaps = [_mean(columns, a) - _mean(columns, b) for a, b in pairs if a is not None and b is not None]
            if gaps:
                total, n = columns.pooled(np.nansum(gaps, axis=0)), columns.pooled((~np.isnan(gaps)).sum(axis=0))
                found = difference(total, n, int(settings.get("seed", 0)))
                row = {"agent": first, "against": other, "agent_seat": seat}
                rows.append(row | {"utility_difference": found.pop("difference")} | found)
    return corrected(rows)


def _mean(columns: Columns, places: Index) -> Floats:
    """``[S]`` mean utility of cells, NaN where one of them did not play."""
    return columns.utility[places].mean(axis=0)
