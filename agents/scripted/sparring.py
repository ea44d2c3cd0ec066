"""A sparring partner: an opponent whose temper is drawn anew for every game, for players that learn by playing.

Whoever learns against named strategies learns their habits, and takes an opponent that it never met for one of them. Here
where an opponent opens, how far it goes at most, how fast, what it takes beside its own aspiration, how much it minds an
opponent that stands still, and whether it gives in at the end, are numbers of the game: domain randomisation (J. Tobin et
al., IROS 2017) of the decision functions of Faratin et al. 1998. It makes training data and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bargain_env.policy import Bools, Floats

from .anchors import Frame
from .components import Acceptance, Composed, Offering, Proposal
from .history import carried, latest

OPENING = 0.4
"""The most that is given at once, a share of the reach; little is likelier."""
FLOOR = 0.75
"""The most of the reach that is never given; little is likelier."""
BETAS = (0.1, 10.0)
"""Faratin's beta, even in the logarithm."""
SLACK = (-0.05, 0.15)
"""How much worse than its aspiration an offer may be; none below 0. A share of the assumed width."""
YIELDS = 0.25
"""Share of the games in which it takes anything on its last turn."""
STILL = 0.005
"""An opponent that concedes less than this share of the assumed width stands still."""
_DRAW = 0
"""No move is made on this turn, so nobody else has its numbers."""


class Temper(NamedTuple):
    """Of b games; every array is ``[b]``.

    Attributes:
        opening: share of the reach that is given at first.
        floor: share that is given at last, at least ``opening``.
        beta: Faratin's.
        grudge: share of a step that is not made while the opponent stands still; 0 in half of the games.
        slack: share of the assumed width.
        yields: whether it takes anything on its last turn.
    """

    opening: Floats
    floor: Floats
    beta: Floats
    grudge: Floats
    slack: Floats
    yields: Bools

    @classmethod
    def of(cls, frame: Frame) -> Temper:
        """Drawn from (seed, game, seat), the same on every turn."""
        u = frame.view.games.uniform(_DRAW, len(cls._fields)).T
        opening = OPENING * u[0] ** 2
        return cls(
            opening=opening,
            floor=np.maximum(1.0 - FLOOR * u[1] ** 2, opening),
            beta=BETAS[0] * (BETAS[1] / BETAS[0]) ** u[2],
            grudge=np.maximum(2.0 * u[3] - 1.0, 0.0),
            slack=np.maximum(SLACK[0] + (SLACK[1] - SLACK[0]) * u[4], 0.0),
            yields=u[5] < YIELDS,
        )


@dataclass(frozen=True, kw_only=True)
class Tempered(Offering):
    """Concede from the opening to the floor as ``(t / T) ** (1 / beta)``, but the less of each step while the opponent
    stands still.
    """

    def target(self, frame: Frame) -> Floats:
        temper = Temper.of(frame)
        risen = temper.opening + (temper.floor - temper.opening) * frame.elapsed ** (1.0 / temper.beta)
        aspired, own = risen * frame.reach, latest(frame.made)
        step = np.fmax(aspired - own, 0.0) * (1.0 - temper.grudge * _stands_still(frame))
        return np.where(np.isnan(own), aspired, own + step)


def _stands_still(frame: Frame) -> Bools:
    """``[b]`` where the opponent's last two offers are known and the later one is no better."""
    theirs = carried(frame.received)
    if len(theirs) < 2:
        return np.zeros(len(frame.view), dtype=bool)
    return np.asarray(theirs[-2] - theirs[-1] < STILL * frame.width)  # NaN compares False


@dataclass(frozen=True)
class AcTempered(Acceptance):
    """At most the temper's slack worse than its aspiration; on its last turn, if it yields, anything no worse than R."""

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        temper = Temper.of(frame)
        last = frame.view.turn >= frame.view.games.max_turns - 1
        return np.where(temper.yields & last, frame.reach, proposal.target + temper.slack * frame.width)


def sparring(assumed_zopa_width: float | None = None) -> Composed:
    """Concede from an opening to a floor, both and the speed drawn for each game, more slowly while the opponent stands
    still; accept what is near enough to that.
    """
    return Composed(offering=Tempered(), acceptance=AcTempered(), assumed_zopa_width=assumed_zopa_width)
