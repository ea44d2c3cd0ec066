"""Surgery: wrap the projections of a frozen base model, find the adapter again, count it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError

from .binding import attach
from .gates import RhoHyperNet
from .layer import HyperLoRALinear
from .token_rows import TokenRows

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
        model: a causal LM; changed in place.
        rank, alpha, dropout, hyper_hidden, target_modules, use_fourier, fourier_freqs, include_raw, gate_activation: the
            fields of `HyperLoRASettings`.
        seed: of the initial A and gate networks.

    Returns:
        ``model``.

    Raises:
        InputError: nothing matches, or the model is already injected.
    """
    if hasattr(model, "hyperlora_binding"):
        raise InputError("this model already carries a HyperLoRA; load a fresh base model")
    names = [n for n, m in model.named_modules() if _is_linear(m) and n.split(".")[-1] in tuple(target_modules)]
    if not names:
        linear = sorted({n.split(".")[-1] for n, m in model.named_modules() if _is_linear(m)})
        raise InputError(f"no linear layer ends with {list(target_modules)}; this model has {linear}")
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
    model.hyperlora_settings = settings
    return model


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


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


def adapter_modules(model: nn.Module) -> Iterator[tuple[str, HyperLoRALinear | TokenRows]]:
    """Every module of ours in ``model``, by name."""
    for name, module in model.named_modules():
        if isinstance(module, HyperLoRALinear | TokenRows):
            yield name, module


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All trainable parameters, by full name: modules declare their own, no name is matched by substring."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in adapter_modules(model)
        for name, parameter in module.adapter_parameters().items()
    }


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A detached, contiguous copy of `adapter_parameters`, on the CPU."""
    return {name: p.detach().cpu().contiguous().clone() for name, p in adapter_parameters(model).items()}


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy ``state`` into the adapter; strict in both directions.

    Raises:
        InputError: a name is missing or unexpected, or a shape differs; nothing is changed.
    """
    own = adapter_parameters(model)
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
