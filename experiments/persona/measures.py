"""Figures of predicted decisions, and intervals of their differences: every figure is a ratio of two sums over rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.reporting.statistics import expanded_interval, resampled_sums, safe_ratio

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

EXACT = 5e-5
"""Prices closer than this are written alike: answers have four decimals."""
FIGURES = (
    "action_accuracy",
    "accept_precision",
    "accept_recall",
    "accept_f1",
    "offer_f1",
    "price_mae",
    "price_coverage",
    "exact_price_rate",
    "log_likelihood",
    "invalid_rate",
)
LOWER_IS_BETTER = ("price_mae", "invalid_rate")
_OFFER = re.compile(r"OFFER (?:0\.[0-9]{4}|1\.0000)")


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What was done in K decisions.

    Attributes:
        accept: ``[K]``.
        price: ``[K]`` share of the price range, NaN where ``accept``.
        text: ``[K]`` the answer as it is written.
        persona: ``[K]`` whose decision it is.
        game: ``[K]`` number of the game, unique over all personas.
    """

    accept: Bools
    price: Floats
    text: list[str]
    persona: Ints
    game: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What one arm says of K decisions.

    Attributes:
        accept: ``[K]`` its legal answer accepts.
        price: ``[K]`` share of the price range that it offers; NaN where it accepts.
        log_likelihood: ``[K]`` of what was done, in nats a decision, among all texts.
        invalid: ``[K]`` what it writes, left free, is no legal answer; see `is_answer`.
        text: ``[K]`` that writing.
    """

    accept: Bools
    price: Floats
    log_likelihood: Floats
    invalid: Bools
    text: list[str]


def is_answer(text: str, may_accept: bool) -> bool:
    """Whether a text is a legal answer to the letter, as `hyperlora.prompt.build_target` writes them, and nothing more.

    Reading at the table is lenient (`hyperlora.decode.free`): it finds an offer in the midst of other words, which would
    hide here what a model does wrong.

    Args:
        text: what was written, without blanks around it.
        may_accept: there is an offer to accept.
    """
    return (may_accept and text == "ACCEPT") or _OFFER.fullmatch(text) is not None


def sums(truth: Truth, predicted: Predicted, cluster: Ints) -> tuple[Floats, Floats]:
    """Numerators and denominators ``[G, F]`` of `FIGURES` in each cluster.

    ``accept_*`` and ``offer_f1`` take ACCEPT and OFFER as the positive class. ``price_mae`` is over rows where both offer,
    in shares of the price range; ``price_coverage`` is the share of those among the rows whose target offers, as is
    ``exact_price_rate`` of those whose price is right to the last decimal. ``log_likelihood`` is per decision.

    Args:
        truth: K decisions.
        predicted: of the same.
        cluster: ``[K]`` from 0 to G - 1.
    """
    t, p, one = truth.accept, predicted.accept, np.ones(len(truth.accept))
    both = ~t & ~p
    error = np.where(both, np.abs(predicted.price - truth.price), 0.0)
    columns = [
        (t == p, one),
        (t & p, p),
        (t & p, t),
        (2.0 * (t & p), 1.0 * t + p),
        (2.0 * both, 1.0 * ~t + ~p),
        (error, both),
        (both, ~t),
        (both & (error < EXACT), ~t),
        (predicted.log_likelihood, one),
        (predicted.invalid, one),
    ]
    count = int(cluster.max()) + 1 if len(cluster) else 0

    def added(values: NDArray) -> Floats:
        return np.bincount(cluster, weights=values.astype(np.float64), minlength=count).astype(np.float64)

    top, bottom = (np.stack([added(np.asarray(pair[half])) for pair in columns], axis=1) for half in (0, 1))
    return top, bottom


def figures(top: Floats, bottom: Floats) -> Floats:
    """``[F]`` of all clusters together; NaN where nothing is there to measure."""
    return safe_ratio(top.sum(axis=0), bottom.sum(axis=0))


def difference(one: tuple[Floats, Floats], other: tuple[Floats, Floats], seed: int) -> tuple[Floats, Floats, Floats]:
    """``one`` less ``other`` ``[F]`` over the same G clusters, and the bounds of its 95 % interval.

    Clusters are resampled, the same for both (`experiments.reporting.statistics`); NaN bounds where fewer than two clusters
    tell anything.
    """
    gap = figures(*one) - figures(*other)
    clusters = len(one[0])
    if clusters < 2:
        nothing = np.full(len(gap), np.nan)
        return gap, nothing, nothing.copy()
    drawn = resampled_sums(np.concatenate([*one, *other], axis=1), seed=seed)
    a, b, c, d = np.split(drawn, 4, axis=1)
    telling = np.minimum((one[1] != 0).sum(axis=0), (other[1] != 0).sum(axis=0))
    return gap, *expanded_interval(safe_ratio(a, b) - safe_ratio(c, d), telling)


def mean_interval(values: Floats, seed: int) -> tuple[float, float, float]:
    """Mean of independent values, and its 95 % interval by resampling them."""
    drawn = resampled_sums(values[:, None], seed=seed) / max(len(values), 1)
    low, high = expanded_interval(drawn, len(values))
    return float(values.mean()), float(low[0]), float(high[0])


def named(values: Floats) -> dict[str, float | None]:
    """`FIGURES` by name, JSON-ready: None where there is none."""
    return {name: None if np.isnan(x) else float(x) for name, x in zip(FIGURES, values.tolist(), strict=True)}


def take(truth: Truth, predicted: Mapping[str, Predicted], rows: Ints) -> tuple[Truth, dict[str, Predicted]]:
    """Some of the decisions."""
    some = Truth(
        truth.accept[rows], truth.price[rows], [truth.text[i] for i in rows], truth.persona[rows], truth.game[rows]
    )
    return some, {
        arm: Predicted(
            p.accept[rows], p.price[rows], p.log_likelihood[rows], p.invalid[rows], [p.text[i] for i in rows]
        )
        for arm, p in predicted.items()
    }
