"""Surgery: wrap the projections of a frozen base model, find the adapter again, count it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError

from .binding import attach
from .gates import RhoHyperNet
from .identity import identify, is_four_bit_linear
from .layer import HyperLoRALinear
from .token_rows import HeadRows, TokenRows

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and MLP projections of Qwen2 and Llama."""


@dataclass(frozen=True, slots=True)
class HyperLoRASettings:
    """Shape of an adapter; the defaults are the seed's.

    Attributes:
        rank: r.
        alpha: α; the update is scaled by α / r.
        dropout: on the update.
        hyper_hidden: width of the gate networks.
        target_modules: suffixes of the layers to adapt.
        use_fourier: feed Fourier features of ρ to the gates.
        fourier_freqs: how many.
        include_raw: beside ρ itself.
        gate_activation: ``sigmoid``, ``tanh`` or ``softplus``.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    hyper_hidden: int = 64
    target_modules: tuple[str, ...] = TARGET_MODULES
    use_fourier: bool = False
    fourier_freqs: int = 8
    include_raw: bool = True
    gate_activation: str = "sigmoid"

    def as_config(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "target_modules": list(self.target_modules)}


def inject_hyperlora(
    model: Any,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.05,
    hyper_hidden: int = 64,
    target_modules: Sequence[str] = TARGET_MODULES,
    use_fourier: bool = False,
    fourier_freqs: int = 8,
    include_raw: bool = True,
    gate_activation: str = "sigmoid",
    seed: int = 0,
) -> Any:
    """Wrap every linear layer whose name ends with a target suffix, freeze the rest, attach ``current_rho``.

    Args:
        model: a causal LM, dense or in bitsandbytes' 4 bits; changed in place.
        rank, alpha, dropout, hyper_hidden, target_modules, use_fourier, fourier_freqs, include_raw, gate_activation: the
            fields of `HyperLoRASettings`.
        seed: of the initial A and gate networks.

    Returns:
        ``model``.

    Raises:
        InputError: the model carries an adapter already, nothing matches, or what matches cannot be adapted: no linear
            layer, another quantisation than 4 bits of bitsandbytes, or a weight that has several places in the model.
            Nothing is changed.
    """
    names = _targets(model, tuple(target_modules))
    identify(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    settings = HyperLoRASettings(
        rank, alpha, dropout, hyper_hidden, tuple(target_modules),
        use_fourier, fourier_freqs, include_raw, gate_activation,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        layers = [_wrap(model, name, settings, generator) for name in names]
    binding = attach(model, [layer.hyper_net for layer in layers])
    for index, layer in enumerate(layers):
        layer.index, layer.binding = index, binding
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    model.hyperlora_settings, model.hyperlora_seed = settings, seed
    return model


def _targets(model: nn.Module, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the layers to wrap, in model order; raises `InputError` where one of them cannot be."""
    if hasattr(model, "hyperlora_binding"):
        raise InputError("this model already carries a HyperLoRA; load a fresh base model")
    for name, module in model.named_modules():
        if type(module).__module__.partition(".")[0] == "peft":
            raise InputError(
                f"this model carries a PEFT adapter ({name or type(module).__name__}); give the base model, or what "
                "merge_and_unload() returns"
            )
    found = {name: module for name, module in model.named_modules() if name.split(".")[-1] in suffixes}
    if not found:
        linear = sorted({n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise InputError(f"no linear layer ends with {list(suffixes)}; this model has {linear}")
    for name, module in found.items():
        _refuse_unfit(name, module)
    _refuse_shared(model, found)
    return list(found)


def _refuse_unfit(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"{name} is a {kind}, which cannot be adapted: not a linear layer of torch or bitsandbytes; load the base dense "
            "or in 4 bits (use_qlora), or leave it out of target_modules"
        )
    dtype = module.weight.dtype
    if not is_four_bit_linear(module) and (dtype.itemsize < 2 or not dtype.is_floating_point):
        raise InputError(
            f"{name} is a {kind} with weights in {str(dtype).removeprefix('torch.')}, which cannot be adapted; load the "
            "base dense or in 4 bits (use_qlora)"
        )


def _refuse_shared(model: nn.Module, found: dict[str, nn.Module]) -> None:
    """One weight under several names would get one adapter and two meanings, and a merge would change both places."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for name, module in found.items():
        shared = places[id(module.weight)]
        if len(shared) > 1:
            raise InputError(
                f"{name} shares its weight ({' = '.join(shared)}), so an update of it would reach all of them; leave "
                f"{name.split('.')[-1]!r} out of target_modules, or untie the weights"
            )


def _wrap(model: nn.Module, name: str, settings: HyperLoRASettings, generator: torch.Generator) -> HyperLoRALinear:
    """Put a `HyperLoRALinear` in the place of the layer called ``name``."""
    parent_name, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    base = getattr(parent, attribute)
    net = RhoHyperNet(
        settings.rank, settings.hyper_hidden, settings.use_fourier, settings.fourier_freqs,
        settings.include_raw, settings.gate_activation,
    ).to(next(base.parameters()).device)  # fmt: skip
    layer = HyperLoRALinear(base, net, settings.rank, settings.alpha, settings.dropout)
    layer.initialise(generator)
    setattr(parent, attribute, layer.train(parent.training))
    return layer


def adapter_modules(model: nn.Module) -> Iterator[tuple[str, HyperLoRALinear | TokenRows | HeadRows]]:
    """Every module of ours in ``model``, by name."""
    for name, module in model.named_modules():
        if isinstance(module, HyperLoRALinear | TokenRows | HeadRows):
            yield name, module


def adapter_summary(model: nn.Module) -> str:
    """What was put into ``model``, in one line: layers by suffix, shape, and how many parameters train."""
    layers = [(name.split(".")[-1], m) for name, m in adapter_modules(model) if isinstance(m, HyperLoRALinear)]
    tables = [m for _, m in adapter_modules(model) if not isinstance(m, HyperLoRALinear)]
    total = sum(p.numel() for p in adapter_parameters(model).values())
    low_rank = sum(m.lora_A.numel() + m.lora_B.numel() for _, m in layers)
    rows = sum(p.numel() for m in tables for p in m.adapter_parameters().values())
    counts = ", ".join(f"{n} {suffix}" for suffix, n in Counter(suffix for suffix, _ in layers).items())
    return (
        f"{len(layers)} layers ({counts}), rank {layers[0][1].rank}, alpha {layers[0][1].alpha:g}; {total:,} parameters "
        f"train: {low_rank:,} in A and B, {total - low_rank - rows:,} in gates, {rows:,} in token rows"
    )


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All trainable parameters, by full name: modules declare their own, no name is matched by substring."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in adapter_modules(model)
        for name, parameter in module.adapter_parameters().items()
    }


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds, by full name: `adapter_parameters`, with the gates cut into those of each layer."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in adapter_modules(model)
        for name, tensor in module.adapter_tensors().items()
    }


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A detached, contiguous copy of `adapter_parameters`, on the CPU."""
    return {name: p.detach().cpu().contiguous().clone() for name, p in adapter_tensors(model).items()}


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy ``state`` into the adapter; strict in both directions.

    Raises:
        InputError: a name is missing or unexpected, or a shape differs; nothing is changed.
    """
    own = adapter_tensors(model)
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise InputError(f"adapter does not fit this model: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"adapter does not fit: {name} is {tuple(tensor.shape)}, model has {tuple(own[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
