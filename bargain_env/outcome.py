"""What a finished game is worth: the settlement ρ and the two utilities.

ρ = (price - seller_min) / (buyer_max - seller_min) is where in the zone of possible agreement (ZOPA) the deal settled.
The buyer's utility is 1 - ρ, the seller's ρ; both are multiplied by ``discount`` for each turn that passed before the
accepted offer was made (Rubinstein 1982: an offer and its answer belong to one period). An impasse is worth 0 to both.
Nothing is clipped: a deal outside one's reservation has negative utility.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

IMPASSE_RHO = -1.0
"""How data files spell ρ where there was no deal (seed report, section 1.2)."""


def settlement(price: ArrayLike, buyer_max: ArrayLike, seller_min: ArrayLike) -> NDArray[np.float64]:
    """ρ of each deal: ``[B]``; NaN where ``price`` is NaN (no deal) or there is no ZOPA."""
    width = np.asarray(buyer_max, dtype=float) - np.asarray(seller_min, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (np.asarray(price, dtype=float) - np.asarray(seller_min, dtype=float)) / width
    return np.where(width > 0, rho, np.nan)


def utilities(
    price: ArrayLike,
    buyer_max: ArrayLike,
    seller_min: ArrayLike,
    *,
    scale: ArrayLike,
    discount: ArrayLike = 1.0,
    turns: ArrayLike = 2,
) -> NDArray[np.float64]:
    """Utilities of both seats: ``[B, 2]``, buyer first.

    Args:
        price: ``[B]`` deal price, NaN at an impasse.
        buyer_max: ``[B]``.
        seller_min: ``[B]``.
        scale: ``[B]`` what a surplus is divided by where there is no ZOPA (the width of the public range); elsewhere it
            is the width of the ZOPA.
        discount: ``[B]`` factor a turn.
        turns: ``[B]`` moves played, the accepting one included.
    """
    price, buyer_max, seller_min = (np.asarray(x, dtype=float) for x in (price, buyer_max, seller_min))
    width = buyer_max - seller_min
    unit = np.where(width > 0, width, np.asarray(scale, dtype=float))
    elapsed = np.maximum(np.asarray(turns) - 2, 0)
    factor = np.asarray(discount, dtype=float) ** elapsed / unit
    buyer, seller = (buyer_max - price) * factor, (price - seller_min) * factor
    both = np.empty((*buyer.shape, 2))
    both[..., 0], both[..., 1] = buyer, seller
    both[np.isnan(price)] = 0.0
    return both


def utilities_of(
    price: float, buyer_max: float, seller_min: float, *, scale: float, discount: float, turns: int
) -> tuple[float, float]:
    """`utilities` of one deal, bit for bit, at a fraction of the cost."""
    width = buyer_max - seller_min
    unit = width if width > 0 else scale
    factor = (1.0 if discount == 1.0 else float(np.power(discount, max(turns - 2, 0)))) / unit
    return (buyer_max - price) * factor, (price - seller_min) * factor
