"""The three terms of the training loss: target tokens, gates that move with ρ, gates that move smoothly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bargain_env.errors import InputError

from .binding import RhoBinding
from .layer import HyperLoRALinear

IGNORE = -100

SEPARATION_MODES = ("pair", "seed")
"""Forms of `compute_gate_separation_loss`."""

PAIRING = 1
"""Seed of the pairing where no generator is given; its permutation of two rows is no identity."""

TOUCHING = 1e-12
"""Mean squared distance below which two rows of gates count as equal: √x has no derivative at 0."""


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
    logits = target_logits(model, input_ids, wanted)
    losses = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
    scale = torch.ones_like(losses) if weights is None else weights[:, 1:][wanted]
    return (losses * scale).sum(), scale.sum()


def target_logits(model: Any, input_ids: Tensor, wanted: Tensor) -> Tensor:
    """Logits ``[N, V]``, float32, that predict the N next tokens marked in ``wanted``, ``[B, S - 1]``, of ``input_ids``.

    An adapted output head gets all positions, because the chosen ones come without their rows, and so without their ρ.
    """
    if _head_is_gated(model):
        return model(input_ids=input_ids, use_cache=False).logits[:, :-1][wanted].float()
    logits = model(input_ids=input_ids, logits_to_keep=F.pad(wanted, (0, 1)), use_cache=False).logits
    return logits.reshape(-1, logits.shape[-1]).float()


def _head_is_gated(model: Any) -> bool:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head is not None and any(isinstance(module, HyperLoRALinear) for module in head.modules())


def compute_gate_separation_loss(
    model: Any,
    rho: Tensor,
    exclude_failures: bool = True,
    generator: torch.Generator | None = None,
    mode: str = "pair",
) -> Tensor:
    """A loss that falls while gates of different ρ move apart.

    ``mode="pair"``, the default: mean over layers ℓ and pairs (i, j) of max(0, min(|ρ_i - ρ_j|, 1) - d_ℓij)², where d_ℓij is
    the root mean square over the rank of g_ℓ(ρ_i) - g_ℓ(ρ_j). This is the contrastive hinge of Hadsell, Chopra and LeCun
    (2006, eq. 4) with a margin for each pair, as wide as its ρ are apart. It lies in [0, 1], and its gradient ends where
    the gates have moved as far as ρ has: what remains of the freedom is the data's.

    ``mode="seed"``, the seed's (section 6.1): -(1/L) Σ_ℓ E_i‖g_ℓ(ρ_i) - g_ℓ(ρ_π(i))‖² · E_i min(|ρ_i - ρ_π(i)|, 1). It
    multiplies two means over the batch, so a pair of almost equal ρ is pushed apart as hard as a distant one; it is
    unbounded below for softplus gates; and it keeps rewarding sigmoid and tanh gates for saturating at their ends, where
    they no longer listen to ρ.

    Rows are paired at random: in ``pair`` mode along one cycle through all of them, so that no row meets itself, in
    ``seed`` mode by a permutation, whose fixed points are pairs at distance 0.

    Args:
        model: from `inject_hyperlora`. Gates of its running forward pass are used where they belong to ``rho``.
        rho: ``[B, 1]``.
        exclude_failures: leave out ρ = -1, which is no point of the continuum.
        generator: of the pairing, on the CPU. By default the same places of a batch meet every time: give one in training.
        mode: see above.

    Returns:
        A scalar; 0 with fewer than two rows left.

    Raises:
        InputError: unknown ``mode``.
    """
    if mode not in SEPARATION_MODES:
        raise InputError(f"unknown separation mode {mode!r}; choose {' or '.join(SEPARATION_MODES)}")
    gates, rho = _continuum(batch_gates(model, rho), rho, exclude_failures)
    if len(rho) < 2:
        return gates.sum() * 0.0
    order = torch.randperm(len(rho), generator=generator or torch.Generator().manual_seed(PAIRING)).to(rho.device)
    if mode == "seed":
        distance = (gates - gates[:, order]).square().sum(dim=-1).mean()
        weight = (rho - rho[order]).abs().clamp(max=1.0).mean()
        return -distance * weight
    return _hinge(gates[:, order] - gates[:, order.roll(1)], rho[order] - rho[order.roll(1)])


def _hinge(gate_steps: Tensor, rho_steps: Tensor) -> Tensor:
    """Contrastive hinge of gate differences ``[L, P, rank]`` whose ρ differ by ``[P]``."""
    moved = gate_steps.square().mean(dim=-1).clamp(min=TOUCHING).sqrt()
    return F.relu(rho_steps.abs().clamp(max=1.0) - moved).square().mean()


def compute_gate_smoothness_loss(model: Any, rho: Tensor, exclude_failures: bool = True, step: float = 0.05) -> Tensor:
    """Mean squared rate of change of the gates around ρ: (1/L) Σ_ℓ E_i‖(g_ℓ(ρ_i + δ) - g_ℓ(ρ_i)) / δ‖².

    The seed names this term and leaves it out of its loop; here it is a finite-difference penalty on ‖dg/dρ‖², with δ
    pointing inward so that both points lie in [0, 1]. It is at most the mean over layers of K_ℓ², where K_ℓ is
    `hyperlora.gates.lipschitz_bound`.

    Args:
        model: from `inject_hyperlora`.
        rho: ``[B, 1]``.
        exclude_failures: leave out ρ = -1.
        step: |δ|, in (0, 0.5].

    Returns:
        A non-negative scalar; 0 with no rows left.

    Raises:
        InputError: ``step`` out of range.
    """
    if not 0.0 < step <= 0.5:
        raise InputError(f"step {step} of the smoothness term must lie in (0, 0.5]")
    rho = rho.reshape(-1, 1)
    rho = rho[rho[:, 0] >= 0.0] if exclude_failures else rho
    if len(rho) == 0:
        return batch_gates(model, torch.zeros(1, 1)).sum() * 0.0
    delta = torch.where(rho > 0.5, -step, step)
    here, there = batch_gates(model, torch.cat([rho, rho + delta])).chunk(2, dim=1)
    return ((there - here) / step).square().sum(dim=-1).mean()


def _continuum(gates: Tensor, rho: Tensor, exclude_failures: bool) -> tuple[Tensor, Tensor]:
    """Gates ``[L, N, rank]`` and ρ ``[N]`` of the rows that are points of the continuum."""
    rho = rho.reshape(-1).to(gates.device)
    if exclude_failures:
        kept = rho >= 0.0
        return gates[:, kept], rho[kept]
    return gates, rho


def batch_gates(model: Any, rho: Tensor) -> Tensor:
    """Gates ``[L, B, rank]`` of ρ ``[B, 1]``; those of the running forward pass where it is the same ρ.

    With gradients, unless these are switched off. Gates whose backward pass has begun are not used again: their graph is
    gone.
    """
    binding: RhoBinding = model.hyperlora_binding
    gates = binding.gates
    fresh = gates is not None and rho is binding.made_of and not binding.spent
    if gates is not None and fresh and (gates.requires_grad or not torch.is_grad_enabled()):
        return gates
    return binding.bank(binding.as_rows(rho))
