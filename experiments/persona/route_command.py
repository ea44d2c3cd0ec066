"""``experiments.personas route``: how well routers tell the personas apart, on games that no adapter was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from agents.modelling.models import OpponentModels
from bargain_env.errors import InputError
from experiments import cli
from experiments.stages import require_least

from . import route_figures as figures
from .folder import read_data, write_json
from .pool import read_pool
from .routing import (
    EMBEDDING,
    KEYWORD,
    LIKELIHOOD,
    NO_KEYWORDS,
    Group,
    Queries,
    Scored,
    by_embedding,
    by_likelihood,
    groups,
    left_out,
    queries,
    strangers,
)

RESULTS = "router_results.json"
TEST, VALIDATION, STRANGERS, LEFT_OUT = "test", "val", "strangers", "left_out"
METHODS = (LIKELIHOOD, EMBEDDING)


@dataclass(frozen=True, slots=True)
class Route:
    """Measure how well routers tell the personas apart by their offers, and whether they know who is none of them."""

    data: tyro.conf.Positional[Path]
    """Folder of ``make`` that ``train`` has been through."""
    out: Path | None = None
    """Where results go; DATA by default."""
    games: int = 2
    """Test, validation and held-out games of each opponent at most; each offer costs a row for every rival."""
    answered: float = 0.9
    """Share of validation games that are to be answered: it sets how likely an opponent must be somebody known."""
    at_offers: int = 5
    """Offers after which that share is taken: 1, 2, 3, 5, 8 or 10."""
    seed: int = 0
    """Of the intervals."""
    threads: int = 2
    """CPU threads."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the results as JSON instead of text."""


def route(settings: Route) -> dict[str, Any]:
    """Score, choose when to abstain on validation games, measure on test games, write.

    Raises:
        InputError: a setting is out of range, files are missing, damaged or of another run, or there is nobody to tell
            apart.
    """
    require_least(settings, {"games": 1, "at_offers": 1, "seed": 0})
    if not 0.0 < settings.answered <= 1.0:
        raise InputError(f"--answered {settings.answered} must lie above 0 and be at most 1")
    data, pool = read_data(settings.data), read_pool(settings.data)
    some = groups(pool.counterparts)
    if not some:
        raise InputError(f"no two personas in {settings.data} share a seat and a preset: there is nobody to tell apart")
    console = cli.console(settings.quiet or settings.json)
    out = cli.output_folder(settings.out or settings.data)
    models = OpponentModels(pool, pool.counterparts)
    scored = _scored(models, settings, data, some, console)
    methods: dict[str, dict[str, Any]] = {KEYWORD: {"measured": False, "reason": NO_KEYWORDS}}
    bins = {}
    for method, parts in scored.items():
        methods[method], bins[method] = _measured(method, parts, settings)
    results = {
        "schema_version": 1,
        "settings": {"games": settings.games, "answered": settings.answered, "at_offers": settings.at_offers,
                     "seed": settings.seed},
        "data_sha256": data.digest,
        "base_digest": pool.base_digest,
        "null": "pooled adapter" if pool.pooled is not None else "base",
        "groups": [{"seat": g.seat, "preset": g.preset, "personas": len(g.members)} for g in some],
        "without_rivals": len(pool.counterparts) - sum(len(g.members) for g in some),
        "methods": methods,
    }  # fmt: skip
    write_json(out / RESULTS, results)
    files = [out / RESULTS, *figures.write_chart(bins, out)]
    _tell(console, results, files, settings)
    return {**results, "files": [str(path) for path in files]}


Parts = dict[str, list[tuple[Group, Scored]]]


def _scored(
    models: OpponentModels, settings: Route, data: Any, some: list[Group], console: Console
) -> dict[str, Parts]:
    """Validation, test and held-out games scored by each method."""
    found: dict[str, Parts] = {method: {k: [] for k in (VALIDATION, TEST, STRANGERS)} for method in METHODS}
    for group in some:
        learned = queries(data, group, "train")
        asked: dict[str, Queries] = {
            VALIDATION: queries(data, group, VALIDATION, settings.games),
            TEST: queries(data, group, TEST, settings.games),
            STRANGERS: strangers(data, group, settings.games),
        }
        for kind, one in asked.items():
            found[LIKELIHOOD][kind].append((group, by_likelihood(models, group, one)))
            found[EMBEDDING][kind].append((group, by_embedding(group, learned, one)))
        console.print(f"{group.preset}, {group.seat}: {len(group.members)} personas scored")
    return found


def _measured(method: str, parts: Parts, settings: Route) -> tuple[dict[str, Any], Any]:
    """The figures of one method, and the bins of its chart."""
    handicap = 0.0
    if method == LIKELIHOOD:  # the only one whose null hypothesis is an adapter
        handicap = figures.handicap_of(parts[VALIDATION], settings.answered, settings.at_offers)
    parts = {kind: figures.held_back(part, handicap) for kind, part in parts.items()}
    temperature = figures.temperature_of(parts[VALIDATION])
    parts[LEFT_OUT] = [(group, left_out(group, scored)) for group, scored in parts[TEST]]
    validation, test, *apart = (
        figures.routed(parts[kind], temperature) for kind in (VALIDATION, TEST, STRANGERS, LEFT_OUT)
    )
    known = figures.known_of(validation, settings.answered, settings.at_offers)
    error, bins = figures.reliability(test)
    raw, _ = figures.reliability(figures.routed(parts[TEST], 1.0))
    return {
        "measured": True,
        "handicap": handicap,
        "temperature": temperature,
        "known": known,
        "ece": error,
        "ece_at_temperature_1": raw,
        "bins": bins,
        "by_offers": figures.accuracy(test, dict(zip((STRANGERS, LEFT_OUT), apart, strict=True)), known, settings.seed),
    }, (error, bins)


def _tell(console: Console, results: dict[str, Any], files: list[Path], settings: Route) -> None:
    methods = results["methods"]
    console.print(figures.table(methods))
    console.print(f"{KEYWORD}: not measured; {NO_KEYWORDS}", soft_wrap=True)
    for method in METHODS:
        one = methods[method]
        console.print(
            f"{method}: handicap {one['handicap']:.3f}, temperature {one['temperature']:.3g}, "
            f"known {one['known']:.3f}, ECE {one['ece']:.3f} ({one['ece_at_temperature_1']:.3f} at temperature 1)"
        )
    console.print("wrote " + ", ".join(map(str, files)), soft_wrap=True)
    chosen = methods[LIKELIHOOD]
    known = math.floor(chosen["known"] * 1e6) / 1e6  # up would answer less than was asked for
    spec = f"modelling:{settings.data}?known={known:.6g}&temperature={chosen['temperature']:.3g}"
    spec += f"&handicap={chosen['handicap']:.3f}"
    console.print(f"next: python -m experiments.tournament --agents 'janus-nano,{spec}'", soft_wrap=True)
