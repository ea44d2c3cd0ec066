"""Tactics that follow the clock: the concession is a function of the turn alone.

P. Faratin, C. Sierra, N. R. Jennings, "Negotiation decision functions for autonomous agents", Robotics and Autonomous
Systems 24 (1998), pp. 159-182, section 4.1. There is one ``beta`` here, Faratin's: below 1 concedes late (Boulware), 1
evenly, above 1 early (Conceder). Other conventions are read by constructors, see `Polynomial`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_between, require_positive, require_whole
from .components import Offering, Proposal


@dataclass(frozen=True, kw_only=True)
class TimeTactic(Offering):
    """Give ``reach · curve(clock)``.

    Attributes:
        head_start: turns that count as passed before the first. With 0 the clock is 0 on the first turn and 1 on the
            last, as in the paper; with 1 it is t / T, as in the published zoo, whose opening is already a step from S.
        cap: the largest share of the time that counts, in (0, 1].
    """

    head_start: int = 0
    cap: float = 1.0

    def __post_init__(self) -> None:
        require_whole("head_start", self.head_start, 0)
        require_positive("cap", self.cap, 1.0)

    @abstractmethod
    def curve(self, clock: Floats) -> Floats:
        """The share of the way from S to R when that share of the time has passed."""

    def clock(self, frame: Frame, turns_ago: int = 0) -> Floats:
        """``[b]`` the share of the time that has passed, or had."""
        passed = frame.view.turn - turns_ago - 1 + self.head_start
        return np.clip(passed / np.maximum(frame.view.games.max_turns - 1 + self.head_start, 1), 0.0, self.cap)

    def target(self, frame: Frame) -> Floats:
        return frame.reach * self.curve(self.clock(frame))

    def advance(self, frame: Frame, last: Floats) -> Floats:
        """As its own curve rises, wherever the last offer was."""
        return frame.reach * (self.curve(self.clock(frame)) - self.curve(self.clock(frame, turns_ago=2)))


@dataclass(frozen=True, kw_only=True)
class Polynomial(TimeTactic):
    """``kappa + (1 - kappa) · clock ** (1 / beta)``.

    Attributes:
        beta: Faratin's; see the top of the file.
        kappa: the share given at the start, in [0, 1].
    """

    beta: float = 1.0
    kappa: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("beta", self.beta)
        require_between("kappa", self.kappa, 0.0, 1.0)

    def curve(self, clock: Floats) -> Floats:
        risen = clock ** (1.0 / self.beta)
        return self.kappa + (1.0 - self.kappa) * risen if self.kappa else risen

    @classmethod
    def from_genius_e(cls, e: float, k: float = 0.0) -> Polynomial:
        """Genius and its ports: ``k + (1 - k) · t ** (1 / e)``, so e is beta; their e = 0 is our `Hardliner`."""
        require_positive("e", e)
        return cls(beta=e, kappa=k)

    @classmethod
    def from_negmas_exponent(cls, exponent: float) -> Polynomial:
        """NegMAS: own utility ``1 - t ** exponent``; its boulware is 4, its conceder .25."""
        require_positive("exponent", exponent)
        return cls(beta=1.0 / exponent)

    @classmethod
    def from_seed_exponent(cls, exponent: float, cap: float = 0.95) -> Polynomial:
        """Concede ``reach · min(cap, t / T) ** exponent``, as the published zoo.

        The exponent, there called beta, is one over Faratin's: 4 is its hard Boulware. The cap keeps even the last offer
        short of R.
        """
        require_positive("exponent", exponent)
        return cls(beta=1.0 / exponent, head_start=1, cap=cap)


@dataclass(frozen=True, kw_only=True)
class Exponential(TimeTactic):
    """``exp((1 - clock) ** beta · ln(kappa))``. NegMAS's exponential aspiration is another curve.

    Attributes:
        beta: Faratin's; see the top of the file.
        kappa: the share given at the start, in (0, 1].
    """

    beta: float = 1.0
    kappa: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("beta", self.beta)
        require_positive("kappa", self.kappa, 1.0)

    def curve(self, clock: Floats) -> Floats:
        return np.exp((1.0 - clock) ** self.beta * np.log(self.kappa))


@dataclass(frozen=True, kw_only=True)
class Noisy(Offering):
    """A tactic whose offers are shaken by ``U(-d, d)``, ``d = min(noise_max, noise_scale · W)``; its target is not.

    Not reproduced: the published noise could carry an offer beyond S, the opponent's assumed limit; here it ends at S,
    which changes only the opening turns (by at most d).

    Attributes:
        tactic: what is shaken.
        noise_max: currency units, 0 or more.
        noise_scale: share of the assumed width, 0 or more.
    """

    tactic: Offering
    noise_max: float = 25.0
    noise_scale: float = 0.05

    def __post_init__(self) -> None:
        require_between("noise_max", self.noise_max, 0.0)
        require_between("noise_scale", self.noise_scale, 0.0)

    @property
    def mixed_turns(self) -> bool:
        return self.tactic.mixed_turns

    def target(self, frame: Frame) -> Floats:
        return self.tactic.target(frame)

    def propose(self, frame: Frame) -> Proposal:
        target = self.target(frame)
        half_width = np.minimum(self.noise_max, self.noise_scale * frame.width)
        return Proposal(target, target + half_width * (2.0 * frame.luck[:, 0] - 1.0))


@dataclass(frozen=True, kw_only=True)
class Hardliner(Offering):
    """S until the last two turns, then ``cave_in_margin`` short of R.

    Attributes:
        cave_in_margin: currency units, 0 or more.
    """

    cave_in_margin: float = 5.0

    def __post_init__(self) -> None:
        require_between("cave_in_margin", self.cave_in_margin, 0.0)

    def target(self, frame: Frame) -> Floats:
        caves_in = frame.view.turn >= frame.view.games.max_turns - 1
        return np.where(caves_in, frame.reach - self.cave_in_margin, 0.0)


@dataclass(frozen=True, kw_only=True)
class Fair(Offering):
    """Approach the fair price F, half the assumed width from R, from the selfish side.

    The offer is ``b · F`` with ``b = min(1, opening + (t / T)(1 - opening))``.

    Not reproduced: the published offers reached F only on turn T, when nobody can answer, so two of them never agreed.
    Here b = 1 from turn T - 1 on; of the published curve that changes one offer (fair: by 2.5, fair_slow: by 7.5 of a
    width of 500).

    Attributes:
        opening: share of the way from S to F before the first turn, in [0, 1].
    """

    opening: float = 0.8

    def __post_init__(self) -> None:
        require_between("opening", self.opening, 0.0, 1.0)

    def target(self, frame: Frame) -> Floats:
        fair = np.maximum(frame.reach - frame.width / 2, 0.0)
        share = np.minimum(1.0, self.opening + frame.elapsed * (1.0 - self.opening))
        last_call = frame.view.turn >= frame.view.games.max_turns - 1
        return np.where(last_call, fair, share * fair)


@dataclass(frozen=True, kw_only=True)
class WalkAway(Offering):
    """Open at R and walk away from it by ``W`` times the curve of ``tactic``; backwards, as published.

    Attributes:
        tactic: how fast.
    """

    tactic: TimeTactic

    def target(self, frame: Frame) -> Floats:
        return frame.reach - frame.width * self.tactic.curve(self.tactic.clock(frame))
