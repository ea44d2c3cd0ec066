"""Strategies: what the zoo holds, how each concedes, and what each earns against all others.

    python -m experiments.strategies list --split held_out
    python -m experiments.strategies show boulware_hard --seat seller --assumed-width 500
    python -m experiments.strategies matrix --games 40 --out runs/zoo

``show`` plays a strategy against a counterpart that never moves: on each of its turns it offers the end of the public range
that suits it best (the seller ``price_high``, the buyer ``price_low``), and it accepts nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import inspect
import json
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import agents
from agents import StrategyInfo
from agents.registry import assumes_width
from agents.scripted import Composed
from bargain_env import PRESETS, Policy, Scenario, Seat
from bargain_env.errors import InputError, unknown
from experiments import cli, tournament
from experiments.match import results
from experiments.match.alone import Alone, alone, build, check_turns
from experiments.plugins import load_plugin
from experiments.reporting import zoo
from experiments.reporting.terminal import curve

SeatName = Literal["buyer", "seller"]


@dataclass(frozen=True)
class Listing:
    """List the strategies."""

    family: str | None = None
    """Only this family."""
    split: Literal["train", "held_out"] | None = None
    """Only those that may enter training data, or only those that never do."""
    cheating: bool = False
    """Those that are told both limits, which no ranking and no training set has, in place of the others."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    json: bool = False
    """Print all that is known of each as JSON."""


@dataclass(frozen=True)
class Show:
    """Show a strategy's rule, source and concession curve against a counterpart that never moves."""

    name: Annotated[str, tyro.conf.Positional]
    """The strategy."""
    seat: SeatName = "buyer"
    """Where it sits."""
    starter: SeatName = "buyer"
    """Who moves first."""
    buyer_max: float = 900.0
    """The most the buyer may pay."""
    seller_min: float = 400.0
    """The least the seller may take."""
    max_turns: int = 20
    """Moves of both seats together."""
    assumed_width: float | None = None
    """ZOPA width that the strategy is told to assume; without it, it knows the public range only."""
    price_low: float = 200.0
    """Lower end of the public range."""
    price_high: float = 1500.0
    """Upper end of the public range."""
    tick: float = 0.01
    """Prices are rounded to multiples of this."""
    seed: int = 0
    """Determines the moves of stochastic strategies."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    json: bool = False
    """Print name, settings and moves as JSON."""


@dataclass(frozen=True)
class Matrix:
    """Play every strategy against every strategy and write the zoo's tables and heatmaps."""

    scenarios: str = "paper,hidden,no_deal"
    """Comma list of presets."""
    games: int = 40
    """Scenarios; each is one game of every pair in either seat."""
    seed: int = 0
    """Determines scenarios, moves and resampling."""
    max_turns: int = 20
    """Moves of both seats together."""
    out: Path = Path("runs/zoo")
    """Folder for the tournaments, one folder a preset."""
    docs: Path | None = None
    """Folder for zoo.md, its pictures and its tables; that of --out if not given."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the files and the best strategy of each preset as JSON, and nothing else."""


@dataclass(frozen=True)
class Settings:
    """What the zoo holds, how each strategy concedes, and what each earns against all others."""

    command: Annotated[
        Annotated[Listing, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Matrix, tyro.conf.subcommand("matrix")],
        tyro.conf.arg(name=""),
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.OmitArgPrefixes,
    ]


def run(settings: Settings) -> None:
    """Do what was asked for.

    Raises:
        InputError: a setting that cannot be used.
    """
    command = settings.command
    if command.plugin is not None:
        load_plugin(command.plugin)
    if isinstance(command, Listing):
        listing(command)
    elif isinstance(command, Show):
        show(command)
    else:
        matrix(command)


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def listing(settings: Listing) -> list[str]:
    """Print the strategies and return their names.

    Raises:
        InputError: unknown family, or none of it in the split.
    """
    families = {agents.describe(name).family for name in agents.list_strategies(cheating=settings.cheating)}
    if settings.family is not None and settings.family not in families:
        raise unknown("family", settings.family, families)
    names = agents.list_strategies(family=settings.family, split=settings.split, cheating=settings.cheating)
    if not names:
        raise InputError("no strategy is in that family and that split; drop --family or --split")
    if settings.json:
        print(json.dumps([known_of(agents.describe(name)) for name in names], default=repr))  # plugins hold anything
        return names
    rows = []
    for name in names:
        info = agents.describe(name)
        flags = ["yes" if flag else "no" for flag in (info.stochastic, info.uses_history, info.evaluable)]
        rows.append([name, info.family, info.split.replace("_", " "), *flags, info.source])
    console, table = cli.console(), Table(box=None, pad_edge=False)
    widths = [max(len(head), *map(len, column)) for head, column in zip(_HEADS, zip(*rows, strict=True), strict=True)]
    widths[-1] = max(len(_HEADS[-1]), min(widths[-1], console.width - sum(widths[:-1]) - 2 * len(widths)))
    for head, width in zip(_HEADS, widths, strict=True):  # the source alone is cut short where the line is
        table.add_column(head, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*map(escape, row), style="" if row[2] == "train" else "cyan")
    console.print(table)
    console.print(f"{len(names)} strategies; the rule of one: python -m experiments.strategies show NAME", style="dim")
    return names


