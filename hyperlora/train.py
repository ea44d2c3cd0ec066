"""The training loop, read from top to bottom: batches, three loss terms, AdamW, a schedule, exact resume.

It trains whatever parameters of a model require gradients: a HyperLoRA adapter, or a whole base model on ρ-blind play.
Everything that happens at step n is a pure function of (settings, data, n): rows, dropout masks, learning rate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .binding import bind_rho
from .data import NegotiationDataset, StepSampler
from .losses import IGNORE, compute_gate_separation_loss, compute_gate_smoothness_loss, target_loss
from .plan import PRECISIONS, TrainSettings, learning_rate
from .resume import TrainState
from .workers import Workers

Batch = dict[str, Any]
EXPLODED = 2.0
"""A loss above so many times ln V has exploded: a guess among all V tokens alike costs ln V."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did.

    ``loss`` is the weighted mean in nats a token; ``separation`` and ``smoothness`` are the terms before their weights;
    ``tokens`` and ``rows`` count what the step has learned from, in all processes.
    """

    step: int
    loss: float
    separation: float
    smoothness: float
    lr: float
    grad_norm: float
    tokens: int = 0
    rows: int = 0


class TrainingDiverged(FloatingPointError):
    """A loss or gradient that is not finite, or has exploded; the weights are still those of the step before."""


def make_state(model: nn.Module, settings: TrainSettings) -> TrainState:
    """A fresh AdamW over the parameters that require gradients, of which only matrices are decayed; and a scaler."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=settings.lr, betas=(0.9, settings.beta2), fused=True
    )
    return TrainState(optimizer, torch.amp.GradScaler(trainable[0].device.type, enabled=settings.precision == "fp16"))


def train(
    model: Any,
    dataset: NegotiationDataset,
    settings: TrainSettings,
    *,
    state: TrainState | None = None,
    first_step: int = 0,
    workers: Workers | None = None,
    on_step: Callable[[StepReport], object] = lambda report: None,
) -> TrainState:
    """Train ``model`` in place from ``first_step`` to ``settings.max_steps``.

    Args:
        model: a causal LM with some parameters that require gradients; where it carries a HyperLoRA, each batch's ρ is
            bound through its forward and backward pass.
        dataset: decisions.
        settings: see `TrainSettings`.
        state: to continue with; a new one by default.
        first_step: steps already done.
        workers: this process among those of the run; alone by default.
        on_step: called after each optimizer step, in every process; checkpoints and evaluation live there. Where it
            returns True the run ends.

    Returns:
        The state, for a checkpoint.

    Raises:
        TrainingDiverged: a loss or gradient is not finite, or the loss has exploded; names the step and the rows.
    """
    state, workers = state or make_state(model, settings), workers or Workers()
    loop = Loop(model, dataset, settings, state, workers)
    model.train()
    try:
        with checkpointing(model, settings.gradient_checkpointing), loop.own_randomness():
            for step in range(first_step, settings.max_steps):
                if on_step(loop.take(step)) is True:
                    break
    finally:
        model.eval()
    return state


@contextlib.contextmanager
def checkpointing(model: Any, wanted: bool) -> Iterator[None]:
    """Within the block activations are computed again in the backward pass instead of being kept."""
    if not wanted:
        yield
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()


