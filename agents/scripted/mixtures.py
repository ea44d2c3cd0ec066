"""Mixtures of tactics.

Faratin et al. 1998 mix by weighted sums. With an imitative tactic among them such offers may retreat although every
tactic by itself only concedes, because the imitator starts from the mixture's last offer, not from its own. J. Richter,
M. Klusch, R. Kowalczyk, "Monotonic mixing of decision strategies for agent-based bargaining", MATES 2011, pp. 113-124,
mix the tactics' single concessions instead, which never retreats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.errors import InputError
from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_between
from .components import Offering
from .history import latest, total


@dataclass(frozen=True, kw_only=True)
class Weighted(Offering):
    """``Σ weight · offer``; known not to be monotone.

    Attributes:
        tactics: what is mixed.
        weights: as many, none negative, of sum 1.
    """

    tactics: tuple[Offering, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tactics) != len(self.weights) or not self.tactics:
            raise InputError(f"{len(self.weights)} weights for {len(self.tactics)} tactics; give one for each")
        for weight in self.weights:
            require_between("weight", weight, 0.0, 1.0)
        if abs(sum(self.weights) - 1.0) > 1e-9:
            raise InputError(f"weights {self.weights} must be 0 or more and have the sum 1")

    @property
    def mixed_turns(self) -> bool:
        return all(tactic.mixed_turns for tactic in self.tactics)

    def target(self, frame: Frame) -> Floats:
        pairs = zip(self.weights, self.tactics, strict=True)
        return total(np.stack([weight * frame.within(tactic.propose(frame).offer) for weight, tactic in pairs]))


@dataclass(frozen=True, kw_only=True)
class SingleConcession(Weighted):
    """``last offer + Σ weight · step``, a step being what a tactic would concede next, never less than 0.

    Tactics that follow the clock step as their own curve rises, the others from the last offer. The first offer is the
    weighted sum.
    """

    def target(self, frame: Frame) -> Floats:
        last = latest(frame.made)
        pairs = zip(self.weights, self.tactics, strict=True)
        steps = [weight * np.maximum(tactic.advance(frame, last), 0.0) for weight, tactic in pairs]
        further = frame.within(last + total(np.stack(steps)))
        opening = np.isnan(last)
        return np.where(opening, super().target(frame), further) if opening.any() else further
