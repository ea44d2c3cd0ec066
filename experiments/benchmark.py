"""Benchmark: speeds of this machine, each as a ratio to a reference measured in the same run.

    python -m experiments.benchmark env
    python -m experiments.benchmark strategies
    python -m experiments.benchmark train
    python -m experiments.benchmark decode
    python -m experiments.benchmark tournament
    python -m experiments.benchmark collect
    python -m experiments.benchmark prepare
    python -m experiments.benchmark feed
    python -m experiments.benchmark env --json > speed.json

A ratio below its bar is marked, and with --check makes the command exit with 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.table import Table

from bargain_env.files import replacing
from experiments import cli
from experiments.speed import collect, curve, env, prepare, strategies, tournament
from experiments.speed.stopwatch import Speed

SCHEMA_VERSION = 1


def _train(seconds: float, seed: int) -> Iterator[Speed]:
    from experiments.speed import train  # imports PyTorch and transformers, seconds that the other suites need not wait

    return train.measure(seconds, seed)


def _decode(seconds: float, seed: int) -> Iterator[Speed]:
    from experiments.speed import decode  # as above

    return decode.measure(seconds, seed)


def _feed(seconds: float, seed: int) -> Iterator[Speed]:
    from experiments.speed import feed  # as above

    return feed.measure(seconds, seed)


SUITES = {
    "env": env.measure,
    "strategies": strategies.measure,
    "train": _train,
    "decode": _decode,
    "tournament": tournament.measure,
    "collect": collect.measure,
    "prepare": prepare.measure,
    "feed": _feed,
}


@dataclass(frozen=True)
class Settings:
    """Measure speeds and compare each with a reference measured in the same run."""

    suite: Annotated[
        Literal["env", "strategies", "train", "decode", "tournament", "collect", "prepare", "feed"],
        tyro.conf.Positional,
    ]
    """What to measure: the faces of the environment, the zoo, training, decisions of a language model, tournaments,
    collecting data and preparing them, or making batches of them."""
    seconds: float = 1.0
    """How long each thing is measured."""
    seed: int = 0
    """Draws the games and the actions, or the weights and the rows."""
    out: Path | None = None
    """Folder for benchmark.json and, for env, the curve of cost by batch size."""
    check: bool = False
    """Exit with 1 if a ratio is below its bar."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the result as JSON."""


def run(settings: Settings) -> dict[str, Any]:
    """Measure, show and write.

    Raises:
        InputError: ``seconds`` is not positive, or the output folder cannot be made.
    """
    if not 0 < settings.seconds < float("inf"):
        raise cli.InputError(f"--seconds {settings.seconds} must be positive")
    out = None if settings.out is None else cli.output_folder(settings.out)
    console = cli.console(settings.quiet or settings.json)
    found: list[Speed] = []
    with console.status("measuring") as status:
        for speed in SUITES[settings.suite](settings.seconds, settings.seed):
            found.append(speed)
            status.update(f"measured {speed.name}")
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "suite": settings.suite,
        "machine": _machine(),
        "speeds": [],
    }
    document["speeds"] = [speed.as_dict() for speed in found]
    console.print(_table(found))
    if out is not None:
        with replacing(out / "benchmark.json") as file:
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        written = [out / "benchmark.json"]
        if settings.suite == "env":
            written.append(out / "speed.png")
            curve.draw(found, written[-1])
        console.print(f"wrote {' and '.join(map(str, written))}", soft_wrap=True)
    if settings.json:
        print(json.dumps(document))
    missed = [speed.name for speed in found if speed.meets is False]
    if missed and settings.check:
        print(f"below the bar: {', '.join(missed)}", file=sys.stderr)
        sys.exit(1)
    return document


def _machine() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}


def _table(found: list[Speed]) -> Table:
    table = Table(box=None, pad_edge=False)
    goals = any(speed.goal is not None for speed in found)
    for name in ("", "rate", *(["asked for"] if goals else []), "each", "ratio", "bar", "reference"):
        table.add_column(name, justify="left" if name in ("", "reference") else "right")
    for speed in found:
        ratio = "" if speed.ratio is None else f"{speed.ratio:.2f}"
        if speed.meets is not None:
            ratio = f"[{'green' if speed.meets else 'red'}]{ratio}[/]"
        bar = "" if speed.bar is None else f"{speed.bar:.3g}"
        goal = ["" if speed.goal is None else _rate(speed.goal)] if goals else []
        rate, each = f"{_rate(speed.rate)} {speed.unit}", _each(speed)
        table.add_row(speed.name, rate, *goal, each, ratio, bar, speed.reference)
    return table


def _rate(rate: float) -> str:
    if rate < 1e4:
        return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.0f} k"


def _each(speed: Speed) -> str:
    """Time of one unit; nothing for what is no rate."""
    if not speed.unit.endswith("/s"):
        return ""
    return f"{1e9 / speed.rate:,.0f} ns" if speed.rate >= 1e4 else f"{1e3 / speed.rate:,.2f} ms"


if __name__ == "__main__":
    cli.main(Settings, run)
