"""How to train: the settings of a run, and its learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bargain_env.errors import InputError

from .losses import SEPARATION_MODES

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SCHEDULES = ("linear", "cosine")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train; defaults are the seed's (section 5).

    Attributes:
        max_steps: optimizer steps.
        batch_size: rows a micro-batch.
        grad_accum: micro-batches a step, in each process.
        lr: peak learning rate of AdamW.
        beta2: decay of AdamW's second moment.
        warmup_steps: linear warm-up.
        schedule: after the warm-up, ``linear`` or ``cosine`` decay to 0.
        weight_decay: of matrices; vectors are not decayed.
        clip: largest gradient norm.
        lambda_sep: weight of the gate-separation term.
        sep_mode: its form, ``pair`` or ``seed``; see `compute_gate_separation_loss`.
        lambda_smooth: weight of the gate-smoothness term.
        sep_exclude_failures: leave ρ = -1 out of both gate terms.
        precision: ``fp32``, or of matrix products under autocast ``bf16`` or ``fp16`` (whose loss is scaled); weights,
            gates and optimizer stay as they are.
        gradient_checkpointing: compute activations twice instead of keeping them.
        seed: of the row order and the dropout masks.

    Raises:
        InputError: a value that cannot be.
    """

    max_steps: int = 20_000
    batch_size: int = 4
    grad_accum: int = 8
    lr: float = 2e-4
    beta2: float = 0.999
    warmup_steps: int = 500
    schedule: str = "linear"
    weight_decay: float = 0.01
    clip: float = 1.0
    lambda_sep: float = 0.0
    sep_mode: str = "pair"
    lambda_smooth: float = 0.0
    sep_exclude_failures: bool = True
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "grad_accum"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("lr", "warmup_steps", "weight_decay", "lambda_sep", "lambda_smooth", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} must be 0 or more, and finite")
        if not self.clip > 0:
            raise InputError(f"clip {self.clip} must be positive")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("sep_mode", SEPARATION_MODES)):
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(known)}")


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of 0-based ``step``: linear warm-up, then decay that reaches 0 after ``max_steps``."""
    warmup = min(settings.warmup_steps, settings.max_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = (step - warmup) / max(1, settings.max_steps - warmup)
    return settings.lr * ((1.0 + math.cos(math.pi * share)) / 2.0 if settings.schedule == "cosine" else 1.0 - share)
