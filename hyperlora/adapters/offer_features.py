"""What a sequence of offers says of the one who made it, as a fixed number of features: deterministic, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError

Vector = NDArray[np.float64]

FEATURES = (
    "opening", "latest", "conceded", "mean_step", "step_deviation", "first_step", "last_step", "largest_step",
    "still_share", "backward_share", "early_share", "reciprocity", "gap", "round_share", "offers",
)  # fmt: skip
"""Names of the entries of `OfferFeatures.embed`, in order."""


@dataclass(frozen=True, slots=True)
class OfferHistory:
    """The offers of one game so far, seen from outside.

    Attributes:
        seat: ``buyer`` or ``seller``: whose style is asked for.
        offers: theirs, in currency units, oldest first.
        replies: the other side's offers, oldest first.
        low: lower end of the public range.
        high: upper end.
    """

    seat: str
    offers: Sequence[float]
    replies: Sequence[float]
    low: float
    high: float


class OfferFeatures:
    """Embeds an `OfferHistory` as `FEATURES`, prices as demands: 1 is the best end of the range for who makes the offer.

    The opening and the latest demand, how the way between them is divided into steps and over time (Faratin et al. 1998
    tell time-dependent tactics by it), how much the steps follow the other side's (behaviour-dependent ones), and how far
    apart the sides are.
    """

    def embed(self, history: OfferHistory) -> Vector:
        """``[len(FEATURES)]``; zeros where a feature needs more offers than there are.

        Raises:
            InputError: not a history, an unknown seat, no offer, or an empty range.
        """
        demands, replies = self._demands(history)
        steps = demands[:-1] - demands[1:]  # above 0: towards the other side
        other = replies[1:] - replies[:-1]  # theirs, towards us
        far = max(float(demands[0] - demands[-1]), 1e-6)
        half = demands[len(demands) // 2]
        moved = steps if len(steps) else np.zeros(1)
        scaled = np.asarray(history.offers, dtype=np.float64)
        return np.array([
            demands[0],
            demands[-1],
            demands[0] - demands[-1],
            moved.mean(),
            moved.std(),
            moved[0],
            moved[-1],
            moved.max(),
            (np.abs(moved) < 1e-4).mean() if len(steps) else 0.0,
            (moved < -1e-4).mean(),
            (demands[0] - half) / far if len(steps) > 1 and demands[0] - demands[-1] > 1e-6 else 0.5,
            _follows(steps, other),
            demands[-1] - (replies[-1] if len(replies) else 0.0),
            (np.abs(scaled / 5.0 - np.round(scaled / 5.0)) < 1e-9).mean(),
            len(demands) / 10.0,
        ])  # fmt: skip

    @staticmethod
    def _demands(history: OfferHistory) -> tuple[Vector, Vector]:
        if not isinstance(history, OfferHistory):
            raise InputError(f"offer features are of an OfferHistory, not of {type(history).__name__}")
        if history.seat not in ("buyer", "seller"):
            raise InputError(f"seat {history.seat!r} is neither buyer nor seller")
        width = history.high - history.low
        if not history.offers or not width > 0:
            raise InputError(f"a history needs an offer and a range with low < high; got {history}")
        shares = [
            (np.asarray(side, dtype=np.float64) - history.low) / width for side in (history.offers, history.replies)
        ]
        theirs, ours = shares if history.seat == "seller" else [1.0 - share for share in shares]
        return theirs, ours


def _follows(steps: Vector, other: Vector) -> float:
    """Correlation of steps with the other side's in the same round, in [-1, 1]; 0 where one of them does not vary."""
    n = min(len(steps), len(other))
    mine, theirs = steps[:n], other[:n]
    if n < 2 or mine.std() < 1e-9 or theirs.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(mine, theirs)[0, 1])
