"""Fitting a dial: the map from requested to internal ρ under which games settle, on average, at what was asked for.

The mean achieved ρ is taken to rise with the internal ρ, whatever its form, so it is estimated by isotonic regression: of
all rising sequences the one that is closest to the means in least squares, each weighted with its deals (R. E. Barlow and
H. D. Brunk, "The isotonic regression problem and its dual", J. of the American Statistical Association 67 (1972), pp.
140-147; pool-adjacent-violators, `scipy.optimize.isotonic_regression`). Between two internal values it is a straight line.
Its inverse is the map: where the estimate is flat, the middle of the stretch. Where nothing settles as far out as was asked
it goes to the end of the dial, but for a small slope: who asks for more is given more, wherever that leads.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError
from hyperlora.dial import Knots

Floats = NDArray[np.float64]

DIGITS = 6
"""Of the knots of a map."""
SLOPE = 0.1
"""A map stays away from either end of the dial by at least this share of how far the request is from 0 or 1, in shares of
the dial that it uses, so that requests beyond reach keep their order. It holds within reach too: what a dial does within a
tenth of an end is not met to the letter."""


def fit(
    internal: Floats, achieved: Floats, deals: Floats, agreement: Floats | None = None, least: float = 0.0
) -> Knots:
    """The map of one seat.

    Args:
        internal: ``[K]`` ρ that was set, ascending, in [0, 1].
        achieved: ``[K]`` mean ρ of the deals that it led to; NaN where there was none.
        deals: ``[K]`` how many.
        agreement: ``[K]`` share of games that ended in a deal; needed where ``least`` is above 0.
        least: the map sets nothing at which fewer games than this end in a deal: only the longest row of neighbouring
            values that all reach it is used.

    Raises:
        InputError: fewer than two values are left to fit.
    """
    usable = deals > 0
    if least > 0:
        assert agreement is not None  # said above
        usable &= agreement >= least
        usable = _longest_row(usable)
    if usable.sum() < 2:
        what = f"an agreement of {least:g}" if least > 0 else "a deal"
        raise InputError(
            f"fewer than two settings of the dial reach {what} against the validation opponents; lower "
            "--least-agreement, play more --games, or train on"
        )
    return _inverse(internal[usable], achieved[usable], deals[usable])


def _longest_row(usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Only the longest run of neighbours, the first of equals."""
    kept, start, best = np.zeros(len(usable), dtype=bool), 0, range(0)
    for good, run in itertools.groupby(usable.tolist()):
        length = len(list(run))
        if good and length > len(best):
            best = range(start, start + length)
        start += length
    kept[best] = True
    return kept


def _inverse(internal: Floats, achieved: Floats, weights: Floats) -> Knots:
    from scipy.optimize import isotonic_regression  # a second to import, which playing should not wait for

    fitted = isotonic_regression(achieved, weights=weights).x.round(DIGITS)
    levels, first, count = np.unique(fitted, return_index=True, return_counts=True)
    middle = (internal[first] + internal[first + count - 1]) / 2
    inner = (levels > 0) & (levels < 1)
    ends = [np.interp(end, levels, middle, left=internal[0], right=internal[-1]) for end in (0.0, 1.0)]
    asked = np.concatenate([[0.0], levels[inner], [1.0]])
    found = np.concatenate([ends[:1], middle[inner], ends[1:]])
    rise = SLOPE * (ends[1] - ends[0])
    found = np.clip(found, ends[0] + rise * asked, ends[1] - rise * (1 - asked)).round(DIGITS)
    return Knots(tuple(asked.tolist()), tuple(found.tolist()))
