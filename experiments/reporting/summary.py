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

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments.match.results import SCHEMA_VERSION

from .calibration import calibrations, calibrations_by_split, dial_contrasts
from .columns import Columns, Source
from .duels import duels, table
from .measures import grouped
from .outcomes import outcomes
from .ranking import configurations, entries, ranking
from .rating import rating
from .significance import contrasts, tests

SUMMARY, CELLS = "summary.json", "summary.csv"
DIGITS = 6


def summarise(episodes: Source, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The document that ``summary.json`` holds.

    Args:
        episodes: as `experiments.match.results` describes: a table, batches of it, or the path of its file, of which only
            a part is in memory then (see `experiments.reporting.columns`).
        settings: what was asked for; ``agents`` and ``opponents`` fix the order of rows, ``seed`` the resampling,
            ``controls`` names the agents that are controls, ``configurations`` (``{name: [ρ as buyer, as seller]}``) the
            settings of the dial that are ranked, if not those of `experiments.match.configs.KNOWN`.

    Raises:
        InputError: a game is there twice.
    """
    columns = Columns.of(episodes)
    overall = grouped(columns, ("agent", "agent_seat", "rho_requested"), settings, clustered=True)
    by_agent = calibrations(columns, settings)
    controls = settings.get("controls", [])
    tested = next((by_agent[a] for a in sorted(by_agent, key=lambda agent: agent in controls)), {})
    ranked = entries(columns, settings)
    paired = duels(columns, ranked)
    return clean(
        {
            "schema_version": SCHEMA_VERSION,
            "settings": dict(settings),
            "cells": grouped(columns, ("agent", "agent_seat", "rho_requested", "opponent"), settings, clustered=False),
            "overall": overall,
            "calibration": {seat: tested.get(seat, {}) for seat in ("buyer", "seller")},
            "calibration_by_agent": by_agent,
            "calibration_by_split": calibrations_by_split(columns, settings),
            "dial_contrasts": dial_contrasts(columns, settings),
            "configurations": configurations(overall, settings),
            "ranking": ranking(columns, ranked, overall, settings),
            "tests": tests(columns, ranked, paired, settings),
            "duels": table(ranked, paired),
            "rating": rating(ranked, paired, int(settings.get("seed", 0))),
            "contrasts": contrasts(columns, settings),
            "outcomes": outcomes(columns, settings),
        }
    )


def ranked(episodes: Source, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``ranking`` of `summarise` alone."""
    columns = Columns.of(episodes)
    overall = grouped(columns, ("agent", "agent_seat", "rho_requested"), settings, clustered=True)
    found: list[dict[str, Any]] = clean(ranking(columns, entries(columns, settings), overall, settings))
    return found


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
