"""Which family of tactics an opponent's offers look like.

Each family predicts the offers in its own way; the one that misses them least is named, a free parameter counting against
it (G. Schwarz, "Estimating the dimension of a model", Annals of Statistics 6 (1978), pp. 461-464). Of a time-dependent
tactic only the kind of its beta is asked here; `opponent_model` estimates the rest.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from bargain_env.policy import Bools, Floats, Ints

from .anchors import Frame, common
from .history import carried, total


class Behaviour(IntEnum):
    """What an opponent seems to do."""

    UNKNOWN = 0
    """Fewer than three offers."""
    HOLDS = 1
    """Repeats itself."""
    BOULWARE = 2
    """Concedes late."""
    LINEAR = 3
    """Concedes evenly."""
    CONCEDER = 4
    """Concedes early."""
    IMITATES = 5
    """Concedes what was conceded to it."""
    ERRATIC = 6
    """None of these."""


ENOUGH = 3
"""Offers before anybody is named."""
PRECISION = 0.003
"""Misses smaller than this share of the width are rounding or noise, and as good as none."""
ERRATIC_ABOVE = 0.05
"""A family that misses by more than this share of the width, root mean square, is not named."""
CURVES = (
    (0.15, Behaviour.BOULWARE),
    (0.25, Behaviour.BOULWARE),
    (0.5, Behaviour.BOULWARE),
    (1.0, Behaviour.LINEAR),
    (2.0, Behaviour.CONCEDER),
    (5.0, Behaviour.CONCEDER),
)
"""Faratin's betas, and what they are called."""
NEVER = 1e9


def behaviour(frame: Frame) -> Ints:
    """``[b]`` the `Behaviour` of each opponent, from all of its offers so far; a wasted turn repeats the one before."""
    offers = carried(frame.received)
    here = offers == offers
    n = total(here)
    y = np.where(here, offers, 0.0) / frame.width
    dy = (y - total(y) / np.maximum(n, 1)) * here
    yy = total(dy * dy)
    curves = _misfit_of_curves(frame, here, n, dy, yy)
    candidates = [(Behaviour.HOLDS, yy, 1), *((kind, curves[k], 2) for k, (_, kind) in enumerate(CURVES))]
    candidates.append((Behaviour.IMITATES, _misfit_of_imitation(frame, offers), 0))
    return _likeliest(candidates, n)


def _likeliest(candidates: list[tuple[Behaviour, Floats, int]], n: Floats) -> Ints:
    """Of ``(kind, squared misses, parameters)`` the kind with least ``n · ln(mean) + parameters · ln(n)``; the first."""
    some = np.maximum(n, 1)
    costs = np.log(some)
    found, best, error = np.zeros(len(n), dtype=np.int64), np.full(len(n), np.inf), np.full(len(n), np.inf)
    for kind, squares, parameters in candidates:
        mean = squares / some
        score = n * np.log(mean + PRECISION**2) + parameters * costs
        better = score < best - 1e-9
        found, best, error = (np.where(better, new, old) for new, old in ((kind, found), (score, best), (mean, error)))
    found = np.where(error > ERRATIC_ABOVE**2, Behaviour.ERRATIC, found)
    return np.where(n >= ENOUGH, found, Behaviour.UNKNOWN)


def _misfit_of_curves(frame: Frame, here: Bools, n: Floats, dy: Floats, yy: Floats) -> Floats:
    """``[curves, b]`` squared residuals of the best line through (clock ** (1 / beta), offer), where it concedes.

    ``dy`` are the offers without their mean, ``yy`` the sum of its squares.
    """
    passed = np.maximum(frame.view.turn - 2 * np.arange(len(dy))[::-1, None] - 1, 0)
    clock = passed / common(frame.view.games.max_turns)
    x = clock[:, None] ** (1.0 / np.array([beta for beta, _ in CURVES]))[:, None]
    if not here.all():
        x = x * here[:, None]
    dx = x - total(x) / np.maximum(n, 1)
    if not here.all():
        dx = dx * here[:, None]
    xx, xy = total(dx * dx), total(dx * dy[:, None])
    explained = np.where((xx > 0) & (xy < 0), xy * xy / np.where(xx > 0, xx, 1.0), 0.0)
    return np.maximum(yy - explained, 0.0)


def _misfit_of_imitation(frame: Frame, offers: Floats) -> Floats:
    """Squared differences between each step of the opponent and the step of one's own just before it."""
    own = carried(frame.made)
    steps = min(len(own), len(offers)) - 1
    if steps < 1:
        return np.full(len(frame.width), NEVER)
    own, offers = own[-steps - 1 :], offers[-steps - 1 :]
    unanswered = np.nan_to_num((own[1:] - own[:-1]) - (offers[:-1] - offers[1:]))
    return total((unanswered / frame.width) ** 2)
