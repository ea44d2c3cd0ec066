"""ChargingBoul: a Boulware curve whose firmness follows a reading of the opponent.

J. Shymanski, "ChargingBoul: A Competitive Negotiating Agent with Novel Opponent Modeling", arXiv:2512.06595 (second
in individual utility at the ANAC 2022 Automated Negotiation League), reduced to one price as in the published zoo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Bools, Floats, Ints

from .anchors import TIE, Frame
from .checks import require_between, require_positive
from .components import Offering
from .history import carried, count, distinct, mean

ENOUGH_OFFERS = 4
CONCEDER_FLOOR = 0.4
WORTH_CHARGING_FOR = 0.3


@dataclass(frozen=True, kw_only=True)
class ChargingBoul(Offering):
    """Aim at own utility ``g = m + (1 - m)(1 - τ ** (1 / E))``, τ = t / T; bid near it, or the best offer received.

    Every opponent is a *conceder* (m = .4, E doubled) until it has made four offers; then `classify` decides. A bid is
    never worse than the best offer received; late against a boulwarish opponent it is that offer.

    Not reproduced: the published memory was one dictionary for all players, roles, games and variants, so one gift
    froze it for the rest of the process; here a game remembers itself only. All else is as published: the curve jumps
    back when the class first changes, with T = 20 no opponent can make the 33 offers that ``boulwarish`` needs, and the
    late branch uses .5 / ubi.

    Attributes:
        floor: m, least utility aimed at, in shares of the assumed width, in [0, 1].
        exponent: E; smaller is firmer.
        spread: ε, half the width of the bids at τ = 0, in shares of the assumed width.
    """

    floor: float = 0.5
    exponent: float = 0.4
    spread: float = 0.02

    def __post_init__(self) -> None:
        require_between("floor", self.floor, 0.0, 1.0)
        require_positive("exponent", self.exponent)
        require_between("spread", self.spread, 0.0)

    @property
    def mixed_turns(self) -> bool:
        """No: the halvings of a game depend on how many turns it has."""
        return False

    def target(self, frame: Frame) -> Floats:
        # A wasted turn reads as the opponent repeating itself: all rows keep the same number of offers.
        theirs = carried(frame.received)
        best = np.fmin.reduce(theirs, axis=0, initial=np.inf)
        firmness, boulwarish, floor, exponent = self._model(frame, theirs)
        tau = np.minimum(frame.elapsed, 0.9999)
        goal = np.clip(floor + (1 - floor) * (1 - tau ** (1 / exponent)), floor, 1.0)
        noise = (2 * frame.luck[:, 0] - 1) * (3 * tau + 1) * self.spread * frame.width
        bid = frame.within((1 - goal) * frame.width + noise)
        late = boulwarish & (tau > 1 - 0.5 / np.maximum(firmness, 1))
        charge = late & (frame.reach - best > WORTH_CHARGING_FOR * frame.width)
        return frame.within(np.where(charge, best, np.minimum(bid, best)))

    def _model(self, frame: Frame, theirs: Floats) -> tuple[Ints, Bools, Floats, Floats]:
        """``(ubi, boulwarish, m, E)`` of each row."""
        firmness, boulwarish, hardliner = classify(frame, theirs)
        floor = np.where(boulwarish | hardliner, self.floor, CONCEDER_FLOOR)
        firm = np.maximum(0.01, np.minimum(0.2 * 2.0 ** (5 - firmness), self.exponent))
        yielding = min(2 * self.exponent, 1.0)
        exponent = np.where(boulwarish, firm, np.where(hardliner, self.exponent, yielding))
        return firmness, boulwarish, floor, exponent


def classify(frame: Frame, theirs: Floats) -> tuple[Ints, Bools, Bools]:
    """``(ubi, boulwarish, hardliner)`` of each row, the rest being conceders, from offers ``[n, b]`` as concessions.

    Boulwarish: ubi of 5 or more. Hardliner: else, with aui of 2 or less.
    """
    if len(theirs) < ENOUGH_OFFERS:
        nobody = np.zeros(theirs.shape[1], dtype=bool)
        return nobody.astype(np.int64), nobody, nobody
    enough = count(frame.received) >= ENOUGH_OFFERS
    firmness = np.where(enough, ubi(theirs), 0)
    boulwarish = enough & (firmness >= 5)
    return firmness, boulwarish, enough & ~boulwarish & (aui(theirs, TIE * frame.tick) <= 2)


def ubi(offers: Floats) -> Ints:
    """Unique-bid index ``[b]``: how often the later half holds more different offers than the earlier."""
    return _halvings(offers, lambda early, late: distinct(late) > distinct(early))


def aui(offers: Floats, tie: Floats) -> Ints:
    """Average-utility index ``[b]``: how often the later half is better for oneself, on average.

    ``tie``, a number or ``[b]``, is rounding error: means closer than that are equal.
    """
    return _halvings(offers, lambda early, late: mean(late) < mean(early) - tie)


def _halvings(offers: Floats, grew: Callable[[Floats, Floats], Bools]) -> Ints:
    """Split ``[n, b]`` in two, count where the halves pass ``grew``, go on with the later half, until a game fails."""
    passed, alive = np.zeros(offers.shape[1], dtype=np.int64), np.ones(offers.shape[1], dtype=bool)
    while len(offers) >= 2 and alive.any():
        half = len(offers) // 2
        alive = alive & grew(offers[:half], offers[half:])
        offers = offers[half:]
        passed += alive
    return passed
