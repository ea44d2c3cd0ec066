"""Acceptance conditions.

T. Baarslag, K. Hindriks, C. Jonker, "Acceptance Conditions in Automated Negotiation", Studies in Computational
Intelligence 435 (2013), pp. 95-111; and "Effective acceptance conditions in real-time automated negotiation", Decision
Support Systems 60 (2014), pp. 68-77.

A condition asks for a utility; here it names the worst concession that it accepts. The own utility of a concession c is
``u = (reach - c) / W``: 0 at one's reservation, a share of the assumed width W of the ZOPA; without an assumed width W is
the reach and u is 1 at S. All are rational: nothing worse than the reservation is ever accepted, whatever they say.
`AcConst` asks for no more than S, beyond which the public range may have nothing; `AcNext` and `AcPrev` are as published,
and with an alpha below 1 or a beta below 0 they may ask for more, which nobody need offer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_between, require_finite, require_positive
from .components import AcAsp, Acceptance, Proposal
from .history import carried, latest, mean

__all__ = ["AcAsp", "AcBest", "AcChance", "AcConst", "AcMean", "AcNext", "AcPrev", "AcTime", "ac_combi", "ac_gap"]


@dataclass(frozen=True)
class AcConst(Acceptance):
    """``u(received) ≥ least``, or as good as S where that is less.

    Attributes:
        least: a utility.
    """

    least: float

    def __post_init__(self) -> None:
        require_finite("least", self.least)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return np.maximum(frame.reach - self.least * frame.width, 0.0)


@dataclass(frozen=True)
class AcNext(Acceptance):
    """``alpha · u(received) + beta ≥ u(own offer of this turn)``.

    The own offer counts as it will be made: between S and R, rounded to the tick. With alpha 1 and beta 0 what is refused
    is therefore never offered.

    Attributes:
        alpha: positive; above 1 accepts sooner.
        beta: above 0 accepts sooner.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        _require_easing(self.alpha, self.beta)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return _eased(frame, frame.as_made(proposal.offer), self.alpha, self.beta)


@dataclass(frozen=True)
class AcPrev(Acceptance):
    """``alpha · u(received) + beta ≥ u(own offer of the turn before)``; S stands in before the first.

    Attributes:
        alpha: positive; above 1 accepts sooner.
        beta: above 0 accepts sooner.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        _require_easing(self.alpha, self.beta)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        last = latest(frame.made)
        return _eased(frame, np.where(np.isnan(last), 0.0, last), self.alpha, self.beta)


def ac_gap(gap: float) -> AcPrev:
    """AC_gap: within ``gap`` (a utility) of one's own last offer."""
    return AcPrev(beta=gap)


def _require_easing(alpha: float, beta: float) -> None:
    require_positive("alpha", alpha)
    require_finite("beta", beta)


def _eased(frame: Frame, own: Floats, alpha: float, beta: float) -> Floats:
    """The concession c with ``alpha · u(c) + beta = u(own)``."""
    if alpha == 1.0 and beta == 0.0:
        return own
    return (own + (alpha - 1.0) * frame.reach + beta * frame.width) / alpha


@dataclass(frozen=True)
class AcTime(Acceptance):
    """Anything no worse than the reservation, once the share ``since`` of the turns is reached (1: the last turn).

    Attributes:
        since: t / T, in [0, 1].
    """

    since: float

    def __post_init__(self) -> None:
        require_between("since", self.since, 0.0, 1.0)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return np.where(frame.elapsed >= self.since, frame.reach, -np.inf)


@dataclass(frozen=True)
class AcBest(Acceptance):
    """As good as the best offer received: in the whole game (MAX^T), or in a window as long as what remains (MAX^W).

    Attributes:
        window: look back as many turns as are left, this one included.
    """

    window: bool = True

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return np.fmin.reduce(_received(frame, self.window), axis=0, initial=np.inf)


@dataclass(frozen=True)
class AcMean(Acceptance):
    """As good as the mean of what was received in a window as long as what remains (AVG^W).

    Attributes:
        window: look back as many turns as are left, this one included; else the whole game.
    """

    window: bool = True

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return mean(_received(frame, self.window))


def _received(frame: Frame, window: bool) -> Floats:
    """``[n, b]`` the received offers that count; NaN for the others. The standing offer always counts."""
    received = carried(frame.received)  # a wasted turn repeats the offer before it, which still stands
    if not window:
        return received
    ago = 2 * np.arange(len(received))[::-1, None] + 1  # turns since each was made
    left = frame.view.games.max_turns - frame.view.turn + 1
    return np.where(ago <= left, received, np.nan)


def ac_combi(since: float, received: Acceptance) -> Acceptance:
    """AC_combi(T, α): AC_next; or, from the share ``since`` of the turns on, what ``received`` accepts too.

    The paper's windows have the fixed length 1 - T; those of `AcBest` and `AcMean` are as long as what remains now, and
    so shrink towards the deadline.

    Args:
        since: T of the paper, as a share.
        received: its α: ``AcBest()`` (MAX^W), ``AcMean()`` (AVG^W), ``AcBest(window=False)`` (MAX^T), `AcConst`.
    """
    return AcNext() | (AcTime(since) & received)


@dataclass(frozen=True)
class AcChance(Acceptance):
    """Anything no worse than the reservation, with a fixed chance on each turn.

    Attributes:
        chance: in [0, 1].
    """

    chance: float

    def __post_init__(self) -> None:
        require_between("chance", self.chance, 0.0, 1.0)

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return np.where(frame.luck[:, 1] < self.chance, frame.reach, -np.inf)
