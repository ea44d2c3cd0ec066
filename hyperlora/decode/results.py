"""What a scorer answers, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What the model answers to B prompts.

    Attributes:
        accept_probability: ``[B]`` P(ACCEPT) among the legal answers; 0 where accepting is not legal. NaN in mode ``free``.
        price: ``[B]`` normalised price of the offer it would make if it does not accept; NaN where none was computed, see
            `Scorer.decide`, and where ``fallback`` is set.
        covered: ``[B]`` share of the offer mass whose price was resolved to the last level asked for; the rest counts at
            the middle of its interval (``mean`` only, else 1).
        accept: ``[B]`` the decision.
        log_accept: ``[B]`` log P(ACCEPT) among the legal answers; -∞ where accepting is not legal. NaN in mode ``free``.
        log_offer: ``[B]`` log P(OFFER), likewise; 0 where accepting is not legal.
        fallback: ``[B]`` the answer is none: mode ``free`` only, where the text held neither form, or ACCEPT with nothing
            to accept. The caller plays its fallback.
        text: what was written in mode ``free``; empty otherwise.
    """

    accept_probability: Floats
    price: Floats
    covered: Floats
    accept: Bools
    log_accept: Floats = None  # type: ignore[assignment]
    log_offer: Floats = None  # type: ignore[assignment]
    fallback: Bools = None  # type: ignore[assignment]
    text: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in what was left out: the logarithms, and no fallback."""
        with np.errstate(divide="ignore"):
            for name, filled in (
                ("log_accept", np.log(self.accept_probability)),
                ("log_offer", np.log1p(-self.accept_probability)),
                ("fallback", np.zeros(len(self.accept), dtype=bool)),
            ):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, filled)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Any, ...]]) -> Decisions:
        """From one tuple a prompt, fields in order."""
        *columns, text = list(zip(*rows, strict=True)) or [()] * 8
        kinds: tuple[type, ...] = (float, float, float, bool, float, float, bool)
        arrays: dict[str, Any] = dict(zip(cls.__slots__, map(np.array, columns, kinds), strict=False))
        return cls(**arrays, text=text)


@dataclass(frozen=True, slots=True, eq=False)
class PriceDistribution:
    """The price of an offer: n intervals of the grid, cheapest first, none overlapping.

    Attributes:
        price: ``[n]`` middle of each, normalised.
        probability: ``[n]`` of each, given OFFER; they sum to 1.
        width: ``[n]`` highest less lowest price of each; 0 where it is a single price.
        covered: share of the mass that was resolved to the last level asked for.
        accept_probability: P(ACCEPT) among the legal answers.
    """

    price: Floats
    probability: Floats
    width: Floats
    covered: float
    accept_probability: float

    @property
    def mean(self) -> float:
        """E[price | OFFER]."""
        return float(self.price @ self.probability)

    def quantile(self, q: float) -> float:
        """The lowest of the prices whose cumulative probability reaches ``q``."""
        at = int(np.searchsorted(np.cumsum(self.probability), q * self.probability.sum()))
        return float(self.price[min(at, len(self.price) - 1)])


@dataclass(slots=True)
class DecodeStats:
    """What decisions have cost so far.

    Attributes:
        decisions: made.
        repeated: of them, answered by another row of the same call with the same prompt and ρ.
        prompt_tokens: of all prompts asked.
        fed_prompt_tokens: of them, fed to the model: not those of repeated prompts, shared or kept beginnings.
        answer_tokens: fed: forced runs and candidates, or what was written in mode ``free``.
        passes: forward passes.
        waits: forward passes that each decision had to wait for, in all.
        seconds: spent in deciding.
    """

    decisions: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    fed_prompt_tokens: int = 0
    answer_tokens: int = 0
    passes: int = 0
    waits: int = 0
    seconds: float = 0.0

    def per_decision(self) -> dict[str, float]:
        """Prompt tokens, fed prompt tokens, answer tokens, passes waited for, and seconds; of no decision, nothing."""
        names = ("prompt_tokens", "fed_prompt_tokens", "answer_tokens", "waits", "seconds")
        figures = asdict(self)
        return {name: figures[name] / self.decisions for name in names} if self.decisions else {}
