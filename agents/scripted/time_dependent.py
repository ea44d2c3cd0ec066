"""Strategies that follow the clock: the concession is a function of t / T alone.

Faratin, Sierra, Jennings 1998, "Negotiation decision functions for autonomous agents", Robotics and Autonomous Systems
24(3-4), section 4.1. The ``beta`` here is the exponent of t / T, as in the published code; Faratin's is its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Floats

from .anchors import Decision, Frame, Scripted, require_positive


@dataclass(kw_only=True, eq=False)
class Boulware(Scripted):
    """Concede ``reach · min(cap, t / T) ** beta``; accept what is as good as that.

    As published, t is 1 on the first turn, so the opening is already some way from S, and the cap keeps even the last
    offer short of R.

    Attributes:
        beta: below 1 concedes early, above 1 late.
        cap: the largest share of the time that counts.
    """

    beta: float = 1.0
    cap: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("beta", self.beta)

    def curve(self, frame: Frame) -> Floats:
        """``[b]`` share of the way from S to R."""
        return np.minimum(self.cap, frame.elapsed) ** self.beta

    def decide(self, frame: Frame) -> Decision:
        target = frame.reach * self.curve(frame)
        return Decision(offer=target, worst=target)


@dataclass(kw_only=True, eq=False)
class NoisyBoulware(Boulware):
    """`Boulware` whose offers are shaken by ``U(-d, d)``, ``d = min(noise_max, noise_scale · W)``; acceptance is not.

    Not reproduced: the published noise could carry an offer beyond S, the opponent's assumed limit; here it ends at S,
    which changes only the opening turns (by at most d).

    Attributes:
        noise_max: currency units.
        noise_scale: share of the assumed width.
    """

    noise_max: float = 25.0
    noise_scale: float = 0.05

    def decide(self, frame: Frame) -> Decision:
        target = super().decide(frame).worst
        half_width = np.minimum(self.noise_max, self.noise_scale * frame.width)
        return Decision(offer=target + half_width * (2.0 * frame.uniform()[:, 0] - 1.0), worst=target)


@dataclass(kw_only=True, eq=False)
class Hardliner(Scripted):
    """S until the last two turns, then ``cave_in_margin`` short of R; accept what is as good as that.

    Attributes:
        cave_in_margin: currency units.
    """

    cave_in_margin: float = 5.0

    def decide(self, frame: Frame) -> Decision:
        caves_in = frame.view.turn >= frame.view.games.max_turns - 1
        target = np.where(caves_in, frame.reach - self.cave_in_margin, 0.0)
        return Decision(offer=target, worst=target)


@dataclass(kw_only=True, eq=False)
class Fair(Scripted):
    """Approach the fair price F, half the assumed width from R, from the selfish side; accept F or better.

    The offer is ``b · F`` with ``b = min(1, opening + (t / T)(1 - opening))``.

    Not reproduced: the published offers reached F only on turn T, when nobody can answer, so two of them never agreed.
    Here b = 1 from turn T - 1 on; of the published curve that changes one offer (fair: by 2.5, fair_slow: by 7.5 of a
    width of 500).

    Attributes:
        opening: share of the way from S to F before the first turn.
    """

    opening: float = 0.8

    def decide(self, frame: Frame) -> Decision:
        fair = np.maximum(frame.reach - frame.width / 2, 0.0)
        share = np.minimum(1.0, self.opening + frame.elapsed * (1.0 - self.opening))
        last_call = frame.view.turn >= frame.view.games.max_turns - 1
        return Decision(offer=np.where(last_call, fair, share * fair), worst=fair)


@dataclass(kw_only=True, eq=False)
class NaiveBoulware(Boulware):
    """Opens at R, walks away from it by ``W · min(cap, t / T) ** beta``, accepts up to R; backwards, as published."""

    def decide(self, frame: Frame) -> Decision:
        return Decision(offer=frame.reach - frame.width * self.curve(frame), worst=frame.reach)
