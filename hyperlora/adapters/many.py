"""Many plain LoRAs trained at once on one frozen base, each as if it were alone.

A small adapter on a small base leaves a processor idle: most of a step is overhead. So a step here is the step of all of
them: their batches stand side by side in one forward and one backward pass (`hyperlora.adapters.rows`), and no sum runs
over two adapters. Each has its own rows in its own order, its own dropout masks, its own norm to clip, and its own learning
rate, by its own number of steps.

What the others are changes nothing but the rounding: an adapter's rows are padded to the longest of all, and its products
are formed in larger ones, so float32 sums come in another order. AdamW divides a gradient by its own size, which carries
such a difference on from step to step, and where rounding tips the choice of the best epoch, weights agree no better than
two epochs do. The same group of adapters gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bargain_env.errors import InputError
from hyperlora.data import HyperLoRACollator, NegotiationDataset
from hyperlora.losses import IGNORE, target_logits
from hyperlora.plan import TrainSettings, learning_rate
from hyperlora.train import TrainingDiverged

from .adamw import Moments, adamw
from .likelihood import row_losses, under_adapters
from .peft_folder import LoRA
from .rows import TARGET_MODULES, bind_adapters, row_layers

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LoRAPlan:
    """How to train each adapter.

    Attributes:
        rank: r.
        alpha: α.
        dropout: on what an adapter sees of a layer's input, as in PEFT.
        lr: peak learning rate of AdamW.
        epochs: passes over the adapter's rows.
        weight_decay: of A and B, decoupled.
        warmup_steps: linear warm-up; then linear decay to 0.
        batch_size: rows a step; the last step of an epoch takes what is left.
        clip: largest gradient norm of an adapter.
        target_modules: suffixes of the layers to adapt.
        seed: of fresh weights, row order and dropout masks.

    Raises:
        InputError: a value that cannot be.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    lr: float = 5e-4
    epochs: int = 5
    weight_decay: float = 0.01
    warmup_steps: int = 10
    batch_size: int = 8
    clip: float = 1.0
    target_modules: tuple[str, ...] = TARGET_MODULES
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay", "warmup_steps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} must be 0 or more, and finite")
        for name in ("alpha", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} must be positive and finite")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} must lie in [0, 1)")


@dataclass(frozen=True, slots=True, eq=False)
class Pupil:
    """One adapter to train.

    Attributes:
        name: decides its row order and dropout masks, and its initial weights where it starts from none, together with the
            plan's seed.
        train: numbers of its rows.
        val: of those that choose the best epoch; where there are none the last one is.
    """

    name: str
    train: Ints
    val: Ints


@dataclass(slots=True, eq=False)
class Trained:
    """What came of a `Pupil`.

    Attributes:
        name: of the pupil.
        lora: the adapter of the best epoch.
        steps: optimizer steps.
        best_epoch: from 1; 0 where the adapter that it started from was best.
        val_losses: after each epoch, in nats a target token; empty without such rows.
        train_losses: mean of each epoch's steps, with dropout.
    """

    name: str
    lora: LoRA
    steps: int
    best_epoch: int = 0
    val_losses: list[float] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)


def train_many(
    model: Any,
    dataset: NegotiationDataset,
    pupils: Sequence[Pupil],
    plan: LoRAPlan,
    on_step: Callable[[int, int], object] = lambda step, steps: None,
    start: LoRA | None = None,
) -> list[Trained]:
    """Train an adapter for each pupil, all at once.

    Args:
        model: from `inject_rows` over ``plan.target_modules``; its parameters are frozen here.
        dataset: decisions of all of them.
        pupils: at least one; names differ.
        plan: how.
        on_step: called after each step with its number and that of the longest pupil.
        start: an adapter of the plan's layers, rank and α that every pupil starts from; None for `fresh` weights.

    Raises:
        InputError: a pupil without rows, two of one name, or a start of another shape.
        TrainingDiverged: a loss is not finite; names the pupil and the step.
    """
    if len({pupil.name for pupil in pupils}) < len(pupils) or not pupils:
        raise InputError("give at least one pupil, each with a name of its own")
    empty = [pupil.name for pupil in pupils if not len(pupil.train)]
    if empty:
        raise InputError(f"{empty[0]} has no rows to train on; give it more games")
    if start is not None:
        _require_shape(model, plan, start)
    model.requires_grad_(False)
    group = _Group(model, dataset, pupils, plan, start)
    model.train()
    try:
        for step in range(group.longest):
            group.take(step)
            group.close_epochs(step + 1)
            on_step(step + 1, group.longest)
    finally:
        model.eval()
    return group.done()


def seed_of(plan: LoRAPlan, name: str, *numbers: int) -> int:
    """A seed of what happens to the adapter ``name`` at a place given by ``numbers``."""
    text = ":".join(map(str, (plan.seed, name, *numbers)))
    return crc32(text.encode()) << 31 ^ crc32(text[::-1].encode())


