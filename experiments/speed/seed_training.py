"""The reference of `experiments.benchmark train`: gated LoRA as one first writes it down.

    y = base(x) + (α / r) · B · (g(ρ) ⊙ (A · x)),    g = sigmoid ∘ linear ∘ SiLU ∘ linear ∘ SiLU ∘ linear of ρ

Every layer calls its own small network of the model's ρ, and the model scores every position of every row, as Hugging
Face does when it is given labels. The formulas are those of the published seed of this project, the code is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Condition:
    """The ρ ``[B, 1]`` of the running pass, read by all layers of one model."""

    rho: Tensor


class SeedGates(nn.Module):
    """ρ ``[B, 1]`` → gates ``[B, rank]`` of one layer."""

    def __init__(self, rank: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, rank)
        )

    def forward(self, rho: Tensor) -> Tensor:
        """The gates."""
        return torch.sigmoid(self.net(rho))


class SeedLinear(nn.Module):
    """A frozen linear layer, its low-rank update and its own gates."""

    def __init__(self, base_layer: nn.Linear, condition: Condition, rank: int, alpha: float, hidden: int) -> None:
        super().__init__()
        self.base_layer, self.condition, self.scaling = base_layer, condition, alpha / rank
        self.lora_A = nn.Parameter(torch.zeros(rank, base_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))
        self.hyper_net = SeedGates(rank, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, d_in]`` → ``[B, S, d_out]``."""
        gates = self.hyper_net(self.condition.rho)
        inner = F.linear(x, self.lora_A) * gates.unsqueeze(1)
        return self.base_layer(x) + self.scaling * F.linear(inner, self.lora_B)


def inject_seed(model: Any, targets: Sequence[str], rank: int, alpha: float, hidden: int, rho: Tensor) -> Condition:
    """Wrap every target of ``model`` in place and freeze the rest; returns what the layers read ρ from."""
    condition = Condition(rho)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = [(name, layer) for name, layer in model.named_modules() if name.split(".")[-1] in targets]
    for name, layer in found:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, SeedLinear(layer, condition, rank, alpha, hidden))
    return condition


def copy_adapter(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take over the adapter of ours, by the names that `hyperlora.inject.adapter_state` gives its tensors.

    Raises:
        KeyError: a tensor is missing from ``state``.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])


def gate_nets(state: Mapping[str, Tensor], rank: int, hidden: int) -> list[SeedGates]:
    """One network a layer with the weights in ``state``, see `copy_adapter`, in the order of the layers there."""
    nets = []
    for name in state:
        prefix, found, _ = name.partition("hyper_net.net.0.weight")
        if found:
            net = SeedGates(rank, hidden)
            net.load_state_dict({key: state[f"{prefix}hyper_net.{key}"] for key in net.state_dict()})
            nets.append(net)
    return nets


def full_loss(model: Any, input_ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of the labelled tokens of ``[B, S]``, from logits at every position."""
    return model(input_ids=input_ids, attention_mask=mask, labels=labels, use_cache=False).loss
