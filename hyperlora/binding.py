"""How ρ reaches the layers: bound to the model as a ``[B, 1]`` tensor, turned into gates once per forward pass.

The contract is the seed's: ``model.current_rho = tensor([[0.3]])`` before a forward pass, None for the bare base model.
`bind_rho` is the same for the length of a block, which is what training needs: a backward pass that recomputes its
forward (gradient checkpointing) must see the ρ of that forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .gates import RhoHyperNet, gate_bank


class RhoBinding:
    """The ρ of a model and the gates made of it; shared by all adapted layers of the model.

    Attributes:
        nets: the gate networks, in layer order.
        gates: ``[L, B, rank]`` of the latest forward pass, float32; None where no ρ is bound.
        made_of: what `refresh` made them of.
    """

    def __init__(self, nets: Sequence[RhoHyperNet]) -> None:
        self.nets = list(nets)
        self.gates: Tensor | None = None
        self.made_of: Any = None

    def refresh(self, rho: Tensor | float | Sequence[float] | None) -> None:
        """Compute the gates of ``rho``; called once before each forward pass of the model."""
        self.gates = None if rho is None else gate_bank(self.nets, self.as_rows(rho))
        self.made_of = rho

    def as_rows(self, rho: Tensor | float | Sequence[float]) -> Tensor:
        """``rho`` as a float32 tensor ``[B, 1]`` on the gates' device.

        Raises:
            ValueError: not a scalar, ``[B]`` or ``[B, 1]``, or not finite.
        """
        weight = self.nets[0].net[0].weight
        rows = torch.as_tensor(rho, dtype=weight.dtype, device=weight.device)  # type: ignore[arg-type]
        if rows.ndim < 2:
            rows = rows.reshape(-1, 1)
        if rows.ndim != 2 or rows.shape[1] != 1:
            raise ValueError(f"rho must be a scalar, [B] or [B, 1]; got shape {tuple(rows.shape)}")
        if not torch.isfinite(rows).all():
            raise ValueError("rho holds NaN or infinity")
        return rows

    def layer(self, index: int, batch: int) -> Tensor | None:
        """Gates ``[B or 1, rank]`` of one layer for a batch of ``batch`` rows.

        Raises:
            ValueError: the number of bound ρ differs from the number of rows.
        """
        if self.gates is None:
            return None
        gates = self.gates[index]
        if gates.shape[0] not in (1, batch):
            raise ValueError(
                f"{gates.shape[0]} values of rho are bound but the batch has {batch} rows; bind one rho, or one a row"
            )
        return gates


def attach(model: nn.Module, nets: Sequence[RhoHyperNet]) -> RhoBinding:
    """Give ``model`` a binding and a ``current_rho``; gates are computed before each of its forward passes."""
    binding = RhoBinding(nets)
    model.hyperlora_binding = binding  # type: ignore[assignment]
    model.current_rho = None  # type: ignore[assignment]
    model.register_forward_pre_hook(_refresh_gates)
    return binding


def _refresh_gates(model: Any, _args: Any) -> None:
    model.hyperlora_binding.refresh(model.current_rho)


@contextlib.contextmanager
def bind_rho(model: Any, rho: Tensor | float | Sequence[float] | None) -> Iterator[None]:
    """Within the block every forward and backward pass of ``model`` runs at ``rho``.

    Args:
        model: from `inject_hyperlora`.
        rho: a scalar, ``[B]`` or ``[B, 1]``; None switches the adapter off.

    Raises:
        RuntimeError: ``model.current_rho`` was replaced inside the block.
    """
    before = model.current_rho
    bound = None if rho is None else model.hyperlora_binding.as_rows(rho)
    model.current_rho = bound
    model.hyperlora_binding.refresh(None)
    try:
        yield
        if model.current_rho is not bound:
            raise RuntimeError("current_rho was replaced inside bind_rho; its gradients would belong to another rho")
    finally:
        model.current_rho = before
        model.hyperlora_binding.refresh(None)
