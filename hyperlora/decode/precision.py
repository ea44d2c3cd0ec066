"""The precision that decisions are computed in."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from bargain_env.errors import unknown

from ..inject import adapter_parameters

PRECISIONS = ("own", "auto", "fp32", "bf16")
_COPIES: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()
"""Copies made so far, by model: every batch of a tournament asks for the same one."""
LARGE = 20_000_000
"""Parameters from which on ``auto`` looks for a faster precision."""


def in_precision(model: Any, precision: str) -> Any:
    """``model``, or a copy whose frozen weights are in another precision; the adapter's own tensors are shared with it.

    A copy is made once; frozen weights are taken as they are then.

    Args:
        model: a causal LM, with or without a HyperLoRA; left as it is.
        precision: ``own`` is that of the weights; ``fp32`` and ``bf16`` are said; ``auto`` is bf16 for a model of
            `LARGE` parameters or more on a machine that computes with it natively, and ``own`` otherwise. Small models
            stay as they are: they gain little, and a price is four digits.

    Raises:
        InputError: unknown precision.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    own = model.get_input_embeddings().weight.dtype  # model.dtype may be that of an adapter's rows
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(precision, own)
    if precision == "auto" and own == torch.float32 and model.num_parameters() >= LARGE and native_bf16(model.device):
        wanted = torch.bfloat16
    if wanted == own:
        return model
    binding = getattr(model, "hyperlora_binding", None)
    copies = _COPIES.setdefault(model, {})
    key = (wanted, None if binding is None else binding.merged_at)
    if key not in copies:
        copies[key] = _recast(model, wanted)
    return copies[key]


def native_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware; elsewhere they are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return "AVX512" in features and bool(torch.cpu._is_avx512_bf16_supported())


def _recast(model: Any, dtype: torch.dtype) -> Any:
    """A copy that shares the adapter's parameters; buffers, such as rotary frequencies, keep their precision."""
    shared = {id(parameter) for parameter in adapter_parameters(model).values()}
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if id(parameter) in shared or not parameter.is_floating_point():
            memo[id(parameter)] = parameter
        else:
            memo[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    return copy.deepcopy(model, memo)
