"""Commands that are a row of other commands: stages whose results stay, so that an interrupted run continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments import collect, prepare, train


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


def data_stages(out: Path, *, seed: int, scenario: str, episodes: int, teacher_share: float = 0.0) -> list[Stage]:
    """Training data from nothing: games of random pairs in ``out/raw``, and decisions of them in ``out/ready``.

    The last argument is that of `experiments.collect`.
    """
    raw, ready = out / "raw", out / "ready"
    held_back = seed + 1_000_000  # training games never share a seed with tournaments of small seeds
    return [
        Stage("collect", raw / "manifest.json", lambda: collect.run(
            collect.Settings(episodes, held_back, scenario, teacher_share=teacher_share, out=raw, format="jsonl",
                             quiet=True))),
        Stage("prepare", ready / "manifest.json", lambda: prepare.run(
            prepare.Settings(raw / "episodes.jsonl", ready, seed=seed, quiet=True))),
    ]  # fmt: skip


def adapter_settings(
    data: Path, out: Path, base: str, *, batch_size: int, steps: int, seed: int, quiet: bool
) -> train.Settings:
    """How the adapter of janus-nano is trained."""
    return train.Settings(
        data,
        out,
        model_name=base,
        dropout=0.0,
        batch_size=batch_size,
        grad_accum=1,
        rho_jitter=0.03,
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
