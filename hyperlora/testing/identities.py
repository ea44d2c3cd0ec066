"""Identities of the forward pass. Each says what it measured on a `Probe`, or raises `Skipped` and says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..binding import bind_rho
from ..losses import target_loss
from .probe import Probe, gap, largest, logits_of
from .report import Finding, Skipped


def base_when_off(probe: Probe) -> Finding:
    """O1: without ρ, the model computes what it computes without its gated layers."""
    ours = probe.logits(None)
    for name, layer in probe.layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(probe.model.get_submodule(parent), attribute, layer.base_layer)
    try:
        return Finding("", gap(ours, probe.logits(None)), 0.0, "without rho it is its base")
    finally:
        for name, layer in probe.layers.items():
            parent, _, attribute = name.rpartition(".")
            setattr(probe.model.get_submodule(parent), attribute, layer)


def base_when_b_is_zero(probe: Probe) -> Finding:
    """O2: with B = 0 every ρ gives the base."""
    off = probe.logits(None)
    with torch.no_grad():
        for layer in probe.layers.values():
            layer.lora_B.zero_()
    worst = largest(gap(probe.logits(rho), off) for rho in (probe.rho, 0.37, -1.0))
    return Finding("", worst, 0.0, "with B = 0 every rho gives the base")


def rho_moves_it(probe: Probe) -> Finding:
    """The control of all others: ρ changes the logits."""
    moved = gap(probe.logits(0.0), probe.logits(1.0))
    return Finding("", moved, 10.0 * probe.tolerance, "rho = 0 and rho = 1 differ", at_least=True)


def deterministic(probe: Probe) -> Finding:
    """One ρ in eval mode gives one answer, whatever ρ was there before."""
    first = probe.logits(probe.rho)
    probe.logits(0.5)
    return probe.equal(probe.logits(probe.rho), first, "the same pass twice in eval mode")


def rows_alone(probe: Probe) -> Finding:
    """O8: rows of a batch with a ρ each are these rows run alone."""
    together = probe.logits(probe.rho)
    alone = [probe.logits(probe.rho[i], probe.x[i : i + 1]) for i in range(len(probe.x))]
    return probe.equal(torch.cat(alone), together, "rows with a rho each, in one batch and alone")


def permuted_rows(probe: Probe) -> Finding:
    """O10: rows that change places with their ρ change places."""
    order = torch.arange(len(probe.x), device=probe.device).roll(1)
    ours = probe.logits(probe.rho[order], probe.x[order])
    return probe.equal(ours, probe.logits(probe.rho)[order], "rows and their rho in another order")


def left_padding(probe: Probe) -> Finding:
    """O11: padding on the left, with mask and positions, changes nothing."""
    probe.accepts("attention_mask", "position_ids")
    pad = probe.x.shape[1] // 3
    mask = torch.ones_like(probe.x)
    mask[::2, :pad] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ours = probe.logits(probe.rho, attention_mask=mask, position_ids=positions)
    even = probe.logits(probe.rho[::2], probe.x[::2, pad:])
    odd = probe.logits(probe.rho[1::2], probe.x[1::2])
    worst = largest([gap(ours[::2, pad:], even), gap(ours[1::2], odd)])
    return Finding("", worst, probe.tolerance, "rows padded on the left and not")


def _resumed(probe: Probe, prefix_rho: Any, rho: Any) -> Tensor:
    probe.accepts("past_key_values", "use_cache")
    half = probe.x.shape[1] // 2
    with torch.no_grad():
        with bind_rho(probe.model, prefix_rho):
            cache = getattr(probe.output(probe.x[:, :half], use_cache=True), "past_key_values", None)
        if cache is None:
            raise Skipped("the model returns no cache")
        with bind_rho(probe.model, rho):
            return logits_of(probe.output(probe.x[:, half:], past_key_values=cache, use_cache=True)).float()


def prefix_of_the_same_rho(probe: Probe) -> Finding:
    """O12: a prefix's cache made at the same ρ stands for the prefix."""
    whole = probe.logits(probe.rho)[:, probe.x.shape[1] // 2 :]
    return probe.equal(_resumed(probe, probe.rho, probe.rho), whole, "with a prefix's cache and without")


def prefix_of_another_rho(probe: Probe) -> Finding:
    """O13: one made at another ρ does not; so a cache belongs to (adapter, ρ)."""
    whole = probe.logits(probe.rho)[:, probe.x.shape[1] // 2 :]
    apart = gap(_resumed(probe, probe.rho.flip(0), probe.rho), whole)
    if apart <= probe.tolerance:
        raise Skipped("this adapter does not reach the cache: none of its layers comes before the last keys and values")
    return Finding("", apart, probe.tolerance, "a prefix's cache made at another rho differs", at_least=True)


def targets_only(probe: Probe) -> Finding:
    """O14: logits at labelled positions alone give the loss, and the gradients, of all logits."""
    probe.accepts("logits_to_keep", "use_cache")
    with bind_rho(probe.model, probe.rho):
        probe.loss().backward()
        full = probe.gradients()
        total, count = target_loss(probe.model, probe.x, probe.labels)
        (total / count).backward()
        ours = probe.gradients()
        loss = abs((total / count - probe.loss()).item())
    worst = largest([loss, *(gap(ours[name], full[name]) / max(1.0, full[name].abs().max().item()) for name in full)])
    return Finding("", worst, probe.atol, "loss and gradients of the targets' logits and of all")


def bank_is_loop(probe: Probe) -> Finding:
    """O17: each layer reads from the bank what its own network says."""
    with torch.no_grad(), bind_rho(probe.model, probe.rho):
        probe.output(probe.x)
        rows = probe.model.current_rho
        worst = largest(gap(_read(probe, layer), layer.hyper_net(rows)) for layer in probe.layers.values())
    return Finding("", worst, 1e-6, "gates from the bank and from each layer's own network")


def _read(probe: Probe, layer: Any) -> Tensor:
    return layer.binding.layer(layer.index, len(probe.x))


def equation(probe: Probe) -> Finding:
    """W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A, layer by layer, on what passes through each."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        layer.register_forward_hook(lambda _, args, out, name=name: seen.__setitem__(name, (args[0], out)))
        for name, layer in probe.layers.items()
    ]
    probe.logits(probe.rho)
    for handle in handles:
        handle.remove()
    apart = []
    with torch.no_grad():
        for name, (x, out) in seen.items():
            layer = probe.layers[name]
            gates = layer.hyper_net(probe.rho.to(layer.lora_A.device)).view(len(x), *(1,) * (x.ndim - 2), -1)
            inner = F.linear(x.float(), layer.lora_A.float()) * gates.float()
            update = layer.alpha / layer.rank * F.linear(inner, layer.lora_B.float())
            wanted = layer.base_layer(x).float() + update
            apart.append(gap(out, wanted) / max(1.0, wanted.abs().max().item()))
    return Finding("", largest(apart), probe.atol, "every gated layer and its equation")


def wrong_number_of_rho(probe: Probe) -> Finding:
    """As many ρ as rows, or one; anything else is refused."""
    refused = 0
    for count in (2 * len(probe.x), len(probe.x) + 1):
        try:
            probe.logits(torch.linspace(0.0, 1.0, count))
        except ValueError:
            refused += 1
    return Finding("", 2.0 - refused, 0.0, "another number of rho than rows is refused")


def copies_of_rows(probe: Probe) -> Finding:
    """O26: rows repeated as ``generate`` repeats them keep the ρ of their row."""
    twice = probe.x.repeat_interleave(2, dim=0)
    with torch.no_grad(), bind_rho(probe.model, probe.rho, copies=2):
        ours = logits_of(probe.output(twice)).float()
    return probe.equal(ours[::2], probe.logits(probe.rho), "repeated rows keep their rho")


FORWARD: dict[str, Callable[[Probe], Finding]] = {
    identity.__name__: identity
    for identity in (
        base_when_off,
        base_when_b_is_zero,
        rho_moves_it,
        deterministic,
        rows_alone,
        permuted_rows,
        copies_of_rows,
        wrong_number_of_rho,
        left_padding,
        prefix_of_the_same_rho,
        prefix_of_another_rho,
        bank_is_loop,
        equation,
        targets_only,
    )
}
