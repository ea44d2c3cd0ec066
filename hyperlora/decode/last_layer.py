"""The last decoder layer, run where its output is read.

Of all earlier positions the last layer has to give keys and values, which later tokens attend to, and nothing else: its
queries, its attention and its MLP there are read by nobody. In a model of three layers that is a quarter of a prefill.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

FAMILIES = ("llama", "mistral", "qwen2")
"""Families of the transformers library whose attention this reproduces."""


def last_layer(model: Any) -> Any | None:
    """The last layer of ``model``, where it is of a known family, attends by PyTorch's own kernel and is not hooked up."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", None)
    if not layers or model.config._attn_implementation != "sdpa":
        return None
    layer = layers[-1]
    known = {f"transformers.models.{family}.modeling_{family}" for family in FAMILIES}
    return layer if type(layer).__module__ in known and "forward" not in vars(layer) else None


@contextlib.contextmanager
def only_last(layer: Any | None, keep: int) -> Iterator[None]:
    """Within the block ``layer`` gives its last ``keep`` positions alone; None changes nothing."""
    if layer is None:
        yield
        return
    whole = layer.forward

    def forward(
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Any,
        **inputs: Any,
    ) -> Tensor:
        before = hidden_states.shape[1] - keep
        if before > 0 and (attention_mask is None or attention_mask.ndim == 4):
            if attention_mask is None:
                past = past_key_values.get_seq_length(layer.self_attn.layer_idx)
                attention_mask = _causal(past + hidden_states.shape[1], hidden_states.device)
            _fill(layer, hidden_states[:, :before], [x[:, :before] for x in position_embeddings], past_key_values)
            hidden_states, attention_mask = hidden_states[:, before:], attention_mask[:, :, -keep:]
            position_embeddings = (position_embeddings[0][:, before:], position_embeddings[1][:, before:])
            inputs["position_ids"] = inputs["position_ids"][:, before:]
        inputs |= {"position_embeddings": position_embeddings, "past_key_values": past_key_values}
        out: Tensor = whole(hidden_states, attention_mask=attention_mask, **inputs)
        return out

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _causal(length: int, device: torch.device) -> Tensor:
    """``[1, 1, length, length]``: each position sees itself and those before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]


def _fill(layer: Any, hidden: Tensor, position_embeddings: list[Tensor], cache: Any) -> None:
    """Add the keys and values of ``hidden`` ``[B, S, d]`` to ``cache``, as the layer's own attention would."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    keys, values = (
        projection(normed).view(*normed.shape[:2], -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.k_proj, attention.v_proj)
    )
    rotated = sys.modules[type(attention).__module__].apply_rotary_pos_emb(keys, keys, *position_embeddings)[1]
    cache.update(rotated, values, attention.layer_idx)
