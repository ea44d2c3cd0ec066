"""Tactics that answer the other side's offers: imitation and splitting the difference.

Faratin, Sierra, Jennings 1998 (see `time_dependent`), section 4.3, behaviour-dependent tactics. With x an own offer, y a
received one, and n moves so far, the offer of move n + 1 answers what the opponent did ``lag`` of its turns ago:

    relative          x(n+1) = x(n-1) · y(n-2·lag) / y(n-2·lag+2)
    random absolute   x(n+1) = x(n-1) + y(n-2·lag) - y(n-2·lag+2) ± R(M)
    averaged          x(n+1) = x(n-1) · y(n-2·window) / y(n)

brought into the range from S to R. The paper asks for n > 2·lag, that is, that y(n-2·lag) exists, and leaves open what
comes before. Here the first offer is S, and until there is something to answer the last offer is repeated. A wasted turn
repeats the offer before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_whole
from .components import Offering
from .history import carried, latest


@dataclass(frozen=True, kw_only=True)
class TitForTat(Offering):
    """Concede as much as the opponent did: absolute tit-for-tat.

    By default as in the published zoo, without the random part and without following a retreat.

    Not reproduced: the published rule answered the absolute difference of the last two offers, so an opponent that
    retreated was rewarded as well. Nothing changes against an opponent that never retreats.

    Attributes:
        lag: which of its steps is answered; 1 is the last.
        extra: M, in whole currency units: a random integer of 0, …, M is conceded on top.
        retreats: take back as much as the opponent did, as the paper does.
    """

    lag: int = 1
    extra: int = 0
    retreats: bool = False

    def __post_init__(self) -> None:
        require_whole("lag", self.lag, 1)
        require_whole("extra", self.extra, 0)

    def target(self, frame: Frame) -> Floats:
        own, theirs = latest(frame.made), carried(frame.received)
        if len(theirs) > self.lag:
            given = theirs[-1 - self.lag] - theirs[-self.lag]
            if self.extra:
                given = given + np.floor(frame.luck[:, 0] * (self.extra + 1))
            given = np.where(np.isnan(given), 0.0, given) if self.retreats else np.fmax(given, 0.0)
            own = own + given
        return frame.within(np.where(np.isnan(own), 0.0, own))


@dataclass(frozen=True, kw_only=True)
class RelativeTitForTat(Offering):
    """Change one's price by the factor by which the opponent changed its own, ``lag`` of its turns ago.

    It is a ratio of prices, as in the paper, so buyer and seller are no mirror images: 10 % of a high price is more.

    Attributes:
        lag: 1 is the opponent's last step.
    """

    lag: int = 1

    def __post_init__(self) -> None:
        require_whole("lag", self.lag, 1)

    def target(self, frame: Frame) -> Floats:
        return _by_factor(frame, since=self.lag, until=self.lag - 1)


@dataclass(frozen=True, kw_only=True)
class AveragedTitForTat(Offering):
    """Change one's price by the factor by which the opponent changed its own over its last ``window`` steps.

    Attributes:
        window: 1 is `RelativeTitForTat` with lag 1.
    """

    window: int = 1

    def __post_init__(self) -> None:
        require_whole("window", self.window, 1)

    def target(self, frame: Frame) -> Floats:
        return _by_factor(frame, since=self.window, until=0)


def _by_factor(frame: Frame, since: int, until: int) -> Floats:
    """One's last offer times y(since) / y(until), the offers made so many of the opponent's turns before its last."""
    own = latest(frame.made)
    if len(frame.received) > since:
        theirs = carried(np.ascontiguousarray(frame.view.opponent_offers.T))
        before, after = theirs[-1 - since], theirs[-1 - until]
        defined = (before > 0) & (after > 0)  # else there is no offer yet, or a price of which nothing is a multiple
        factor = np.where(defined, before, 1.0) / np.where(defined, after, 1.0)
        price = frame.start + own if frame.buys else frame.start - own
        own = frame.concession(factor * price)
    return frame.within(np.where(np.isnan(own), 0.0, own))


@dataclass(frozen=True, kw_only=True)
class SplitDifference(Offering):
    """Offer the middle between its own last offer (S before the first) and the standing offer.

    With AC_asp, as published, it accepts only what is at its own last offer or better, and an absurd standing offer drags
    it to R in one move. With no standing offer it repeats itself.
    """

    def target(self, frame: Frame) -> Floats:
        own = latest(frame.made)
        anchor = np.where(np.isnan(own), 0.0, own)
        middle = (anchor + frame.standing) / 2
        return frame.within(np.where(np.isnan(middle), anchor, middle))