_HEADS = ("name", "family", "split", "stochastic", "history", "ranked", "source")


def known_of(info: StrategyInfo) -> dict[str, Any]:
    """All that the registry knows of a strategy, but for the object that builds it."""
    known = {f.name: getattr(info, f.name) for f in dataclasses.fields(info) if f.name != "factory"}
    ranges = {name: dataclasses.asdict(span) for name, span in info.ranges.items()}
    return known | {"defaults": dict(info.defaults), "ranges": ranges}


# ── show ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def show(settings: Show) -> Alone:
    """Play, print and return the game.

    Raises:
        InputError: unknown strategy, or a game that cannot be.
    """
    info = agents.describe(settings.name)
    check_turns(settings.max_turns)
    for option, value in dataclasses.asdict(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{option} {value} must be a finite number")
    if not 0 <= settings.seed < 2**63:
        raise InputError(f"--seed {settings.seed} must be from 0 to 2**63 - 1")
    names = ("buyer_max", "seller_min", "price_low", "price_high", "max_turns", "tick", "seed")
    try:
        game = Scenario(starter=Seat[settings.starter.upper()], **{name: getattr(settings, name) for name in names})
    except ValueError as error:
        raise InputError(f"--{error}") from error
    if settings.assumed_width is not None and not assumes_width(info):
        raise InputError(f"--assumed-width {settings.assumed_width:g}: {info.name} assumes no width; drop the option")
    policy = build(settings.name, game, settings.assumed_width)
    found = alone(policy, game, Seat[settings.seat.upper()], settings.assumed_width)
    if settings.json:
        print(json.dumps(_as_json(settings, found)))
    else:
        console = cli.console()
        _describe(console, info, policy)
        _draw(console, settings, info, found)
    return found


def _as_json(settings: Show, game: Alone) -> dict[str, Any]:
    asked = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("name", "plugin", "json")}
    moves = [{"turn": turn.turn, "action": turn.action, "price": turn.price} for turn in game.turns]
    return {"name": settings.name, "settings": asked, "moves": moves}


def _describe(console: Console, info: StrategyInfo, policy: Policy) -> None:
    console.print(f"[bold]{escape(info.name)}[/]  {escape(info.description)}", soft_wrap=True)
    facts = [
        f"family {info.family}",
        info.split.replace("_", " "),
        "stochastic" if info.stochastic else "deterministic",
        "reads the history" if info.uses_history else "reads the clock and the standing offer only",
        *(["is told both limits, so no ranking has it"] if info.cheating else []),
    ]
    console.print(escape(", ".join(facts)), style="dim", soft_wrap=True)
    console.print(f"\n{escape(rule(info))}\n", soft_wrap=True)
    about = {"parameters": parameters(info), "composed of": parts(policy), "source": info.source}
    for name, text in about.items():
        if text:
            console.print(f"[dim]{name:<12}[/]{escape(text)}", soft_wrap=True)
    console.print()


def _draw(console: Console, settings: Show, info: StrategyInfo, game: Alone) -> None:
    console.print(escape(_setting(settings, info)) + "\n", soft_wrap=True)
    if not game.turns:
        console.print(
            f"It never moved: the game ends before its turn comes (--max-turns {settings.max_turns}).", soft_wrap=True
        )
        return
    made = [(turn.turn, turn.price) for turn in game.turns if turn.price is not None]
    levels = {"its limit": game.limit, "its selfish start": game.start}
    ascii_only = not (console.encoding or "").lower().startswith("utf")
    console.print(curve(made, levels, min(console.width, cli.PLAIN_WIDTH), plain=ascii_only), no_wrap=True)
    table = Table(box=None, pad_edge=False)
    for head in ("turn", "action", "price", "conceded"):
        table.add_column(head, justify="left" if head == "action" else "right")
    for turn in game.turns:
        price = "" if turn.price is None else f"{turn.price:.2f}"
        table.add_row(str(turn.turn), turn.action, price, "" if turn.conceded is None else f"{turn.conceded:.1%}")
    console.print()
    console.print(table)


