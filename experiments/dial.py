"""Does the dial do what it says: an agent against opponents of its training and others, with intervals and targets.

    python -m experiments.dial --out runs/dial --agents janus-nano --games 100

Plays three tournaments into subfolders (and each again without a guard, smaller), all scripts beside the agents in the same
games; then prints every figure with its 95 % interval, its target and whether it is met, and writes ``dial.json`` and
``dial.md``. What was played to its end is not played again; the same command continues an interrupted one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments import cli, played, tournament
from experiments.match import opponents
from experiments.match.contestants import resolve_agents
from experiments.match.specs import split
from experiments.reporting import targets
from experiments.reporting.ceilings import ceilings
from experiments.reporting.summary import clean
from experiments.reporting.virtual_best import virtual_best

GRID = "0:1:0.1"
UNGUARDED = "unguarded"


@dataclass(frozen=True, slots=True)
class Pool:
    """One column of the table.

    Attributes:
        name: of the column, and of the tournament's folder.
        scenario: preset.
        opponents: group.
        within: requests over which errors and agreement are taken.
        targets: by measure of `experiments.reporting.targets.MEASURES`.
    """

    name: str
    scenario: str
    opponents: str
    within: tuple[float, float]
    targets: Mapping[str, float]


POOLS = (
    Pool("paper-train", "paper", "train", (0.1, 0.9), {
        "mae_means": 0.05, "spearman": 0.99, "agreement": 0.97, "standard": 0.75, "gain_pool": 0.10, "neutral": 0.90,
        "extreme": 0.99, "outside": 0.001}),
    Pool("paper-held_out", "paper", "held_out", (0.1, 0.9), {
        "mae_means": 0.07, "spearman": 0.98, "agreement": 0.95, "standard": 0.70, "gain": 0.05, "neutral": 0.80,
        "extreme": 0.99, "outside": 0.001}),
    Pool("hidden-held_out", "hidden", "held_out", (0.2, 0.8), {
        "mae_means": 0.08, "spearman": 0.95, "agreement": 0.92, "standard": 0.60, "gain": 0.0, "extreme": 0.99,
        "outside": 0.01}),
)  # fmt: skip
"""What a dial is measured on. Against opponents that train the best script is one of theirs; elsewhere it is any."""


@dataclass(frozen=True)
class Settings:
    """Measure a dial against the targets."""

    out: Path = Path("runs/dial")
    """Folder for the tournaments, dial.json and dial.md."""
    agents: str = "janus-nano"
    """Comma list of Januses or teachers, see experiments.tournament."""
    games: int = 100
    """Scenarios of each tournament; each is one game of every agent x seat x rho x opponent."""
    unguarded_games: int = 25
    """Scenarios of those without a guard."""
    seed: int = 0
    """Of scenarios, moves and resampling; not one that anything was tuned with."""
    raw_dial: bool = False
    """Measure without the calibrated map."""
    decode: str = "median"
    """See experiments.tournament."""
    threads: int = 2
    """Torch threads."""
    workers: int = 1
    """Processes that play at once."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the table as JSON, and nothing else."""


