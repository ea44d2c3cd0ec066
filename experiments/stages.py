"""Commands that are a row of other commands: stages whose results stay, so that an interrupted run continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments import collect, prepare, teacher, train
from hyperlora.prompt import SEATED

TEACHER = "teacher.safetensors"
STRATEGIES = "train,population:60@train"
"""Who plays the seats that no teacher has."""
SPARRING_SHARE = 0.35
"""Share of these that sparring partners have, as where teachers learn."""


class Stage(NamedTuple):
    """One step of the row.

    Attributes:
        name: shown while it runs.
        product: the file that is there once it is complete.
        work: makes it.
    """

    name: str
    product: Path
    work: Callable[[], object]


def run_stages(stages: Iterable[Stage], console: Console) -> None:
    """Run those whose product is missing, in order."""
    for stage in stages:
        if stage.product.is_file():
            console.print(f"{stage.name}: done before ({stage.product})", soft_wrap=True)
            continue
        console.print(f"{stage.name} …")
        started = time.monotonic()
        stage.work()
        console.print(f"{stage.name}: {(time.monotonic() - started) / 60:.1f} min")


def claim(path: Path, chosen: Mapping[str, Any]) -> None:
    """Write ``chosen`` to ``path``, or refuse to mix two runs in one folder.

    Raises:
        InputError: the file holds other settings.
    """
    if path.is_file() and json.loads(path.read_text()) != dict(chosen):
        raise InputError(f"{path.parent} holds a run with other settings ({path.name}); choose another --out")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(dict(chosen), indent=2) + "\n")


def require_least(settings: Any, least: Mapping[str, int]) -> None:
    """Refuse a setting below its least value.

    Raises:
        InputError: names the first.
    """
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be at least {value}")


@dataclass(frozen=True, slots=True)
class Data:
    """Where training data come from.

    Attributes:
        seed: of games, opponents and teachers.
        scenario: presets, a comma list.
        episodes: games.
        teacher_share: chance of each seat to be played by a teacher; 0 for none.
        teacher_rounds: rounds in which one is trained; 0 for scripted ones.
        threads: that train them.
        quiet: no output.
    """

    seed: int
    scenario: str
    episodes: int
    teacher_share: float = 0.0
    teacher_rounds: int = 0
    threads: int = 2
    quiet: bool = False

    @property
    def asked(self) -> bool:
        """Whether an adapter learns from what trained teachers were asked for, not from outcomes in hindsight."""
        return bool(self.teacher_share and self.teacher_rounds)

    def stages(self, out: Path) -> list[Stage]:
        """From nothing: a teacher, games in ``out/raw``, and decisions of them in ``out/ready``."""
        raw, ready, taught = out / "raw", out / "ready", out / TEACHER
        held_back = self.seed + 1_000_000  # training games never share a seed with tournaments of small seeds
        games = collect.Settings(
            self.episodes, held_back, self.scenario, strategies=STRATEGIES, teacher_share=self.teacher_share,
            teacher=taught if self.asked else None, sparring_share=SPARRING_SHARE if self.asked else 0.0,
            out=raw, quiet=True,
        )  # fmt: skip
        learning = teacher.Settings(
            taught, self.scenario, rounds=self.teacher_rounds, seed=self.seed, threads=self.threads, quiet=self.quiet
        )
        return [
            *([Stage("teacher", taught, lambda: teacher.run(learning))] if self.asked else []),
            Stage("collect", raw / "manifest.json", lambda: collect.run(games)),
            Stage("prepare", ready / "manifest.json", lambda: prepare.run(
                prepare.Settings(raw, ready, seed=self.seed, quiet=True))),
        ]  # fmt: skip


def adapter_settings(
    data: Path, out: Path, base: str, *, asked: bool, batch_size: int, steps: int, seed: int, quiet: bool
) -> train.Settings:
    """How the adapter of janus-nano is trained."""
    return train.Settings(
        data,
        out,
        model_name=base,
        dropout=0.0,
        batch_size=batch_size,
        grad_accum=1,
        prompt_format=SEATED,
        labels="asked" if asked else "outcome",
        opening_weight=3.0 if asked else 1.0,
        closing_weight=3.0 if asked else 1.0,
        rho_jitter=0.0 if asked else 0.03,
        lr=3e-3,
        beta2=0.99,
        decimal_weights=(1.0, 1.0, 0.3, 0.1),
        warmup_steps=200,
        max_steps=steps,
        schedule="cosine",
        save_every=0,
        seed=seed,
        quiet=quiet,
    )
