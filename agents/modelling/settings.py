"""How a player models its opponent."""

from __future__ import annotations

from dataclasses import dataclass

from bargain_env.errors import InputError


@dataclass(frozen=True, slots=True)
class ModellingSettings:
    """Options of `agents.modelling.agent.ModellingAgent`.

    Attributes:
        personas: adapters that are loaded at most; each is one row more for every offer that is seen.
        threshold: posterior of the likeliest persona below which nobody is recognised, and plain Janus plays; above 1 it
            always does.
        known: the same of the posterior that it is some persona, whichever; 0.5 before anything is seen.
        temperature: by which log-likelihoods are divided: above 1 where the posterior is too sure of itself.
        handicap: nats an offer that the hypothesis that nobody fits is put behind: an adapter that has read all games
            predicts better than one that has read one persona's.
        trust: chance that an opponent goes on for one more round as it is predicted to: what waiting is worth is multiplied
            by it once a round.
        horizon: decisions of the opponent that are predicted ahead.

    Raises:
        InputError: a value is out of its range.
    """

    personas: int = 8
    threshold: float = 0.0
    known: float = 0.5
    temperature: float = 1.0
    handicap: float = 0.0
    trust: float = 1.0
    horizon: int = 10

    def __post_init__(self) -> None:
        for name in ("personas", "horizon"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.threshold <= 2.0:
            raise InputError(f"threshold {self.threshold:g} must lie in [0, 2]; above 1 nobody is ever recognised")
        if not 0.0 <= self.known <= 1.0:
            raise InputError(f"known {self.known:g} must lie in [0, 1]")
        if not 0.0 < self.temperature <= 1e6:
            raise InputError(f"temperature {self.temperature:g} must be above 0 and finite")
        if not 0.0 <= self.handicap <= 1e6:
            raise InputError(f"handicap {self.handicap:g} must be 0 or more, and finite")
        if not 0.0 < self.trust <= 1.0:
            raise InputError(f"trust {self.trust:g} must lie in (0, 1]")
