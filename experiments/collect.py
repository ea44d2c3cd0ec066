"""Play games between random pairs of scripted strategies and write them down as training data.

    python -m experiments.collect --episodes 10000 --seed 0 --out data/raw
    python -m experiments.prepare data/raw --out data/ready

Writes ``episodes.jsonl`` (the log, one record a step), ``steps.parquet``, ``episodes.parquet`` and ``manifest.json``,
replacing those of an earlier run in the same folder, all or none. The same settings give the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import agents
import bargain_env
from agents.teacher import Teacher, teacher_file
from bargain_env import PRESETS, MoveKind, Trajectories
from bargain_env.errors import InputError, unknown
from bargain_env.files import replacing, sha256
from bargain_env.play import concatenate
from experiments import cli
from experiments.corpus import records, teachers
from experiments.corpus.dataset_writer import DatasetWriter
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.parquet_stream import ParquetStream
from experiments.corpus.step_rows import StepRows, episodes_table, steps_table
from experiments.match import pairs
from experiments.match.populations import POPULATION, population
from experiments.match.specs import split
from experiments.plugins import load_plugin

_PLAIN_LINE_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal for a bar."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Play games between random pairs of scripted strategies and write them down as training data."""

    episodes: int = 10000
    """How many games."""
    seed: int = 0
    """Run seed. With the other settings it determines every byte."""
    scenario: str = bargain_env.DEFAULT_PRESET
    """Where games come from: paper, hidden or no_deal, or several of them in turn, a comma list."""
    strategies: str = "train"
    """A comma list of names, of ``train`` (every registered strategy that is not held out), and of ``population:N@train``
    (N drawn members of their families)."""
    teacher_share: float = 0.0
    """Chance of each seat of each game to be played by a teacher, its target drawn evenly from [0, 1]."""
    teacher: Path | None = None
    """Who teaches: a file of experiments.teacher, or a folder with PRESET.safetensors for each scenario; by default scripted
    target-seeking players."""
    sparring_share: float = 0.0
    """Chance of each other seat to be played by a sparring partner, whose temper is drawn for each game."""
    max_turns: int = 20
    """Moves of both seats together."""
    plugin: Path | None = None
    """Python file that registers further strategies."""
    out: Path = Path("data/raw")
    """Folder to write to."""
    format: Literal["both", "jsonl", "parquet"] = "both"
    """Write the log, the tables, or both."""
    shard: int = 5000
    """Games played at a time: bounds the memory, changes no byte."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the manifest as JSON instead of text."""


@dataclass(slots=True)
class Tally:
    """What has been played so far; ``rho`` holds one label a game, with -1 at an impasse."""

    rho: list[np.ndarray]
    steps: int = 0
    left_out: int = 0


def run(settings: Settings) -> dict[str, Any]:
    """Collect; returns the manifest.

    Raises:
        InputError: a setting is out of range, or a strategy is unknown or held out.
    """
    names = _check(settings)
    out = cli.output_folder(settings.out)
    files = {"log": out / "episodes.jsonl", "steps": out / "steps.parquet", "episodes": out / "episodes.parquet"}
    wanted = {"both": list(files), "jsonl": ["log"], "parquet": ["steps", "episodes"]}[settings.format]
    console = cli.console(settings.quiet or settings.json)
    started, tally, replaced = time.perf_counter(), Tally(rho=[]), (out / "manifest.json").exists()
    with ExitStack() as whole:  # leaving it renames the files into place, the manifest last
        manifest_file = whole.enter_context(replacing(out / "manifest.json"))
        temporary = {kind: whole.enter_context(replacing(files[kind])) for kind in wanted}
        _write(settings, names, temporary, tally, console)
        digests = {files[kind].name: sha256(temporary[kind]) for kind in wanted}
        manifest = _manifest(settings, names, tally, digests)
        manifest_file.write_text(json.dumps(manifest, indent=2) + "\n")
    for stale in set(files) - set(wanted) if replaced else ():  # the manifest no longer speaks for them
        files[stale].unlink(missing_ok=True)
    if settings.json:
        print(json.dumps(manifest))
    _report(console, manifest, out, time.perf_counter() - started)
    return manifest


