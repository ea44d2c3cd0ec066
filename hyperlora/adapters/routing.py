"""What a router needs of a method, and from scores to confidences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .spec import AdapterSpec

Route = list[tuple[str, float]]
"""Adapters by name with their confidence in [0, 1], the best first; empty where the router abstains."""
_POINTS = 60
"""Of the grid of temperatures on either side of 1, to a thousand and a thousandth."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well each adapter explains a query.

    Attributes:
        values: larger is better; adapters for which nothing speaks are missing.
        log: they are log-probabilities up to a constant, so that their softmax is a posterior.
        null: score of the hypothesis that none of them fits; None where a method has no such hypothesis.
        reason: why nothing can be chosen, where a method itself finds that; empty else.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    null: float | None = None
    reason: str = ""


class Method(Protocol):
    """One way to route."""

    threshold: float
    """Confidence below which a router with this method abstains, unless it is told another."""

    def prepare(self, query: Any) -> Any:
        """What `scores` needs of a query; may be awaitable."""
        ...

    def scores(self, prepared: Any, specs: Sequence[AdapterSpec]) -> Scores:
        """Score each adapter.

        Raises:
            InputError: the query is not of a kind that this method reads, or something is missing.
        """
        ...


def confidences(scores: Scores, temperature: float | None) -> tuple[dict[str, float], float]:
    """Confidence of each adapter, and of none of them.

    Log-probabilities, and all scores once a temperature was learned, become the posterior softmax(score / temperature),
    the null hypothesis included, whose prior is that of all adapters together at any temperature; other scores are shares in
    [0, 1] already and stay as they are.
    """
    if not scores.values:
        return {}, 1.0
    if not scores.log and temperature is None:
        return {name: min(1.0, max(0.0, value)) for name, value in scores.values.items()}, 0.0
    scale = 1.0 if temperature is None else temperature
    null = [] if scores.null is None else [scores.null]
    top = max([*scores.values.values(), *null])
    parts = {name: math.exp((value - top) / scale) for name, value in scores.values.items()}
    rest = sum(len(parts) * math.exp((value - top) / scale) for value in null)
    total = sum(parts.values()) + rest
    return {name: part / total for name, part in parts.items()}, rest / total


def posteriors(logs: NDArray[np.float64], null: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """`confidences` of N queries at once: ``[N, P + 1]``, the last column that of the null hypothesis.

    Args:
        logs: ``[N, P]`` log-joint of each query and each adapter; -∞ for one that is not there.
        null: ``[N]`` that of the null hypothesis; -∞ for a method that has none.
        temperature: by which they are divided.
    """
    both = np.concatenate([logs, null[:, None]], axis=1)
    shares = np.exp((both - both.max(axis=1, keepdims=True)) / temperature)
    shares[:, -1] *= np.isfinite(logs).sum(axis=1)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def chosen(shares: NDArray[np.float64], threshold: float, known: float) -> NDArray[np.int64]:
    """``[N]`` number of the adapter that a router takes, given `posteriors`; -1 where it abstains.

    As `AdapterRouter` has it: the first of the best, unless it is below ``threshold``, or all adapters together are below
    ``known``, or nothing speaks for any. It knows no margin.
    """
    best = shares[:, :-1].argmax(axis=1)
    sure = shares[np.arange(len(shares)), best]
    return np.where((sure >= threshold) & (sure > 0.0) & (1.0 - shares[:, -1] >= known), best, -1)


def fitted_temperature(labelled: Sequence[tuple[Scores, str]]) -> float:
    """The temperature with the least mean Brier score of the posteriors, given that some adapter fits (Brier 1950).

    The null hypothesis is left out: the labelled queries all belong to somebody, and would only say so. A label without a
    score is worth nothing at any temperature and is left out. The score of a query is at most 2: with the log-posterior (Guo
    et al. 2017) a few queries whose own adapter finds them impossible decide for all, and nobody is ever sure. Least on a
    grid over the logarithm, then golden-section search around it; deterministic.
    """
    usable = [(replace(scores, null=None), name) for scores, name in labelled if name in scores.values]

    def loss(log_temperature: float) -> float:
        total = 0.0
        for scores, name in usable:
            shares, _ = confidences(scores, math.exp(log_temperature))
            total += sum(share**2 for share in shares.values()) - 2.0 * shares[name]
        return total

    step, ratio = math.log(1e3) / _POINTS, (math.sqrt(5.0) - 1.0) / 2.0
    best = min(range(-_POINTS, _POINTS + 1), key=lambda k: loss(k * step))
    low, high = (best - 1) * step, (best + 1) * step
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    for _ in range(40):
        if loss(left) <= loss(right):
            high, right = right, left
            left = high - ratio * (high - low)
        else:
            low, left = left, right
            right = low + ratio * (high - low)
    return math.exp((low + high) / 2.0)
