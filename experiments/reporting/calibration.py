"""Does the dial do what it says: requested ρ against the ρ at which games settled, for each agent and seat.

Impasses have no ρ and the request -1 asks for one; neither enters the fits, both are in the agreement rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from . import statistics

Floats = NDArray[np.float64]


def calibrations(episodes: pa.Table, settings: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Calibration of every agent that takes ρ: agent -> seat -> figures, in the order of ``settings["agents"]``."""
    asked = episodes.filter(pc.is_valid(episodes["rho_requested"]))
    present = asked["agent"].unique().to_pylist()
    known = [agent for agent in settings.get("agents", []) if agent in present]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for agent in [*known, *(a for a in present if a not in known)]:
        for seat in ("buyer", "seller"):
            rows = asked.filter((pc.field("agent") == agent) & (pc.field("agent_seat") == seat))
            if rows.num_rows:
                found.setdefault(agent, {})[seat] = calibration(rows, seed=int(settings.get("seed", 0)))
    return found


def calibration(rows: pa.Table, *, seed: int) -> dict[str, Any]:
    """Figures of one agent at one seat.

    Args:
        rows: its episodes, each with a requested ρ.
        seed: for the resampling of scenarios.

    Returns:
        ``rho`` the grid [K]; ``achieved`` mean achieved ρ over deals [K] with ``achieved_low``, ``achieved_high``;
        ``deals`` [K]; ``agreement_rate`` [K]; ``spearman`` of grid and achieved means; ``spearman_games`` over deals;
        ``mae`` mean absolute error over deals; ``mae_means`` over the K means; ``slope`` and ``intercept`` of the line
        through all deals. ``spearman``, ``mae`` and ``slope`` come with an interval, ``…_low`` and ``…_high``.
    """
    requested, achieved = (rows[name].to_numpy().astype(np.float64) for name in ("rho_requested", "rho_achieved"))
    grid, request = np.unique(requested, return_inverse=True)
    scenarios, scenario = np.unique(rows["scenario_id"].to_numpy(), return_inverse=True)
    shape = (len(scenarios), len(grid))
    settled = ~np.isnan(achieved)
    places = scenario * len(grid) + request

    def per_scenario(weights: Floats) -> Floats:
        counts: Floats = np.bincount(places, weights=weights, minlength=shape[0] * shape[1]).astype(np.float64)
        return counts.reshape(shape)

    n, deals = per_scenario(np.ones(len(places))), per_scenario(settled.astype(np.float64))
    total = per_scenario(np.nan_to_num(achieved))
    error = per_scenario(np.nan_to_num(np.abs(achieved - requested)))
    agreements = per_scenario(rows["agreement"].to_numpy().astype(np.float64))
    low, high = statistics.ratio_intervals(total, deals, seed=seed)
    fit = settled & (requested >= 0)
    inner = grid >= 0
    return {
        "rho": grid,
        "achieved": statistics.safe_ratio(total.sum(axis=0), deals.sum(axis=0)),
        "achieved_low": low,
        "achieved_high": high,
        "deals": deals.sum(axis=0).astype(int),
        "agreement_rate": statistics.safe_ratio(agreements.sum(axis=0), n.sum(axis=0)),
        **_figures(grid[inner], deals[:, inner], total[:, inner], error[:, inner], seed),
        "spearman_games": statistics.spearman(requested[fit], achieved[fit]),
    }


def _figures(grid: Floats, deals: Floats, total: Floats, error: Floats, seed: int) -> dict[str, float]:
    """The figures that are functions of ``[scenarios, K]`` sums; intervals need at least two scenarios."""
    stacked = np.concatenate([deals, total, error], axis=1)
    found = dict(zip(_NAMES, _evaluate(grid, stacked.sum(axis=0)), strict=True))
    if len(stacked) > 1 and len(grid):
        draws = np.array([_evaluate(grid, sums) for sums in statistics.resampled_sums(stacked, seed=seed)])
        for name, low, high in zip(_NAMES, *statistics.percentile_interval(draws), strict=True):
            if name in ("spearman", "mae", "slope"):
                found[f"{name}_low"], found[f"{name}_high"] = low, high
    return found


_NAMES = ("spearman", "mae", "mae_means", "slope", "intercept")


def _evaluate(grid: Floats, sums: Floats) -> tuple[float, ...]:
    """Figures from the ``[3K]`` sums over deals of 1, achieved ρ and absolute error."""
    deals, total, error = np.split(sums, 3)
    some = deals > 0
    if not some.any():
        return (np.nan,) * len(_NAMES)
    x, w = grid[some], deals[some]
    means = total[some] / w
    middle, level = np.average(x, weights=w), np.average(means, weights=w)
    spread = w @ (x - middle) ** 2
    slope = float(w @ ((x - middle) * (means - level)) / spread) if spread > 0 else np.nan
    mae = float(error.sum() / deals.sum())
    gap = float(np.abs(means - x).mean())
    return statistics.spearman(x, means), mae, gap, slope, float(level - slope * middle)
