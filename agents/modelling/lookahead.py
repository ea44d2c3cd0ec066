"""One step ahead: what each answer is worth, given what the opponent is predicted to do. Pure functions of arrays.

An offer p is accepted with probability a(p). If it is not, the opponent is predicted to offer q(p), which may be taken, or
the game goes on:

    E(p) = a(p) v(p) + (1 - a(p)) τ max(v(q(p)), W, 0)

v is what a settlement is worth, an impasse being worth 0; τ is the trust in the prediction for one more round. W is what
waiting is worth: a rollout in which the player holds one offer and the opponent does what is predicted, valued by backward
induction, where the player stops at the best moment (a rollout policy, Tesauro and Galperin 1996).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

DIGITS = 4
"""Decimals that values are compared with, as decisions are: the rest is rounding of float32."""


class Choice(NamedTuple):
    """``[b]`` whether to accept, which candidate to offer otherwise, and what that is worth."""

    accept: Bools
    offer: Ints
    value: Floats


def continuation(worth_held: Floats, accepts: Floats, worth_offered: Floats, trust: float) -> Floats:
    """``[b]`` what it is worth to hold one offer from now on and to stop at the best moment.

    Args:
        worth_held: ``[b]`` v of the offer that is held.
        accepts: ``[b, K]`` predicted probability that the opponent's next, next but one, … decision accepts it; NaN for
            decisions that the game does not come to.
        worth_offered: ``[b, K]`` v of what it offers instead; -∞ where that could not be accepted any more.
        trust: τ.

    Returns:
        The value before the first of these decisions.
    """
    value = np.zeros(len(worth_held))
    for k in reversed(range(accepts.shape[1])):
        chance = np.nan_to_num(accepts[:, k])
        going_on = trust * np.maximum(np.maximum(worth_offered[:, k], value), 0.0)
        value = np.where(np.isnan(accepts[:, k]), value, chance * worth_held + (1.0 - chance) * going_on)
    return value


def expected(worth: Floats, accepts: Floats, worth_offered: Floats, waiting: Floats, trust: float) -> Floats:
    """``[b, C]`` E of each candidate offer.

    Args:
        worth: ``[b, C]`` v of each candidate; NaN for none and -∞ beyond the own limit, whose E is -∞.
        accepts: ``[b, C]`` a of each; NaN where nobody could accept it any more, which counts as 0.
        worth_offered: ``[b, C]`` v of the predicted answer to each; -∞ where that could not be accepted any more.
        waiting: ``[b]`` W.
        trust: τ.
    """
    chance = np.nan_to_num(accepts)
    going_on = trust * np.maximum(np.maximum(worth_offered, waiting[:, None]), 0.0)
    possible = np.isfinite(worth)
    return np.where(possible, chance * np.where(possible, worth, 0.0) + (1.0 - chance) * going_on, -np.inf)


def choose(standing: Floats, offers: Floats) -> Choice:
    """The best answer.

    Args:
        standing: ``[b]`` v of the standing offer; -∞ where none may be accepted.
        offers: ``[b, C]`` E of each candidate; of equal ones the first is taken, and a deal before an offer.
    """
    rounded = np.round(offers, DIGITS)
    best = rounded.argmax(axis=1)
    value = rounded[np.arange(len(rounded)), best]
    now = np.round(standing, DIGITS)
    accept = (now >= value) & (now >= 0.0)
    return Choice(accept, best, np.where(accept, now, value))
