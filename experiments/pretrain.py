"""Pretrain a janus-nano base from nothing on ρ-blind play: ``python -m experiments.pretrain --data DIR --out DIR``.

The prompts are the canonical ones, but their ρ (text and success flag) is that of *another* episode, drawn at random. So
the base learns to bargain and to spell, and has no way to learn what ρ means: that is left to the adapter, and the base
stays a control whose settlements do not move with ρ.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env.errors import InputError
from bargain_env.files import refuse_foreign, replacing_folder
from experiments import cli
from experiments.kept_tokens import token_cache
from experiments.training_log import TrainingLog
from hyperlora.base import nano_model, no_progress_bar
from hyperlora.data import NegotiationDataset, read_steps
from hyperlora.prompt import markers
from hyperlora.tokens import build_nano_tokenizer
from hyperlora.train import TrainSettings, train

MODEL = "config.json"


@dataclass
class Settings:
    """Pretrain a janus-nano base on rho-blind play."""

    data: Path
    """Folder or Parquet file written by experiments.prepare."""
    out: Path
    """Folder of the base model; replaced if it holds one."""
    hidden: int = 96
    """Width of the model."""
    layers: int = 3
    """Number of layers."""
    heads: int = 4
    """Attention heads."""
    intermediate: int = 256
    """Width of the MLP."""
    max_steps: int = 8_000
    """Optimizer steps."""
    batch_size: int = 16
    """Rows a step."""
    lr: float = 2e-3
    """Peak learning rate."""
    warmup_steps: int = 100
    """Linear warm-up."""
    prompt_weight: float = 0.05
    """Weight of the loss on a prompt token; a target token weighs 1."""
    decimal_weights: tuple[float, float, float, float] = (1.0, 1.0, 0.3, 0.1)
    """Weight of the loss on each decimal of a price."""
    prompt_format: int = 2
    """1, 2, 3 or 4 (see hyperlora.prompt): what adapters on it will read."""
    seed: int = 0
    """Of initial weights, row order and the shuffled rho."""
    token_cache: str = "auto"
    """Folder that keeps token ids for the next run on the same decisions; auto: .tokens beside the data; none: nowhere."""
    quiet: bool = False
    """Print nothing but errors."""


def blind_rho(table: pa.Table, seed: int) -> NDArray[np.float64]:
    """``[N]`` for each row the ρ of a random episode, the same for all rows of one episode.

    The distribution of ρ is kept, its relation to the play is cut.
    """
    if "trajectory_id" not in table.column_names:
        raise InputError("the steps table has no trajectory_id; make it with `python -m experiments.prepare`")
    _, first, episode = np.unique(
        table["trajectory_id"].to_numpy(zero_copy_only=False), return_index=True, return_inverse=True
    )
    rho = table["rho_train"].to_numpy()[first]
    return rho[np.random.default_rng([seed, len(rho)]).permutation(len(rho))][episode]


def run(settings: Settings) -> Path:
    """Pretrain as ``settings`` say; returns the folder of the model."""
    console = cli.console(settings.quiet)
    if settings.seed < 0:
        raise InputError(f"--seed {settings.seed} must be at least 0")
    markers(settings.prompt_format)
    refuse_foreign(settings.out, MODEL)
    cli.output_folder(settings.out.parent)
    tokenizer: Any = build_nano_tokenizer()
    table = read_steps(settings.data, "train")
    dataset = NegotiationDataset(
        table,
        tokenizer,
        prompt_format=settings.prompt_format,
        decimal_weights=settings.decimal_weights,
        prompt_weight=settings.prompt_weight,
        rho=blind_rho(table, settings.seed),
        cache=token_cache(settings.token_cache, settings.data, console),
    )
    model = nano_model(settings.hidden, settings.layers, settings.heads, settings.intermediate, settings.seed)
    console.print(f"{len(dataset)} decisions, {sum(p.numel() for p in model.parameters()):,} parameters")
    plan = TrainSettings(
        max_steps=settings.max_steps,
        batch_size=settings.batch_size,
        grad_accum=1,
        lr=settings.lr,
        beta2=0.95,
        warmup_steps=settings.warmup_steps,
        schedule="cosine",
        seed=settings.seed,
    )
    with TrainingLog(console, plan.max_steps) as log:
        train(model, dataset, plan, on_step=log)
    with replacing_folder(settings.out, MODEL) as temporary, no_progress_bar():
        model.save_pretrained(str(temporary))
        tokenizer.save_pretrained(str(temporary))
    console.print(f"wrote {settings.out}")
    console.print(
        f"next: python -m experiments.train --model-name {settings.out} --data {settings.data} --out runs/adapter"
    )
    return settings.out


if __name__ == "__main__":
    cli.main(Settings, run)
