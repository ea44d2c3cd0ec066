"""Fitting on some games and measuring on others: R² with an interval that resamples games.

Two models. Least squares is numpy's; gradient boosting is scikit-learn's histogram-based trees (an extra, ``inspect``),
which find what is not linear, such as something hidden in the last digits of a price. Where scikit-learn is not
installed the checks say so and rest on least squares.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bargain_env import rng
from bargain_env.rng import Stream
from experiments.reporting.statistics import expanded_interval, resampled_sums, safe_ratio

Floats = NDArray[np.float64]

TEST_SHARE = 0.4
"""Share of games that models are measured on; the others they are fitted to."""
LINEAR, BOOSTED = "linear", "boosting"
LEAST = 50
"""Held-out games of which an R² is given at all."""
_ROUNDS = 150
_NOTHING = -1e9
"""What is missing, for trees: below every price. Their own way fails where all that is known falls to validation."""
_LEAF = 30
"""Games in a leaf at least."""
_MOST_ROWS = 60_000
"""Decisions that trees are fitted to at most."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well something was predicted in games that the model had not seen.

    Attributes:
        r2: 1 - (squared errors) / (squared distances from the mean), at most 1; below 0 it is worse than the mean.
        low, high: its 95 % interval, games resampled.
        games: held-out games that it was measured on.
    """

    r2: float
    low: float
    high: float
    games: int

    def document(self) -> dict[str, float | int | None]:
        """As JSON."""
        return {n: _number(v) for n, v in (("r2", self.r2), ("low", self.low), ("high", self.high))} | {
            "games": self.games
        }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def boosting_is_here() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def models() -> tuple[str, ...]:
    """Those that can be fitted here."""
    return (LINEAR, BOOSTED) if boosting_is_here() else (LINEAR,)


def held_out(games: int, seed: int) -> NDArray[np.bool_]:
    """``[games]`` whether a game is one that models are measured on."""
    return rng.uniform(seed, np.arange(games), stream=Stream.SPLIT)[:, 0] < TEST_SHARE if games else np.zeros(0, bool)


def predict(model: str, x: Floats, y: Floats, test: Floats, games: int) -> Floats:
    """Fit ``y`` ``[n]`` on ``x`` ``[n, F]`` and predict for ``test`` ``[m, F]``: ``[m]``.

    Args:
        model: of `models`.
        x: NaN where there is nothing.
        y: finite.
        test: likewise.
        games: how many the ``n`` rows are of; rows of one game tell little more than one of them.
    """
    return _linear(x, y, test) if model == LINEAR else _boosted(x, y, test, games)


def _linear(x: Floats, y: Floats, test: Floats) -> Floats:
    """Least squares of least norm; what is missing counts as the mean."""
    known = ~np.isnan(x)
    mean = safe_ratio(np.where(known, x, 0.0).sum(axis=0), known.sum(axis=0))
    mean = np.nan_to_num(mean)
    centred = np.where(known, x - mean, 0.0)
    scale = centred.std(axis=0)
    scale = np.where(scale > 1e-9 * np.maximum(np.abs(mean), 1.0), scale, np.inf)  # what is constant tells nothing
    weights = np.linalg.lstsq(centred / scale, y - y.mean(), rcond=1e-9)[0]
    return np.where(np.isnan(test), 0.0, (test - mean) / scale) @ weights + y.mean()


def _boosted(x: Floats, y: Floats, test: Floats, games: int) -> Floats:
    from sklearn.ensemble import HistGradientBoostingRegressor

    some = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MOST_ROWS)).astype(np.intp))
    leaf = _LEAF * len(some) // games
    trees = HistGradientBoostingRegressor(
        max_iter=_ROUNDS, learning_rate=0.06, min_samples_leaf=leaf, early_stopping=True, random_state=0
    )
    trees.fit(np.nan_to_num(x[some], nan=_NOTHING), y[some])
    return np.asarray(trees.predict(np.nan_to_num(test, nan=_NOTHING)), dtype=np.float64)


def fitted(model: str, x: Floats, y: Floats, test: NDArray[np.bool_], seed: int, base: Floats | float = 0.0) -> Fit:
    """R² of a model on the rows in ``test`` ``[n]``, fitted to the others; each row a game of its own.

    Args:
        model: of `models`.
        x: ``[n, F]``.
        y: ``[n]``.
        test: ``[n]``.
        seed: of the interval.
        base: ``[n]`` or one number: ``y - base`` is what is fitted; R² is that of ``y`` all the same.
    """
    if min(test.sum(), (~test).sum()) < LEAST:
        return Fit(math.nan, math.nan, math.nan, int(test.sum()))
    target = y - base
    errors = target[test] - predict(model, x[~test], target[~test], x[test], int((~test).sum()))
    return measured(y[test][:, None], errors[:, None], seed)[0]


def measured(y: Floats, errors: Floats, seed: int) -> list[Fit]:
    """R² of each of C predictions with the same games resampled in all of them.

    Args:
        y: ``[games, C]`` what was to be predicted; NaN where a game has no such row.
        errors: ``[games, C]`` what the prediction was off by.
        seed: of the draws.
    """
    known, width = ~np.isnan(y), y.shape[1]
    centre = safe_ratio(np.where(known, y, 0.0).sum(axis=0), known.sum(axis=0))
    d, e = np.where(known, y - centre, 0.0), np.where(known, errors, 0.0)
    columns = np.concatenate([known, d, d * d, e * e], axis=1).astype(np.float64)
    value = _r2(columns.sum(axis=0, keepdims=True), width)[0]
    games = known.sum(axis=0)
    low, high = expanded_interval(_r2(resampled_sums(columns, seed=seed), width), games)
    enough = games >= LEAST
    return [
        Fit(float(v), float(a), float(b), int(n)) if ok else Fit(math.nan, math.nan, math.nan, int(n))
        for v, a, b, n, ok in zip(value, low, high, games, enough, strict=True)
    ]


def _r2(sums: Floats, width: int) -> Floats:
    n, d, dd, ee = (sums[:, k * width : (k + 1) * width] for k in range(4))
    spread = dd - safe_ratio(d * d, n)
    return 1.0 - safe_ratio(ee, np.where(spread > 1e-9 * np.maximum(n, 1), spread, 0.0))
