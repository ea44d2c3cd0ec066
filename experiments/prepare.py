"""Check a log or table of decisions, split it by episode and write it ready for training.

    python -m experiments.prepare data/raw --out data/ready

INPUT is a JSONL log, a Parquet table of steps, or a folder that holds one (a table is preferred to a log). Writes
``steps.parquet``, ``episodes.parquet``, ``problems.json`` and ``manifest.json``, all or none. Labels (ρ, success,
history) are always computed from the moves; what the input claims is compared with them. A deal where there is no ZOPA
has no ρ and is dropped, as is whatever a strategy played that is held out of training data.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from rich.console import Console

from bargain_env import IMPASSE_RHO
from bargain_env.errors import InputError
from bargain_env.files import replacing, sha256
from experiments import cli
from experiments.corpus import records, splits
from experiments.corpus.checks import HELD_OUT
from experiments.corpus.parquet_stream import ParquetStream
from experiments.corpus.reading import read_corpus
from experiments.corpus.repair import Problem, sound_rows
from experiments.corpus.step_rows import StepRows, episodes_table, steps_table


@dataclass(frozen=True, slots=True)
class Settings:
    """Check a log or table of decisions, split it by episode and write it ready for training."""

    input: tyro.conf.Positional[Path]
    """JSONL log, Parquet table of steps, or a folder that holds one."""
    out: Path = Path("data/ready")
    """Folder to write to; not the input's."""
    strict: bool = False
    """Any problem is an error: exit 2, nothing written."""
    repair: bool = False
    """Split merged ids into their episodes and recompute wrong labels instead of dropping them."""
    eval_share: float = 0.02
    """Share of episodes for evaluation."""
    test_share: float = 0.02
    """Share of episodes for the test split."""
    seed: int = 0
    """Draws the splits."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the manifest as JSON instead of text."""


def run(settings: Settings) -> dict[str, Any]:
    """Prepare; returns the manifest.

    Raises:
        InputError: a setting or the input is bad, nothing sound is left, or there is a problem under ``--strict``.
    """
    _check(settings)
    console = cli.console(settings.quiet or settings.json)
    corpus = read_corpus(settings.input)
    found = {"trajectories": len(corpus.rows.ids), "steps": len(corpus.rows)}
    console.out(f"read {found['steps']:,} steps under {found['trajectories']:,} ids from {_listed(corpus.files)}")
    rows, problems = sound_rows(corpus, settings.repair)
    if settings.strict and problems:
        kinds = {p.kind for p in problems}
        way_out = "with --repair to mend them" if kinds != {HELD_OUT} else "without --strict to drop them"
        raise InputError(f"{settings.input}: {_summary(problems)}; nothing written; run {way_out}")
    if not len(rows):
        raise InputError(f"{settings.input}: no sound episode is left: {_summary(problems)}; collect again")
    share = {"eval_share": settings.eval_share, "test_share": settings.test_share}
    split = splits.assign_splits(rows.ids, rows.rho, seed=settings.seed, **share)
    manifest = {
        "schema_version": records.SCHEMA_VERSION,
        "command": "prepare",
        "settings": {"repair": settings.repair, "seed": settings.seed, **share},
        "input": {file.name: sha256(file) for file in corpus.files},
        "found": found,
        **_counts(rows, split),
    }
    _write(cli.output_folder(settings.out), rows, split, problems, manifest)
    if settings.json:
        print(json.dumps(manifest))
    _report(console, settings, problems, manifest)
    return manifest


def _check(settings: Settings) -> None:
    if settings.strict and settings.repair:
        raise InputError("--strict and --repair exclude each other; choose one")
    for name, share in (("--eval-share", settings.eval_share), ("--test-share", settings.test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} {share} must lie in [0, 1)")
    if settings.eval_share + settings.test_share >= 1:
        raise InputError("--eval-share and --test-share leave nothing to train on; make them smaller")
    folder = settings.input if settings.input.is_dir() else settings.input.parent
    if settings.out.resolve() == folder.resolve():
        raise InputError(f"--out {settings.out} is the folder of the input, which would be overwritten; choose another")


def _counts(rows: StepRows, split: np.ndarray) -> dict[str, Any]:
    rho = rows.rho
    deals = rho[rho != IMPASSE_RHO]
    return {
        "episodes": len(rows.ids),
        "steps": len(rows),
        "splits": {name: int((split == name).sum()) for name in (splits.TRAIN, splits.EVAL, splits.TEST)},
        "agreements": len(deals),
        "rho_mean": float(deals.mean()) if len(deals) else None,
        "rho_sd": float(deals.std()) if len(deals) else None,
    }


def _write(out: Path, rows: StepRows, split: np.ndarray, problems: list[Problem], manifest: dict[str, Any]) -> None:
    tables = {
        "steps.parquet": (steps_table(rows, split), records.STEPS),
        "episodes.parquet": (episodes_table(rows, split), records.EPISODES),
    }
    with ExitStack() as whole:  # leaving it renames the files into place, the manifest last
        manifest_file = whole.enter_context(replacing(out / "manifest.json"))
        problems_file = whole.enter_context(replacing(out / "problems.json"))
        manifest["sha256"] = {
            name: _write_table(whole.enter_context(replacing(out / name)), table, schema)
            for name, (table, schema) in tables.items()
        }
        report = {"schema_version": records.SCHEMA_VERSION, "problems": [asdict(p) for p in problems]}
        problems_file.write_text(json.dumps(report, indent=2) + "\n")
        manifest_file.write_text(json.dumps(manifest, indent=2) + "\n")


def _write_table(path: Path, table: pa.Table, schema: pa.Schema) -> str:
    with ParquetStream(path, schema) as stream:
        stream.append(table)
    return sha256(path)


def _listed(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{len(files)} files in {files[0].parent}"


def _summary(problems: list[Problem]) -> str:
    return "; ".join(f"{p.kind} in {p.trajectories:,} ids, such as {p.examples[0]}" for p in problems)


def _report(console: Console, settings: Settings, problems: list[Problem], manifest: dict[str, Any]) -> None:
    for p in problems:
        where = f"{p.trajectories:,} ids, {p.steps:,} steps, such as {p.examples[0]}"
        console.out(f"problem: {p.kind} in {where}: {p.meaning}; {p.action}")
    lost = manifest["found"]["steps"] - manifest["steps"]
    if lost:
        command = f"python -m experiments.prepare {settings.input} --out {settings.out} --repair"
        hint = "" if settings.repair else f"; to keep what can be mended: {command}"
        console.out(f"dropped {lost:,} of {manifest['found']['steps']:,} steps{hint}")
    counts = ", ".join(f"{name} {n:,}" for name, n in manifest["splits"].items())
    console.out(f"{manifest['episodes']:,} episodes, {manifest['steps']:,} steps: {counts}")
    if manifest["rho_mean"] is not None:
        agreement = manifest["agreements"] / manifest["episodes"]
        console.out(f"agreement {agreement:.1%}, rho {manifest['rho_mean']:.4f} ± {manifest['rho_sd']:.4f} (sd)")
    for name in (*manifest["sha256"], "problems.json", "manifest.json"):
        console.out(f"wrote {settings.out / name}")
    console.out(f"next: python -m experiments.train --data {settings.out} --model-name janus-nano --out runs/adapter")


if __name__ == "__main__":
    cli.main(Settings, run)
