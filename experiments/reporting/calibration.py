"""Does the dial do what it says: requested ρ against the ρ at which games settled, for each agent and seat.

Impasses have no ρ and the request -1 asks for one; neither enters the fits, both are in the agreement rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .columns import Columns, Index, groups_of

Floats = NDArray[np.float64]
Figures = dict[str, Any]
BySeat = dict[str, dict[str, Figures]]

SPLITS = ("train", "validation", "held_out")
SAME = 1e-9
"""Means closer than this do not fall."""
_NAMES = ("spearman", "mae", "mae_means", "bias", "slope", "intercept")


def calibrations(columns: Columns, settings: Mapping[str, Any], split: str | None = None) -> BySeat:
    """Calibration of every agent that takes ρ: agent -> seat -> figures, in the order of ``settings["agents"]``.

    Args:
        columns: the episodes.
        settings: see `experiments.reporting.summary.summarise`.
        split: only games against opponents of this split.
    """
    cells = columns.cells
    asked = [i for i, c in enumerate(cells) if c.rho_requested is not None and split in (None, c.opponent_split)]
    groups = groups_of([(cells[i].agent, cells[i].agent_seat) for i in asked])
    present = dict.fromkeys(agent for agent, _ in groups)
    known = [agent for agent in settings.get("agents", []) if agent in present]
    found: BySeat = {}
    for agent in [*known, *(a for a in present if a not in known)]:
        for seat in ("buyer", "seller"):
            if (agent, seat) in groups:
                places = np.array(asked, dtype=np.intp)[groups[agent, seat]]
                found.setdefault(agent, {})[seat] = calibration(columns, places, seed=int(settings.get("seed", 0)))
    return found


def calibrations_by_split(columns: Columns, settings: Mapping[str, Any]) -> dict[str, BySeat]:
    """`calibrations` against the opponents of each split apart: split -> agent -> seat; only splits that occur."""
    present = {cell.opponent_split for cell in columns.cells if cell.rho_requested is not None}
    ordered = [*(s for s in SPLITS if s in present), *sorted(present.difference(SPLITS))]
    return {split: calibrations(columns, settings, split) for split in ordered}


def calibration(columns: Columns, places: Index, *, seed: int) -> Figures:
    """Figures of one agent at one seat.

    Args:
        columns: the episodes.
        places: its cells, each with a requested ρ.
        seed: for the resampling of scenarios.

    Returns:
        By request, each ``[K]``: ``rho`` the grid; ``achieved`` mean achieved ρ over deals; ``deals``;
        ``agreement_rate``. Over the requests in [0, 1]: ``spearman`` of grid and achieved means; ``spearman_games`` over
        deals; ``mae`` mean absolute error over deals; ``mae_means`` over the K means; ``bias`` mean of achieved minus
        requested over deals, positive where deals are dearer than asked; ``slope`` and ``intercept`` of the line through
        all deals; ``violations``: pairs of neighbouring requests whose means fall though the request rises;
        ``violations_clear``: those whose own interval, not corrected for their number, lies below 0;
        ``largest_fall``: of these means, 0 where none falls, None where fewer than two are known; with the interval of
        that pair; ``agreement_rate_all`` over all games of these requests. Intervals, scenarios resampled, stand beside
        figures as ``…_low`` and ``…_high``.
    """
    grid, s = _sums(columns, places)
    requested = np.array([columns.cells[i].rho_requested for i in places], dtype=np.float64)
    low, high = statistics.ratio_intervals(s["rho"], s["deals"], seed=seed)
    rate_low, rate_high = statistics.rate_intervals(s["agreements"], s["n"])
    inner = grid >= 0
    return {
        "rho": grid,
        "achieved": statistics.safe_ratio(s["rho"].sum(axis=0), s["deals"].sum(axis=0)),
        "achieved_low": low,
        "achieved_high": high,
        "deals": s["deals"].sum(axis=0).astype(int),
        "agreement_rate": statistics.safe_ratio(s["agreements"].sum(axis=0), s["n"].sum(axis=0)),
        "agreement_rate_low": rate_low,
        "agreement_rate_high": rate_high,
        **_figures(grid[inner], s["deals"][:, inner], s["rho"][:, inner], s["error"][:, inner], seed),
        "spearman_games": _over_games(columns, places[requested >= 0], requested[requested >= 0]),
        **_rate(s["agreements"][:, inner], s["n"][:, inner]),
    }


def _sums(columns: Columns, places: Index) -> tuple[Floats, dict[str, Floats]]:
    """The requests of some cells, ``[K]``, and what happened at each, ``[clusters, K]`` by name."""
    requested = np.array([columns.cells[i].rho_requested for i in places], dtype=np.float64)
    grid = np.unique(requested)
    sums = {
        name: np.zeros((len(grid), len(columns.scenarios))) for name in ("n", "agreements", "deals", "rho", "error")
    }
    for k, request in enumerate(grid):
        cells = places[requested == request]
        rho = columns.rho[cells]
        sums["n"][k] = (~np.isnan(columns.utility[cells])).sum(axis=0)
        sums["agreements"][k] = columns.agreement[cells].sum(axis=0)
        sums["deals"][k] = (~np.isnan(rho)).sum(axis=0)
        sums["rho"][k] = np.nansum(rho, axis=0)
        sums["error"][k] = np.nansum(np.abs(rho - request), axis=0)
    s = {name: columns.pooled(values).T for name, values in sums.items()}
    return grid, s


def dial_contrasts(columns: Columns, settings: Mapping[str, Any]) -> list[Figures]:
    """The first dial under test against each other one, controls too, seat by seat, against all opponents.

    Both are resampled with the same scenarios, so that what these have in common drops out of the interval.

    Returns:
        Rows of ``agent``, ``against`` (the first dial), ``agent_seat``, and of `_CONTRASTED` the ``…_difference``, agent
        minus first, with ``…_low`` and ``…_high``; none for agents that were not asked for the same ρ.
    """
    cells = columns.cells
    groups = groups_of([(c.agent, c.agent_seat) if c.rho_requested is not None else None for c in cells])
    dials = list(dict.fromkeys(key[0] for key in groups if key is not None))
    order = [agent for agent in settings.get("agents", []) if agent in dials] or dials
    tested = [agent for agent in order if agent not in settings.get("controls", [])] or order
    rows = []
    for seat in ("buyer", "seller"):
        for other in (agent for agent in order if agent != tested[0]):
            pair = [groups[key] for agent in (tested[0], other) if (key := (agent, seat)) in groups]
            if len(pair) == 2:
                found = _contrast(columns, pair, int(settings.get("seed", 0)))
                rows += [{"agent": other, "against": tested[0], "agent_seat": seat} | found] if found else []
    return rows


_CONTRASTED = ("slope", "mae")


def _contrast(columns: Columns, pair: list[Index], seed: int) -> Figures:
    sides = [_sums(columns, places) for places in pair]
    inner = [grid >= 0 for grid, _ in sides]
    grids = [grid[some] for (grid, _), some in zip(sides, inner, strict=True)]
    if not np.array_equal(grids[0], grids[1]):
        return {}
    stacked = [
        np.concatenate([s[name][:, some] for name in ("deals", "rho", "error")], axis=1)
        for (_, s), some in zip(sides, inner, strict=True)
    ]
    drawn = statistics.resampled_sums(np.concatenate(stacked, axis=1), seed=seed)
    one, two = (_evaluate(grids[0], draws) for draws in np.split(drawn, 2, axis=1))
    whole = [_evaluate(grids[0], some.sum(axis=0, keepdims=True))[0] for some in stacked]
    clusters = min(int((some[:, : len(grids[0])].sum(axis=1) > 0).sum()) for some in stacked)
    low, high = statistics.expanded_interval(two - one, clusters)
    found: Figures = {}
    for name in _CONTRASTED:
        i = _NAMES.index(name)
        found |= {f"{name}_difference": float(whole[1][i] - whole[0][i])}
        found |= {f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return found


def _over_games(columns: Columns, places: Index, requested: Floats) -> float:
    rho = columns.rho[places]
    settled = ~np.isnan(rho)
    return statistics.spearman(np.broadcast_to(requested[:, None], rho.shape)[settled], rho[settled])


def _rate(agreements: Floats, n: Floats) -> Figures:
    k, total = (values.sum(axis=1, keepdims=True) for values in (agreements, n))
    low, high = statistics.rate_intervals(k, total)
    rate = float(statistics.safe_ratio(k.sum(), total.sum()))
    return {
        "agreement_rate_all": rate,
        "agreement_rate_all_low": float(low[0]),
        "agreement_rate_all_high": float(high[0]),
    }


def _figures(grid: Floats, deals: Floats, total: Floats, error: Floats, seed: int) -> Figures:
    """The figures that are functions of ``[clusters, K]`` sums; intervals need at least two clusters."""
    stacked = np.concatenate([deals, total, error], axis=1)
    whole = stacked.sum(axis=0, keepdims=True)
    found = _evaluate(grid, whole)
    clusters = int((deals.sum(axis=1) > 0).sum())
    draws = statistics.resampled_sums(stacked, seed=seed) if len(stacked) else whole
    bounds = statistics.expanded_interval(_evaluate(grid, draws), clusters)
    out: Figures = {}
    for i, name in enumerate(_NAMES):
        out |= {name: float(found[0, i]), f"{name}_low": float(bounds[0][i]), f"{name}_high": float(bounds[1][i])}
    return out | _falls(_means(whole)[0], _means(draws), deals)


def _means(sums: Floats) -> Floats:
    """Mean achieved ρ of deals, ``[D, K]``, from ``[D, 3K]`` sums."""
    deals, total, _ = np.split(sums, 3, axis=1)
    return statistics.safe_ratio(total, deals)


def _evaluate(grid: Floats, sums: Floats) -> Floats:
    """`_NAMES` ``[D, 6]`` from the ``[D, 3K]`` sums over deals of 1, achieved ρ and absolute error."""
    deals, total, error = np.split(sums, 3, axis=1)
    ratio, means, n = statistics.safe_ratio, _means(sums), deals.sum(axis=1)
    some = ~np.isnan(means)
    middle, level = ratio(deals @ grid, n), ratio(total.sum(axis=1), n)
    away = grid - middle[:, None]
    spread = (deals * away**2).sum(axis=1)
    tiny = 1e-12 * np.maximum(n, 1.0)  # of a single request, which rounding may move off its own mean
    slope = ratio((away * total).sum(axis=1), np.where(spread > tiny, spread, 0.0))
    gap = ratio(np.nansum(np.abs(means - grid), axis=1), some.sum(axis=1))
    ranks = statistics.spearman_rows(grid, means)
    mae = ratio(error.sum(axis=1), n)
    return np.stack([ranks, mae, gap, level - middle, slope, level - slope * middle], axis=1)


def _falls(means: Floats, draws: Floats, deals: Floats) -> Figures:
    """Where neighbouring means fall: ``[K]`` means, ``[D, K]`` of the draws, ``[clusters, K]`` deals."""
    known = np.flatnonzero(~np.isnan(means))
    if len(known) < 2:
        return dict.fromkeys(("violations", "violations_clear")) | dict.fromkeys(_FALL)
    steps = np.diff(means[known])
    both = np.minimum(*((deals[:, known[part]] > 0).sum(axis=0) for part in (slice(1, None), slice(-1))))
    low, high = statistics.expanded_interval(np.diff(draws[:, known], axis=1), both)
    worst, falls = int(steps.argmin()), steps < -SAME
    fall = np.array([-steps[worst], -high[worst], -low[worst]]) if falls.any() else np.array([0.0, np.nan, np.nan])
    counts = {"violations": int(falls.sum()), "violations_clear": int((falls & (high < -SAME)).sum())}
    return counts | dict(zip(_FALL, fall.tolist(), strict=True))


_FALL = ("largest_fall", "largest_fall_low", "largest_fall_high")
