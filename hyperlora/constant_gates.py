"""Gates that no longer follow ρ: what is left of an adapter when only the prompt says what is asked for.

The last stage of every gate network is put to a zero weight and a bias whose activation is the wanted gate. Nothing else
changes, so an adapter with constant gates is saved, loaded, merged, exported and digested as any other.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from bargain_env.errors import InputError

from .binding import RhoBinding

GRID = 101
"""Points of ρ in [0, 1] that `mean_gates` averages over, ends included."""
SATURATED = 1e-12
"""How near to the ends of an activation's range a gate is put; beyond, its bias would be infinite."""


@torch.no_grad()
def mean_gates(model: Any) -> Tensor:
    """``[L, rank]`` the gates of each adapted layer, averaged over ρ from 0 to 1.

    These are the settlements that adapters train on. An impasse, ρ = -1, is no point of that range and is left out.
    """
    binding: RhoBinding = model.hyperlora_binding
    return binding.bank(binding.as_rows(torch.linspace(0.0, 1.0, GRID).tolist())).double().mean(dim=1)


@torch.no_grad()
def set_constant_gates(model: Any, gates: Tensor | float, *, frozen: bool = True) -> None:
    """Make the gates of ``model`` the same at every ρ.

    Args:
        model: from `inject_hyperlora`; changed in place.
        gates: ``[L, rank]``, or one number for all; what the activation can give (sigmoid: from 0 to 1). A gate of 1
            everywhere makes a plain LoRA.
        frozen: take the gate networks out of training, or they would follow ρ again after one step.

    Raises:
        InputError: the activation cannot give such a gate; nothing is changed.
    """
    bank = model.hyperlora_binding.bank
    weight, bias = bank.weights[-1], bank.biases[-1]
    activation = model.hyperlora_settings.gate_activation
    wanted = torch.as_tensor(gates, dtype=torch.float64, device="cpu").expand(bank.layers, weight.shape[-1])
    before = _before(activation, wanted).reshape(-1)
    weight.zero_()
    bias.copy_(before)
    if frozen:
        bank.requires_grad_(False)


def with_constant_gates(model: Any, gates: Tensor | float) -> Any:
    """A second model whose gates are constant, beside ``model``; the base, A and B of both are the same tensors.

    Args:
        model: as for `set_constant_gates`; not changed. No ρ may be bound.
        gates: likewise.
    """
    bank = model.hyperlora_binding.bank
    own = {id(tensor) for tensor in bank.parameters()}
    shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
    twin = copy.deepcopy(model, dict(shared))
    set_constant_gates(twin, gates)
    return twin


@torch.no_grad()
def has_constant_gates(model: Any) -> bool:
    """Whether no gate of ``model`` depends on ρ, by the weights alone."""
    return not bool(model.hyperlora_binding.bank.weights[-1].any())


def _before(activation: str, gates: Tensor) -> Tensor:
    """What the activation makes ``gates`` of.

    Raises:
        InputError: nothing does.
    """
    low, high = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softplus": (0.0, math.inf)}[activation]
    if not ((gates >= low) & (gates <= high)).all():
        raise InputError(f"gates of {activation} lie in [{low:g}, {high:g}]; choose others, or another activation")
    inside = gates.clamp(low + SATURATED, high - SATURATED)
    if activation == "sigmoid":
        return torch.logit(inside)
    return torch.atanh(inside) if activation == "tanh" else inside + torch.log(-torch.expm1(-inside))