def _check(settings: Settings) -> list[str]:
    """The strategies that play."""
    if settings.plugin is not None:
        load_plugin(settings.plugin)
    for name, least in (("episodes", 1), ("max_turns", 1), ("shard", 1), ("seed", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be at least {least}")
    if settings.seed >= 2**53:
        raise InputError(f"--seed {settings.seed} must be below 2**53")
    teachers.require_share(settings.teacher_share)
    teachers.require_share(settings.sparring_share, "--sparring-share")
    presets = split(settings.scenario, "--scenario")
    for name in presets:
        if name not in PRESETS:
            raise unknown("scenario", name, PRESETS)
    if settings.teacher is not None:
        if not settings.teacher_share:
            raise InputError("--teacher has nobody to teach without --teacher-share; give a share, such as 0.6")
        for name in presets:
            Teacher(teacher_file(settings.teacher, name))
    names = list(
        dict.fromkeys(name for spec in settings.strategies.split(",") for name in _named(spec.strip(), settings))
    )
    held_out = [n for n in names if not agents.describe(n).may_train]
    if held_out:
        raise InputError(f"strategies {', '.join(held_out)} are held out of training data; drop them from --strategies")
    if not names:
        raise InputError("no strategies to play; name some with --strategies A,B")
    return names


def _named(spec: str, settings: Settings) -> list[str]:
    """The strategies of one part of the list."""
    if spec == "train":
        return agents.list_strategies(split="train")
    if spec.startswith(POPULATION):
        return population(spec, settings.seed)
    return [spec] if spec else []


def _write(settings: Settings, names: list[str], paths: dict[str, Path], tally: Tally, console: Console) -> None:
    with ExitStack() as open_files:
        log = open_files.enter_context(DatasetWriter(paths["log"])) if "log" in paths else None
        tables = {
            kind: (open_files.enter_context(ParquetStream(paths[kind], schema)), build)
            for kind, schema, build in (
                ("steps", records.STEPS, steps_table),
                ("episodes", records.EPISODES, episodes_table),
            )
            if kind in paths
        }
        for rows, left_out in _progress(_play_shards(settings, names), settings, console):
            tally.rho.append(rows.rho)
            tally.steps += len(rows)
            tally.left_out += left_out
            if log is not None:
                log.append(rows)
            for stream, build in tables.values():
                stream.append(build(rows))


def _play_shards(settings: Settings, names: list[str]) -> Iterator[tuple[StepRows, int]]:
    """The decisions of each shard, and how many of its games were left out for an invalid move."""
    name_of_run = records.run_name(settings.seed, _shaping(settings, names))
    for first in range(0, settings.episodes, settings.shard):
        n = min(settings.shard, settings.episodes - first)
        result, players = _play(settings, names, first, n)
        legal = np.flatnonzero(~(result.kinds == MoveKind.INVALID).any(axis=1))
        buyers, sellers = players[legal].T.tolist()
        rows = rows_of_games(result.take(legal), name_of_run, buyers, sellers)
        yield rows, n - len(legal)


def _play(settings: Settings, names: list[str], first: int, n: int) -> tuple[Trajectories, np.ndarray]:
    """``n`` games from scenario id ``first`` on, and ``[n, 2]`` the names of buyer and seller.

    Of several presets each has two games in turn, one for each seat to start.
    """
    ids, presets = np.arange(first, first + n), split(settings.scenario, "--scenario")
    players = np.empty((n, 2), dtype=object)
    parts, order = [], []
    for k, name in enumerate(presets):
        rows = np.flatnonzero(ids // 2 % len(presets) == k)
        if len(rows):
            result, players[rows] = _play_preset(settings, names, name, ids[rows])
            parts.append(result)
            order.append(rows)
    return concatenate(parts).take(np.argsort(np.concatenate(order))), players


def _play_preset(settings: Settings, names: list[str], name: str, ids: np.ndarray) -> tuple[Trajectories, np.ndarray]:
    """The games ``ids`` ``[B]`` of one preset, and who played."""
    games = bargain_env.sample(name, seed=settings.seed, ids=ids, max_turns=settings.max_turns)
    players = np.array(names, dtype=object)[pairs.draw(games, len(names))]
    trained = None if settings.teacher is None else teacher_file(settings.teacher, name)
    players = teachers.sparred(players, games, settings.sparring_share)
    players = teachers.seated(players, games, settings.teacher_share, trained=trained is not None)
    buyer, seller = (teachers.policy(players[:, seat], PRESETS[name], trained) for seat in (0, 1))
    return bargain_env.play(games, buyer, seller), players


def _shaping(settings: Settings, names: list[str]) -> dict[str, Any]:
    """The settings that shape a game of a given seed and id."""
    shaping: dict[str, Any] = {"scenario": settings.scenario, "strategies": names, "max_turns": settings.max_turns}
    if settings.teacher_share:  # without teachers, games keep the ids that they always had
        shaping["teacher_share"] = settings.teacher_share
    if settings.sparring_share:
        shaping["sparring_share"] = settings.sparring_share
    if settings.teacher is not None:
        files = {name: teacher_file(settings.teacher, name) for name in split(settings.scenario, "--scenario")}
        shaping["teachers_sha256"] = {name: sha256(file) for name, file in files.items()}
    return shaping


def _progress(
    shards: Iterator[tuple[StepRows, int]], settings: Settings, console: Console
) -> Iterator[tuple[StepRows, int]]:
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TextColumn("games"), TimeRemainingColumn())
    told, done = time.monotonic(), 0
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as progress:
        task = progress.add_task("collect", total=settings.episodes)
        for rows, left_out in shards:
            yield rows, left_out
            done += len(rows.ids) + left_out
            progress.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - told > _PLAIN_LINE_EVERY:
                told = time.monotonic()
                console.out(f"{done:,} of {settings.episodes:,} games")


def _manifest(settings: Settings, names: list[str], tally: Tally, digests: dict[str, str]) -> dict[str, Any]:
    rho = np.concatenate(tally.rho)
    deals, labelled = rho != bargain_env.IMPASSE_RHO, rho[(rho != bargain_env.IMPASSE_RHO) & ~np.isnan(rho)]
    return {
        "schema_version": records.SCHEMA_VERSION,
        "command": "collect",
        "settings": {"episodes": settings.episodes, "seed": settings.seed, **_shaping(settings, names)},
        "episodes": len(rho),
        "steps": tally.steps,
        "left_out_for_invalid_moves": tally.left_out,
        "agreement_rate": float(deals.mean()) if len(rho) else None,
        "rho_mean": float(labelled.mean()) if len(labelled) else None,
        "rho_sd": float(labelled.std()) if len(labelled) else None,
        "sha256": digests,
    }


def _report(console: Console, manifest: dict[str, Any], out: Path, seconds: float) -> None:
    steps = manifest["steps"]
    console.out(f"{manifest['episodes']:,} games, {steps:,} steps in {seconds:.1f} s ({steps / seconds:,.0f} steps/s)")
    if manifest["left_out_for_invalid_moves"]:
        console.out(f"{manifest['left_out_for_invalid_moves']:,} games left out: a strategy made an invalid move")
    if manifest["rho_mean"] is not None:
        agreement, mean, sd = manifest["agreement_rate"], manifest["rho_mean"], manifest["rho_sd"]
        console.out(f"agreement {agreement:.1%}, rho {mean:.3f} ± {sd:.3f} (sd)")
    for name in (*manifest["sha256"], "manifest.json"):
        console.out(f"wrote {out / name}")
    console.out(f"next: python -m experiments.prepare {out} --out {out.parent / 'ready'}")


if __name__ == "__main__":
    cli.main(Settings, run)
