"""The three terms of the training loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def target_loss(model: Any, input_ids: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Causal LM loss over the labelled tokens, with logits computed at those positions only.

    Args:
        model: a Hugging Face causal LM.
        input_ids: ``[B, S]``, padded on the right.
        labels: ``[B, S]``, -100 where no loss applies.
        weights: ``[B, S]`` weight of each labelled token; 1 by default.

    Returns:
        The *sum* of weighted token losses and the sum of weights, so that accumulated micro-batches weigh tokens alike.
        No attention mask is needed: with padding on the right no real token sees a pad.
    """
    wanted = labels[:, 1:] != IGNORE
    keep = F.pad(wanted, (0, 1))
    out = model(input_ids=input_ids, logits_to_keep=keep, use_cache=False)
    logits = out.logits.reshape(-1, out.logits.shape[-1])
    losses = F.cross_entropy(logits.float(), labels[:, 1:][wanted], reduction="none")
    scale = torch.ones_like(losses) if weights is None else weights[:, 1:][wanted]
    return (losses * scale).sum(), scale.sum()


def _continuum(gates: Tensor, rho: Tensor, exclude_failures: bool) -> tuple[Tensor, Tensor]:
    rho = rho.reshape(-1)
    if exclude_failures:
        kept = rho >= 0.0
        return gates[:, kept], rho[kept]
    return gates, rho


def compute_gate_separation_loss(
    model: Any,
    rho: Tensor,
    exclude_failures: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Minus the mean squared distance between gates of paired ρ, times the mean distance of the pairs (seed 6.1).

    Rows are paired by a random permutation π: -(1/L) Σ_ℓ E_i‖g_ℓ(ρ_i) - g_ℓ(ρ_π(i))‖² · E_i min(|ρ_i - ρ_π(i)|, 1).
    It is minimised, so gates of different ρ are pushed apart.

    Args:
        model: from `inject_hyperlora`. Gates of its latest forward pass are used where they belong to ``rho``.
        rho: ``[B, 1]``.
        exclude_failures: leave out ρ = -1, which is no point of the continuum.
        generator: of the permutation.

    Returns:
        A scalar; 0 with fewer than two rows left.
    """
    gates, rho = _continuum(batch_gates(model, rho), rho, exclude_failures)
    if len(rho) < 2:
        return gates.sum() * 0.0
    permutation = torch.randperm(len(rho), generator=generator).to(rho.device)
    distance = (gates - gates[:, permutation]).square().sum(dim=-1).mean()
    weight = (rho - rho[permutation]).abs().clamp(max=1.0).mean()
    return -distance * weight


def compute_gate_smoothness_loss(model: Any, rho: Tensor, exclude_failures: bool = True, step: float = 0.05) -> Tensor:
    """Mean squared rate of change of the gates around ρ: (1/L) Σ_ℓ E_i‖(g_ℓ(ρ_i + δ) - g_ℓ(ρ_i)) / δ‖², clamped to [0, 1].

    The seed names this term and leaves it out of its loop; here it is a finite-difference penalty on ‖dg/dρ‖², with δ
    pointing inward so that both points lie in [0, 1].

    Args:
        model: from `inject_hyperlora`.
        rho: ``[B, 1]``.
        exclude_failures: leave out ρ = -1.
        step: |δ|.

    Returns:
        A non-negative scalar; 0 with no rows left.
    """
    rho = rho.reshape(-1, 1)
    rho = rho[rho[:, 0] >= 0.0] if exclude_failures else rho
    if len(rho) == 0:
        return batch_gates(model, torch.zeros(1, 1)).sum() * 0.0
    delta = torch.where(rho > 0.5, -step, step)
    both = batch_gates(model, torch.cat([rho, rho + delta]))
    here, there = both.chunk(2, dim=1)
    return ((there - here) / step).square().sum(dim=-1).mean()


def batch_gates(model: Any, rho: Tensor) -> Tensor:
    """Gates ``[L, B, rank]`` of ρ ``[B, 1]``, with gradients; those of the running forward pass where it is the same ρ."""
    from .gates import gate_bank

    binding = model.hyperlora_binding
    gates = binding.gates
    if gates is not None and rho is binding.made_of and gates.requires_grad == torch.is_grad_enabled():
        return gates
    return gate_bank(binding.nets, binding.as_rows(rho))
