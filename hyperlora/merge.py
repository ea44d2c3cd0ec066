"""One ρ put into the weights: W = W_base + (α / r) · B · diag(g(ρ)) · A as a dense layer, and the base back, bit for bit.

A merged model costs what its base costs, at one ρ for every row. `unmerge` puts the untouched base layers back in place:
subtracting the update again would leave a rounding error behind, a large one in bfloat16 and in 4 bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError
from bargain_env.rho_grid import valid_rho

from .binding import RhoBinding
from .inject import adapter_modules
from .layer import HyperLoRALinear


def merge(model: Any, rho: float) -> Any:
    """Put the adapter at ``rho`` into the weights; ``model`` then needs no ρ, and refuses one until `unmerge`.

    The sum is taken in float32 and rounded once to the dtype of the base layer. A 4-bit layer is replaced by a dense one of
    the dtype it was quantised from (its dequantised weight and the update), so nothing is quantised again. The base
    layers stay in memory for `unmerge`; the adapter's own parameters, their names and what is saved do not change.

    Args:
        model: from `inject_hyperlora`; changed in place.
        rho: one value for all rows, in [0, 1] or -1.

    Returns:
        ``model``.

    Raises:
        InputError: no adapter, ρ out of range, or a base layer whose weight cannot be read; nothing is changed.
        RuntimeError: already merged, or a ρ is bound.
    """
    binding, value = binding_of(model), valid_rho(rho)
    if binding.merged_at is not None:
        raise RuntimeError(f"the adapter is merged at rho = {binding.merged_at:g} already; call unmerge(model) first")
    if model.current_rho is not None:
        raise RuntimeError("a rho is bound; leave bind_rho, or set current_rho to None, before merging")
    gates = gates_at(model, [value])[:, 0]
    layers = [layer for _, layer in adapted_layers(model)]
    dense = [_dense_layer(layer, gates[layer.index]) for layer in layers]
    for layer, replacement in zip(layers, dense, strict=True):
        layer.unmerged, layer.base_layer = (layer.base_layer,), replacement
    binding.refresh(None)
    binding.merged_at = value
    return model


def unmerge(model: Any) -> Any:
    """Put the base layers back, bit for bit; returns ``model``.

    Raises:
        InputError: no adapter.
        RuntimeError: not merged.
    """
    binding = binding_of(model)
    if binding.merged_at is None:
        raise RuntimeError("the adapter is not merged; call merge(model, rho) first")
    for _, layer in adapted_layers(model):
        base, device = layer.unmerged[0], next(layer.base_layer.parameters()).device
        if next(base.parameters()).device != device:  # the model has moved meanwhile
            base.to(device)
        layer.base_layer, layer.unmerged = base.train(layer.training), ()
    binding.merged_at = None
    return model


@contextlib.contextmanager
def merged(model: Any, rho: float) -> Iterator[Any]:
    """Within the block ``model`` is merged at ``rho``; raises as `merge` does."""
    merge(model, rho)
    try:
        yield model
    finally:
        unmerge(model)


def binding_of(model: Any) -> RhoBinding:
    """The ρ binding of ``model``.

    Raises:
        InputError: the model carries no adapter.
    """
    binding = getattr(model, "hyperlora_binding", None)
    if binding is None:
        raise InputError("this model carries no HyperLoRA; call inject_hyperlora, or load an adapter, first")
    return binding


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, HyperLoRALinear]]:
    """Every gated layer of ``model`` by name."""
    for name, module in adapter_modules(model):
        if isinstance(module, HyperLoRALinear):
            yield name, module


@torch.no_grad()
def gates_at(model: Any, rhos: Sequence[float]) -> Tensor:
    """Gates ``[L, len(rhos), rank]`` of the model's layers, in the order of their ``index``.

    Raises:
        InputError: the model carries no adapter.
    """
    binding = binding_of(model)
    return binding.bank(binding.as_rows(list(rhos)))


def frozen_base(layer: HyperLoRALinear) -> nn.Module:
    """The base layer as it was injected, whether merged now or not."""
    return layer.unmerged[0] if layer.unmerged else layer.base_layer


@torch.no_grad()
def dense_weight(layer: nn.Module) -> Tensor:
    """A linear layer's weight ``[d_out, d_in]``; of a 4-bit layer what it stands for, in the dtype it was quantised from.

    Raises:
        InputError: bitsandbytes has repacked the weight for its CPU kernel, or it is in another quantised form.
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    state = getattr(weight, "quant_state", None)
    if state is None:
        if not weight.is_floating_point():
            raise InputError(
                f"a {type(layer).__name__} in {weight.dtype} cannot be merged; load the base dense or in 4 bits"
            )
        return weight.detach()
    if getattr(state, "packing_format_for_cpu", False):
        raise InputError(
            "bitsandbytes has repacked this 4-bit base for evaluation, and its weights can no longer be read; "
            "load it with hyperlora.load_base, or call hyperlora.base.guard_four_bits before its first forward pass"
        )
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.detach(), state)


def merged_weight(layer: HyperLoRALinear, gates: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """W_base + (α / r) · B · diag(g) · A ``[d_out, d_in]`` for gates ``[rank]``.

    Added in at least float32 and rounded once, to ``dtype`` or else the dtype of the base weight.
    """
    weight, update = dense_weight(frozen_base(layer)), layer.update(gates)
    return (weight.to(torch.promote_types(weight.dtype, update.dtype)) + update.to(weight.device)).to(
        dtype or weight.dtype
    )


def _dense_layer(layer: HyperLoRALinear, gates: Tensor) -> nn.Linear:
    weight, bias = merged_weight(layer, gates), layer.base_layer.bias
    dense = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    dense.weight = nn.Parameter(weight, requires_grad=False)
    if isinstance(bias, Tensor):  # bitsandbytes may have cast it to its compute dtype
        dense.bias = nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    return dense.train(layer.training)
