"""Identities of the weights: saved and loaded, merged and put back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from ..identity import is_four_bit_linear
from ..inject import adapter_state, load_adapter_state
from .probe import Probe, gap
from .report import Finding, Skipped

AT, ELSEWHERE = 0.3, 0.7
"""ρ to merge at, and ρ to merge at and leave: a base that drifts once at one ρ may stand still the second time."""


def state_round_trip(probe: Probe) -> Finding:
    """O24: what is saved is all that the adapter is, and loads bit for bit."""
    before, state = probe.logits(probe.rho), adapter_state(probe.model)
    with torch.no_grad():
        for parameter in probe.parameters.values():
            parameter.fill_(0.5)
    if gap(probe.logits(probe.rho), before) <= probe.tolerance:
        return Finding("", 1.0, 0.0, "declared parameters that the logits do not depend on")
    load_adapter_state(probe.model, state)
    again = adapter_state(probe.model)
    wrong = [name for name in state if not torch.equal(state[name], again[name])]
    if wrong:
        return Finding("", float(len(wrong)), 0.0, f"differs after loading: {', '.join(wrong[:3])}")
    return Finding("", gap(probe.logits(probe.rho), before), 0.0, "logits before saving and after loading")


def _merge() -> Any:
    try:
        return importlib.import_module("hyperlora.merge")
    except ImportError as error:
        raise Skipped(f"hyperlora.merge cannot be imported ({error})") from error


def merged(probe: Probe) -> Finding:
    """O6: put into the weights at one ρ, the adapter gives the live logits; on a 4-bit base, nearly its probabilities."""
    module, live = _merge(), probe.logits(AT)
    module.merge(probe.model, AT)
    try:
        ours = probe.logits(None)
    finally:
        module.unmerge(probe.model)
    if any(is_four_bit_linear(layer.base_layer) for layer in probe.layers.values()):
        apart = gap(ours.softmax(dim=-1), live.softmax(dim=-1))
        return Finding("", apart, 0.01, "probabilities merged at rho = 0.3 and live (4 bits)")
    return probe.equal(ours, live, "merged at rho = 0.3 and live")


def unmerged(probe: Probe) -> Finding:
    """O7: the base is back, bit for bit."""
    module, before = _merge(), probe.digests()
    off = probe.logits(None)
    module.merge(probe.model, ELSEWHERE)
    module.unmerge(probe.model)
    after = probe.digests()
    wrong = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if wrong:
        return Finding("", float(len(wrong)), 0.0, f"differs after unmerge: {', '.join(wrong[:3])}")
    return Finding("", gap(probe.logits(None), off), 0.0, "the base before merge and after unmerge")


WEIGHTS: dict[str, Callable[[Probe], Finding]] = {
    identity.__name__: identity for identity in (state_round_trip, merged, unmerged)
}
