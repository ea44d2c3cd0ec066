"""The training loop, read from top to bottom: batches, three loss terms, AdamW, a schedule, checkpoints, exact resume.

It trains whatever parameters of a model require gradients: a HyperLoRA adapter, or a whole base model on ρ-blind play.
Everything that happens at step n is a pure function of (settings, data, n): rows, dropout masks, learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError

from .data import HyperLoRACollator, NegotiationDataset, StepSampler
from .losses import IGNORE, compute_gate_separation_loss, compute_gate_smoothness_loss, target_loss


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train; defaults are the seed's (section 5).

    Attributes:
        max_steps: optimizer steps.
        batch_size: rows a micro-batch.
        grad_accum: micro-batches a step.
        lr: peak learning rate of AdamW.
        beta2: decay of AdamW's second moment.
        warmup_steps: linear warm-up.
        schedule: after the warm-up, ``linear`` or ``cosine`` decay to 0.
        weight_decay: of matrices; vectors are not decayed.
        clip: largest gradient norm.
        lambda_sep: weight of the gate-separation term.
        lambda_smooth: weight of the gate-smoothness term.
        sep_exclude_failures: leave ρ = -1 out of both gate terms.
        seed: of the row order and the dropout masks.
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
    lambda_smooth: float = 0.0
    sep_exclude_failures: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "grad_accum"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if self.schedule not in ("linear", "cosine"):
            raise InputError(f"unknown schedule {self.schedule!r}; choose linear or cosine")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did.

    ``loss`` is the weighted mean in nats a token; ``separation`` and ``smoothness`` are the terms before their weights.
    """

    step: int
    loss: float
    separation: float
    smoothness: float
    lr: float
    grad_norm: float


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of 0-based ``step``: linear warm-up, then decay that reaches 0 after ``max_steps``."""
    warmup = min(settings.warmup_steps, settings.max_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = (step - warmup) / max(1, settings.max_steps - warmup)
    return settings.lr * ((1.0 + math.cos(math.pi * share)) / 2.0 if settings.schedule == "cosine" else 1.0 - share)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients; only matrices are decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=settings.lr, betas=(0.9, settings.beta2), fused=True
    )


def train(
    model: Any,
    dataset: NegotiationDataset,
    settings: TrainSettings,
    *,
    optimizer: torch.optim.AdamW | None = None,
    first_step: int = 0,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> torch.optim.AdamW:
    """Train ``model`` in place from ``first_step`` to ``settings.max_steps``.

    Args:
        model: a causal LM with some parameters that require gradients; where it carries a HyperLoRA, each batch's ρ is
            bound through its forward and backward pass.
        dataset: decisions.
        settings: see `TrainSettings`.
        optimizer: to continue with; a new one by default.
        first_step: steps already done.
        on_step: called after each optimizer step; checkpoints and evaluation live there.

    Returns:
        The optimizer, for a checkpoint.

    Raises:
        FloatingPointError: the loss is not finite; names the step and the rows.
    """
    optimizer = optimizer or make_optimizer(model, settings)
    trainable = [p for p in model.parameters() if p.requires_grad]
    sampler = StepSampler(dataset.lengths, settings.batch_size, settings.seed)
    device = trainable[0].device
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(first_step, settings.max_steps):
            torch.manual_seed(_mix(settings.seed, step))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            batches = [
                _batch(dataset, sampler, step * settings.grad_accum + i, device) for i in range(settings.grad_accum)
            ]
            losses = _backward(model, batches, settings, step)
            grad_norm = nn.utils.clip_grad_norm_(trainable, settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(StepReport(step + 1, *losses, optimizer.param_groups[0]["lr"], float(grad_norm)))
    model.eval()
    return optimizer


def _mix(seed: int, step: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF


def _batch(dataset: NegotiationDataset, sampler: StepSampler, index: int, device: torch.device) -> dict[str, Any]:
    rows = sampler.rows(index)
    batch = HyperLoRACollator(dataset.pad_token_id)([dataset[int(row)] for row in rows])
    return {**{name: tensor.to(device) for name, tensor in batch.items()}, "rows": rows}


def _backward(
    model: Any, batches: list[dict[str, Any]], settings: TrainSettings, step: int
) -> tuple[float, float, float]:
    """Accumulate the gradients of one step; every target token weighs the same whatever its micro-batch."""
    from .binding import bind_rho

    weight = sum(float(batch["weights"][:, 1:][batch["labels"][:, 1:] != IGNORE].sum()) for batch in batches)
    total, separation, smoothness = 0.0, 0.0, 0.0
    for batch in batches:
        if not hasattr(model, "hyperlora_binding"):
            loss, _ = target_loss(model, batch["input_ids"], batch["labels"], batch["weights"])
            (loss / weight).backward()
        else:
            with bind_rho(model, batch["rho"]):
                loss, _ = target_loss(model, batch["input_ids"], batch["labels"], batch["weights"])
                gate_loss, sep, smooth = _gate_terms(model, settings, step)
                (loss / weight + gate_loss / len(batches)).backward()
            separation, smoothness = separation + sep / len(batches), smoothness + smooth / len(batches)
        total += loss.item() / weight
        if not math.isfinite(total):
            raise FloatingPointError(
                f"loss is {total} at step {step + 1}, rows {batch['rows'][:8].tolist()}…; lower --lr or look at these rows"
            )
    return total, separation, smoothness


def _gate_terms(model: Any, settings: TrainSettings, step: int) -> tuple[Tensor | float, float, float]:
    total: Tensor | float = 0.0
    separation = smoothness = 0.0
    if settings.lambda_sep > 0:
        pairs = torch.Generator().manual_seed(_mix(settings.seed, step))
        term = compute_gate_separation_loss(model, model.current_rho, settings.sep_exclude_failures, pairs)
        total, separation = total + settings.lambda_sep * term, term.item()
    if settings.lambda_smooth > 0:
        term = compute_gate_smoothness_loss(model, model.current_rho, settings.sep_exclude_failures)
        total, smoothness = total + settings.lambda_smooth * term, term.item()
    return total, separation, smoothness
