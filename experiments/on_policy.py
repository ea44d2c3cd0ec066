"""Decisions of a teacher in games that an adapter plays: the data of an on-policy round.

    python -m experiments.on_policy runs/train/final --teacher runs/teachers --data runs/ready --out runs/round-1
    python -m experiments.train --data runs/round-1 --labels asked --start runs/train/final --out runs/train-1

An adapter that has only seen what its teacher's own games lead to meets, in its own, situations that follow from its small
errors, and nobody has told it what to do there. Here it plays, its teacher is asked about each of its decisions, and the
answers join the data: dataset aggregation (S. Ross, G. Gordon and D. Bagnell, "A Reduction of Imitation Learning and
Structured Prediction to No-Regret Online Learning", AISTATS 2011, algorithm 3.1, with the adapter alone at the table).
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro

import agents
import bargain_env
from agents import JanusAgent
from agents.sampling import label
from agents.teacher import Teacher, teacher_file
from bargain_env import Moves, Policy, Seat, SeatGames, SeatView, preset
from bargain_env.errors import InputError
from bargain_env.files import replacing, sha256
from bargain_env.policy import Floats
from experiments import cli
from experiments.corpus import manifest, records
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import nullable, steps_table
from experiments.corpus.teachers import DIGITS, SPARRING, TRAINED, require_share
from experiments.match import pairs
from experiments.match.populations import population
from experiments.match.specs import split
from hyperlora.data import steps_file

FIRST_ID = 40_000_000
"""Its games are others than any that are collected or played in tournaments with the same seed."""
BATCH = 1024
"""Games played at a time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Ask a teacher what it would have done in games that an adapter plays."""

    adapter: tyro.conf.Positional[str]
    """Folder of an adapter, or of a base and adapter; or janus-nano."""
    teacher: Path
    """File of experiments.teacher, or a folder with PRESET.safetensors for each scenario."""
    data: Path | None = None
    """Prepared data whose decisions are kept beside the new ones, against forgetting."""
    out: Path = Path("runs/on-policy")
    """Folder to write steps.parquet and manifest.json to."""
    scenario: str = "paper,hidden"
    """Presets that games are drawn from, a comma list."""
    games: int = 6000
    """Games of each preset, half of them in each seat, each asked for a ρ of its own."""
    drawn: int = 60
    """Drawn members of the families of the strategies that train, among the opponents."""
    named: float = 0.5
    """Share of the games without a sparring partner that are against those strategies themselves."""
    sparring: float = 0.35
    """Share of the games against a sparring partner."""
    guard: str = "monotone"
    """What keeps the adapter's moves; see experiments.tournament."""
    seed: int = 0
    """Of games, requests and opponents."""
    threads: int = 2
    """Torch threads."""
    quiet: bool = False
    """Print nothing but errors."""


class Watched:
    """A `bargain_env.Policy` that plays as ``player`` does and writes down what ``teacher`` would have done.

    Attributes:
        accept: ``[B, T]`` the teacher would have accepted on that turn.
        price: ``[B, T]`` what it would have offered, NaN where it accepts or was not asked.
    """

    name = "watched"

    def __init__(self, player: Policy, teacher: Policy, turns: int) -> None:
        self.player, self.teacher, self.turns = player, teacher, turns

    def reset(self, games: SeatGames) -> None:
        """Start both; forget."""
        self.player.reset(games)
        self.teacher.reset(games)
        self.accept = np.zeros((len(games), self.turns), dtype=bool)
        self.price = np.full((len(games), self.turns), np.nan)

    def act(self, view: SeatView) -> Moves:
        """The player's moves."""
        advice = self.teacher.act(view)
        self.accept[view.rows, view.turn - 1], self.price[view.rows, view.turn - 1] = advice.accept, advice.price
        return self.player.act(view)


