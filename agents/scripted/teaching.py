"""Target-seeking teachers: players that were asked to reach a settlement, in either seat, for training data.

A learner that is to do as it is asked must have seen games that end where hardly any pair of the zoo ends: at the far
ends of ρ, and on the side that is worse for the seat itself. A teacher is told a settlement ρ* and nothing else that its
seat does not know. As any strategy here it thinks in concessions, of which the target is one:

    goal = ρ* · reach (buyer), (1 - ρ*) · reach (seller)

so that the price is ``R - (1 - ρ*) · reach`` for the buyer and ``R + ρ* · reach`` for the seller, who are mirror images at
ρ* and 1 - ρ*. With the preset ``paper`` the reach is the ZOPA and ρ* its settlement; where no width is known the reach
ends at the public bound, and ρ* is a place in what the seat can think possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Floats

from .anchors import TIE, Frame
from .checks import require_between, require_positive
from .components import Acceptance, Composed, Offering, Proposal
from .time_dependent import Polynomial, TimeTactic


def given(frame: Frame, rho: float) -> float:
    """The share of its reach that the seat gives in a settlement at ``rho`` of the ZOPA that it assumes."""
    return rho if frame.buys else 1.0 - rho


@dataclass(frozen=True, kw_only=True)
class SeekTarget(Offering):
    """Open ``opening`` (a share of the reach) away from the target and move to it as the curve of ``tactic`` rises.

    It comes from the selfish side; from the generous one, by retreating, where the target gives more than the share
    ``generous`` of the reach: there an opponent that would settle for less is offered more than it needs.

    Attributes:
        target: ρ*, in [0, 1].
        opening: in [0, 1]; offers end at S and R.
        generous: in [0, 1].
        tactic: how fast.
    """

    target_rho: float
    opening: float
    generous: float
    tactic: TimeTactic

    def __post_init__(self) -> None:
        for name in ("target_rho", "opening", "generous"):
            require_between(name, getattr(self, name), 0.0, 1.0)

    def target(self, frame: Frame) -> Floats:
        share = given(frame, self.target_rho)
        away = self.opening * (1.0 - self.tactic.curve(self.tactic.clock(frame)))
        return frame.within(frame.reach * (share + away if share > self.generous else share - away))


@dataclass(frozen=True, kw_only=True)
class AcNear(Acceptance):
    """What is near the target, on either side of it: better offers that are too good are refused as well.

    The slack, a share of the reach, is ``tolerance``; over the last ``late`` of the turns it grows evenly, by ``widening``
    on turn T. On the seat's last turn it is ``last`` at least.

    Attributes:
        target_rho: ρ*, in [0, 1].
        tolerance: in [0, 1].
        widening: in [0, 1].
        late: a share of the turns, in (0, 1].
        last: in [0, 1].
    """

    target_rho: float
    tolerance: float
    widening: float
    late: float
    last: float

    def __post_init__(self) -> None:
        for name in ("target_rho", "tolerance", "widening", "last"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        require_positive("late", self.late, 1.0)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        goal, slack = given(frame, self.target_rho) * frame.reach, self.slack(frame) * frame.reach
        gift = frame.standing < goal - slack - TIE * frame.tick
        return np.where(gift, -np.inf, goal + slack)

    def slack(self, frame: Frame) -> Floats:
        """``[b]`` how far from the target it accepts, a share of the reach."""
        grown = np.clip(1.0 - (1.0 - frame.elapsed) / self.late, 0.0, 1.0)
        slack = self.tolerance + self.widening * grown
        is_last = frame.view.turn >= frame.view.games.max_turns - 1
        return np.where(is_last, np.maximum(slack, self.last), slack)


def target_seeking(
    target: float = 0.5,
    opening: float = 0.05,
    beta: float = 1.0,
    generous: float = 0.75,
    tolerance: float = 0.05,
    widening: float = 0.1,
    late: float = 0.2,
    last: float = 0.2,
    assumed_zopa_width: float | None = None,
) -> Composed:
    """Seek the settlement ``target`` of the ZOPA that it assumes: open ``opening`` away from it, move to it as
    ``clock ** (1 / beta)``, accept what is within ``tolerance`` of it on either side. The tolerance grows by ``widening``
    over the last ``late`` of the turns and is ``last`` at least on its own last turn. It comes from the generous side where
    the target gives more than the share ``generous`` of its reach.
    """
    offering = SeekTarget(target_rho=target, opening=opening, generous=generous, tactic=Polynomial(beta=beta))
    condition = AcNear(target_rho=target, tolerance=tolerance, widening=widening, late=late, last=last)
    return Composed(offering=offering, acceptance=condition, assumed_zopa_width=assumed_zopa_width)
