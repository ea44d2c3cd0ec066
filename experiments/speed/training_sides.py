"""Ours, PEFT's and the straightforward way to train one and the same adapter on one and the same batch.

All sides share the frozen weights of one base model. `require_same` runs two of them and compares what they compute, so
that a ratio never compares different work.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from experiments.speed import seed_training
from experiments.speed.stopwatch import Work
from hyperlora.binding import bind_rho
from hyperlora.inject import TARGET_MODULES, adapter_modules, adapter_state, inject_hyperlora
from hyperlora.layer import HyperLoRALinear
from hyperlora.losses import IGNORE, batch_gates, target_loss

RANK, ALPHA, HIDDEN = 16, 32.0, 64
"""Shape of the adapter: the seed's."""
ROWS = 4
"""Rows a batch: the seed's micro-batch."""
LEARNING_RATE = 1e-7
"""A step costs the same at any rate; at this one the last step that is measured is still the first one's."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`ROWS` decisions padded on the right: ``ids``, ``mask``, ``labels`` ``[B, S]``, and ``rho`` ``[B, 1]``."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    rho: Tensor

    @property
    def targets(self) -> int:
        """Labelled tokens."""
        return int((self.labels != IGNORE).sum())


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a prompt and of its target, each drawn from lowest to highest."""

    prompt: tuple[int, int]
    target: tuple[int, int]


def draw_batch(lengths: Lengths, vocabulary: int, seed: int) -> Batch:
    """Random tokens in rows of the given lengths."""
    generator = torch.Generator().manual_seed(seed)
    (low, high), (least, most) = lengths.prompt, lengths.target
    prompts = torch.randint(low, high + 1, (ROWS, 1), generator=generator)
    ends = prompts + torch.randint(least, most + 1, (ROWS, 1), generator=generator)
    place = torch.arange(int(ends.max()))
    mask = (place < ends).long()
    ids = torch.randint(1, vocabulary, mask.shape, generator=generator) * mask
    labels = torch.where((place >= prompts) & (place < ends), ids, IGNORE)
    return Batch(ids, mask, labels, torch.rand(ROWS, 1, generator=generator))


@dataclass(frozen=True, slots=True)
class Side:
    """One way to train.

    Attributes:
        name: what the benchmark calls it.
        model: an adapted model in training mode.
        loss: mean loss of a batch's labelled tokens.
        bound: what must hold from the forward to the end of the backward pass.
        down: A of every adapted layer, by name.
    """

    name: str
    model: Any
    loss: Callable[[Batch], Tensor]
    down: dict[str, nn.Parameter]
    bound: Callable[[Tensor], contextlib.AbstractContextManager[None]] = field(
        default=lambda rho: contextlib.nullcontext()
    )


def ours(base: Any, seed: int) -> Side:
    """Gated LoRA of this project on ``base``, awake: B is drawn too."""
    model = inject_hyperlora(_twin(base), RANK, ALPHA, dropout=0.0, hyper_hidden=HIDDEN, seed=seed).train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in _layers(model).values():
            layer.lora_B.normal_(0.0, 0.02, generator=generator)
    down = {name: layer.lora_A for name, layer in _layers(model).items()}
    return Side("ours", model, lambda batch: target_mean(model, batch), down, lambda rho: bind_rho(model, rho))


def peft_lora(base: Any, twin: Side, rho: float) -> Side | None:
    """PEFT's LoRA of the same rank and targets with the same loss, equal to ``twin`` at ``rho``; None without PEFT."""
    with quietly():
        try:
            import peft
        except ImportError:
            return None
        config = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), lora_dropout=0.0, target_modules=list(TARGET_MODULES))
        model: Any = peft.get_peft_model(_twin(base), config).train()
    down = {}
    with torch.no_grad():
        gates = batch_gates(twin.model, torch.tensor([[rho]]))[:, 0]
        for (name, layer), gate in zip(_layers(twin.model).items(), gates, strict=True):
            theirs = model.base_model.model.get_submodule(name)
            down[name] = theirs.lora_A["default"].weight
            down[name].copy_(layer.lora_A)
            theirs.lora_B["default"].weight.copy_(layer.lora_B * gate)
    return Side("PEFT LoRA", model, lambda batch: target_mean(model, batch), down)