def _setting(settings: Show, info: StrategyInfo) -> str:
    """What was played, in a sentence."""
    other = "seller" if settings.seat == "buyer" else "buyer"
    stuck = settings.price_high if other == "seller" else settings.price_low
    limit = settings.buyer_max if settings.seat == "buyer" else settings.seller_min
    width = "no width" if settings.assumed_width is None else f"a ZOPA {settings.assumed_width:g} wide"
    draw = f" One draw, seed {settings.seed}." if info.stochastic else ""
    return (
        f"As {settings.seat} with limit {limit:g}, told to assume {width}; the {settings.starter} starts, "
        f"{settings.max_turns} turns. The {other} offers {stuck:g} on each of its turns and accepts nothing.{draw}"
    )


def rule(info: StrategyInfo) -> str:
    """How the strategy plays: what its factory says of itself, without its lists of attributes or arguments."""
    factory: Any = info.factory
    while isinstance(factory, partial):
        factory = factory.func
    text = re.split(r"\n\s*(?:Attributes|Args|Returns|Raises):\n", inspect.getdoc(factory) or info.description)[0]
    return text.replace("``", "").replace("`", "").strip()


def parameters(info: StrategyInfo) -> str:
    """The parameters that make it this member of its family, and where others of the family are drawn from."""
    variant = not info.may_train and agents.list_strategies(family=info.family, split="train")
    text = " (the family draws from {} to {} when it trains)" if variant else " (drawn from {} to {})"
    spans = {name: text.format(f"{span.low:g}", f"{span.high:g}") for name, span in info.ranges.items()}
    return ", ".join(f"{name} {value}{spans.get(name, '')}" for name, value in info.defaults.items())


def parts(policy: Policy) -> str:
    """The offering tactic and the acceptance condition of a strategy that is composed of them."""
    return f"{policy.offering}, {policy.acceptance}" if isinstance(policy, Composed) else ""


# ── matrix ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def matrix(settings: Matrix) -> list[Path]:
    """Play a tournament of scripts against scripts for each preset, write the documents and return their paths.

    Raises:
        InputError: a setting that cannot be used, before anything is played.
    """
    presets = list(dict.fromkeys(part.strip() for part in settings.scenarios.split(",") if part.strip()))
    for preset in presets:
        if preset not in PRESETS:
            raise unknown("scenario", preset, PRESETS)
    if not presets:
        raise InputError("--scenarios is empty; name at least one preset")
    plans = {preset: _tournament(settings, preset) for preset in presets}
    for plan in plans.values():
        tournament.prepare(plan)
    folder = cli.output_folder(settings.docs or settings.out)
    found = {preset: tournament.run(plan) for preset, plan in plans.items()}
    episodes = {preset: results.read(plan.out) for preset, plan in plans.items()}
    paths = zoo.write(found, episodes, _command(settings, presets), folder)
    if settings.json:
        best = {preset: document["ranking"][0]["agent"] for preset, document in found.items()}
        print(json.dumps({"best": best, "files": [str(path) for path in paths]}))
    cli.console(settings.quiet or settings.json).print(f"wrote {', '.join(map(str, paths))}", soft_wrap=True)
    return paths


def _tournament(settings: Matrix, preset: str) -> tournament.Settings:
    return tournament.Settings(
        agents="scripts",
        opponents="scripts",
        games=settings.games,
        scenario=preset,
        seed=settings.seed,
        max_turns=settings.max_turns,
        out=settings.out / preset,
        quiet=settings.quiet or settings.json,
    )


def _command(settings: Matrix, presets: list[str]) -> str:
    """The command line again, without the paths of this machine."""
    turns = f" --max-turns {settings.max_turns}" if settings.max_turns != Matrix.max_turns else ""
    plugin = " --plugin FILE" if settings.plugin else ""
    options = f"--scenarios {','.join(presets)} --games {settings.games} --seed {settings.seed}{turns}{plugin}"
    return f"python -m experiments.strategies matrix {options}"


if __name__ == "__main__":
    cli.main(Settings, run)
