"""MiCRO: the smallest concession, and only in return for a new offer.

D. de Jonge, "An Analysis of the Linear Bilateral ANAC Domains Using the MiCRO Benchmark Strategy", IJCAI 2022, pages
223-229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.policy import Bools, Floats

from .anchors import TIE, Frame
from .checks import require_positive
from .components import Offering, Proposal
from .history import count, distinct


@dataclass(frozen=True, kw_only=True)
class Micro(Offering):
    """Take the next step on a grid when it has made no more different offers than it has received; else repeat one.

    The grid is S, S + step, … up to R (in concessions). A repeat is drawn evenly from its own past offers. Its target is
    the offer that it would concede, or, when repeating, the worst that it has made: with AC_asp it accepts what is as
    good as that, which is the published rule. It knows no deadline, so a fine grid seldom agrees in 20 turns.

    Not reproduced: both published grids were anchored at their low end, rounded to whole units, so the seller opened up
    to one step inside R + 500. Here each is anchored at its own S, rounded to the tick as an opening at S is: seats are
    mirror images, openings are exactly S, and no two points of a grid are rounded into one.

    Attributes:
        step: currency units, rounded up to whole ticks.
    """

    step: float = 25.0

    def __post_init__(self) -> None:
        require_positive("step", self.step)

    def target(self, frame: Frame) -> Floats:
        return np.where(*self._plan(frame))

    def propose(self, frame: Frame) -> Proposal:
        concedes, following, worst = self._plan(frame)
        offer = following.copy()
        rows = np.flatnonzero(~concedes)
        if len(rows):
            offer[rows] = _one_of(frame.made[:, rows], frame.luck_of(rows))
        return Proposal(np.where(concedes, following, worst), offer)

    def _plan(self, frame: Frame) -> tuple[Bools, Floats, Floats]:
        """Where it concedes, the next point of its grid, and the worst offer that it has made."""
        step = np.ceil(self.step / frame.tick - TIE) * frame.tick
        so_far = distinct(frame.made)
        following = frame.opening + so_far * step
        due = (so_far <= distinct(frame.received)) & (following <= frame.reach + TIE * frame.tick)
        return due, following, np.fmax.reduce(frame.made, axis=0, initial=-np.inf)


def _one_of(past: Floats, luck: Floats) -> Floats:
    """One of the past offers ``[n, b]`` of each game, evenly; NaN where there is none."""
    if not len(past):
        return np.full(past.shape[1], np.nan)
    pick = np.floor(luck * count(past)).astype(np.intp)
    return np.sort(past, axis=0)[pick, np.arange(past.shape[1])]
