"""The model under check: put back as it was found, and asked for logits at a ρ."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bargain_env.errors import InputError

from ..binding import RhoBinding, bind_rho
from ..inject import adapter_modules, adapter_parameters
from ..layer import HyperLoRALinear
from ..losses import IGNORE
from .report import Finding, Skipped

FAINT = 100.0
"""ρ must move logits by this many tolerances, else B is drawn anew for the check."""


@contextlib.contextmanager
def as_found(model: Any) -> Iterator[None]:
    """Within the block anything may happen to ``model`` but a write into its base; afterwards it is as it was.

    Raises:
        InputError: the model carries no adapter.
        RuntimeError: the adapter is merged, or a ρ is bound.
    """
    binding: RhoBinding | None = getattr(model, "hyperlora_binding", None)
    if binding is None:
        raise InputError("this model carries no HyperLoRA; call inject_hyperlora, or load an adapter, first")
    if binding.merged_at is not None:
        raise RuntimeError(
            f"the adapter is merged at rho = {binding.merged_at:g}; call unmerge(model) before the check"
        )
    if model.current_rho is not None:
        raise RuntimeError("a rho is bound; leave bind_rho, or set current_rho to None, before the check")
    parameters = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    weights = [(p, p.detach().clone()) for p in adapter_parameters(model).values()]
    try:
        with torch.random.fork_rng(devices=_devices(model)), attributes_kept(model):
            yield
    finally:
        for parameter, grad, trains in parameters:
            parameter.grad, parameter.requires_grad = grad, trains
        with torch.no_grad():
            for parameter, value in weights:
                parameter.copy_(value)


@contextlib.contextmanager
def attributes_kept(model: Any) -> Iterator[None]:
    """Afterwards every module has the submodules, parameters, hooks, modes and flags that it had."""
    objects = [*model.modules(), model.hyperlora_binding]
    attributes = [dict(vars(thing)) for thing in objects]
    contents = [[(value, dict(value)) for value in own.values() if isinstance(value, dict)] for own in attributes]
    try:
        yield
    finally:
        for thing, own, inner in zip(objects, attributes, contents, strict=True):
            vars(thing).clear()
            vars(thing).update(own)
            for container, before in inner:  # the same containers, refilled: others hold on to them
                container.clear()
                container.update(before)


def reseed(model: Any, seed: int) -> None:
    """Set the random state of the CPU and of the devices that ``model`` is on, and of no other."""
    torch.default_generator.manual_seed(seed)
    for index in _devices(model):
        torch.cuda.default_generators[index].manual_seed(seed)


def _devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


class Probe:
    """A model with tokens, one ρ a row, and a tolerance.

    Attributes:
        model: under check; in eval mode.
        layers: its gated layers by name.
        x: token ids ``[rows, length]``.
        rho: ``[rows, 1]``, from 0 to 1.
        labels: ``[rows, length]``, -100 but for the last tokens of a row, of which each row has another number.
        tolerance: of an equality of logits.
        awakened: B was too small to say anything, and is random now.
    """

    def __init__(self, model: Any, vocab_size: int | None, rows: int, length: int, atol: float, seed: int) -> None:
        if rows < 2 or length < 4:
            raise InputError(f"rows {rows} and length {length} are too few to check anything; give at least 2 and 4")
        self.model, self.atol, self.seed = model, atol, seed
        self.layers = {name: m for name, m in adapter_modules(model) if isinstance(m, HyperLoRALinear)}
        self.device = model.hyperlora_binding.nets[0].net[0].weight.device
        if vocab_size is None and not hasattr(model, "get_input_embeddings"):
            raise InputError("the model names no embedding to count tokens by; give vocab_size")
        size = vocab_size or int(model.get_input_embeddings().weight.shape[0])
        self.x = torch.randint(0, size, (rows, length), generator=self.generator()).to(self.device)
        self.rho = torch.linspace(0.0, 1.0, rows, device=self.device).unsqueeze(1)
        self.labels = self.x.clone()
        for row in range(rows):
            self.labels[row, : length - 1 - row % (length - 2)] = IGNORE
        for module in model.modules():
            if getattr(module, "support_avx512bf16_for_cpu", False):  # bitsandbytes would repack weights for good
                module.support_avx512bf16_for_cpu = False
            if getattr(module, "gradient_checkpointing", False):
                module.gradient_checkpointing = False
        model.eval()
        self.parameters = adapter_parameters(model)
        self.awakened = self._awaken()
        self._weights = {name: p.detach().clone() for name, p in self.parameters.items()}

    def generator(self) -> torch.Generator:
        """Always the same numbers."""
        return torch.Generator().manual_seed(self.seed)

    def _awaken(self) -> bool:
        off = self.logits(None)
        self.tolerance = self.atol * max(1.0, off.abs().max().item())
        if gap(self.logits(0.0), self.logits(1.0)) > FAINT * self.tolerance:
            return False
        generator = self.generator()
        with torch.no_grad():
            for layer in self.layers.values():
                layer.lora_B.copy_(torch.empty(layer.lora_B.shape).normal_(0.0, 0.2, generator=generator))
        self.tolerance = self.atol * max(1.0, self.logits(self.rho).abs().max().item())
        return True

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """One identity: it begins in eval mode, with the probe's weights and random state, and leaves nothing behind."""
        for parameter in self.model.parameters():
            parameter.grad = None
        reseed(self.model, self.seed)
        try:
            with attributes_kept(self.model):
                yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self._weights[name])

    def accepts(self, *names: str) -> None:
        """Raise `Skipped` where the model's ``forward`` has no such argument."""
        known = inspect.signature(self.model.forward).parameters
        for name in names:
            if name not in known:
                raise Skipped(f"forward takes no {name}")

    def output(self, x: Tensor, **inputs: Any) -> Any:
        """The model's output for token ids ``x``, at whatever ρ is bound."""
        return self.model(input_ids=x, **inputs)

    def logits(self, rho: Any, x: Tensor | None = None, **inputs: Any) -> Tensor:
        """Logits ``[B, S, V]`` in float32 at ``rho``, without gradients."""
        with torch.no_grad(), bind_rho(self.model, rho):
            return logits_of(self.output(self.x if x is None else x, **inputs)).float()

    def loss(self) -> Tensor:
        """Mean loss of the labelled tokens, from the logits of all."""
        options = {"use_cache": False} if "use_cache" in inspect.signature(self.model.forward).parameters else {}
        wanted = self.labels[:, 1:] != IGNORE
        logits = logits_of(self.output(self.x, **options))[:, :-1][wanted]
        return F.cross_entropy(logits.float(), self.labels[:, 1:][wanted])

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of all parameters that have one, which are cleared."""
        found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        for parameter in self.model.parameters():
            parameter.grad = None
        return found

    def digests(self) -> dict[str, str]:
        """SHA-256 of every parameter and buffer: a copy of a large base to compare with would not fit."""
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        return {name: hashlib.sha256(_bytes(tensor)).hexdigest() for name, tensor in tensors}

    def equal(self, ours: Tensor, theirs: Tensor, note: str) -> Finding:
        """That two tensors of logits are equal up to the order of sums."""
        return Finding("", gap(ours, theirs), self.tolerance, note)


def logits_of(output: Any) -> Tensor:
    """The logits of a model's output: an attribute, an entry, or the output itself."""
    if isinstance(output, Tensor):
        return output
    return (
        output["logits"] if isinstance(output, Mapping) else output.logits if hasattr(output, "logits") else output[0]
    )


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite for different shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    return (ours.float() - theirs.float()).abs().max().item() if ours.numel() else 0.0


def largest(values: Iterable[float]) -> float:
    """The largest of ``values``, 0 of none; not a number where one of them is not, which `max` would lose."""
    found = list(values)
    return float("nan") if any(math.isnan(value) for value in found) else max(found, default=0.0)
