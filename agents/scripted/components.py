"""What strategies are composed of: an offering tactic and an acceptance condition.

The tactic says what to give on this turn, the condition which standing offers to take. Both are pure functions of the
`Frame`, so they keep no memory and any tactic goes with any condition. The split is that of T. Baarslag et al.,
"Decoupling Negotiating Agents to Explore the Space of Negotiation Strategies", 2014.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bargain_env.errors import InputError
from bargain_env.policy import Floats

from .anchors import Decision, Frame, Scripted


class Proposal(NamedTuple):
    """What a tactic would do now, in concessions; both are ``[b]``.

    Attributes:
        target: what it is ready to give by now: its aspiration.
        offer: what it offers: the target, unless the tactic adds noise to it or repeats an earlier offer.
    """

    target: Floats
    offer: Floats


class Offering(ABC):
    """An offering tactic. One that offers exactly its target defines that alone."""

    @property
    def mixed_turns(self) -> bool:
        """See `bargain_env.Policy`."""
        return True

    @abstractmethod
    def target(self, frame: Frame) -> Floats:
        """``[b]`` what it is ready to give."""

    def propose(self, frame: Frame) -> Proposal:
        """The target and the offer."""
        target = self.target(frame)
        return Proposal(target, target)

    def advance(self, frame: Frame, last: Floats) -> Floats:
        """``[b]`` what it would give beyond ``last``, its seat's last offer; negative where it would retreat."""
        return self.propose(frame).offer - last


class Acceptance(ABC):
    """An acceptance condition; ``a | b`` accepts what either does, ``a & b`` what both do."""

    @property
    def rule(self) -> str:
        """When it accepts, in words."""
        return _rule(type(self))

    @abstractmethod
    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        """``[b]`` the worst concession that it accepts, ``-inf`` for none; what is worse than R is refused anyway."""

    def __or__(self, other: Acceptance) -> Acceptance:
        return _Both(self, other, "or", np.maximum)

    def __and__(self, other: Acceptance) -> Acceptance:
        return _Both(self, other, "and", np.minimum)


@dataclass(frozen=True, repr=False)
class _Both(Acceptance):
    """Two conditions: thresholds are numbers, so "or" is the worse of the two and "and" the better."""

    first: Acceptance
    second: Acceptance
    word: str
    choose: Callable[[Floats, Floats], Floats]

    @property
    def rule(self) -> str:
        return f"{self.first.rule} {self.word.capitalize()}: {self.second.rule}"

    def __repr__(self) -> str:
        return f"{self.first!r} {self.word} {self.second!r}"

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return self.choose(self.first.worst(frame, proposal), self.second.worst(frame, proposal))


@dataclass(frozen=True)
class AcAsp(Acceptance):
    """At least as good as the tactic's target on this turn, which its own offer may miss (noise, repeats)."""

    def worst(self, frame: Frame, proposal: Proposal) -> Floats:
        return proposal.target


@dataclass(kw_only=True, eq=False)
class Composed(Scripted):
    """A strategy made of an offering tactic and an acceptance condition.

    Attributes:
        offering: the tactic.
        acceptance: the condition.
    """

    offering: Offering
    acceptance: Acceptance = AcAsp()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.offering, Offering):
            raise InputError(f"offering {self.offering!r} must be an offering tactic, for example Polynomial(beta=0.5)")
        if not isinstance(self.acceptance, Acceptance):
            raise InputError(
                f"acceptance {self.acceptance!r} must be an acceptance condition, for example AcConst(0.5) of "
                "agents.scripted.acceptance"
            )

    @property
    def mixed_turns(self) -> bool:
        return self.offering.mixed_turns

    def decide(self, frame: Frame) -> Decision:
        proposal = self.offering.propose(frame)
        return Decision(proposal.offer, self.acceptance.worst(frame, proposal))


def composed(tactic: Callable[..., Offering], acceptance: Acceptance = AcAsp()) -> Callable[..., Composed]:
    """A factory for the registry: ``tactic`` makes the offering half of the parameters; its docstring is the rule.

    What it makes accepts by ``acceptance``, unless it is given another.
    """
    usual = acceptance

    def build(*, assumed_zopa_width: float | None = None, acceptance: Acceptance = usual, **params: Any) -> Composed:
        return Composed(offering=tactic(**params), acceptance=acceptance, assumed_zopa_width=assumed_zopa_width)

    build.__doc__ = f"{_rule(tactic)}\n\nIt accepts by {usual!r}: {usual.rule}"
    return build


def _rule(described: Any) -> str:
    """A docstring, without its list of attributes or arguments."""
    while isinstance(described, partial):
        described = described.func
    return re.split(r"\n\n(?:Attributes|Args):\n", inspect.getdoc(described) or "")[0]