def seed_loop(base: Any, twin: Side, batch: Batch) -> Side:
    """Logits at every position and one small network call a layer, with the adapter of ``twin``."""
    model = _twin(base).train()
    condition = seed_training.inject_seed(model, TARGET_MODULES, RANK, ALPHA, HIDDEN, batch.rho)
    seed_training.copy_adapter(model, adapter_state(twin.model))
    down = {name: model.get_submodule(name).lora_A for name in _layers(twin.model)}

    @contextlib.contextmanager
    def bound(rho: Tensor) -> Iterator[None]:
        condition.rho = rho
        yield

    return Side("the seed's loop", model, lambda batch: full_mean(model, batch), down, bound)


def _twin(base: Any) -> Any:
    """A copy of ``base`` that can be wrapped on its own; the weights, which stay frozen, are the same tensors."""
    return copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})


def _layers(model: Any) -> dict[str, HyperLoRALinear]:
    return {name: layer for name, layer in adapter_modules(model) if isinstance(layer, HyperLoRALinear)}


def target_mean(model: Any, batch: Batch) -> Tensor:
    """Mean loss of the labelled tokens, from logits at their positions alone."""
    total, weight = target_loss(model, batch.ids, batch.labels)
    return total / weight


def full_mean(model: Any, batch: Batch) -> Tensor:
    """The same from logits at every position."""
    return seed_training.full_loss(model, batch.ids, batch.mask, batch.labels)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What libraries say while they are imported or load a model is no result of a benchmark."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# ── what a side does ──────────────────────────────────────────────────────────────────────────────────────────────────


def step(side: Side, batch: Batch) -> Work:
    """An optimizer step of one batch: forward, backward, clip, AdamW over whatever is trained."""
    trained = _trained(side)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)

    def work() -> float:
        with side.bound(batch.rho):
            side.loss(batch).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return 1.0

    return work


def require_same(one: Side, other: Side, batch: Batch, rho: Tensor) -> None:
    """Loss and gradients of every A agree between two sides.

    Raises:
        RuntimeError: they do not; a ratio of the two would compare different work.
    """
    (a, downs_a), (b, downs_b) = _gradients(one, batch, rho), _gradients(other, batch, rho)
    if not abs(a - b) <= 1e-4 * abs(a):
        raise RuntimeError(f"{other.name} computes another loss than {one.name}: {b:.6f}, not {a:.6f}")
    for name, gradient in downs_a.items():
        if not (gradient - downs_b[name]).abs().max() <= 1e-3 * gradient.abs().max():
            raise RuntimeError(f"{other.name} computes another gradient than {one.name} for A of {name}")


def _gradients(side: Side, batch: Batch, rho: Tensor) -> tuple[float, dict[str, Tensor]]:
    with side.bound(rho):
        loss = side.loss(batch)
        loss.backward()
    found = {name: a.grad.clone() for name, a in side.down.items() if a.grad is not None}
    for parameter in _trained(side):
        parameter.grad = None
    return loss.item(), found


def kept_bytes(side: Side, batch: Batch) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the model's own weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in side.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own node keeps would never be freed

    with side.bound(batch.rho), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = side.loss(batch)  # held until the end: what it keeps must not be freed and counted again
    del loss
    return sum(kept.values())


def logits_bytes(model: Any, loss: Callable[[], Tensor]) -> tuple[int, float]:
    """Bytes that come out of the head of ``model`` while ``loss`` runs, and the loss."""
    sizes: list[int] = []
    head: nn.Module = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _args, out: sizes.append(out.numel() * out.element_size()))
    try:
        with torch.no_grad():
            value = float(loss())
    finally:
        hook.remove()
    return sum(sizes), value


def _trained(side: Side) -> list[nn.Parameter]:
    return [parameter for parameter in side.model.parameters() if parameter.requires_grad]