class Loop:
    """One optimizer step after another; see `train` for the arguments."""

    def __init__(
        self, model: Any, dataset: NegotiationDataset, settings: TrainSettings, state: TrainState, workers: Workers
    ) -> None:
        self.model, self.dataset, self.settings, self.state, self.workers = model, dataset, settings, state, workers
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.device = self.trainable[0].device
        self.micro_batches = settings.grad_accum * workers.count
        self._sampler = StepSampler(dataset.lengths, settings.batch_size, settings.seed)
        vocabulary = int(getattr(getattr(model, "config", None), "vocab_size", 0) or 0)
        self._too_high = EXPLODED * math.log(vocabulary) if vocabulary > 1 else math.inf

    def own_randomness(self) -> contextlib.AbstractContextManager[None]:
        """A block whose draws, of dropout, leave the caller's random state as it was."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    def take(self, step: int) -> StepReport:
        """The 0-based ``step``."""
        lr = learning_rate(step, self.settings)
        optimizer, scaler = self.state.optimizer, self.state.scaler
        for group in optimizer.param_groups:
            group["lr"] = lr
        first = step * self.micro_batches
        batches = [self.batch(self._sampler.rows(first + i)) for i in range(self.micro_batches)]
        losses, separation, smoothness = self.gradients(batches, first)
        self.require_sane(step, losses, batches)
        scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.trainable, self.settings.clip))
        if not math.isfinite(norm) and not scaler.is_enabled():
            raise TrainingDiverged(
                f"the gradient is {norm} at step {step + 1}, though the loss is {sum(losses):.3f}; lower --lr"
            )
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        tokens = sum(int((batch["labels"][:, 1:] != IGNORE).sum()) for batch in batches)
        rows = sum(len(batch["rows"]) for batch in batches)
        return StepReport(step + 1, sum(losses), separation, smoothness, lr, norm, tokens, rows)

    def batch(self, rows: np.ndarray) -> Batch:
        """``rows`` of the data as one micro-batch."""
        return {**self.dataset.batch(rows), "rows": rows}

    def gradients(self, batches: list[Batch], first: int) -> tuple[list[float], float, float]:
        """Add up the gradients of one step, of which every process does its share.

        Every target token weighs the same whatever its micro-batch.

        Args:
            batches: the step's micro-batches, all of them.
            first: number of the first of them since the start of training.

        Returns:
            What each micro-batch adds to the loss; the separation and the smoothness term.
        """
        weight = sum(float(batch["weights"][:, 1:][batch["labels"][:, 1:] != IGNORE].sum()) for batch in batches)
        found = torch.zeros(len(batches) + 2, dtype=torch.float64)
        for i in range(self.workers.index, len(batches), self.workers.count):
            torch.manual_seed(_mix(self.settings.seed, first + i))
            loss, *terms = self._backward(batches[i], weight, len(batches), first + i)
            found[i] = loss
            found[-2:] += torch.tensor(terms, dtype=torch.float64) / len(batches)
        self.workers.add_up_gradients(self.trainable)
        there = found.to(self.device)
        self.workers.add_up([there])
        *losses, separation, smoothness = there.tolist()
        return losses, separation, smoothness

    def _backward(self, batch: Batch, weight: float, count: int, number: int) -> tuple[float, float, float]:
        """One micro-batch, the ``number``-th of the run; its loss over the step's ``weight``, and the gate terms."""
        batch = {name: value.to(self.device) for name, value in batch.items() if isinstance(value, Tensor)}
        if not hasattr(self.model, "hyperlora_binding"):
            loss = self._loss(batch) / weight
            self.state.scaler.scale(loss).backward()
            return loss.item(), 0.0, 0.0
        with bind_rho(self.model, batch["rho"]):
            loss = self._loss(batch) / weight
            gate_loss, separation, smoothness = self._gate_terms(number)
            self.state.scaler.scale(loss + gate_loss / count).backward()
        return loss.item(), separation, smoothness

    def _loss(self, batch: Batch) -> Tensor:
        half = self.settings.precision != "fp32"
        with torch.autocast(self.device.type, PRECISIONS[self.settings.precision] if half else None, enabled=half):
            return target_loss(self.model, batch["input_ids"], batch["labels"], batch["weights"])[0]

    def _gate_terms(self, number: int) -> tuple[Tensor | float, float, float]:
        settings, rho = self.settings, self.model.current_rho
        total: Tensor | float = 0.0
        separation = smoothness = 0.0
        if settings.lambda_sep > 0:
            pairs = torch.Generator().manual_seed(_mix(settings.seed, number))
            term = compute_gate_separation_loss(
                self.model, rho, settings.sep_exclude_failures, pairs, mode=settings.sep_mode
            )
            total, separation = total + settings.lambda_sep * term, term.item()
        if settings.lambda_smooth > 0:
            term = compute_gate_smoothness_loss(self.model, rho, settings.sep_exclude_failures)
            total, smoothness = total + settings.lambda_smooth * term, term.item()
        return total, separation, smoothness

    def require_sane(self, step: int, losses: list[float], batches: list[Batch]) -> None:
        """Raise before the optimizer has seen a loss that is not finite, or far worse than guessing."""
        for loss, batch in zip(losses, batches, strict=True):
            if not math.isfinite(loss):
                raise TrainingDiverged(f"the loss is {loss} at step {step + 1}, {_named(batch)}; look at these rows")
        if sum(losses) > self._too_high:
            worst = batches[int(np.argmax(losses))]
            raise TrainingDiverged(
                f"the loss has exploded to {sum(losses):.1f} at step {step + 1} (a blind guess costs "
                f"{self._too_high / EXPLODED:.1f}), most of it in {_named(worst)}; lower --lr or look at these rows"
            )


def _named(batch: Batch) -> str:
    rows = batch["rows"].tolist()
    return f"rows {rows[:8]}{' …' if len(rows) > 8 else ''}"


def _mix(seed: int, number: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
