"""Alternating offers over a pie of 1 between sides that know everything: closed forms of the proposer's share.

Payoffs of a deal in period t, counted from 1, are multiplied by each side's ``discount ** (t - 1)``; no deal is 0.

How our game maps onto it: an offer made on turn t and accepted on turn t + 1 is worth ``discount ** (t - 1)`` (see
`bargain_env.outcome.utilities`), so turn t is period t, and because an offer on the last turn is dead, ``max_turns`` M
gives M - 1 periods. The pie is the ZOPA: with x the share of who starts, ρ = x if that is the seller and 1 - x if the
buyer. `equilibrium` solves the same game on a grid of prices.

Arguments broadcast; the result is a float where all of them are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def infinite_horizon(proposer_discount: ArrayLike, responder_discount: ArrayLike) -> Floats:
    """Share of the first proposer without a deadline, accepted at once: ``(1 - d2) / (1 - d1·d2)``.

    Source: A. Rubinstein, "Perfect equilibrium in a bargaining model", Econometrica 50 (1982), pp. 97-109, the case of
    fixed discounting factors.

    Args:
        proposer_discount: d1, factor a period of who proposes first, in (0, 1].
        responder_discount: d2, of the other.

    Raises:
        ValueError: a discount outside (0, 1], or two of 1: then waiting costs nobody anything and every split is an
            equilibrium.
    """
    d1, d2 = _discount("proposer", proposer_discount), _discount("responder", responder_discount)
    shrinks = _one_minus_product(d1, d2)
    if not (shrinks > 0).all():
        raise ValueError(
            "with both discounts 1 and no deadline every split is an equilibrium; give a discount below 1, or a deadline "
            "(finite_horizon)"
        )
    return ((1 - d2) / shrinks)[()]


def finite_horizon(periods: ArrayLike, proposer_discount: ArrayLike, responder_discount: ArrayLike) -> Floats:
    """Share of the first proposer with ``periods`` offers in all, by turns, accepted at once.

    With q = d1·d2 and n = ⌊periods / 2⌋ it is ``(1 - d2)(1 - qⁿ) / (1 - q) + qⁿ·[periods odd]``. Undiscounted, the last
    proposer takes everything. No period, no deal: 0.

    Source: I. Ståhl, "Bargaining Theory", Stockholm School of Economics, 1972; the backward induction solved.

    Args:
        periods: T, how many offers can be answered; ``max_turns - 1`` of our game.
        proposer_discount: d1, factor a period of who proposes first, in (0, 1].
        responder_discount: d2, of the other.

    Raises:
        ValueError: a discount outside (0, 1], or a number of periods that is negative or not whole.
    """
    d1, d2 = _discount("proposer", proposer_discount), _discount("responder", responder_discount)
    count = np.asarray(periods)
    if not ((count >= 0) & (count == np.floor(count))).all():
        raise ValueError(f"periods {periods!r} must be a whole number, 0 or more")
    shrinks, pairs = _one_minus_product(d1, d2), count // 2
    with np.errstate(divide="ignore"):
        lost = -np.expm1(pairs * np.log1p(-shrinks))  # 1 - qⁿ, exact for q near 1 too
    rounds = np.where(shrinks > 0, lost / np.where(shrinks > 0, shrinks, 1.0), pairs)
    return ((1 - d2) * rounds + (1 - lost) * (count % 2))[()]


def continuous_time(proposer_rate: ArrayLike, responder_rate: ArrayLike) -> Floats:
    """Share of the first proposer as periods become short: ``r2 / (r1 + r2)``, with discounts ``exp(-r·length)``.

    It is the asymmetric Nash solution with that weight (`cooperative.nash`): who proposes first no longer matters.

    Source: K. Binmore, A. Rubinstein, A. Wolinsky, "The Nash bargaining solution in economic modelling", RAND Journal of
    Economics 17 (1986), pp. 176-188.

    Args:
        proposer_rate: r1, impatience of one side, a unit of time.
        responder_rate: r2, of the other.

    Raises:
        ValueError: a rate that is negative or not finite, or two of 0.
    """
    r1, r2 = np.asarray(proposer_rate, dtype=float), np.asarray(responder_rate, dtype=float)
    if not ((r1 >= 0) & (r2 >= 0) & (r1 + r2 > 0) & (r1 + r2 < np.inf)).all():
        raise ValueError(f"rates {proposer_rate!r} and {responder_rate!r} must be 0 or more, finite and not both 0")
    return (r2 / (r1 + r2))[()]


def _discount(whose: str, value: ArrayLike) -> Floats:
    array = np.asarray(value, dtype=float)
    if not ((array > 0) & (array <= 1)).all():
        raise ValueError(f"{whose}_discount {value!r} must lie in (0, 1]")
    return array


def _one_minus_product(d1: Floats, d2: Floats) -> Floats:
    """``1 - d1·d2``, without cancellation for discounts near 1."""
    return (1 - d1) + d1 * (1 - d2)
