"""Which base a model is: where it came from, its precision, and two digests of its weights."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor, nn

_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_SAMPLE = 1024
"""Values of each tensor that `weights_digest` reads."""


def identify(model: Any) -> None:
    """Note on ``model`` which base it is, while it still is nothing else: before token rows, adapters and wrappers.

    Sets ``base_digest``, ``weights_digest`` and ``base_precision``, and ``base_spec`` where nobody has said it. A model
    without an embedding table, or without weights (on the meta device), is left alone.
    """
    if not hasattr(model, "get_input_embeddings") or any(p.is_meta for p in model.parameters()):
        return
    model.base_digest, model.weights_digest = base_digest(model), weights_digest(model)
    model.base_precision = precision_of(model)
    if not hasattr(model, "base_spec"):
        model.base_spec = getattr(model.config, "name_or_path", "")


def precision_of(model: Any) -> str:
    """``nf4`` (or ``fp4``) for bitsandbytes' 4 bits, a dtype's name, or the name of another quantisation method."""
    for parameter in model.parameters():
        if _is_four_bits(parameter):
            return str(parameter.quant_type)
    return _method(model) or str(model.dtype).removeprefix("torch.")


def _method(model: Any) -> str:
    """The library's name of the quantisation of ``model``; empty where it is dense, as `load_base` makes GGUF files."""
    method = getattr(model, "quantization_method", None)
    name = str(getattr(method, "value", method) or "")
    return "" if name == "gguf" else name


def is_four_bit_linear(module: nn.Module) -> bool:
    """Whether ``module`` is a linear layer of bitsandbytes in 4 bits; does not import bitsandbytes."""
    return isinstance(module, nn.Linear) and _is_four_bits(module.weight)


def _is_four_bits(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "Params4bit"


def base_digest(model: Any) -> str:
    """SHA-256 that names a base in every precision: its shape, and samples of its embedding and norms, in bfloat16.

    These are what 4-bit loading leaves alone, so a dense and a 4-bit copy of one checkpoint have the same digest; it takes
    milliseconds. Models that differ in projections alone have it too: `weights_digest` tells those apart. Weights that
    were cast down to float16 may round to another digest.
    """
    table: Tensor = model.get_input_embeddings().weight.detach()
    shape = [getattr(model.config, name, None) for name in _SHAPE] + list(table.shape)
    digest = hashlib.sha256(json.dumps(shape).encode())
    norms = [p.detach() for name, p in model.named_parameters() if "norm" in f".{name}".split(".")[-2]]
    for tensor in (table, *norms):
        flat = tensor.reshape(-1)
        digest.update(_bytes(flat[:: max(1, flat.numel() // 4096)][:4096]))
    return digest.hexdigest()


def weights_digest(model: Any) -> str | None:
    """SHA-256 over a sample of every weight and bias of a bare dense base, in bfloat16; None where some are quantised.

    A thousand values of each tensor, spread so that they fall into every column in turn. Equal in float32 and bfloat16 of
    one checkpoint; independent of the names and the order of the tensors, which other versions of a library may change.
    """
    parameters = list(model.parameters())
    if _method(model) or any(p.dtype.itemsize < 2 or _is_four_bits(p) for p in parameters):
        return None
    parts = sorted(hashlib.sha256(json.dumps(list(p.shape)).encode() + _bytes(_spread(p))).digest() for p in parameters)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _spread(tensor: Tensor) -> Tensor:
    """About `_SAMPLE` values at a stride that has no factor in common with the row length: a common one sees few columns."""
    flat = tensor.detach().reshape(-1)
    stride = max(1, flat.numel() // _SAMPLE)
    while math.gcd(stride, tensor.shape[-1] if tensor.ndim > 1 else 1) > 1:
        stride += 1
    return flat[::stride]


def _bytes(sample: Tensor) -> bytes:
    return sample.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
