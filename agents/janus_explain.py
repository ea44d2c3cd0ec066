"""Why Janus decided as it did: its price distribution, its gates and what it read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from hyperlora.inject import adapter_modules
from hyperlora.layer import HyperLoRALinear

from .janus_distribution import OfferPrices

NEUTRAL = 0.5
"""ρ whose gates others are compared with: an even split."""


@dataclass(frozen=True, slots=True)
class GateSummary:
    """The gates of all layers of one kind.

    Attributes:
        projection: the kind, ``q_proj`` for example; ``all`` for every layer.
        layers: how many there are.
        mean: over layers and ranks.
        low: the smallest.
        high: the largest.
        from_neutral: root mean square of g(ρ) - g(.5): how far the dial has turned them.
    """

    projection: str
    layers: int
    mean: float
    low: float
    high: float
    from_neutral: float


@torch.no_grad()
def gate_summaries(model: Any, rho: float) -> list[GateSummary]:
    """One for each kind of adapted layer, in model order, and one for all; none for a model without an adapter."""
    if not hasattr(model, "hyperlora_binding"):
        return []
    binding = model.hyperlora_binding
    gates = binding.bank(binding.as_rows([rho, NEUTRAL])).double().cpu()
    names = [name.rpartition(".")[2] for name, m in adapter_modules(model) if isinstance(m, HyperLoRALinear)]
    kinds = {kind: [i for i, name in enumerate(names) if name == kind] for kind in dict.fromkeys(names)}
    return [_summary(kind, gates[at]) for kind, at in {**kinds, "all": list(range(len(names)))}.items()]


def _summary(kind: str, gates: torch.Tensor) -> GateSummary:
    """Of gates ``[L, 2, rank]`` at ρ and at `NEUTRAL`."""
    here, apart = gates[:, 0], gates[:, 0] - gates[:, 1]
    figures = (here.mean(), here.min(), here.max(), apart.square().mean().sqrt())
    return GateSummary(kind, len(gates), *(figure.item() for figure in figures))


@dataclass(frozen=True, slots=True)
class Explanation:
    """What lies behind a decision; ``print`` it, or take `as_dict` for JSON.

    Attributes:
        decision: the decision in one line.
        rho: requested settlement.
        internal_rho: what the dial was set to for it.
        accept_probability: P(ACCEPT).
        prices: the distribution of the offer that Janus would make if it did not accept, before any guard.
        gates: by kind of layer, and over all; empty where the adapter is off.
        prompt: what the model read.
    """

    decision: str
    rho: float
    internal_rho: float
    accept_probability: float
    prices: OfferPrices
    gates: list[GateSummary]
    prompt: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "decision": self.decision,
            "rho": self.rho,
            "internal_rho": self.internal_rho,
            "accept_probability": self.accept_probability,
            "offer_probability": 1.0 - self.accept_probability,
            "prices": self.prices.as_dict(),
            "gates": [asdict(gate) for gate in self.gates],
            "prompt": self.prompt,
        }

    def __str__(self) -> str:
        parts = [
            self.decision,
            f"P(ACCEPT) {self.accept_probability:.3f}   P(OFFER) {1 - self.accept_probability:.3f}",
            "price of an offer\n" + _indented(str(self.prices)),
            _gates_text(self.gates, self.internal_rho),
            "prompt\n" + _indented(self.prompt.rstrip("\n")),
        ]
        return "\n\n".join(parts)


def rho_text(rho: float, internal: float) -> str:
    """A request, and what the dial was set to for it where that is something else."""
    return f"ρ {rho:g}" if internal == rho else f"ρ {rho:g} (set to {internal:.3g})"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _gates_text(gates: list[GateSummary], rho: float) -> str:
    if not gates:
        return "no gates: the adapter is off"
    head = f"gates at ρ = {rho:g}\n  {'':10} layers    mean     min     max   rms from ρ = {NEUTRAL:g}"
    rows = [
        f"  {g.projection:10} {g.layers:6} {g.mean:7.3f} {g.low:7.3f} {g.high:7.3f} {g.from_neutral:9.4f}"
        for g in gates
    ]
    return "\n".join([head, *rows])
