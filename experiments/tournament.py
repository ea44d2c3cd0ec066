"""Tournament: agents against the zoo, from both seats, at every ρ; with intervals and a report.

    python -m experiments.tournament --agents janus-nano --rho 0:1:0.1 --strategies all --games 40 --scenario paper

Every agent, ρ and opponent meets the same scenarios with the same luck. The folder receives ``episodes.parquet`` (one
row a game), ``summary.json``, ``summary.csv`` (its cells) and ``report.html``; a second run writes the same bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

if __package__ in (None, ""):  # run as a file: this folder's names must not hide the standard library
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import tyro

from bargain_env import DEFAULT_PRESET, PRESETS, Seat
from bargain_env.errors import InputError, unknown
from experiments import cli, report
from experiments.match import arena, contestants, results
from experiments.match.live import Scoreboard
from experiments.plugins import load_plugin
from experiments.reporting import landmarks, summary


@dataclass(frozen=True)
class Settings:
    """Play a tournament and write its episodes, summary and report."""

    agents: str = "janus-nano"
    """Comma list: janus-nano, janus:PATH, base (no adapter), shuffled (control: permuted rho), script:NAME, scripts,
    learned:PATH (.zip of Stable-Baselines3), text:MODEL_DIR or text:http://HOST:PORT/v1#MODEL (a chat model by prompt)."""
    rho: str = "0:1:0.1"
    """Requested rho, a list a,b,c or start:stop:step, each in [0, 1] or -1 (asks for an impasse). Scripts take none."""
    opponents: Annotated[str, tyro.conf.arg(aliases=["--strategies"])] = "all"
    """Comma list of strategy names or groups: all or scripts, train, held_out, family:F, learned:PATH, text:…"""
    games: int = 40
    """Scenarios; each is one game of every agent x seat x rho x opponent."""
    seats: Literal["both", "buyer", "seller"] = "both"
    """Where the agents sit."""
    scenario: str = DEFAULT_PRESET
    """Preset that scenarios are drawn from."""
    seed: int = 0
    """Determines scenarios, moves and resampling."""
    out: Path = Path("runs/tournament")
    """Folder for the results."""
    max_turns: int = 20
    """Moves of both seats together."""
    decode: str = "mean"
    """How Janus turns probabilities into a move: mean, median, quantile:0.3, greedy, sample, sample:0.7, or free (the model
    writes and its text is read; what is no answer becomes an offer of the reservation, counted in fallback_moves)."""
    guard: Literal["ir", "monotone", "none"] = "ir"
    """Keep Janus from deals and offers beyond its own limit (ir), and from taking offers back too (monotone); every
    replaced move is counted, and what Janus had decided is recorded beside it."""
    base: str | None = None
    """Base to load the adapters of janus:PATH, base:PATH and shuffled:PATH on, if not the one that their config names."""
    allow_base_mismatch: bool = False
    """Load them on a base that they were not trained on, which is refused otherwise."""
    precision: Literal["trained", "dense", "nf4"] = "trained"
    """Of the bases: the one trained on, dense weights, or 4 bits."""
    batch_size: int = 256
    """Rows of one forward pass of Janus."""
    threads: int = 2
    """Torch threads."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the overall results as JSON on stdout, and nothing else."""


def run(settings: Settings) -> dict[str, Any]:
    """Play, write and return the summary.

    Raises:
        InputError: a setting that cannot be used, before anything is played.
    """
    if settings.plugin is not None:
        load_plugin(settings.plugin)
    players, plan = prepare(settings)
    folder = cli.output_folder(settings.out)
    for player in players:
        if not player.scripted:  # what cannot be loaded should not be found out after an hour of play
            player.build(np.array(plan.rho[:1]) if player.takes_rho else None, plan.preset)
    console = cli.console(settings.quiet or settings.json)
    console.print(_heading(players, plan), soft_wrap=True)
    marks = landmarks.landmarks(plan)  # before the games: what cannot be asked should not cost them
    marks["scripts"] = landmarks.absent_scripts(plan, players)
    with Scoreboard(console, sum(plan.rows(p) for p in players), plan.seats) as board:
        episodes = arena.run_tournament(players, plan, board.observe)
    found = summary.summarise(episodes, described(settings, players, plan))
    found |= {"landmarks": summary.clean(marks), "strategies": landmarks.strategies(plan, players)}
    page = report.write(found, episodes, folder)  # first: if it cannot be drawn, the earlier files stay as they were
    files = [results.write(episodes, folder), *summary.write(found, folder), page]
    if settings.json:
        print(json.dumps({"overall": found["overall"], "files": [str(f) for f in files]}, ensure_ascii=False))
    console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True)
    console.print(f"the report alone, again: python -m experiments.report {folder}", soft_wrap=True)
    return found


def prepare(settings: Settings) -> tuple[list[contestants.Contestant], arena.Plan]:
    """The contestants and the plan that the settings ask for.

    Raises:
        InputError: a setting that cannot be used.
    """
    for name in ("batch_size", "threads"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)} must be at least 1")
    if settings.scenario not in PRESETS:
        raise unknown("scenario", settings.scenario, PRESETS)
    options = contestants.JanusOptions(
        **{f.name: getattr(settings, f.name) for f in fields(contestants.JanusOptions)}  # they have the same names here
    )
    plan = arena.Plan(
        opponents=tuple(contestants.resolve_opponents(settings.opponents)),
        rho=tuple(dict.fromkeys(value + 0.0 for value in cli.parse_grid(settings.rho))),
        games=settings.games,
        seats=tuple(Seat) if settings.seats == "both" else (Seat[settings.seats.upper()],),
        preset=PRESETS[settings.scenario],
        seed=settings.seed,
        max_turns=settings.max_turns,
    )
    return contestants.resolve_agents(settings.agents, options), plan


def described(settings: Settings, players: list[contestants.Contestant], plan: arena.Plan) -> dict[str, Any]:
    """What the results depend on, as ``summary.json`` records it: names resolved, paths of the machine left out."""
    return {
        "agents": [p.label for p in players],
        "controls": [p.label for p in players if p.control],
        "rho": list(plan.rho) if any(p.takes_rho for p in players) else [],
        "opponents": list(plan.opponents),
        "games": plan.games,
        "seats": [seat.label for seat in plan.seats],
        "scenario": plan.preset.name,
        "seed": plan.seed,
        "max_turns": plan.max_turns,
        "decode": settings.decode,
        "guard": settings.guard,
        "base": settings.base,
        "allow_base_mismatch": settings.allow_base_mismatch,
        "precision": settings.precision,
        "batch_size": settings.batch_size,
        "threads": settings.threads,
    }


def _heading(players: list[contestants.Contestant], plan: arena.Plan) -> str:
    labels = [p.label for p in players]
    shown = ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"
    rho = f" at rho {', '.join(map(results.rho_text, plan.rho))}" if any(p.takes_rho for p in players) else ""
    seats = " and ".join(s.label for s in plan.seats)
    return (
        f"tournament: {shown}{rho} against {len(plan.opponents)} opponents as {seats}, "
        f"{plan.games} scenarios of {plan.preset.name!r}, seed {plan.seed}"
    )


if __name__ == "__main__":
    cli.main(Settings, run)
