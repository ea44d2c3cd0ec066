"""Small models for the oracles: one of each architecture, an adapter that does something, and one forward pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from hyperlora import RhoHyperNet, adapter_parameters, bind_rho, inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.binding import RhoBinding
from hyperlora.inject import adapter_modules
from hyperlora.layer import HyperLoRALinear

ATOL = 1e-5
"""Tolerance of equalities between two orders of the same float32 sums."""

KINDS = ("qwen2", "llama")


def tiny(kind: str = "qwen2") -> Any:
    """A causal LM of two layers, width 32 and 120-odd tokens in eval mode; biased q, k, v (qwen2) or none (llama)."""
    if kind == "qwen2":
        return nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=1).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=131, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, pad_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()


def awake(model: Any, seed: int = 0) -> Any:
    """An adapter whose B is not zero, so that it does something; returns ``model``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            if isinstance(layer, HyperLoRALinear):
                layer.lora_B.normal_(0.0, 0.2, generator=generator)
    return model


def ids(batch: int = 3, length: int = 11) -> Tensor:
    """Token ids ``[batch, length]`` that every tiny model knows."""
    return torch.randint(14, 100, (batch, length), generator=torch.Generator().manual_seed(5))


def logits(model: Any, x: Tensor, rho: Any) -> Tensor:
    """Logits ``[B, S, V]`` of ``x`` at ``rho``, without gradients."""
    with torch.no_grad(), bind_rho(model, rho):
        return model(x).logits


def training(kind: str = "qwen2", checkpointing: bool = False) -> Any:
    """A tiny model with an adapter that does something, in training mode without dropout."""
    model = awake(inject_hyperlora(tiny(kind), dropout=0.0)).train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def taken_gradients(model: Any) -> dict[str, Tensor]:
    """The adapter's gradients, which are cleared."""
    found = {name: p.grad.clone() for name, p in adapter_parameters(model).items() if p.grad is not None}
    model.zero_grad()
    return found


def largest_gap(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest absolute difference between tensors of one name."""
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def gates_only(count: int = 3, **options: Any) -> Any:
    """What the gate terms see of a model: ``count`` gate networks of rank 4 and width 6, unless ``options`` say more."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [RhoHyperNet(**{"rank": 4, "hidden_dim": 6, **options}) for _ in range(count)]
    return SimpleNamespace(hyperlora_binding=RhoBinding(nets))


def gate_parameters(model: Any) -> list[torch.nn.Parameter]:
    """Parameters of all gate networks."""
    return [p for net in model.hyperlora_binding.nets for p in net.parameters()]


def descended(model: Any, loss: Any, steps: int = 1, lr: float = 0.5) -> list[float]:
    """Values of ``loss(model)`` before and after each step down the gates' gradient."""
    optimizer = torch.optim.SGD(gate_parameters(model), lr=lr)
    if steps > 1:
        optimizer = torch.optim.Adam(gate_parameters(model), lr=lr, betas=(0.0, 0.99))
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        values.append(value.item())
    return [*values, loss(model).item()]