def fresh(model: nn.Module, plan: LoRAPlan, name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Initial A, Kaiming-uniform with a = √5 as PEFT draws it, and B, zero, of every layer that the model adapts."""
    generator, drawn = torch.Generator().manual_seed(seed_of(plan, name)), {}
    for layer_name, layer in row_layers(model).items():
        bound = 1.0 / math.sqrt(layer.in_features)
        a = torch.empty(plan.rank, layer.in_features).uniform_(-bound, bound, generator=generator)
        drawn[layer_name] = (a, torch.zeros(layer.out_features, plan.rank))
    return drawn


def _require_shape(model: nn.Module, plan: LoRAPlan, start: LoRA) -> None:
    r, scaling = plan.rank, plan.alpha / plan.rank
    wanted = {n: (r, layer.in_features, layer.out_features, scaling) for n, layer in row_layers(model).items()}
    given = {n: (*a.shape, len(b), start.scaling[n]) for n, (a, b) in start.layers.items()}
    if wanted != given:
        wrong = next(name for name in (*wanted, *given) if wanted.get(name) != given.get(name))
        raise InputError(
            f"the adapter to start from does not fit at {wrong}: (rank, inputs, outputs, scaling) is {given.get(wrong)} "
            f"there, and {wanted.get(wrong)} is to be trained"
        )


class _Group:
    """N adapters in lockstep; see `train_many`. Stacks have the adapters on their first axis."""

    def __init__(
        self, model: Any, dataset: NegotiationDataset, pupils: Sequence[Pupil], plan: LoRAPlan, start: LoRA | None
    ) -> None:
        self.model, self.dataset, self.pupils, self.plan = model, dataset, list(pupils), plan
        self.device = next(model.parameters()).device
        self.scaling = plan.alpha / plan.rank
        started = [fresh(model, plan, p.name) if start is None else start.layers for p in self.pupils]
        self.layers = list(row_layers(model))
        self.stacks = [
            torch.stack([single[name][half] for single in started]).to(self.device)
            for name in self.layers
            for half in (0, 1)
        ]
        self.moments = [Moments.of(stack) for stack in self.stacks]
        self.per_epoch = [math.ceil(len(pupil.train) / plan.batch_size) for pupil in self.pupils]
        self.steps = [plan.epochs * count for count in self.per_epoch]
        self.longest = max(self.steps)
        self.rates = [self._rates(count) for count in self.steps]
        self.losses: list[list[float]] = [[] for _ in self.pupils]
        self.best: list[list[Tensor]] = [[] for _ in self.pupils]
        self.found = [
            Trained(pupil.name, LoRA({}, plan.rank, plan.alpha, {}), count)
            for pupil, count in zip(self.pupils, self.steps, strict=True)
        ]
        self._collate = HyperLoRACollator(dataset.pad_token_id)
        self.least = [math.inf] * len(self.pupils)
        if start is not None:
            self._keep(0, list(range(len(self.pupils))))

    def _rates(self, steps: int) -> list[float]:
        plan = TrainSettings(max_steps=steps, lr=self.plan.lr, warmup_steps=self.plan.warmup_steps)
        return [learning_rate(step, plan) for step in range(steps)]

    def take(self, step: int) -> None:
        """The 0-based ``step`` of everybody who still has steps to go."""
        active = [i for i, steps in enumerate(self.steps) if step < steps]
        everybody = len(active) == len(self.pupils)
        index = torch.tensor(active, device=self.device)
        leaves = [(stack if everybody else stack[index]).detach().requires_grad_() for stack in self.stacks]
        losses = self._losses(leaves, active, step)
        losses.sum().backward()
        for i, loss in zip(active, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"the loss of {self.pupils[i].name} is {loss} at step {step + 1}; lower --lr or look at its rows"
                )
            self.losses[i].append(loss)
        gradients = self._clipped([leaf.grad for leaf in leaves])
        rates = torch.tensor([self.rates[i][step] for i in active], device=self.device)
        for k, gradient in enumerate(gradients):
            moments = self.moments[k] if everybody else self.moments[k].take(index)
            value = leaves[k].detach()
            adamw(value, gradient, moments, rates, step + 1, self.plan.weight_decay)
            if not everybody:
                self.stacks[k][index] = value
                self.moments[k].put(index, moments)
            else:
                self.stacks[k] = value

    def _losses(self, leaves: list[Tensor], active: list[int], step: int) -> Tensor:
        """``[N]`` mean loss of each active adapter's batch, in nats a target token."""
        batches = [self._rows(i, step) for i in active]
        most = max(map(len, batches))
        # Short batches are filled up with rows that carry no loss: equal shares make one batched product of all.
        rows = np.concatenate([np.concatenate([b, np.repeat(b[:1], most - len(b))]) for b in batches])
        real = np.concatenate([np.arange(most) < len(b) for b in batches])
        batch = self._collate([self.dataset[int(row)] for row in rows])
        labels = torch.where(torch.from_numpy(real)[:, None], batch["labels"], IGNORE).to(self.device)
        wanted = labels[:, 1:] != IGNORE
        owner = torch.arange(len(active), device=self.device).repeat_interleave(most)
        masks = _Masks(self.plan, [self.pupils[i].name for i in active], step,
                       [(len(b), int(self.dataset.lengths[b].max())) for b in batches], self.layers)  # fmt: skip
        weights = dict(zip(self.layers, zip(leaves[::2], leaves[1::2], strict=True), strict=True))
        dropout = masks if self.plan.dropout > 0 else None
        with bind_adapters(self.model, weights, owner.cpu(), self.scaling, dropout):
            logits = target_logits(self.model, batch["input_ids"].to(self.device), wanted)
        each = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
        whose = owner[:, None].expand_as(wanted)[wanted]
        sums = torch.zeros(len(active), device=self.device).index_add(0, whose, each)
        return sums / torch.bincount(whose, minlength=len(active))

    def _rows(self, i: int, step: int) -> Ints:
        epoch, batch = divmod(step, self.per_epoch[i])
        pupil, size = self.pupils[i], self.plan.batch_size
        order = np.random.default_rng([seed_of(self.plan, pupil.name), epoch]).permutation(len(pupil.train))
        return pupil.train[order[batch * size : (batch + 1) * size]]

    def _clipped(self, gradients: list[Tensor | None]) -> list[Tensor]:
        """Gradients with each adapter's norm at most ``plan.clip``."""
        known = [gradient for gradient in gradients if gradient is not None]
        norm = torch.stack([gradient.square().sum(dim=(1, 2)) for gradient in known]).sum(dim=0).sqrt()
        share = (self.plan.clip / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        return [gradient * share[:, None, None] for gradient in known]

    def close_epochs(self, steps: int) -> None:
        """After ``steps`` steps: evaluate those who have finished an epoch just now, and keep what is the best so far."""
        now = [i for i, n in enumerate(self.per_epoch) if steps <= self.steps[i] and steps % n == 0]
        if not now:
            return
        for i, value in zip(now, self._keep(steps, now), strict=True):
            found, last = self.found[i], self.losses[i][-self.per_epoch[i] :]
            found.train_losses.append(sum(last) / len(last))
            found.val_losses += [] if value is None else [value]

    def _keep(self, steps: int, who: list[int]) -> list[float | None]:
        """Validation losses of some adapters after ``steps`` steps; those that have none better yet are kept."""
        values = self._evaluated(who)
        for i, value in zip(who, values, strict=True):
            if value is None or value < self.least[i] or not self.best[i]:
                self.least[i] = math.inf if value is None else value
                self.found[i].best_epoch = steps // self.per_epoch[i]
                self.best[i] = [stack[i].clone() for stack in self.stacks]
        return values

    def _evaluated(self, who: list[int]) -> list[float | None]:
        rows = np.concatenate([self.pupils[i].val for i in who]).astype(np.int64)
        if not len(rows):
            return [None] * len(who)
        whose = np.repeat(np.arange(len(who)), [len(self.pupils[i].val) for i in who])
        pairs = zip(self.stacks[::2], self.stacks[1::2], strict=True)
        weights = {name: (a[who], b[who]) for name, (a, b) in zip(self.layers, pairs, strict=True)}
        loss, tokens = row_losses(
            self.model, self.dataset, rows, under_adapters(self.model, weights, whose, self.scaling)
        )
        sums, counts = (np.bincount(whose, weights=values, minlength=len(who)) for values in (loss, tokens))
        return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]

    def done(self) -> list[Trained]:
        """The adapters, each of its best epoch."""
        for found, best in zip(self.found, self.best, strict=True):
            cpu = [tensor.cpu() for tensor in best]
            pairs = zip(cpu[::2], cpu[1::2], strict=True)
            found.lora = LoRA.of(dict(zip(self.layers, pairs, strict=True)), self.plan.alpha)
        return self.found


class _Masks:
    """Inverted dropout whose masks depend on the adapter, the step and the layer, and not on who else is in the batch."""

    def __init__(
        self, plan: LoRAPlan, names: list[str], step: int, shapes: list[tuple[int, int]], layers: list[str]
    ) -> None:
        self.plan, self.names, self.step, self.shapes, self.layers = plan, names, step, shapes, layers

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """``x`` ``[N · b, S, d_in]`` with some of its values dropped, the others scaled up."""
        keep = 1.0 - self.plan.dropout
        mask = torch.zeros(len(self.names), len(x) // len(self.names), *x.shape[1:])
        for i, (owner, (rows, width)) in enumerate(zip(self.names, self.shapes, strict=True)):
            seed = seed_of(self.plan, owner, self.step, self.layers.index(name))
            drawn = torch.empty(rows, width, x.shape[-1])
            mask[i, :rows, :width] = drawn.bernoulli_(keep, generator=torch.Generator().manual_seed(seed))
        return x * (mask / keep).view_as(x).to(x)
