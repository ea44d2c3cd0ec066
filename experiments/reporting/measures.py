"""What is measured of a group of episodes: rates, means over all games and over deals, and their intervals.

Three measures speak of what the two sides make of a game together. *Surplus share*: the agent's part of the surplus that a
deal realises, over deals with a ZOPA. *Efficiency*: how much of the surplus that was there the two sides took home, over
games with a ZOPA, 0 at an impasse; without discounting it is the agreement rate of these games. *Nash distance*: how far
a deal is from the Nash solution of two risk-neutral sides, in widths of the ZOPA (`bargain_env.theory.nash`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env import theory

from . import statistics
from .columns import Columns, Index, groups_of

Floats = NDArray[np.float64]
Row = dict[str, Any]
Key = tuple[Any, ...]
Sums = dict[str, Floats]
"""Sums of each quantity by group: ``[clusters, groups]`` of those in `CLUSTERED`, ``[1, groups]`` of the others."""
CLUSTERED = ("n", "agreements", "utility", "settled", "rho")
NASH_RHO = float(theory.nash(1.0, 0.0))
"""Where the Nash solution settles, as ρ: the same in every game."""
_GATHERED = 1_000_000
"""Games that are looked at together; it bounds the memory of a summary."""


def grouped(columns: Columns, by: Sequence[str], settings: Mapping[str, Any], *, clustered: bool) -> list[Row]:
    """One row of measures for each group of episodes that agree in ``by``, in the order of the settings.

    Args:
        columns: the episodes.
        by: attributes of `Cell`.
        settings: see `experiments.reporting.summary.summarise`.
        clustered: see `measured`.
    """
    keys, groups = grouping(columns, by, settings)
    found: list[Row] = []
    for first, last in _pieces(groups, len(columns.scenarios)):
        figures = measured(tally(columns, groups[first:last]), int(settings.get("seed", 0)), clustered=clustered)
        for i, key in enumerate(keys[first:last]):
            found.append(dict(zip(by, key, strict=True)) | {name: column[i] for name, column in figures.items()})
    return found


def _pieces(groups: Sequence[Index], scenarios: int) -> Iterator[tuple[int, int]]:
    """Ranges of groups of about `_GATHERED` games, one group at least."""
    first, games = 0, 0
    for i, group in enumerate(groups):
        size = len(group) * scenarios
        if i > first and games + size > _GATHERED:
            yield first, i
            first, games = i, 0
        games += size
    if first < len(groups):
        yield first, len(groups)


def tallied(columns: Columns, by: Sequence[str], settings: Mapping[str, Any]) -> tuple[list[Key], Sums]:
    """The groups of episodes that agree in ``by``, in the order of the settings, and what happened in each."""
    keys, groups = grouping(columns, by, settings)
    return keys, tally(columns, groups)


def grouping(columns: Columns, by: Sequence[str], settings: Mapping[str, Any]) -> tuple[list[Key], list[Index]]:
    """The groups of cells that agree in ``by``, in the order of the settings: their keys, and which cells they are."""
    found = groups_of([tuple(getattr(cell, name) for name in by) for cell in columns.cells])
    known = {"agent": settings.get("agents", []), "opponent": settings.get("opponents", [])}
    places = {name: {value: i for i, value in enumerate(known.get(name, []))} for name in by}

    def place(key: Key) -> Key:
        given = zip(by, key, strict=True)
        return tuple((places[k].get(v, len(places[k])), -np.inf if v is None else v) for k, v in given)

    keys = sorted(found, key=place)
    return keys, [found[key] for key in keys]


def tally(columns: Columns, groups: Sequence[Index]) -> Sums:
    """What happened in each group of cells; a cell may be in several."""
    parts = [_tally(columns, groups[first:last]) for first, last in _pieces(groups, len(columns.scenarios))]
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def _tally(columns: Columns, groups: Sequence[Index]) -> Sums:
    cells = np.concatenate(groups)
    starts = np.cumsum([0, *map(len, groups)])[:-1]

    def per_cluster(values: NDArray[Any]) -> Floats:
        found: Floats = columns.pooled(np.add.reduceat(values, starts, axis=0, dtype=np.float64)).T
        return found

    def per_group(values: Floats) -> Floats:
        return np.add.reduceat(values, starts)[None, :]

    utility, rho = columns.utility[cells], columns.rho[cells]
    settled, played = ~np.isnan(rho), ~np.isnan(utility)
    utility, rho = np.nan_to_num(utility), np.nan_to_num(rho)
    other = np.nan_to_num(columns.opponent_utility[cells])
    agreed = columns.agreement[cells]
    buyer = np.array([columns.cells[i].agent_seat == "buyer" for i in cells])[:, None]
    own = np.where(buyer, 1.0 - rho, rho)
    sums = {
        "n": per_cluster(played),
        "agreements": per_cluster(agreed),
        "utility": per_cluster(utility),
        "settled": per_cluster(settled),
        "rho": per_cluster(rho),
        "utility_deals": per_group((utility * agreed).sum(axis=1)),
        "opponent_utility": per_group(other.sum(axis=1)),
        "rho_squared": per_group((rho**2).sum(axis=1)),
        "own_share": per_group((own * settled).sum(axis=1)),
        "realised": per_group(((utility + other) * settled).sum(axis=1)),
        "from_nash": per_group((np.abs(rho - NASH_RHO) * settled).sum(axis=1)),
    }
    return sums | {name: per_group(values[cells]) for name, values in columns.totals.items()}


def measured(sums: Sums, seed: int, *, clustered: bool) -> dict[str, Any]:
    """Every measure, ``[groups]``, in the order of the columns of ``summary.csv``; intervals as ``…_low``, ``…_high``.

    Args:
        sums: by name, as `tally` gives them.
        seed: for the resampling of scenarios.
        clustered: whether a group holds several games of one scenario: then the agreement rate's interval allows for
            what they share, otherwise it is Wilson's.
    """
    totals = {name: values.sum(axis=0) for name, values in sums.items()}
    return _measures(totals, _intervals(sums, totals, seed, clustered))


def _intervals(s: Sums, t: Mapping[str, Floats], seed: int, clustered: bool) -> dict[str, tuple[Floats, Floats]]:
    """Bounds, each ``[groups]``, by the name of the measure that they belong to."""
    rates = statistics.rate_intervals(s["agreements"], s["n"]) if clustered else None
    return {
        "utility": statistics.ratio_intervals(s["utility"], s["n"], seed=seed),
        "rho_achieved": statistics.ratio_intervals(s["rho"], s["settled"], seed=seed),
        "agreement_rate": rates or statistics.wilson_intervals(t["agreements"], t["n"]),
    }


def _measures(t: Mapping[str, Floats], intervals: dict[str, tuple[Floats, Floats]]) -> dict[str, Any]:
    """Every measure of every group from its totals; the order is that of the columns of ``summary.csv``."""
    ratio = statistics.safe_ratio
    rho = ratio(t["rho"], t["settled"])
    spread = np.maximum(ratio(t["rho_squared"], t["settled"]) - rho**2, 0.0)
    values: dict[str, Any] = {
        "n": t["n"].astype(int).tolist(),
        "agreements": t["agreements"].astype(int).tolist(),
        "agreement_rate": ratio(t["agreements"], t["n"]),
        "utility": ratio(t["utility"], t["n"]),
        "utility_deals": ratio(t["utility_deals"], t["agreements"]),
        "opponent_utility": ratio(t["opponent_utility"], t["n"]),
        "rho_achieved": rho,
        "rho_achieved_sd": np.sqrt(spread * ratio(t["settled"], t["settled"] - 1)),
        "turns": ratio(t["turns"], t["n"]),
        "invalid_rate": ratio(t["invalid_moves"], t["moves"]),
        "invalid_games_rate": ratio(t["invalid_games"], t["n"]),
        "guard_rate": ratio(t["guard_moves"], t["moves"]),
        "guard_games_rate": ratio(t["guard_games"], t["n"]),
        "fallback_rate": ratio(t["fallback_moves"], t["moves"]),
        "surplus_share": ratio(t["own_share"], t["settled"]),
        "efficiency": ratio(t["realised"], t["zopa"]),
        "nash_distance": ratio(t["from_nash"], t["settled"]),
    }
    out: dict[str, Any] = {}
    for name, column in values.items():
        out[name] = column
        if name in intervals:
            out[f"{name}_low"], out[f"{name}_high"] = intervals[name]
    return out