def run(settings: Settings) -> Path:
    """Play, ask and write; returns the folder.

    Raises:
        InputError: a setting is out of range, or adapter, teacher or data cannot be read.
    """
    presets = _check(settings)
    console = cli.console(settings.quiet)
    out = cli.output_folder(settings.out)
    torch.set_num_threads(settings.threads)
    opponents = _opponents(settings)
    old = [] if settings.data is None else [pq.read_table(steps_file(settings.data))]
    new = [
        _asked(settings, opponents, name, seat, first, FIRST_ID + (2 * k + int(seat)) * settings.games + first)
        for k, name in enumerate(presets)
        for seat in Seat
        for first in range(0, settings.games // 2, BATCH)
    ]
    table = pa.concat_tables([*old, *new])
    added = sum(part.num_rows for part in new)
    with replacing(out / manifest.NAME) as described, replacing(out / "steps.parquet") as temporary:
        pq.write_table(table, temporary)
        files = {"steps.parquet": manifest.described(temporary, table.num_rows)}
        document = {**_made_from(settings), "added": added, "steps": table.num_rows, "files": files}
        described.write_text(manifest.text(document), encoding="utf-8")
    console.print(f"{added:,} new decisions; wrote {out / 'steps.parquet'} with {table.num_rows:,}", soft_wrap=True)
    console.print(
        f"next: python -m experiments.train --data {out} --labels asked --start {settings.adapter} --out runs/refined",
        soft_wrap=True,
    )
    return out


def _opponents(settings: Settings) -> tuple[list[str], Floats]:
    """K specs of who sits opposite the adapter, and ``[K]`` the chance of each to be drawn for a game."""
    named = agents.list_strategies(split="train")
    drawn = population(f"population:{settings.drawn}@train", settings.seed) if settings.drawn else []
    rest, share = 1.0 - settings.sparring, settings.named if drawn else 1.0
    groups = ((named, rest * share), (drawn, rest * (1.0 - share)), ([SPARRING], settings.sparring))
    chances = np.array([chance / len(names) for names, chance in groups for _ in names])
    return [name for names, _ in groups for name in names], chances


def _check(settings: Settings) -> list[str]:
    presets = split(settings.scenario, "--scenario")
    for name in presets:
        preset(name)
        Teacher(teacher_file(settings.teacher, name))
    for name, least in (("games", 2), ("drawn", 0), ("seed", 0), ("threads", 1)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name} {getattr(settings, name)} must be at least {least}")
    for name, share in (("sparring", settings.sparring), ("named", settings.named)):
        require_share(share, f"--{name}")
    if settings.data is not None:
        steps_file(settings.data)
    return presets


def _asked(
    settings: Settings, opponents: tuple[list[str], Floats], name: str, seat: Seat, first: int, first_id: int
) -> pa.Table:
    """The decisions of one batch of games in which the adapter has ``seat``, answered by the teacher.

    ``first`` is the number of its first game in this preset and seat, ``first_id`` the game itself.
    """
    (names, chances), known, n = opponents, preset(name), min(BATCH, settings.games // 2 - first)
    games = bargain_env.sample(name, n, seed=settings.seed, first_id=first_id)
    rng = np.random.default_rng([settings.seed, int(games.id[0])])
    goal = np.round(rng.random(n), DIGITS)
    janus: Policy = JanusAgent(settings.adapter, goal, guard=settings.guard, raw_dial=True)
    player = Watched(janus, Teacher(teacher_file(settings.teacher, name), goal), int(games.max_turns.max()))
    chosen = rng.choice(len(names), size=n, p=chances)
    other = pairs.routed(names, chosen, known)
    played = bargain_env.play(games, *((player, other) if seat == Seat.BUYER else (other, player)))
    mine, theirs = [label(TRAINED, {"target": value}) for value in goal.tolist()], [names[k] for k in chosen]
    run_name = records.run_name(settings.seed, {"on_policy": settings.adapter, "scenario": name, "seat": int(seat)})
    rows = rows_of_games(played, run_name, *((mine, theirs) if seat == Seat.BUYER else (theirs, mine)))
    decided = np.flatnonzero(rows.role == seat)
    game, turn = rows.episode[decided], rows.turn[decided] - 1
    table = steps_table(rows, np.full(len(rows.ids), "train", dtype=object)).take(decided)
    return _answered(table, player.accept[game, turn], player.price[game, turn])


def _answered(table: pa.Table, accept: np.ndarray, price: Floats) -> pa.Table:
    """``table`` with these decisions for targets."""
    for name, values in (
        ("target_action", pa.array(np.where(accept, "ACCEPT", "OFFER"), pa.string())),
        ("target_price", nullable(price)),
    ):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), values)
    return table


def _made_from(settings: Settings) -> dict[str, object]:
    shown = {
        name: getattr(settings, name)
        for name in ("adapter", "scenario", "games", "drawn", "named", "sparring", "guard", "seed")
    }
    files = {name: teacher_file(settings.teacher, name) for name in split(settings.scenario, "--scenario")}
    return {
        "schema_version": records.SCHEMA_VERSION,
        "command": "on_policy",
        "settings": shown,
        "teachers_sha256": {name: sha256(file) for name, file in files.items()},
        "data_sha256": None if settings.data is None else sha256(steps_file(settings.data)),
    }


if __name__ == "__main__":
    cli.main(Settings, run)
