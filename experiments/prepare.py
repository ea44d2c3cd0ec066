"""Check a log or table of decisions, split it by episode and write it ready for training.

    python -m experiments.prepare data/raw --out data/ready

INPUT is a JSONL log, a Parquet table of steps, or a folder that holds one, perhaps in parts (a table is preferred to a log).
Writes ``steps.parquet``, ``episodes.parquet``, ``problems.json`` and ``manifest.json``, all or none. Episodes come in the
order in which the input first names them, their steps by turn. Labels (ρ, success, history) are always computed from the
moves; what the input claims is compared with them. A deal where there is no ZOPA has no ρ and is dropped, as is whatever a
strategy played that is held out of training data.

The input may be larger than memory, its rows in any order and its lines damaged: a row that cannot be read is reported by
its number, and its episode, which has a hole now, is dropped.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from bargain_env import IMPASSE_RHO
from bargain_env.errors import InputError
from bargain_env.files import replacing, sha256
from experiments import cli
from experiments.corpus import manifest, records
from experiments.corpus.games import players_of, rho_of, rows_of
from experiments.corpus.kinds import HELD_OUT
from experiments.corpus.overlap import behind
from experiments.corpus.parquet_stream import ParquetStream
from experiments.corpus.reading import Effort, Reader
from experiments.corpus.report import Problem, as_table, summary
from experiments.corpus.sifting import Games, Sifted, sift
from experiments.corpus.spill import temporary_folder
from experiments.corpus.splits import NAMES, Splits
from experiments.corpus.step_rows import StepRows, encoded_steps, episodes_table
from experiments.match.engines import WorkersDiedError
from experiments.progress import Tell, progress

_BEHIND = 4
"""Tables that wait to be written."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Settings:
    """Check a log or table of decisions, split it by episode and write it ready for training."""

    input: tyro.conf.Positional[Path]
    """JSONL log, Parquet table of steps, or a folder that holds one, perhaps in parts."""
    out: Path = Path("data/ready")
    """Folder to write to; not the input's."""
    strict: bool = False
    """Any problem is an error: exit 2, nothing written."""
    repair: bool = False
    """Split merged ids into their episodes, keep one copy of a repeated record and recompute wrong labels, instead of
    dropping what they are in."""
    eval_share: float = 0.02
    """Share of episodes for evaluation."""
    test_share: float = 0.02
    """Share of episodes for the test split."""
    holdout: str = ""
    """A comma list of strategies whose episodes, whichever seat they played, are all for the test split; shares are of the
    other episodes. A drawn member of a family goes by its own name or the family's."""
    seed: int = 0
    """Draws the splits."""
    workers: int = os.cpu_count() or 1
    """Processes and threads that read, check and write at once; 1 for one after the other. The bytes are the same for any
    number."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the manifest as JSON instead of text."""


