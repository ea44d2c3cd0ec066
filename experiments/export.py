"""Write prepared data in the layout of another library.

    python -m experiments.export data/ready --to datasets --out runs/hub

``datasets``: steps and episodes as `datasets.load_dataset` and the Hugging Face Hub take them; ``trl``: texts for TRL's
supervised fine-tuning; ``minari``: a Minari data set for each seat and split; ``transitions``: (s, a, r, s', done) for
offline reinforcement learning. Splits stay what they are. OUT is written whole or not at all, and the same input gives the
same bytes with the same versions of pyarrow and Minari, which write theirs into the files; nothing in them tells the time.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bargain_env.actions import DEFAULT_PRICES
from bargain_env.errors import InputError
from bargain_env.files import replacing_folder
from bargain_env.scenarios import DEFAULT_PRESET
from bargain_env.settings import GameSettings
from experiments import cli
from experiments.corpus import manifest, records
from experiments.corpus.records import HISTORY_LENGTH
from experiments.exporting import tables
from experiments.exporting.source import Block, Source
from experiments.exporting.writing import files_below

Made = dict[str, Any]
"""What a manifest says of an export, besides its settings and files."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Write prepared data in the layout of another library."""

    data: tyro.conf.Positional[Path]
    """Folder written by experiments.prepare."""
    to: Literal["datasets", "trl", "minari", "transitions"]
    """The layout."""
    out: Path
    """Folder to write; an earlier export in it is replaced."""
    episodes: int | None = None
    """Only the first so many games."""
    labels: Literal["outcome", "asked"] = "outcome"
    """trl: which rho a prompt says: the settlement that its game reached, or what its player was asked to reach."""
    prompt_format: int = 2
    """trl: prompt format, 1, 2, 3 or 4 (see hyperlora.prompt)."""
    k_history: int = HISTORY_LENGTH
    """trl: history slots of a prompt."""
    action_mode: Literal["box", "grid"] = "box"
    """minari: box, in which prices are exact; or grid, the nearest of n-prices."""
    n_prices: int = DEFAULT_PRICES
    """minari: prices on the grid."""
    scenario: str = DEFAULT_PRESET
    """minari: preset of the environment that recover_environment() makes."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the manifest as JSON instead of text."""


OF_FORMAT = {
    "trl": ("labels", "prompt_format", "k_history"),
    "minari": ("action_mode", "n_prices", "scenario"),
}
"""Settings that only one format has."""


def run(settings: Settings) -> dict[str, Any]:
    """Export; returns the manifest.

    Raises:
        InputError: a setting or the data cannot be used, or a library is missing; nothing is written.
    """
    _check(settings)
    console = cli.console(settings.quiet or settings.json)
    write, started = _writer(settings), time.perf_counter()
    source = Source(settings.data)
    with replacing_folder(settings.out, manifest.NAME) as folder:
        made = write(folder, source, _progress(source, settings, console))
        _require_rows(settings, made)
        document = {
            "schema_version": records.SCHEMA_VERSION,
            "command": "export",
            "settings": _shaping(settings),
            "source": {"sha256": source.digests, "episodes": source.manifest.get("episodes")},
            **made,
            "files": files_below(folder),
        }
        manifest.write(folder, document)
    written = manifest.read(settings.out)
    if settings.json:
        print(json.dumps(written))
    _report(console, settings, written, time.perf_counter() - started)
    return written


def _check(settings: Settings) -> None:
    defaults = {f.name: f.default for f in fields(Settings)}
    for layout, names in OF_FORMAT.items():
        for name in names:
            if layout != settings.to and getattr(settings, name) != defaults[name]:
                raise InputError(
                    f"--{name.replace('_', '-')} belongs to --to {layout}; leave it out with {settings.to}"
                )
    if settings.action_mode == "box" and settings.n_prices != DEFAULT_PRICES:
        raise InputError("--n-prices belongs to --action-mode grid; leave it out")
    if settings.episodes is not None and settings.episodes < 1:
        raise InputError(f"--episodes {settings.episodes} must be at least 1")
    if not 1 <= settings.k_history <= HISTORY_LENGTH:
        raise InputError(f"--k-history {settings.k_history} must lie in 1 … {HISTORY_LENGTH}, what steps tables hold")
    if settings.to == "trl":
        from hyperlora.prompt import PROMPT_FORMATS  # loads torch

        if settings.prompt_format not in PROMPT_FORMATS:
            raise InputError(f"--prompt-format {settings.prompt_format} does not exist; choose 1, 2, 3 or 4")
    _refuse_other_data(settings.out)


