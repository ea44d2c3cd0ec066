"""From the episodes table to ``summary.json`` and ``summary.csv``; no other input, so anyone can recompute them.

Only ``landmarks`` do not follow from episodes: the tournament adds them, see `experiments.reporting.landmarks`.

A *cell* is agent x seat x requested ρ x opponent; *overall* is the same over all opponents. Utilities charge every
impasse as 0; ``utility_deals`` is the mean over deals only. Achieved ρ exists for deals only, so the agreement rate
always stands beside it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments.match.results import SCHEMA_VERSION

from . import statistics
from .calibration import calibrations

Floats = NDArray[np.float64]
Row = dict[str, Any]

SUMMARY, CELLS = "summary.json", "summary.csv"
DIGITS = 6
CONFIGURATIONS = {"standard": (0.2, 0.8), "extreme": (0.0, 1.0), "flipped": (0.8, 0.2), "neutral": (0.5, 0.5)}
"""Named settings of the dial: requested ρ as buyer and as seller. Low ρ is a low price, so ``standard`` bargains for
itself from either seat and ``flipped`` against itself."""


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
        invalid, guard = (episodes[name].to_numpy().astype(np.float64) for name in ("invalid_moves", "guard_moves"))
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
        }
        keys = {k: episodes[k].to_pylist() for k in ("agent", "agent_seat", "rho_requested", "opponent")}
        return cls(keys, scenario, len(ids), sums)


def summarise(episodes: pa.Table, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The document that ``summary.json`` holds.

    Args:
        episodes: as `experiments.match.results` describes.
        settings: what was asked for; ``agents`` and ``opponents`` fix the order of rows, ``seed`` the resampling,
            ``controls`` names the agents that are controls.
    """
    columns, seed = Columns.of(episodes), int(settings.get("seed", 0))
    overall = grouped(columns, ("agent", "agent_seat", "rho_requested"), settings, clustered=True)
    by_agent = calibrations(episodes, settings)
    tested = next(iter(by_agent.values()), {})
    return clean(
        {
            "schema_version": SCHEMA_VERSION,
            "settings": dict(settings),
            "cells": grouped(columns, ("agent", "agent_seat", "rho_requested", "opponent"), settings, clustered=False),
            "overall": overall,
            "calibration": {seat: tested.get(seat, {}) for seat in ("buyer", "seller")},
            "calibration_by_agent": by_agent,
            "configurations": configurations(overall),
            "contrasts": contrasts(columns, settings, seed),
        }
    )


def grouped(columns: Columns, by: Sequence[str], settings: Mapping[str, Any], *, clustered: bool) -> list[Row]:
    """One row of measures for each group of episodes that agree in ``by``, in the order of the settings.

    Args:
        columns: the episodes.
        by: key columns.
        settings: see `summarise`.
        clustered: whether a group holds several games of one scenario: then the agreement rate's interval resamples
            scenarios too, otherwise it is Wilson's.
    """
    keys = list(zip(*(columns.keys[k] for k in by), strict=True))
    order = {key: i for i, key in enumerate(sorted(set(keys), key=lambda key: _place(by, key, settings)))}
    group = np.array([order[key] for key in keys], dtype=np.intp)
    per_scenario = {name: _by_scenario(columns, group, len(order), name) for name in columns.sums}
    totals = {name: values.sum(axis=0) for name, values in per_scenario.items()}
    measured = _measures(totals, _intervals(per_scenario, int(settings.get("seed", 0)), clustered))
    return [dict(zip(by, key, strict=True)) | {k: v[i] for k, v in measured.items()} for key, i in order.items()]


def _by_scenario(columns: Columns, group: NDArray[np.intp], groups: int, name: str) -> Floats:
    """``[scenarios, groups]`` sums of one quantity."""
    flat = columns.scenario * groups + group
    length = columns.scenarios * groups
    sums: Floats = np.bincount(flat, weights=columns.sums[name], minlength=length).astype(np.float64)
    return sums.reshape(columns.scenarios, groups)


def _place(by: Sequence[str], key: tuple[Any, ...], settings: Mapping[str, Any]) -> tuple[Any, ...]:
    place: list[Any] = []
    for name, value in zip(by, key, strict=True):
        known = list(settings.get({"agent": "agents", "opponent": "opponents"}.get(name, ""), []))
        place.append((known.index(value) if value in known else len(known), -math.inf if value is None else value))
    return tuple(place)


def _intervals(s: dict[str, Floats], seed: int, clustered: bool) -> dict[str, tuple[Floats, Floats]]:
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
    }
    out: dict[str, Any] = {}
    for name, column in values.items():
        out[name] = column
        if name in intervals:
            out[f"{name}_low"], out[f"{name}_high"] = intervals[name]
    return out


def configurations(overall: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """`CONFIGURATIONS` that the grid holds: agent -> name -> seat -> row of ``overall``, and the mean over ``both``."""
    at = {(row["agent"], row["agent_seat"], row["rho_requested"]): row for row in overall}
    found: dict[str, dict[str, Row]] = {}
    for agent in dict.fromkeys(row["agent"] for row in overall):
        for name, (buyer, seller) in CONFIGURATIONS.items():
            seats = {"buyer": at.get((agent, "buyer", buyer)), "seller": at.get((agent, "seller", seller))}
            rows = {seat: _without_keys(row) for seat, row in seats.items() if row is not None}
            if len(rows) == 2:
                mean = {k: (rows["buyer"][k] + rows["seller"][k]) / 2 for k in ("utility", "agreement_rate")}
                found.setdefault(agent, {})[name] = {**rows, "both": mean}
    return found


def _without_keys(row: Row) -> Row:
    return {k: v for k, v in row.items() if k not in ("agent", "agent_seat")}


def contrasts(columns: Columns, settings: Mapping[str, Any], seed: int) -> list[Row]:
    """Utility of the first agent minus that of each other one, seat by seat, paired by scenario, with intervals.

    An agent's utility in a scenario is the mean over its opponents and its ρ.
    """
    by = list(zip(columns.keys["agent"], columns.keys["agent_seat"], strict=True))
    order = {key: i for i, key in enumerate(dict.fromkeys(by))}
    group = np.array([order[key] for key in by], dtype=np.intp)
    mean = _by_scenario(columns, group, len(order), "utility") / _by_scenario(columns, group, len(order), "n")
    first, *others = settings.get("agents") or list(dict.fromkeys(columns.keys["agent"]))
    rows = []
    for seat in ("buyer", "seller"):
        for other in others:
            if (first, seat) in order and (other, seat) in order:
                a, b = mean[:, order[first, seat]], mean[:, order[other, seat]]
                difference, low, high = statistics.paired_interval(a, b, seed=seed)
                row = {"agent": first, "against": other, "agent_seat": seat}
                rows.append({**row, "utility_difference": difference, "low": low, "high": high})
    return rows


def clean(value: Any) -> Any:
    """JSON's idea of ``value``: plain numbers rounded to `DIGITS`, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [clean(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0 if math.isfinite(value) else None
    return value


def write(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``summary.json`` and its cells as ``summary.csv``, each whole or not at all."""
    paths = [folder / SUMMARY, folder / CELLS]
    with replacing(paths[0]) as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(paths[1]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(summary["cells"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary["cells"])
    return paths


def read(folder: Path) -> dict[str, Any]:
    """The summary of a tournament folder.

    Raises:
        InputError: it is missing, is not JSON, or is of another version.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise InputError(f"no {SUMMARY} in {folder}; give the --out folder of a finished tournament")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); run the tournament again") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a summary of version {SCHEMA_VERSION}; run the tournament again")
    return found
