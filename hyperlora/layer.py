"""A frozen linear layer with a gated low-rank update."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .binding import RhoBinding
from .gates import RhoHyperNet


class HyperLoRALinear(nn.Module):
    """y = base(x) + (α / r) · dropout(B · (g(ρ) ⊙ (A · x)))      (seed report, section 2.2)

    A is Kaiming-uniform and B zero, so a fresh layer equals its base for every ρ.

    Args:
        base_layer: the layer to adapt (``nn.Linear`` or a 4-bit one); frozen by `inject_hyperlora`.
        hyper_net: its gates.
        rank: r.
        alpha: α.
        dropout: probability, on the update, while training.

    Attributes:
        base_layer: the frozen base, or the merged copy of it while `hyperlora.merge` is in force.
        unmerged: the frozen base while a merged copy stands in its place, else empty. It hides in a tuple because a
            submodule would add names to the model's parameters and state.
    """

    def __init__(
        self, base_layer: nn.Module, hyper_net: RhoHyperNet, rank: int = 16, alpha: float = 32.0, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.base_layer, self.hyper_net = base_layer, hyper_net
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        device = next(base_layer.parameters()).device
        self.lora_A = nn.Parameter(torch.empty(rank, int(base_layer.in_features), device=device))  # type: ignore[arg-type]
        self.lora_B = nn.Parameter(torch.zeros(int(base_layer.out_features), rank, device=device))  # type: ignore[arg-type]
        self.index = -1
        self.binding: RhoBinding | None = None
        self.unmerged: tuple[nn.Module, ...] = ()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw A (Kaiming-uniform with a = √5, as PEFT does), on the CPU for every device alike, and zero B."""
        bound = 1.0 / math.sqrt(self.lora_A.shape[1])
        with torch.no_grad():
            drawn = torch.empty(self.lora_A.shape).uniform_(-bound, bound, generator=generator)
            self.lora_A.copy_(drawn)
            self.lora_B.zero_()

    @property
    def scaling(self) -> float:
        """α / r."""
        return self.alpha / self.rank

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes and a checkpoint holds, by name within the layer."""
        return {
            "lora_A": self.lora_A,
            "lora_B": self.lora_B,
            **{f"hyper_net.{name}": p for name, p in self.hyper_net.named_parameters()},
        }

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name within the layer; gates that belong to a bank are slices of it."""
        gates = {f"hyper_net.{name}": tensor for name, tensor in self.hyper_net.tensors().items()}
        return {"lora_A": self.lora_A, "lora_B": self.lora_B, **gates}

    @torch.no_grad()
    def update(self, gates: Tensor) -> Tensor:
        """(α / r) · B · diag(g) · A ``[d_out, d_in]`` of one row of gates ``[rank]``; at least float32, no gradients."""
        wide = torch.promote_types(self.lora_B.dtype, torch.float32)
        return (self.lora_B.to(wide) * (gates * self.scaling).to(wide)) @ self.lora_A.to(wide)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, …, d_in]`` → ``[B, …, d_out]``; the bare base layer where no ρ is bound."""
        gates = None if self.binding is None else self.binding.layer(self.index, x.shape[0])
        if gates is None:
            return self.base_layer(x)
        gates = gates.view(gates.shape[0], *(1,) * (x.ndim - 2), self.rank).to(x.dtype)
        inner = F.linear(x, self.lora_A.to(x.dtype)) * gates
        if self.dropout > 0.0 and self.training:
            y = self.base_layer(x)
            update = F.linear(inner, self.lora_B.to(x.dtype)) * self.scaling
            return y + F.dropout(update, self.dropout).to(y.dtype)
        return self._fused(x, inner)

    def _fused(self, x: Tensor, inner: Tensor) -> Tensor:
        """base(x) + (α / r) · B · inner in one product, on top of the base's own output where that is nobody else's.

        A plain linear layer makes a new tensor from rows of one matrix and keeps none of it for its backward pass, so the
        update may be added in place. Copying the output first costs janus-nano a few hundredths of a training step.
        """
        y = self.base_layer(x.flatten(0, -2))
        rows, up = inner.flatten(0, -2).to(y.dtype), self.lora_B.t().to(y.dtype)
        add = y.addmm_ if type(self.base_layer) is nn.Linear else y.addmm
        return add(rows, up, alpha=self.scaling).view(*x.shape[:-1], -1)

    def extra_repr(self) -> str:
        """Shown in ``print(model)``."""
        return f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}"
