"""Play games between random pairs of strategies and write them down as training data.

    python -m experiments.collect --episodes 10000 --seed 0 --out data/raw
    python -m experiments.prepare data/raw --out data/ready

Writes ``steps/part-00000.parquet``, ``episodes/part-00000.parquet`` and so on, 25,000 games a part, and ``manifest.json``;
with --jsonl also ``log/part-00000.jsonl``, one record a step. The same settings give the same bytes, however many workers
play and however often the run is interrupted: the same command continues it. More episodes in the same folder keep the parts
that are there.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from typing import Any, Literal

from rich.console import Console

import bargain_env
from agents.teacher import Teacher, teacher_file
from bargain_env import PRESETS
from bargain_env.errors import InputError, unknown
from bargain_env.files import locked, sha256
from experiments import cli
from experiments.corpus import cast, records, teachers
from experiments.corpus.collecting import shown, summary
from experiments.corpus.part_store import PartStore
from experiments.corpus.parts import EPISODES, LOG, STEPS, Games, Job, Part, parts_of
from experiments.match import engines
from experiments.match.engines import WorkersDiedError
from experiments.match.identity import CODE, ROOT, tree_digest
from experiments.match.specs import split
from experiments.plugins import load_plugin
from experiments.versions import versions

LOCK = ".collecting"
"""In the folder of a collection while one is made in it."""
MOST_EPISODES = 10**9
TOGETHER = 4
"""Parts of scripts that are played together, at most: each strategy is asked once a turn for all of them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Play games between random pairs of strategies and write them down as training data."""

    episodes: int = 10000
    """How many games."""
    seed: int = 0
    """Run seed. With the other settings it determines every byte."""
    scenario: str = bargain_env.DEFAULT_PRESET
    """Where games come from: paper, hidden or no_deal, or several of them in turn, a comma list."""
    strategies: str = "train"
    """Who plays, a comma list of players: names of strategies, ``train`` (every registered one that is not held out),
    ``population:N@train`` (N members of all families, their parameters drawn from the ranges that train), learned:PATH,
    janus-nano, janus:PATH or lora:PATH (asked for another ρ in each game) or one at a ρ (janus-nano@0.3). Each game draws
    buyer and seller evenly from all of them. Or a comma list of pairs BUYER:SELLER, such as fair:hardliner,train:janus-nano:
    each game draws one of the pairs evenly, where a group stands for each of its members."""
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
    """Folder to write to. What an interrupted or a shorter run has finished there is kept."""
    jsonl: bool = False
    """Write the log too, one JSON record a step; it takes ten times the room."""
    workers: int = 1
    """Processes that play at once. The bytes are the same for any number."""
    engine: Literal["process", "ray"] = "process"
    """Who the workers are: processes of this machine, or Ray actors (needs the ray extra; RAY_ADDRESS names a cluster)."""
    fresh: bool = False
    """Discard a collection that is in --out instead of continuing it."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the manifest as JSON instead of text."""


def run(settings: Settings) -> dict[str, Any]:
    """Collect; returns the manifest.

    Raises:
        InputError: a setting is out of range, a player is unknown or held out, the folder holds another collection, is being
            written to or cannot be; what was finished is kept.
        KeyboardInterrupt: as it came, with a message that says how to continue.
    """
    games = _games(settings)
    out = cli.output_folder(settings.out)
    for name in games.presets:
        cast.load(games.cast, PRESETS[name])
    console = cli.console(settings.quiet or settings.json)
    with locked(out / LOCK, f"another collector is writing to {out}; wait for it, or choose another --out"):
        manifest = _collect(settings, games, out, console)
    if settings.json:
        print(json.dumps(manifest))
    return manifest


def _collect(settings: Settings, games: Games, out: Path, console: Console) -> dict[str, Any]:
    """Play what is missing, and write it."""
    shaping = _shaping(settings, games)
    parts = parts_of(settings.episodes)
    kinds = (STEPS, EPISODES, *([LOG] if settings.jsonl else []))
    store = PartStore(
        out, _identity(settings, games, shaping), parts, kinds, cli.warner(settings.quiet), fresh=settings.fresh
    )
    kept, started = len(store.entries), time.perf_counter()
    if kept:
        console.out(f"continuing: {kept:,} of {len(parts):,} parts are there")
    shards = _shards([part for part in parts if part.number not in store.entries], settings, games)
    job = Job(games, shards, records.run_name(settings.seed, shaping), settings.jsonl, settings.plugin)
    try:
        for played in shown(_play(job, settings), settings.episodes, _games_in(parts, store), console):
            store.put(played)
        manifest = store.finish(summary(store.entries))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_continuing(settings, store, parts)}") from None
    except WorkersDiedError as error:
        raise InputError(f"{error}; try fewer --workers; {_continuing(settings, store, parts)}") from error
    _report(console, settings, manifest, kept, time.perf_counter() - started)
    return manifest


def _play(job: Job, settings: Settings) -> Iterator[Any]:
    """The parts of each shard, as they are finished."""
    numbers = range(len(job.shards))
    for finished in engines.play(
        job.player(), job, numbers, settings.workers, settings.engine, cli.warner(settings.quiet)
    ):
        yield from finished.parts


