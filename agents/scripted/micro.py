"""MiCRO: the smallest concession, and only in return for a new offer.

de Jonge 2022, "An Analysis of the Linear Bilateral ANAC Domains Using the MiCRO Benchmark Strategy", IJCAI, pages
223-229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Bools, Floats, Ints

from .anchors import TIE, Decision, Frame, Scripted, require_positive
from .history import count, distinct


@dataclass(kw_only=True, eq=False)
class Micro(Scripted):
    """Take the next step on a grid when it has made no more different offers than it has received; else repeat one.

    The grid is S, S + step, … up to R (in concessions). A repeat is drawn evenly from its own past offers. It accepts
    what is as good as the offer it would concede, or, when repeating, as the worst it has made. It knows no deadline,
    so a fine grid seldom agrees in 20 turns.

    Not reproduced: both published grids were anchored at their low end, rounded to whole units, so the seller opened up
    to one step inside R + 500. Here each is anchored at its own S: seats are mirror images, and openings are exactly S.

    Attributes:
        step: currency units, rounded up to whole ticks.
    """

    step: float = 25.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("step", self.step)

    def decide(self, frame: Frame) -> Decision:
        own = frame.view.own_offers
        made = distinct(own)
        target, concedes = self._next(frame, made)
        past = frame.concession(own)
        worst_made = np.fmax.reduce(past, axis=1, initial=-np.inf)
        offer = np.where(concedes, target, _repeat(frame, past))
        return Decision(offer=offer, worst=np.where(concedes, target, worst_made))

    def _next(self, frame: Frame, made: Ints) -> tuple[Floats, Bools]:
        """The next grid point of each row and whether it is due."""
        tick = frame.view.games.tick
        step = np.ceil(self.step / tick - TIE) * tick
        target = made * step
        due = (made <= distinct(frame.view.opponent_offers)) & (target <= frame.reach + TIE * tick)
        return target, due


def _repeat(frame: Frame, past: Floats) -> Floats:
    """One of the past offers of each row, evenly; NaN where there is none."""
    if past.shape[1] == 0:
        return np.full(len(past), np.nan)
    pick = np.floor(frame.uniform()[:, 0] * count(past)).astype(np.intp)
    return np.take_along_axis(np.sort(past, axis=1), pick[:, None], axis=1)[:, 0]
