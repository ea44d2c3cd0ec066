"""From the episodes table to ``summary.json`` and ``summary.csv``; no other input, so anyone can recompute them.

Only ``landmarks`` and ``strategies`` do not follow from episodes: the tournament adds them, see
`experiments.reporting.landmarks`. Who is told both limits, and so is in no ranking, is known to the registry.

A *cell* is agent x seat x requested ρ x opponent; *overall* is the same over all opponents. Utilities charge every
impasse as 0; ``utility_deals`` is the mean over deals only. Achieved ρ exists for deals only, so the agreement rate
always stands beside it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments.match.results import SCHEMA_VERSION

from . import statistics
from .calibration import calibrations
from .measures import Columns, Row, by_scenario, grouped
from .ranking import configurations, ranking

SUMMARY, CELLS = "summary.json", "summary.csv"
DIGITS = 6


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
            "ranking": ranking(columns, overall, settings),
            "contrasts": contrasts(columns, settings, seed),
        }
    )


def contrasts(columns: Columns, settings: Mapping[str, Any], seed: int) -> list[Row]:
    """Utility of the first agent minus that of each other one, seat by seat, paired by scenario, with intervals.

    An agent's utility in a scenario is the mean over its opponents and its ρ.
    """
    by = list(zip(columns.keys["agent"], columns.keys["agent_seat"], strict=True))
    order = {key: i for i, key in enumerate(dict.fromkeys(by))}
    group = np.array([order[key] for key in by], dtype=np.intp)
    mean = by_scenario(columns, group, len(order), "utility") / by_scenario(columns, group, len(order), "n")
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
