"""What is measured of a group of episodes: rates, means over all games and over deals, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from . import statistics

Floats = NDArray[np.float64]
Row = dict[str, Any]
Key = tuple[Any, ...]
Sums = dict[str, Floats]
"""``[scenarios, groups]`` sums of each quantity of `Columns`."""
COUNTED = ("invalid_moves", "guard_moves", "fallback_moves")


@dataclass(frozen=True, slots=True)
class Columns:
    """What the summary reads of N episodes; every array is ``[N]``.

    Attributes:
        keys: agent, agent_seat, rho_requested (None where null) and opponent of each row.
        scenario: index of its scenario among those played, from 0.
        scenarios: how many there are.
        sums: what is added up within a group, by name.
    """

    keys: dict[str, list[Any]]
    scenario: NDArray[np.intp]
    scenarios: int
    sums: dict[str, Floats]

    @classmethod
    def of(cls, episodes: pa.Table) -> Columns:
        """Read them."""
        raw = {name: episodes[name].to_numpy() for name in ("utility", "opponent_utility", "turns", "agreement")}
        deal = raw["agreement"].astype(np.float64)
        rho = episodes["rho_achieved"].to_numpy().astype(np.float64)
        starts = np.array(episodes["starter"].to_pylist()) == np.array(episodes["agent_seat"].to_pylist())
        invalid, guard, fallback = (episodes[name].to_numpy().astype(np.float64) for name in COUNTED)
        ids, scenario = np.unique(episodes["scenario_id"].to_numpy(), return_inverse=True)
        sums = {
            "n": np.ones(len(deal)),
            "agreements": deal,
            "utility": raw["utility"],
            "utility_deals": raw["utility"] * deal,
            "opponent_utility": raw["opponent_utility"],
            "settled": (~np.isnan(rho)).astype(np.float64),
            "rho": np.nan_to_num(rho),
            "rho_squared": np.nan_to_num(rho) ** 2,
            "turns": raw["turns"].astype(np.float64),
            "moves": ((raw["turns"] + starts) // 2).astype(np.float64),
            "invalid_moves": invalid,
            "invalid_games": (invalid > 0).astype(np.float64),
            "guard_moves": guard,
            "guard_games": (guard > 0).astype(np.float64),
            "fallback_moves": fallback,
        }
        keys = {k: episodes[k].to_pylist() for k in ("agent", "agent_seat", "rho_requested", "opponent")}
        return cls(keys, scenario, len(ids), sums)


def grouped(columns: Columns, by: Sequence[str], settings: Mapping[str, Any], *, clustered: bool) -> list[Row]:
    """One row of measures for each group of episodes that agree in ``by``, in the order of the settings.

    Args:
        columns: the episodes.
        by: key columns.
        settings: see `experiments.reporting.summary.summarise`.
        clustered: see `measured`.
    """
    keys, sums = tallied(columns, by, settings)
    found = measured(sums, int(settings.get("seed", 0)), clustered=clustered)
    return [dict(zip(by, key, strict=True)) | {k: v[i] for k, v in found.items()} for i, key in enumerate(keys)]


def tallied(columns: Columns, by: Sequence[str], settings: Mapping[str, Any]) -> tuple[list[Key], Sums]:
    """The groups of episodes that agree in ``by``, in the order of the settings, and what happened in each."""
    keys = list(zip(*(columns.keys[k] for k in by), strict=True))
    order = {key: i for i, key in enumerate(sorted(set(keys), key=lambda key: _place(by, key, settings)))}
    group = np.array([order[key] for key in keys], dtype=np.intp)
    return list(order), {name: by_scenario(columns, group, len(order), name) for name in columns.sums}


def by_scenario(columns: Columns, group: NDArray[np.intp], groups: int, name: str) -> Floats:
    """``[scenarios, groups]`` sums of one quantity."""
    flat = columns.scenario * groups + group
    length = columns.scenarios * groups
    sums: Floats = np.bincount(flat, weights=columns.sums[name], minlength=length).astype(np.float64)
    return sums.reshape(columns.scenarios, groups)


def measured(sums: Sums, seed: int, *, clustered: bool) -> dict[str, Any]:
    """Every measure, ``[groups]``, in the order of the columns of ``summary.csv``; intervals as ``…_low``, ``…_high``.

    Args:
        sums: ``[scenarios, groups]`` by name, as `tallied` gives them.
        seed: for the resampling of scenarios.
        clustered: whether a group holds several games of one scenario: then the agreement rate's interval resamples
            scenarios too, otherwise it is Wilson's.
    """
    totals = {name: values.sum(axis=0) for name, values in sums.items()}
    return _measures(totals, _intervals(sums, seed, clustered))


def _place(by: Sequence[str], key: Key, settings: Mapping[str, Any]) -> Key:
    place: list[Any] = []
    for name, value in zip(by, key, strict=True):
        known = list(settings.get({"agent": "agents", "opponent": "opponents"}.get(name, ""), []))
        place.append((known.index(value) if value in known else len(known), -math.inf if value is None else value))
    return tuple(place)


def _intervals(s: Sums, seed: int, clustered: bool) -> dict[str, tuple[Floats, Floats]]:
    """Bounds, each ``[groups]``, by the name of the measure that they belong to."""
    found = {
        "utility": statistics.ratio_intervals(s["utility"], s["n"], seed=seed),
        "rho_achieved": statistics.ratio_intervals(s["rho"], s["settled"], seed=seed),
    }
    if clustered:
        found["agreement_rate"] = statistics.ratio_intervals(s["agreements"], s["n"], seed=seed)
    else:
        pairs = zip(s["agreements"].sum(axis=0), s["n"].sum(axis=0), strict=True)
        bounds = np.array([statistics.wilson_interval(int(k), int(n)) for k, n in pairs]).reshape(-1, 2)
        found["agreement_rate"] = (bounds[:, 0], bounds[:, 1])
    return found


def _measures(t: dict[str, Floats], intervals: dict[str, tuple[Floats, Floats]]) -> dict[str, Any]:
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
    }
    out: dict[str, Any] = {}
    for name, column in values.items():
        out[name] = column
        if name in intervals:
            out[f"{name}_low"], out[f"{name}_high"] = intervals[name]
    return out
