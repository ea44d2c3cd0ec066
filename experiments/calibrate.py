"""Calibrate: give an adapter a dial under which games settle, on average, at the ρ that was asked for.

    python -m experiments.calibrate runs/train/final --out runs/calibrated

Plays the adapter without a map at a fine grid of ρ against the validation opponents, from both seats, fits a monotone map
for each seat and preset (see `experiments.isotonic`) and writes them into the adapter's config, or into a copy of its
folder. Then both dials play games that the fit has not seen, against the same opponents. What was played stays in
``--work``: the same command continues an interrupted one. Other opponents are not met here: `experiments.dial` measures
against them.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from agents.validation import VALIDATION
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError, unknown
from experiments import cli, isotonic, played, tournament
from experiments.match.arms import SHIPPED
from experiments.match.specs import split
from experiments.reporting import statistics
from experiments.reporting.calibration import calibration
from experiments.reporting.columns import Columns
from experiments.reporting.summary import clean
from hyperlora.adapter_files import adapter_folder, read_config
from hyperlora.dial import Dial, Knots
from hyperlora.dial_files import save_dial

SEED = 40_009
"""Not 0, the default of tournaments, whose games should be new to a calibrated adapter."""
CHECKED = "0:1:0.1"
WITHIN = (0.1, 0.9)
"""Requests whose error is summed up; `experiments.dial` has the same."""


@dataclass(frozen=True)
class Settings:
    """Fit an adapter's dial on the validation opponents and write it into its config."""

    adapter: tyro.conf.Positional[str]
    """Folder of an adapter, or of a base and adapter; or janus-nano, which needs --out."""
    out: Path | None = None
    """Copy the folder here and write the map into the copy; by default into the adapter's own config."""
    work: Path = Path("runs/calibrate")
    """Folder for the games."""
    rho: str = "0:1:0.05"
    """What the dial is set to while it is fitted: a list or start:stop:step in [0, 1]."""
    games: int = 20
    """Scenarios of the fit, of each preset; each is one game of every seat x rho x validation opponent."""
    check_games: int = 20
    """Scenarios that both dials play afterwards; 0 for none."""
    scenario: str = "paper"
    """Presets that games are drawn from, a comma list; of several, each gets a map of its own, beside one for all."""
    seed: int = SEED
    """Of the scenarios of the fit; the check has the next one."""
    least_agreement: float = 0.0
    """Set the dial to nothing where a smaller share of the validation games ended in a deal: requests beyond are met less
    closely, but met. 0: wherever it leads."""
    decode: str = "median"
    """How Janus turns probabilities into a move; see experiments.tournament."""
    guard: Literal["ir", "monotone", "none"] = "monotone"
    """See experiments.tournament."""
    threads: int = 2
    """Torch threads."""
    workers: int = 1
    """Processes that play at once."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the map and the figures before and after as JSON, and nothing else."""


def run(settings: Settings) -> dict[str, Any]:
    """Fit, write and check.

    Returns:
        JSON-ready: ``adapter`` (the folder), ``dial`` (as the config holds it), and ``check``: for ``raw`` and
        ``calibrated``, each preset and each seat the figures of `experiments.reporting.calibration.calibration`, summed up
        over requests in `WITHIN`; empty without check games.

    Raises:
        InputError: a setting that cannot be used, no such adapter, or deals at too few settings of the dial.
    """
    presets = _check(settings)
    console = cli.console(settings.quiet or settings.json)
    adapter = SHIPPED if settings.adapter == SHIPPED else f"janus:{settings.adapter}"
    fine = [_play(settings, adapter, name, settings.rho, "fit", raw=True) for name in presets]
    games = {name: Columns.of(path) for name, path in zip(presets, fine, strict=True)}
    dial = fitted(games, _origin(settings), settings.least_agreement)
    folder = save_dial(settings.adapter, dial, settings.out)
    found: dict[str, Any] = {"adapter": str(folder), "dial": dial.as_config(), "check": {}}
    if settings.check_games:
        for name, raw in (("raw", True), ("calibrated", False)):
            paths = [_play(settings, f"janus:{folder}", preset, CHECKED, name, raw=raw) for preset in presets]
            found["check"][name] = {
                preset: _figures(Columns.of(path), settings.seed) for preset, path in zip(presets, paths, strict=True)
            }
    found = clean(found)
    if settings.json:
        print(json.dumps(found, ensure_ascii=False))
    _report(console, dial, found)
    return found


def _check(settings: Settings) -> list[str]:
    """The presets, once each."""
    presets = list(dict.fromkeys(split(settings.scenario, "--scenario")))
    for name in presets:
        if name not in PRESETS:
            raise unknown("scenario", name, PRESETS)
    grid = cli.parse_grid(settings.rho)
    if len(set(grid)) < 2 or min(grid) < 0:
        raise InputError(f"--rho {settings.rho} must be at least two values in [0, 1]: a map is fitted through them")
    if not 0 <= settings.least_agreement <= 1:
        raise InputError(f"--least-agreement {settings.least_agreement} must lie in [0, 1]")
    if settings.check_games < 0:
        raise InputError(f"--check-games {settings.check_games} must be 0 or more")
    if settings.adapter == SHIPPED and settings.out is None:
        raise InputError(f"{SHIPPED} is part of the installed package; give --out DIR for a calibrated copy")
    if settings.adapter != SHIPPED:
        read_config(adapter_folder(Path(settings.adapter)))
    return presets


