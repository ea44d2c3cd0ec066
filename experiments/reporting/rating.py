"""A rating of everybody in the ranking: the Bradley-Terry model on paired games.

Each entry has a strength β and beats another with probability ``1 / (1 + exp(β_j - β_i))`` (Bradley and Terry, Biometrika
39 (1952), pp. 324-345), where to beat is to gain more from the same opponent in the same seat of the same scenario. A tie
counts as half a win to either. Ratings are the maximum of the likelihood on Elo's scale, ``400 β / ln 10`` about a mean of
0: 100 points more win 64 % of the paired games, 400 points 91 %.

The likelihood has no maximum when some entries always beat the others (L. R. Ford, American Mathematical Monthly 64
(1957), pp. 28-33), which scenarios drawn again can bring about at any time. So each entry is given one drawn game with a
player of mean strength. Among the thousands of games that an entry has this moves a rating by a fraction of its interval;
it leaves one that always wins n games about ``400 log10(2n)`` points above those it beats: finite, and the larger the
more games say so.

Pairs share games and games share scenarios, so the likelihood's own errors would be too small. Intervals resample
scenarios, as everywhere, and fit each draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .duels import Duels, Entry
from .measures import Row

Floats = NDArray[np.float64]

ELO = 400.0 / math.log(10.0)
PRIOR = 1.0
"""Drawn games with a player of mean strength."""
_STEPS, _LONGEST, _NEAR = 200, 2.0, 1e-10
_AT_ONCE = 4_000_000
"""Entries of the matrices that are fitted together."""


def rating(entries: Sequence[Entry], found: Duels, seed: int) -> list[Row]:
    """Everybody's rating, the best first; nothing where there is nobody to compare with.

    Returns:
        ``agent``, ``configuration``, ``rating`` with ``low`` and ``high``, and ``wins``, ``ties``, ``losses`` over all
        others.
    """
    count = len(entries)
    if count < 2 or not len(found.points):
        return []
    strength = bradley_terry(found.points.sum(axis=0))
    if len(found.points) > 1:
        low, high = statistics.expanded_interval(ELO * _draws(found.points, strength, seed), len(found.points))
    else:
        low, high = np.full((2, count), np.nan)
    wins, losses, ties = found.wins.sum(axis=1), found.wins.sum(axis=0), found.ties.sum(axis=1)
    rows = [
        entry.names
        | {"rating": ELO * strength[i], "low": low[i], "high": high[i]}
        | {"wins": int(wins[i]), "ties": int(ties[i]), "losses": int(losses[i])}
        for i, entry in enumerate(entries)
    ]
    return sorted(rows, key=lambda row: -row["rating"])


def _draws(points: Floats, strength: Floats, seed: int) -> Floats:
    """Strengths in each draw of scenarios: ``[draws, E]``."""
    count = points.shape[1]
    sums = statistics.resampled_sums(points.reshape(len(points), -1), seed=seed).reshape(-1, count, count)
    step = max(1, _AT_ONCE // count**2)
    return np.concatenate([bradley_terry(sums[i : i + step], strength) for i in range(0, len(sums), step)])


def bradley_terry(points: Floats, start: Floats | None = None, *, prior: float = PRIOR) -> Floats:
    """Maximum-likelihood strengths about a mean of 0, by Newton's method.

    The logarithm of the likelihood is concave, and with ``prior`` > 0 strictly so. All matrices are fitted at once, which
    no library does.

    Args:
        points: ``[..., E, E]`` wins of the first over the second, ties counted one half.
        start: ``[E]`` where to begin.
        prior: drawn games with a player of mean strength; 0 gives the bare likelihood, which must then have a maximum.

    Returns:
        ``[..., E]``.

    Raises:
        ValueError: there is no maximum: some entries always beat the others, or were never compared with them.
    """
    count = points.shape[-1]
    games = points + np.swapaxes(points, -1, -2)
    level = (
        np.zeros((count, count)) if prior else np.full((count, count), 1.0 / count)
    )  # the mean is free without prior
    beta = np.broadcast_to(np.zeros(count) if start is None else start, points.shape[:-1]).copy()
    for _ in range(_STEPS):
        chance = _logistic(beta[..., :, None] - beta[..., None, :])
        alone = _logistic(beta)
        slope = (points - games * chance).sum(axis=-1) + prior * (0.5 - alone)
        curve = games * chance * (1.0 - chance)
        own = curve.sum(axis=-1) + prior * alone * (1.0 - alone)
        try:
            step = np.linalg.solve(own[..., None] * np.eye(count) - curve + level, slope[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        longest = np.abs(step).max(axis=-1, keepdims=True)
        beta += step * np.minimum(1.0, _LONGEST / np.maximum(longest, _NEAR))
        if longest.max() < _NEAR:
            return beta - beta.mean(axis=-1, keepdims=True)
    raise ValueError("no maximum of the likelihood: some entries always beat the others; give prior > 0")


def _logistic(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