def run(settings: Settings) -> dict[str, Any]:
    """Play what is missing, write and return the table.

    Returns:
        JSON-ready: ``settings``, and ``pools``: for each of `POOLS` its ``name``, ``scenario``, ``opponents``, ``within``,
        ``agents``: label -> the rows of `experiments.reporting.targets.verdicts`, ``ceilings``, see
        `experiments.reporting.ceilings`, and ``virtual_best``, see `experiments.reporting.virtual_best`.

    Raises:
        InputError: an agent without a dial, or as `experiments.tournament.run`.
    """
    labels = list(dict.fromkeys(split(settings.agents, "--agents")))
    for label in labels:
        if not all(contestant.takes_rho for contestant in resolve_agents(label)):
            raise InputError(f"--agents: {label!r} has no dial to measure; name a Janus, such as janus-nano")
    out = cli.output_folder(settings.out)
    console = cli.console(settings.quiet or settings.json)
    found: dict[str, Any] = clean(
        {"settings": _recorded(settings), "pools": [_pool(settings, p, labels) for p in POOLS]}
    )
    for name, text in (
        ("dial.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n"),
        ("dial.md", markdown(found)),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if settings.json:
        print(json.dumps(found, ensure_ascii=False))
    for label in labels:
        for pool in found["pools"]:
            console.print(_drawn(pool, label))
    console.print(f"\n{_bounds(found)}\n\n{_best(found)}\n", soft_wrap=True)
    console.print("(?): not sure, as the 95 % interval holds the target or there is none\n")
    console.print(f"wrote {out / 'dial.json'}, {out / 'dial.md'}", soft_wrap=True)
    return found


def _recorded(settings: Settings) -> dict[str, Any]:
    names = ("agents", "games", "unguarded_games", "seed", "raw_dial", "decode")
    return {name: getattr(settings, name) for name in names}


def _pool(settings: Settings, pool: Pool, labels: list[str]) -> dict[str, Any]:
    """Both tournaments of a column, played now or before, and its rows."""
    guarded, free = (_play(settings, pool, free) for free in (False, True))
    columns, unguarded = targets.with_zopa(guarded), targets.with_zopa(free)
    rows = {
        label: [*targets.rows(columns, guarded, label, pool.within, settings.seed), targets.outside(unguarded, label)]
        for label in labels
    }
    return {
        "name": pool.name,
        "scenario": pool.scenario,
        "opponents": pool.opponents,
        "within": list(pool.within),
        "agents": {label: targets.verdicts(some, pool.targets) for label, some in rows.items()},
        "ceilings": ceilings(
            opponents.resolve(pool.opponents), pool.scenario, cli.parse_grid(GRID), settings.games, settings.seed
        ),
        "virtual_best": virtual_best(columns, settings.seed),
    }


def _play(settings: Settings, pool: Pool, free: bool) -> Path:
    """The episodes of a pool's tournament, or of the one without a guard."""
    chosen = tournament.Settings(
        settings.agents if free else f"{settings.agents},scripts",
        rho=GRID,
        opponents=pool.opponents,
        games=settings.unguarded_games if free else settings.games,
        scenario=pool.scenario,
        seed=settings.seed,
        out=settings.out / (f"{pool.name}-{UNGUARDED}" if free else pool.name),
        decode=settings.decode,
        guard="none" if free else "monotone",
        raw_dial=settings.raw_dial,
        threads=settings.threads,
        workers=settings.workers,
        quiet=settings.quiet or settings.json,
    )
    return played.episodes(chosen)


def table(found: Mapping[str, Any], label: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of an agent's table: a figure and its verdict for each pool."""
    pools = found["pools"]
    at = {(p["name"], r["measure"], r["seat"]): r for p in pools for r in p["agents"][label]}
    keys = dict.fromkeys((measure, seat) for _, measure, seat in at)
    ordered = sorted(keys, key=lambda key: list(targets.MEASURES).index(key[0]))
    head = ["measure", "seat", *(text for p in pools for text in (p["name"], "target"))]
    return head, [
        [targets.MEASURES[m][0], seat, *(text for p in pools for text in _cells(at.get((p["name"], m, seat))))]
        for m, seat in ordered
    ]


def _cells(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """A figure with its interval, and its target with the verdict."""
    if row is None:
        return "–", "–"
    if row["target"] is None:
        return _figure(row), ""
    sure = row["clear"] if row["met"] else _clearly_missed(row)
    verdict = f"{'met' if row['met'] else 'missed'}{'' if sure else ' (?)'}"
    return _figure(row), f"{row['side']} {row['target']:g} {verdict}"


def _figure(found: Mapping[str, Any]) -> str:
    ends = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return "–" if found["value"] is None else f"{found['value']:.3f}{ends}"


def _clearly_missed(row: Mapping[str, Any]) -> bool:
    better = row["high"] if row["side"] == targets.AT_LEAST else row["low"]
    return better is not None and (better < row["target"]) == (row["side"] == targets.AT_LEAST)


def _drawn(pool: Mapping[str, Any], label: str) -> Table:
    """One column of `table` for a terminal or a log."""
    low, high = pool["within"]
    met = f"{pool['scenario']} preset, {pool['opponents']} opponents"
    drawn = Table(
        title=f"\n{label}, {met}; errors and agreement over ρ {low:g} to {high:g}",
        title_justify="left", title_style="bold", box=None, pad_edge=False,
    )  # fmt: skip
    for name in ("measure", "seat", "figure", "target"):
        drawn.add_column(name)
    for row in pool["agents"][label]:
        drawn.add_row(row["name"], row["seat"], *_cells(row))
    return drawn


def _bounds(found: Mapping[str, Any]) -> str:
    """The least possible errors of each pool, as a Markdown table, which a terminal shows as well."""
    first = found["pools"][0]["ceilings"]
    middle = first["rho"].index(targets.EVEN)
    asked = [f"{rho:g}" for rho in first["rho"]]
    head = ["least possible error of games at ρ", "seat", *asked, "most even", "most deals"]
    rows = [
        [
            f"{pool['name']}, {len(c['opponents'])} of {c['of']} opponents",
            seat,
            *(f"{error:.3f}" for error in c[seat]["mae"]),
            *(f"{c[seat]['near'][middle]:.3f}" for _ in c[seat]["near"][:1]),
            *(f"{rate:.3f}" for rate in c[seat]["agreement"][-1:]),
        ]
        for pool in found["pools"]
        for c in (pool["ceilings"],)
        for seat in ("buyer", "seller")
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(
        [
            *lines,
            "",
            f"An impasse counts as an error of {first['impasse']:g}, and nobody goes beyond their own limit; opponents that "
            f"look at the past are left out. Most even: games that can settle within {targets.NEAR:g} of an even split.",
        ]
    )


def _best(found: Mapping[str, Any]) -> str:
    """What knowing the opponent is worth with the players that there are."""
    pools = [(pool["name"], pool["virtual_best"]) for pool in found["pools"]]
    figures = ", ".join(f"{name} {_figure(best)}" for name, best in pools)
    players = max(best["players"] for _, best in pools)
    return (
        f"Virtual best, the utility of one who knew each opponent and took what did best against it in these games, among "
        f"{players} scripts and requests: {figures}."
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The tables as ``dial.md``."""
    chosen = found["settings"]
    without = ", without the calibrated map" if chosen["raw_dial"] else ""
    parts = [
        "# The dial, measured\n\n"
        f"{chosen['games']} scenarios a cell, seed {chosen['seed']}, decoding {chosen['decode']}, guard monotone (none in "
        f"the last row, {chosen['unguarded_games']} scenarios){without}. "
        "Figures with 95 % intervals over scenarios; (?): not sure, as the interval holds the target or there is none."
    ]
    for label in next(iter(found["pools"]))["agents"]:
        head, rows = table(found, label)
        lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
        notes = [
            f"- {pool['name']}, {row['name']}: {row['note']}"
            for pool in found["pools"]
            for row in pool["agents"][label]
            if row["note"]
        ]
        parts.append("\n".join([f"## {label}", "", *lines, "", *notes]).rstrip())
    parts.append(f"## What could be reached\n\n{_bounds(found)}\n\n{_best(found)}")
    ranges = ", ".join(f"{p['name']} ρ {p['within'][0]:g} to {p['within'][1]:g}" for p in found["pools"])
    parts.append(f"Errors and agreement are over requests in: {ranges}. Spearman is over all of 0 to 1.")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    cli.main(Settings, run)