def _play(settings: Settings, adapter: str, preset: str, rho: str, part: str, *, raw: bool) -> Path:
    """The episodes of one tournament, played now or before."""
    fit = part == "fit"
    chosen = tournament.Settings(
        adapter,
        rho=rho,
        opponents=VALIDATION,
        games=settings.games if fit else settings.check_games,
        scenario=preset,
        seed=settings.seed + (0 if fit else 1),
        out=settings.work / f"{part}-{preset}",
        decode=settings.decode,
        guard=settings.guard,
        raw_dial=raw,
        threads=settings.threads,
        workers=settings.workers,
        quiet=settings.quiet or settings.json,
    )
    return played.episodes(chosen)


def _origin(settings: Settings) -> dict[str, Any]:
    names = ("scenario", "games", "seed", "rho", "least_agreement", "decode", "guard")
    return {"method": "isotonic regression", "opponents": VALIDATION, **{n: getattr(settings, n) for n in names}}


def fitted(games: Mapping[str, Columns], origin: dict[str, Any], least_agreement: float = 0.0) -> Dial:
    """The dial of one adapter from the games that it played without a map.

    Args:
        games: by scenario preset. Those of all count alike in the map for all.
        origin: what the dial says of itself.
        least_agreement: see `experiments.isotonic.fit`.

    Raises:
        InputError: deals at too few settings.
    """

    def maps(some: list[Columns], where: str) -> tuple[Knots, Knots]:
        buyer, seller = (_fitted(some, seat, least_agreement, where) for seat in Seat)
        return buyer, seller

    single = {name: Dial(*maps([one], f" on {name}")) for name, one in games.items()} if len(games) > 1 else {}
    return Dial(*maps(list(games.values()), ""), origin, single)


def _fitted(games: list[Columns], seat: Seat, least: float, where: str) -> Knots:
    cells = [
        (c.rho_requested, columns.rho[i], columns.agreement[i], ~np.isnan(columns.utility[i]))
        for columns in games
        for i, c in enumerate(columns.cells)
        if c.agent_seat == seat.label and c.rho_requested is not None
    ]
    grid = np.unique([rho for rho, *_ in cells])
    total, deals, agreed, n = np.zeros((4, len(grid)))
    for rho, achieved, agreement, there in cells:
        k = np.searchsorted(grid, rho)
        total[k] += np.nansum(achieved)
        deals[k] += (~np.isnan(achieved)).sum()
        agreed[k] += agreement.sum()
        n[k] += there.sum()
    means, rate = statistics.safe_ratio(total, deals), statistics.safe_ratio(agreed, n)
    try:
        return isotonic.fit(grid, means, deals, rate, least)
    except InputError as error:
        raise InputError(f"as {seat.label}{where}, {error}") from None


def _figures(columns: Columns, seed: int) -> dict[str, Any]:
    """By seat, over requests in `WITHIN`; ``rho``, ``achieved`` and the rest by request over all of them."""
    found: dict[str, Any] = {}
    for seat in Seat:
        mine = [i for i, c in enumerate(columns.cells) if c.agent_seat == seat.label]
        inner = [i for i in mine if WITHIN[0] <= (columns.cells[i].rho_requested or 0.0) <= WITHIN[1]]
        whole, within = (calibration(columns, np.array(some), seed=seed) for some in (mine, inner))
        found[seat.label] = within | {name: whole[name] for name in ("rho", "achieved", "agreement_rate", "deals")}
    return found


def _report(console: Console, dial: Dial, found: dict[str, Any]) -> None:
    for preset in found["check"].get("raw", {}):
        console.print("fresh games against the validation opponents")
        for seat in Seat:
            raw, new = (found["check"][name][preset][seat.label] for name in ("raw", "calibrated"))
            console.print(_table(dial.of(seat, preset), raw, new, f"{preset}, as {seat.label}"))
            console.print(f"over ρ {WITHIN[0]:g} to {WITHIN[1]:g}: {_line('raw', raw)}; {_line('calibrated', new)}\n")
    console.print(f"wrote the map into {found['adapter']}", soft_wrap=True)
    console.print(f"next: python -m experiments.dial --agents janus:{found['adapter']} --out runs/dial", soft_wrap=True)


def _table(knots: Knots, raw: dict[str, Any], new: dict[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("ρ asked", "raw: ρ got", "deals", "set to", "ρ got", "deals"):
        table.add_column(name, justify="right")
    for k, rho in enumerate(raw["rho"]):
        figures = [_number(c[name][k]) for c in (raw, new) for name in ("achieved", "agreement_rate")]
        table.add_row(f"{rho:.2f}", *figures[:2], f"{float(knots(rho)):.3f}", *figures[2:])
    return table


def _line(name: str, figures: dict[str, Any]) -> str:
    spans = [_number(figures[f"mae_means{end}"]) for end in ("", "_low", "_high")]
    return (
        f"{name} MAE of means {spans[0]} [{spans[1]}, {spans[2]}], of games {_number(figures['mae'])}, "
        f"agreement {_number(figures['agreement_rate_all'])}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    cli.main(Settings, run)
