"""Strategies without a plan: random offers, and giving in at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anchors import Decision, Frame, Scripted


@dataclass(kw_only=True, eq=False)
class RandomZopa(Scripted):
    """Offer evenly between S and R; on each turn accept, with a fixed chance, any standing offer no worse than R.

    Not reproduced: the published strategy needed both reservations, was never given them and silently played
    ``linear_standard``. This one knows only its own seat. It makes varied training data; tournaments leave it out.

    Attributes:
        acceptance: chance of accepting.
    """

    acceptance: float = 0.3

    def decide(self, frame: Frame) -> Decision:
        u = frame.uniform(2)
        return Decision(offer=u[:, 0] * frame.reach, worst=np.where(u[:, 1] < self.acceptance, frame.reach, -np.inf))


@dataclass(kw_only=True, eq=False)
class NaiveConcession(Scripted):
    """Offer about ``margin`` short of R, shaken by ``U(-jitter, jitter)``; accept anything up to R; as published.

    Attributes:
        margin: currency units.
        jitter: currency units.
    """

    margin: float = 25.0
    jitter: float = 15.0

    def decide(self, frame: Frame) -> Decision:
        noise = self.jitter * (2.0 * frame.uniform()[:, 0] - 1.0)
        return Decision(offer=frame.reach - self.margin + noise, worst=frame.reach)
