"""Tactics without a plan: offers at random, and near one's reservation at once."""

from __future__ import annotations

from dataclasses import dataclass

from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_between
from .components import Offering


@dataclass(frozen=True, kw_only=True)
class Anywhere(Offering):
    """Offer evenly between S and R."""

    def target(self, frame: Frame) -> Floats:
        return frame.luck[:, 0] * frame.reach


@dataclass(frozen=True, kw_only=True)
class NearLimit(Offering):
    """Offer about ``margin`` short of R, shaken by ``U(-jitter, jitter)``; as published.

    Attributes:
        margin: currency units, 0 or more.
        jitter: currency units, 0 or more.
    """

    margin: float = 25.0
    jitter: float = 15.0

    def __post_init__(self) -> None:
        require_between("margin", self.margin, 0.0)
        require_between("jitter", self.jitter, 0.0)

    def target(self, frame: Frame) -> Floats:
        noise = self.jitter * (2.0 * frame.luck[:, 0] - 1.0)
        return frame.reach - self.margin + noise