def _shards(missing: list[Part], settings: Settings, games: Games) -> list[list[Part]]:
    """Parts that are played together: neighbours, so many that they are cheap and that all workers have some."""
    most = min(TOGETHER, math.ceil(len(missing) / settings.workers)) if games.cast.scripted else 1
    found: list[list[Part]] = []
    for part in missing:
        if found and len(found[-1]) < most and found[-1][-1].number + 1 == part.number:
            found[-1].append(part)
        else:
            found.append([part])
    return found


def _games_in(parts: list[Part], store: PartStore) -> int:
    return sum(part.games for part in parts if part.number in store.entries)


def _games(settings: Settings) -> Games:
    """What is played.

    Raises:
        InputError: a setting is out of range, or a player is unknown or held out.
    """
    if settings.plugin is not None:
        load_plugin(settings.plugin)
    for name, least in (("episodes", 1), ("max_turns", 1), ("workers", 1), ("seed", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be at least {least}")
    if settings.seed >= 2**53:
        raise InputError(f"--seed {settings.seed} must be below 2**53")
    if settings.episodes > MOST_EPISODES:
        raise InputError(f"--episodes {settings.episodes} must be at most {MOST_EPISODES}; make several collections")
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
    return Games(
        settings.seed,
        tuple(presets),
        cast.resolve(settings.strategies, settings.seed),
        settings.max_turns,
        settings.teacher_share,
        settings.teacher,
        settings.sparring_share,
    )


def _shaping(settings: Settings, games: Games) -> dict[str, Any]:
    """The settings that shape a game of a given seed and id."""
    shaping: dict[str, Any] = {"scenario": settings.scenario, **games.cast.shaping(), "max_turns": settings.max_turns}
    if settings.teacher_share:  # without teachers, games keep the ids that they always had
        shaping["teacher_share"] = settings.teacher_share
    if settings.sparring_share:
        shaping["sparring_share"] = settings.sparring_share
    if settings.teacher is not None:
        files = {name: teacher_file(settings.teacher, name) for name in games.presets}
        shaping["teachers_sha256"] = {name: sha256(file) for name, file in files.items()}
    return shaping


def _identity(settings: Settings, games: Games, shaping: dict[str, Any]) -> dict[str, Any]:
    """All that the bytes depend on, the code included: parts of different code are not put together."""
    libraries = ["numpy", "pyarrow", "orjson", *([] if games.cast.scripted else ["torch", "transformers"])]
    plugin = {} if settings.plugin is None else {"plugin_sha256": sha256(settings.plugin)}
    return {
        "schema_version": records.SCHEMA_VERSION,
        "settings": {"seed": settings.seed, **shaping, **plugin, "jsonl": settings.jsonl},
        "part_games": records.PART_GAMES,
        "code": tree_digest([ROOT / name for name in (*CODE, "experiments/corpus")]),
        "libraries": {"bargain-lab": versions()["bargain-lab"], **{name: metadata.version(name) for name in libraries}},
    }


def _continuing(settings: Settings, store: PartStore, parts: list[Part]) -> str:
    """How to continue a collection that was stopped."""
    return f"{len(store.entries)} of {len(parts)} parts are kept; continue with: {_command(settings)}"


def _command(settings: Settings) -> str:
    """The command line of these settings, without what it asked to discard."""
    words = ["python", "-m", "experiments.collect"]
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        if value != setting.default and setting.name != "fresh":
            words += [f"--{setting.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _report(console: Console, settings: Settings, manifest: dict[str, Any], kept: int, seconds: float) -> None:
    out, parts = settings.out, manifest["parts"]
    played = sum(part["games"] for part in parts) if not kept else None
    rate = f" in {seconds:.1f} s ({played / seconds:,.0f} games/s)" if played else ""
    console.out(f"{manifest['episodes']:,} games, {manifest['steps']:,} steps{rate}")
    if manifest["left_out_for_invalid_moves"]:
        console.out(f"{manifest['left_out_for_invalid_moves']:,} games left out: a strategy made an invalid move")
    if manifest["rho_mean"] is not None:
        agreement, mean, sd = manifest["agreement_rate"], manifest["rho_mean"], manifest["rho_sd"]
        console.out(f"agreement {agreement:.1%}, rho {mean:.3f} ± {sd:.3f} (sd)")
    size = sum(file["bytes"] for file in manifest["files"].values())
    folders = sorted({name.split("/")[0] for name in manifest["files"]})
    console.out(
        f"wrote {out}: {len(parts):,} part{'s' * (len(parts) > 1)} in {', '.join(folders)} ({size / 1e6:,.1f} MB), "
        "manifest.json"
    )
    console.out(f"check: python -m experiments.verify {out}")
    console.out(f"next: python -m experiments.prepare {out} --out {out.parent / 'ready'}")


if __name__ == "__main__":
    from experiments import collect  # under its own name, by which workers find it

    cli.main(collect.Settings, collect.run)
