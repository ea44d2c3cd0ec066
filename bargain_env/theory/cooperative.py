"""Cooperative solutions of a one-price bargaining problem: which price the axioms pick.

With B the buyer's limit, C the seller's and ρ = (p - C) / (B - C), the utilities are ``(1 - ρ) ** buyer_exponent`` and
``ρ ** seller_exponent``, and 0 to both without a deal. An exponent of 1 is risk-neutral, one below 1 is constant relative
risk aversion of ``1 - exponent`` (CRRA). Between two risk-neutral sides all three solutions are the middle of the ZOPA.

Arguments broadcast; the result is a price in the units of the limits, a float where all arguments are, and NaN where
there is no ZOPA (``buyer_max <= seller_min``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_HALVINGS = 64
"""More than the bits of a double's mantissa."""


def nash(
    buyer_max: ArrayLike,
    seller_min: ArrayLike,
    weight: ArrayLike = 0.5,
    *,
    buyer_exponent: ArrayLike = 1.0,
    seller_exponent: ArrayLike = 1.0,
) -> Floats:
    """The asymmetric Nash solution: the price with the greatest ``seller utility ** weight * buyer's ** (1 - weight)``.

    Closed form ``ρ = w·s / (w·s + (1 - w)·b)`` with b and s the exponents. Between risk-neutral sides ρ *is* the weight:
    a player that settles at ρ deals as the symmetric solution would if the seller had bargaining power ρ.

    Source: J. F. Nash, "The bargaining problem", Econometrica 18 (1950), pp. 155-162; the weights: E. Kalai,
    "Nonsymmetric Nash solutions and replications of 2-person bargaining", Int. J. of Game Theory 6 (1977), pp. 129-133.

    Args:
        buyer_max: the most the buyer may pay.
        seller_min: the least the seller may take.
        weight: bargaining power of the seller, in [0, 1].
        buyer_exponent: of the buyer's utility, positive.
        seller_exponent: of the seller's.

    Raises:
        ValueError: a weight or exponent outside its range.
    """
    w, b, s = np.asarray(weight, dtype=float), *_exponents(buyer_exponent, seller_exponent)
    if not ((w >= 0) & (w <= 1)).all():
        raise ValueError(f"weight {weight!r} must lie in [0, 1]; it is the seller's share of the bargaining power")
    return _price(w * s / (w * s + (1 - w) * b), buyer_max, seller_min)


def kalai_smorodinsky(
    buyer_max: ArrayLike, seller_min: ArrayLike, *, buyer_exponent: ArrayLike = 1.0, seller_exponent: ArrayLike = 1.0
) -> Floats:
    """The price at which both reach the same share of their best individually rational utility.

    The best of either is a deal at the other's limit, so ρ solves ``ρ ** s = (1 - ρ) ** b``.

    Source: E. Kalai, M. Smorodinsky, "Other solutions to Nash's bargaining problem", Econometrica 43 (1975), pp. 513-518.

    Args:
        buyer_max: the most the buyer may pay.
        seller_min: the least the seller may take.
        buyer_exponent: of the buyer's utility, positive.
        seller_exponent: of the seller's.

    Raises:
        ValueError: an exponent that is not positive and finite.
    """
    b, s = _exponents(buyer_exponent, seller_exponent)
    return _price(_equal_utilities(b, s, np.zeros(())), buyer_max, seller_min)


def egalitarian(
    buyer_max: ArrayLike,
    seller_min: ArrayLike,
    *,
    buyer_exponent: ArrayLike = 1.0,
    seller_exponent: ArrayLike = 1.0,
    unit: ArrayLike | None = None,
) -> Floats:
    """The price at which both gain the same utility: the largest smaller gain.

    It compares utilities of different sides, so unlike the other two it depends on their units where the exponents
    differ. In shares of the ZOPA, the default, it is the Kalai-Smorodinsky price; with surplus counted in ``unit``
    currency units it solves ``((p - C) / unit) ** s = ((B - p) / unit) ** b``.

    Source: E. Kalai, "Proportional solutions to bargaining situations: interpersonal utility comparisons", Econometrica
    45 (1977), pp. 1623-1630.

    Args:
        buyer_max: the most the buyer may pay.
        seller_min: the least the seller may take.
        buyer_exponent: of the buyer's utility, positive.
        seller_exponent: of the seller's.
        unit: surplus of utility 1, in currency units; None for the width of the ZOPA.

    Raises:
        ValueError: an exponent or unit that is not positive and finite.
    """
    b, s = _exponents(buyer_exponent, seller_exponent)
    if unit is None:
        return _price(_equal_utilities(b, s, np.zeros(())), buyer_max, seller_min)
    width = np.asarray(buyer_max, dtype=float) - np.asarray(seller_min, dtype=float)
    log_width = np.log(np.where(width > 0, width, 1.0)) - np.log(_positive("unit", unit))
    return _price(_equal_utilities(b, s, log_width), buyer_max, seller_min)


def _equal_utilities(b: Floats, s: Floats, log_width: Floats) -> Floats:
    """ρ with ``(ρ·W) ** s = ((1 - ρ)·W) ** b``, by bisection: the logarithm of the quotient rises from -∞ to ∞ in ρ."""
    shape = np.broadcast_shapes(b.shape, s.shape, log_width.shape)
    low, high = np.zeros(shape), np.ones(shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            seller_leads = s * (np.log(middle) + log_width) > b * (np.log1p(-middle) + log_width)
        low, high = np.where(seller_leads, low, middle), np.where(seller_leads, middle, high)
    return (low + high) / 2


def _exponents(buyer: ArrayLike, seller: ArrayLike) -> tuple[Floats, Floats]:
    return _positive("buyer_exponent", buyer), _positive("seller_exponent", seller)


def _positive(name: str, value: ArrayLike) -> Floats:
    array = np.asarray(value, dtype=float)
    if not ((array > 0) & (array < np.inf)).all():
        raise ValueError(f"{name} {value!r} must be a positive number; 1 is risk-neutral, below 1 averse to risk")
    return array


def _price(rho: Floats, buyer_max: ArrayLike, seller_min: ArrayLike) -> Floats:
    high, low = np.asarray(buyer_max, dtype=float), np.asarray(seller_min, dtype=float)
    price: Floats = np.where(high > low, low + rho * (high - low), np.nan)[()]  # [()]: no dimensions, a float
    return price