def _refuse_other_data(out: Path) -> None:
    """A folder of collect or prepare has a manifest too, and must not be taken for an earlier export."""
    try:
        found = json.loads((out / manifest.NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    command = found.get("command") if isinstance(found, dict) else None
    if command != "export":
        raise InputError(
            f"{out} holds a manifest.json of {command or 'something else'}, which would be lost; choose another --out"
        )


def _shaping(settings: Settings) -> dict[str, Any]:
    """The settings that shape the files."""
    return {name: getattr(settings, name) for name in ("to", "episodes", *OF_FORMAT.get(settings.to, ()))}


# ── the layouts ───────────────────────────────────────────────────────────────────────────────────────────────────────

Write = Callable[[Path, Source, Iterable[Block]], Made]


def _writer(settings: Settings) -> Write:
    """What writes the layout; a library that it needs is loaded now."""
    if settings.to == "minari":
        from experiments.exporting import minari_layout  # needs Minari

        game = GameSettings(
            action_mode=settings.action_mode, n_prices=settings.n_prices, scenario=settings.scenario
        )  # refuses bad settings before anything is read
        return lambda folder, source, blocks: minari_layout.write(game, folder, source, blocks)
    layout = _layout(settings)
    return lambda folder, _, blocks: tables.write(layout, folder, blocks)


def _layout(settings: Settings) -> tables.Layout:
    if settings.to == "datasets":
        return tables.steps_and_episodes()
    if settings.to == "transitions":
        from experiments.exporting import transitions

        return transitions.layout()
    from experiments.exporting import prompts  # loads torch

    return prompts.layout(settings.labels, settings.prompt_format, settings.k_history)


def _require_rows(settings: Settings, made: Made) -> None:
    if any(any(counts.values()) for counts in made["rows"].values()):
        return
    if settings.labels == "asked":
        raise InputError(
            f"--labels asked: no player in {settings.data} was asked for anything; collect games with --teacher"
        )
    raise InputError(f"{settings.data} holds nothing that --to {settings.to} can say: all of it was left out")


# ── what the user sees ────────────────────────────────────────────────────────────────────────────────────────────────


def _progress(source: Source, settings: Settings, console: Console) -> Iterator[Block]:
    total = source.manifest.get("episodes") if settings.episodes is None else settings.episodes
    columns = (TextColumn("export"), BarColumn(), MofNCompleteColumn(), TextColumn("games"), TimeRemainingColumn())
    told, done = time.monotonic(), 0
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as progress:
        task = progress.add_task("export", total=total)
        for block in source.blocks(settings.episodes):
            yield block
            done += len(block)
            progress.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - told > _PLAIN_LINE_EVERY:
                told = time.monotonic()
                console.out(f"{done:,} games")


def _report(console: Console, settings: Settings, written: dict[str, Any], seconds: float) -> None:
    total = 0
    for name, counts in written["rows"].items():
        console.out(f"{name}: " + ", ".join(f"{split} {n:,}" for split, n in counts.items()))
        total += sum(counts.values())
    console.out(f"{total:,} rows in {seconds:.1f} s ({total / seconds:,.0f} rows/s)")
    if written["left_out"]:
        console.out(f"left out {written['left_out']:,} {LEFT_OUT[settings.to]}")
    console.out(f"wrote {len(written['files']):,} files and manifest.json to {settings.out}")
    console.out(f"next: {NEXT[settings.to].format(out=settings.out)}")


_PLAIN_LINE_EVERY = 10.0
"""Seconds between lines where there is no bar."""
LEFT_OUT = {
    "datasets": "",
    "trl": "decisions: no label, or a degenerate price range",
    "transitions": "games: a limit is unknown or outside the price range, or a seat never moved",
    "minari": "sides of games: the game cannot be played in Bargain-v0, or a move is not in the action space",
}
NEXT = {
    "datasets": """python -c "import datasets; print(datasets.load_dataset('{out}'))\"""",
    "trl": """python -c "import datasets; print(datasets.load_dataset('{out}', split='train')[0])\"""",
    "transitions": """python -c "import datasets; print(datasets.load_dataset('{out}', split='train')[0])\"""",
    "minari": "MINARI_DATASETS_PATH={out} minari list local",
}


if __name__ == "__main__":
    cli.main(Settings, run)
