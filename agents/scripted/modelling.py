"""Tactics that model their opponent, from what their own seat sees."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bargain_env.errors import InputError
from bargain_env.policy import Floats

from .anchors import Frame
from .behaviour import Behaviour, behaviour
from .checks import require_positive
from .components import Offering, Proposal
from .history import latest
from .opponent_model import TimeModel
from .time_dependent import Polynomial

CLOCK = Polynomial()
GAMES_AT_ONCE = 512
"""What the posterior of so many games needs, about a megabyte, stays in the processor's cache."""
STAKES = tuple((z, 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))) for z in np.arange(-1.0, 3.25, 0.25).tolist())
"""Offers to choose from, in standard deviations above what is expected to be accepted, with their chances."""


@dataclass(frozen=True, kw_only=True)
class BestReply(Offering):
    """The best response to an opponent that follows the clock, as far as its offers show how.

    Such an opponent gives most at the deadline and accepts what is as good as its own next offer. Waiting costs nothing
    (discounts are not looked at), so the game is decided on the opponent's last turn. Where that is the turn before the
    last, its offer can still be taken. Where it is the last, it must be made an offer on the turn before: of `STAKES`
    the one with the greatest expected surplus, what it accepts being normal with the posterior's mean and standard
    deviation. What that is worth is the target: a standing offer worth as much is accepted. Until then the offers are a
    growing share of that last one.

    Attributes:
        path: Faratin's beta of that share.
        model: the hypotheses.
    """

    path: float = 0.5
    model: TimeModel = field(default_factory=TimeModel)

    def __post_init__(self) -> None:
        require_positive("path", self.path)

    def target(self, frame: Frame) -> Floats:
        return self.propose(frame).target

    def propose(self, frame: Frame) -> Proposal:
        pieces = [self._propose(piece) for piece in frame.blocks(GAMES_AT_ONCE)]
        return Proposal(*(np.concatenate(column) for column in zip(*pieces, strict=True)))

    def _propose(self, frame: Frame) -> Proposal:
        turn, last = frame.view.turn, frame.view.games.max_turns
        it_ends = (last - turn) % 2 == 1
        mean, deviation = self.model.posterior(frame).offer_on(np.where(it_ends, last, last - 1))
        final, worth = _best_stake(frame, mean, np.hypot(deviation, self.model.noise * frame.width))
        final, worth = np.where(it_ends, final, mean), np.where(it_ends, worth, frame.reach - mean)
        share = np.where(turn >= last - 1, 1.0, CLOCK.clock(frame) ** (1.0 / self.path))
        target = np.where(turn >= last, frame.reach, frame.reach - worth)
        return Proposal(target, share * frame.within(final))


def _best_stake(frame: Frame, mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """``[b]`` the offer with the greatest expected surplus, and that surplus."""
    best, worth = frame.reach, frame.zero
    for z, chance in STAKES:
        offer = frame.within(mean + z * deviation)
        surplus = (frame.reach - offer) * chance
        better = surplus > worth
        best, worth = np.where(better, offer, best), np.where(better, surplus, worth)
    return best, worth


@dataclass(frozen=True, kw_only=True)
class Counter(Offering):
    """A time-dependent tactic whose firmness answers the opponent's `Behaviour`; it never takes a concession back.

    Attributes:
        betas: Faratin's beta against each `Behaviour`, in their order.
    """

    betas: tuple[float, ...] = (0.25, 0.25, 0.15, 0.2, 0.15, 1.0, 0.5)

    def __post_init__(self) -> None:
        if np.ndim(self.betas) != 1 or len(self.betas) != len(Behaviour):
            raise InputError(f"betas {self.betas} must be {len(Behaviour)} numbers, one for each behaviour")
        for beta in self.betas:
            require_positive("betas: beta", beta)

    def target(self, frame: Frame) -> Floats:
        beta = np.array(self.betas)[behaviour(frame)]
        due = frame.reach * CLOCK.clock(frame) ** (1.0 / beta)
        return np.fmax(due, frame.within(latest(frame.made)))
