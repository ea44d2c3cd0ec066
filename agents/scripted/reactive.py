"""Strategies that answer the other side's offers: imitation and splitting the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import Decision, Frame, Scripted
from .history import carried, latest


@dataclass(kw_only=True, eq=False)
class TitForTat(Scripted):
    """Open at S, then concede as much as the opponent did on its last turn; accept what is as good as that.

    Absolute tit-for-tat with lag 1 (Faratin et al. 1998, behaviour-dependent tactics). A wasted turn concedes nothing.

    Not reproduced: the published rule answered the absolute difference of the last two offers, so an opponent that
    retreated was rewarded as well. Nothing changes against an opponent that never retreats.
    """

    def decide(self, frame: Frame) -> Decision:
        own = latest(frame.concession(frame.view.own_offers))
        theirs = carried(frame.concession(frame.view.opponent_offers))
        given = theirs[:, -2] - theirs[:, -1] if theirs.shape[1] >= 2 else frame.zero
        target = np.where(np.isnan(own), 0.0, own + np.fmax(given, 0.0))
        target = np.minimum(target, frame.reach)
        return Decision(offer=target, worst=target)


@dataclass(kw_only=True, eq=False)
class SplitDifference(Scripted):
    """Offer the middle between its own last offer (S before the first) and the standing offer; accept at or past it.

    As published it accepts only what is at its own last offer or better, and an absurd standing offer drags it to R in
    one move. With no standing offer it repeats itself.
    """

    def decide(self, frame: Frame) -> Decision:
        own = latest(frame.concession(frame.view.own_offers))
        anchor = np.where(np.isnan(own), 0.0, own)
        middle = (anchor + frame.standing) / 2
        target = np.clip(np.where(np.isnan(middle), anchor, middle), 0.0, frame.reach)
        return Decision(offer=target, worst=target)