def run(settings: Settings) -> dict[str, Any]:
    """Prepare; returns the manifest.

    Raises:
        InputError: a setting or the input is bad, nothing sound is left, there is a problem under ``--strict``, or the disk
            is full.
    """
    _check(settings)
    console = cli.console(settings.quiet or settings.json)
    reader = Reader(settings.input)
    _check_out(settings, reader)
    with _room(settings.out), temporary_folder(settings.out) as folder:
        sifted = _sifted(reader, settings, folder, console)
        found = {"trajectories": sifted.ids, "steps": reader.rows}
        console.out(f"read {found['steps']:,} steps under {found['trajectories']:,} ids from {_listed(reader)}")
        problems = sifted.report.problems(reader)
        if problems:
            console.print(as_table(problems))
        if settings.strict and problems:
            raise InputError(f"{settings.input}: {summary(problems)}; nothing written; run {_way_out(problems)}")
        if not sifted.games.count:
            raise InputError(f"{settings.input}: no sound episode is left: {summary(problems)}; collect again")
        splits = Splits(settings.seed, settings.eval_share, settings.test_share, _held(settings))
        rho = []
        for games in sifted.games.in_order():
            rho.append(rho_of(games))
            splits.add(games["trajectory_id"], rho[-1], players_of(games))
        split = splits.assign()
        document = {
            "schema_version": records.SCHEMA_VERSION,
            "command": "prepare",
            "settings": _shaping(settings),
            "input": {name: sha256(file) for name, file in zip(reader.names, reader.files, strict=True)},
            "found": found,
            "steps": sifted.games.steps,
            **_counts(np.concatenate(rho), split),
        }
        with progress("write", "steps", console, sifted.games.steps) as tell:
            _write(settings, sifted.games, split, problems, document, tell)
    if settings.json:
        print(json.dumps(document))
    _report(console, settings, document)
    return document


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """A full disk becomes an `InputError`; what was written by then goes away with its temporary files."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(
            f"no room to write {out} ({os.strerror(error.errno)}); nothing written: make room, some twice what the input "
            "takes as Parquet, or choose another --out, and give the command again"
        ) from error


def _sifted(reader: Reader, settings: Settings, folder: Path, console: Console) -> Sifted:
    """What is left of the input, while a bar shows how far it was read.

    Raises:
        InputError: a file cannot be read at all, or all workers died.
    """
    with progress("read", "steps", console) as tell:
        reader.effort = Effort(settings.workers, cli.warner(settings.quiet), tell)
        try:
            return sift(reader, settings.repair, folder)
        except WorkersDiedError as error:
            raise InputError(f"{error}; nothing written; try fewer --workers") from error


def _shaping(settings: Settings) -> dict[str, Any]:
    """The settings that the result depends on."""
    return {
        "repair": settings.repair,
        "seed": settings.seed,
        "eval_share": settings.eval_share,
        "test_share": settings.test_share,
        "holdout": _held(settings),
    }


def _held(settings: Settings) -> list[str]:
    return [name.strip() for name in settings.holdout.split(",") if name.strip()]


def _way_out(problems: list[Problem]) -> str:
    return "with --repair to mend them" if {p.kind for p in problems} != {HELD_OUT} else "without --strict to drop them"


def _check(settings: Settings) -> None:
    if settings.strict and settings.repair:
        raise InputError("--strict and --repair exclude each other; choose one")
    for name, share in (("--eval-share", settings.eval_share), ("--test-share", settings.test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} {share} must lie in [0, 1)")
    if settings.eval_share + settings.test_share >= 1:
        raise InputError("--eval-share and --test-share leave nothing to train on; make them smaller")
    if settings.workers < 1:
        raise InputError(f"--workers {settings.workers} must be at least 1")


def _check_out(settings: Settings, reader: Reader) -> None:
    taken = {folder.resolve() for folder in (reader.folder, *(file.parent for file in reader.files))}
    if settings.out.resolve() in taken:
        raise InputError(f"--out {settings.out} is the folder of the input, which would be overwritten; choose another")


def _counts(rho: np.ndarray, split: np.ndarray) -> dict[str, Any]:
    deals = rho[rho != IMPASSE_RHO]
    return {
        "episodes": len(rho),
        "splits": {name: int((split == code).sum()) for code, name in enumerate(NAMES)},
        "agreements": len(deals),
        "rho_mean": float(deals.mean()) if len(deals) else None,
        "rho_sd": float(deals.std()) if len(deals) else None,
    }


def _write(
    settings: Settings, games: Games, split: np.ndarray, problems: list[Problem], document: dict[str, Any], tell: Tell
) -> None:
    out, schemas = (
        cli.output_folder(settings.out),
        {"steps.parquet": records.STEPS, "episodes.parquet": records.EPISODES},
    )
    with ExitStack() as whole:  # leaving it renames the files into place, the manifest last
        manifest_file = whole.enter_context(replacing(out / manifest.NAME))
        problems_file = whole.enter_context(replacing(out / "problems.json"))
        paths = {name: whole.enter_context(replacing(out / name)) for name in schemas}
        with ExitStack() as tables:
            steps, episodes = (tables.enter_context(ParquetStream(paths[name], schemas[name])) for name in schemas)
            do = tables.enter_context(behind(0 if settings.workers == 1 else _BEHIND))
            done = 0
            for moves, names in _with_split(games, split):
                do(steps.append, encoded_steps(moves, names))
                do(episodes.append, episodes_table(moves, names))
                done += len(moves)
                tell(done, games.steps)
        report = {"schema_version": records.SCHEMA_VERSION, "problems": [asdict(p) for p in problems]}
        problems_file.write_text(json.dumps(report) + "\n")
        rows = {"steps.parquet": document["steps"], "episodes.parquet": document["episodes"], "problems.json": None}
        paths["problems.json"] = problems_file
        document["files"] = {name: manifest.described(path, rows[name]) for name, path in paths.items()}
        manifest_file.write_text(manifest.text(document), encoding="utf-8")


def _with_split(games: Games, split: np.ndarray) -> Iterator[tuple[StepRows, np.ndarray]]:
    done, names = 0, np.array(NAMES, dtype=object)
    for table in games.in_order():
        yield rows_of(table), names[split[done : done + len(table)]]
        done += len(table)


def _listed(reader: Reader) -> str:
    return str(reader.files[0]) if len(reader.files) == 1 else f"{len(reader.files)} files in {reader.files[0].parent}"


def _report(console: Console, settings: Settings, document: dict[str, Any]) -> None:
    lost = document["found"]["steps"] - document["steps"]
    if lost:
        command = f"python -m experiments.prepare {settings.input} --out {settings.out} --repair"
        hint = "" if settings.repair else f"; to keep what can be mended: {command}"
        console.out(f"dropped {lost:,} of {document['found']['steps']:,} steps{hint}")
    counts = ", ".join(f"{name} {n:,}" for name, n in document["splits"].items())
    console.out(f"{document['episodes']:,} episodes, {document['steps']:,} steps: {counts}")
    if document["rho_mean"] is not None:
        agreement = document["agreements"] / document["episodes"]
        console.out(f"agreement {agreement:.1%}, rho {document['rho_mean']:.4f} ± {document['rho_sd']:.4f} (sd)")
    for name in (*document["files"], manifest.NAME):
        console.out(f"wrote {settings.out / name}")
    console.out(f"look at it: python -m experiments.inspect {settings.out}")
    console.out(f"next: python -m experiments.train --data {settings.out} --model-name janus-nano --out runs/adapter")


if __name__ == "__main__":
    cli.main(Settings, run)
