"""Identities of the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..binding import bind_rho
from .probe import Probe, gap, largest, reseed
from .report import Finding, Skipped


def only_the_adapter_trains(probe: Probe) -> Finding:
    """O22: gradients reach the parameters that the modules declare, all of them and no other."""
    probe.model.train()
    with bind_rho(probe.model, probe.rho):
        probe.loss().backward()
    found, declared = probe.gradients(), set(probe.parameters)
    trainable = {name for name, p in probe.model.named_parameters() if p.requires_grad}
    strangers = (found.keys() | trainable) - declared
    silent = {name for name in declared if name not in found}
    wrong = sorted(strangers | silent)
    note = (
        f"trains or does not, against its declaration: {', '.join(wrong[:3])}"
        if wrong
        else "gradients and declarations"
    )
    return Finding("", float(len(wrong)), 0.0, note)


def every_b_is_reached(probe: Probe) -> Finding:
    """No gated layer is left without a gradient of B, as happens where a frozen base cuts the graph."""
    probe.model.train()
    with bind_rho(probe.model, probe.rho):
        probe.loss().backward()
    found = probe.gradients()
    dead = [name for name in probe.layers if not (found[f"{name}.lora_B"] != 0).any()]
    note = f"no gradient in B of {', '.join(dead[:3])}" if dead else "layers without a gradient in B"
    return Finding("", float(len(dead)), 0.0, note)


def base_unchanged(probe: Probe) -> Finding:
    """O22: after a step nothing but the adapter has other bytes."""
    before = probe.digests()
    optimizer = torch.optim.SGD(probe.parameters.values(), lr=0.1)
    probe.model.train()
    with bind_rho(probe.model, probe.rho):
        probe.loss().backward()
    moves = {name for name, p in probe.parameters.items() if p.grad is not None and (0.1 * p.grad != 0).any()}
    optimizer.step()
    after = probe.digests()
    changed = {name for name in before if after[name] != before[name]}
    wrong = sorted(changed - probe.parameters.keys())
    if not wrong and not changed & moves:
        wrong = ["nothing at all was trained"]
    return Finding(
        "", float(len(wrong)), 0.0, f"changed: {', '.join(wrong[:3])}" if wrong else "tensors of the base that changed"
    )


def checkpointing(probe: Probe) -> Finding:
    """O15: gradient checkpointing changes no gradient."""
    without = _training_gradients(probe)
    _checkpoint(probe)
    found = _training_gradients(probe)
    if found.keys() != without.keys():
        return Finding(
            "", float(len(found.keys() ^ without.keys())), 0.0, "parameters with a gradient only on one side"
        )
    worst = largest(gap(found[name], without[name]) / max(1.0, without[name].abs().max().item()) for name in without)
    return Finding("", worst, probe.atol, "gradients with checkpointing and without")


def recomputed_at_another_rho(probe: Probe) -> Finding:
    """O16: a pass that would be recomputed at another ρ raises; where nothing gated is, its gradients are right."""
    wanted = _training_gradients(probe)
    _checkpoint(probe)
    probe.model.train()
    reseed(probe.model, probe.seed)
    with bind_rho(probe.model, probe.rho):
        loss = probe.loss()
    note = "gradients where rho changed before the backward pass, unless it raises"
    try:
        with bind_rho(probe.model, probe.rho.flip(0)):
            probe.loss()
            loss.backward()
    except RuntimeError:
        return Finding("", 0.0, probe.atol, note)
    found = probe.gradients()
    return Finding("", largest(gap(found[name], wanted[name]) for name in wanted), probe.atol, note)


def _training_gradients(probe: Probe) -> dict[str, Tensor]:
    probe.model.train()
    reseed(probe.model, probe.seed)
    with bind_rho(probe.model, probe.rho):
        probe.loss().backward()
    return probe.gradients()


def _checkpoint(probe: Probe) -> None:
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next((getattr(probe.model, name) for name in names if hasattr(probe.model, name)), None)
    if enable is None:
        raise Skipped("the model has no gradient checkpointing")
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise Skipped(f"the model has no gradient checkpointing ({error})") from error


TRAINING: dict[str, Callable[[Probe], Finding]] = {
    identity.__name__: identity
    for identity in (
        only_the_adapter_trains,
        every_b_is_reached,
        base_unchanged,
        checkpointing,
        recomputed_at_another_rho,
    )
}
