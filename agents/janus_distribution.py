"""The price distribution of one offer, in currency units and to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bargain_env.policy import Floats
from hyperlora.decode import PriceDistribution
from hyperlora.prompt import Axis

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 12
_BAR = 40


@dataclass(frozen=True, slots=True, eq=False)
class OfferPrices:
    """What Janus would offer if it did not accept, before any guard: n price intervals in ascending order.

    Attributes:
        price: ``[n]`` middle of each, in currency units.
        width: ``[n]`` of each; 0 where the price is known to 1e-4 of the range.
        probability: ``[n]``; they sum to 1.
    """

    price: Floats
    width: Floats
    probability: Floats

    @classmethod
    def of(cls, found: PriceDistribution, axis: Axis) -> OfferPrices:
        """A scorer's distribution, on the axis of its prompt."""
        order = slice(None, None, -1 if axis.span < 0 else 1)
        return cls(axis.price(found.price)[order], found.width[order] * abs(axis.span), found.probability[order])

    @property
    def covered(self) -> float:
        """Share of the mass on prices that are known; the rest counts at the middle of its interval."""
        return float(self.probability[self.width == 0].sum())

    @property
    def mean(self) -> float:
        """Expected price."""
        return float(self.probability @ self.price)

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(self.probability @ (self.price - self.mean) ** 2))

    def quantile(self, q: float) -> float:
        """The lowest price that is not exceeded with probability ``q`` or more; ``q`` in [0, 1]."""
        at = np.searchsorted(np.cumsum(self.probability), q - 1e-12)
        return float(self.price[min(int(at), len(self.price) - 1)])

    def histogram(self, bins: int = BINS) -> tuple[Floats, Floats]:
        """Edges ``[bins + 1]`` over the central 99 % of the mass and the probability of each bin; the tails are left out."""
        first, last = self.quantile(0.005), self.quantile(0.995)
        edges = np.linspace(first, max(last, first + 0.01), bins + 1)
        return edges, np.histogram(self.price, edges, weights=self.probability)[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready summary."""
        edges, share = self.histogram()
        return {
            "mean": self.mean,
            "sd": self.sd,
            "quantiles": {f"{q:g}": self.quantile(q) for q in QUANTILES},
            "covered": self.covered,
            "histogram": {"edges": edges.tolist(), "probability": share.tolist()},
        }

    def __str__(self) -> str:
        edges, share = self.histogram()
        marks = "  ".join(f"{100 * q:.0f} %: {self.quantile(q):.2f}" for q in QUANTILES)
        lines = [f"mean {self.mean:.2f}, sd {self.sd:.2f} ({self.covered:.1%} known to the last digit)", marks]
        for low, high, p in zip(edges[:-1].tolist(), edges[1:].tolist(), share.tolist(), strict=True):
            bar = "█" * round(_BAR * p / max(share.max(), 1e-12))
            lines.append(f"{low:9.2f} – {high:8.2f} {p:6.3f} {bar}".rstrip())
        return "\n".join(lines)
