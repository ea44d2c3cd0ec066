"""Janus as an adviser: tell it where a negotiation stands, and it says what it would do, and why.

Load it once and ask as often as you like; five lines in a REPL:

>>> from agents import Janus
>>> janus = Janus.load("janus-nano")
>>> table = {"seat": "buyer", "reservation": 900, "price_low": 200, "price_high": 1500, "max_turns": 20}
>>> decision = janus.decide({**table, "offers": [("buyer", 450), ("seller", 1150)]}, rho=0.3)
>>> print(decision.explain())  # doctest: +SKIP

``decision`` itself prints as one line and has ``action``, ``price`` and ``accept_probability``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, overload

import numpy as np

from bargain_env.errors import InputError
from bargain_env.policy import Floats, SeatView
from hyperlora.checkpoint import Precision
from hyperlora.decode import PriceDistribution
from hyperlora.prompt import Axis
from hyperlora.tokens import encode

from .janus import Answers, JanusAgent, check_rho
from .janus_distribution import OfferPrices
from .janus_explain import Explanation, gate_summaries, rho_text
from .janus_models import MODEL_LOCK, clear_models
from .situations import Situation, situation_of, view_of


@dataclass(frozen=True, slots=True, kw_only=True)
class JanusDecision:
    """What Janus does in one situation. Prices are in currency units.

    Attributes:
        action: ``ACCEPT`` or ``OFFER``.
        price: what it offers, or the standing offer that it accepts.
        accept_probability: P(ACCEPT) by the model; 0 where nothing stands, None in mode ``free``.
        raw_action: what the model itself decided, before the guard: ``ACCEPT``, ``OFFER``, or ``NONE`` where it gave no
            answer that the game knows (mode ``free``).
        raw_price: its price, as ``price``; None with ``NONE``.
        guarded: the guard replaced that by ``action`` and ``price``.
        fallback: it gave no answer, and its reservation is offered.
        seat: ``buyer`` or ``seller``.
        turn: the turn decided on.
        max_turns: of the game.
        rho: requested settlement.
        internal_rho: what the dial was set to for it: the same, but for an adapter with a calibrated dial.
        prompt: what the model read.
        written: what it wrote in mode ``free``, else empty.
    """

    action: str
    price: float
    accept_probability: float | None
    raw_action: str
    raw_price: float | None
    guarded: bool
    fallback: bool
    seat: str
    turn: int
    max_turns: int
    rho: float
    internal_rho: float
    prompt: str = field(repr=False)
    written: str
    _janus: Janus = field(repr=False, compare=False)
    _axis: Axis = field(repr=False, compare=False)
    _may_accept: bool = field(repr=False, compare=False)

    def prices(self) -> OfferPrices:
        """The distribution of the offer that the model would make if it did not accept; costs a few forward passes."""
        return OfferPrices.of(self._distribution(), self._axis)

    def explain(self) -> Explanation:
        """The price distribution, the gates and the prompt behind the decision; at the cost of `prices`.

        It is computed when asked for, from the model as it is then. In every mode P(ACCEPT) and the prices are those among
        the legal answers.
        """
        found = self._distribution()
        return Explanation(
            decision=str(self),
            rho=self.rho,
            internal_rho=self.internal_rho,
            accept_probability=found.accept_probability,
            prices=OfferPrices.of(found, self._axis),
            gates=self._janus._gates(self.internal_rho),
            prompt=self.prompt,
        )

    def _distribution(self) -> PriceDistribution:
        return self._janus._distribution(self.prompt, self.internal_rho, self._may_accept)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = [name for name in self.__dataclass_fields__ if not name.startswith("_")]
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        chance = "" if self.accept_probability is None else f"; P(ACCEPT) {self.accept_probability:.3f}"
        asked = rho_text(self.rho, self.internal_rho)
        said = f"{self.action} {self.price:.2f}  ({self.seat}, turn {self.turn} of {self.max_turns}, {asked}{chance})"
        if self.fallback:
            return f"{said}; the model gave no answer: its reservation is offered"
        if self.guarded:
            return f"{said}; the guard replaced {self.raw_action} {self.raw_price:.2f}"
        return said


class Janus:
    """A loaded Janus that answers one situation at a time, or many as a batch.

    It keeps nothing between calls, so one object serves both seats of any number of negotiations. Threads may share it:
    their calls take turns (see `agents.janus_models`), and a list of situations is decided faster than as many calls.

    Args:
        agent: plays; its own ρ is not used.
    """

    def __init__(self, agent: JanusAgent) -> None:
        self.agent = agent

    @classmethod
    def load(
        cls,
        adapter: str | Path = "janus-nano",
        base: str | None = None,
        precision: Precision = "trained",
        *,
        decode: str = "median",
        guard: str = "monotone",
        base_only: bool = False,
        allow_base_mismatch: bool = False,
        device: str = "cpu",
        raw_dial: bool = False,
        scenario: str | None = None,
    ) -> Janus:
        """Load an adapter on its base, or find it loaded; see `agents.JanusAgent` for the arguments.

        Raises:
            InputError: as `agents.JanusAgent`.
        """
        agent = JanusAgent(
            adapter,
            decode=decode,
            guard=guard,
            base_only=base_only,
            base=base,
            allow_base_mismatch=allow_base_mismatch,
            precision=precision,
            device=device,
            raw_dial=raw_dial,
            scenario=scenario,
        )
        return cls(agent)

    @staticmethod
    def clear() -> int:
        """Forget the models that were loaded, and say how many; the memory is free once no `Janus` holds one."""
        return clear_models()

    @overload
    def decide(self, observation: list[Any] | SeatView, rho: float | Sequence[float]) -> list[JanusDecision]: ...

    @overload
    def decide(self, observation: list[Any] | SeatView) -> list[JanusDecision]: ...

    @overload
    def decide(self, observation: Any, rho: float = 0.7) -> JanusDecision: ...

    def decide(self, observation: Any, rho: Any = 0.7) -> Any:
        """Decide.

        Args:
            observation: a `Situation`, a dict of its fields, or an environment's observation in a dict, see
                `agents.situations.situation_of`; a list of these; or a `SeatView` of b games, as policies are shown.
            rho: requested settlement, in [0, 1] or -1 (impasse): 0 is the seller's limit, 1 the buyer's. One for all, or
                one for each.

        Returns:
            One decision, or a list for a list and for a `SeatView`. A batch decides what its situations decide alone, but
            for the last bits of floats, which decisions are rounded against.

        Raises:
            InputError: a situation is incomplete or impossible, with its position in the list and the field; or ρ is out
                of range or not one for each.
        """
        if isinstance(observation, SeatView):
            return self._decide([observation], [self._requests(rho, len(observation))])[0] if len(observation) else []
        if not isinstance(observation, list | tuple) or _is_vector(observation):
            return self._situations([self._read(observation)], self._requests(rho, 1))[0]
        situations = [self._read(one, i) for i, one in enumerate(observation)]
        return self._situations(situations, self._requests(rho, len(situations)))

    def _read(self, observation: Any, position: int | None = None) -> Situation:
        try:
            return situation_of(observation, self.agent.k_history)
        except InputError as error:
            raise error if position is None else InputError(f"situation {position}: {error}") from None

    @staticmethod
    def _requests(rho: Any, n: int) -> Floats:
        requests = check_rho(rho)
        if requests.ndim and requests.shape != (n,):
            raise InputError(f"{requests.size} values of rho for {n} situations; give one, or one for each")
        return np.broadcast_to(requests, n)

    def _situations(self, situations: list[Situation], rho: Floats) -> list[JanusDecision]:
        """Both seats' in one batch, in the order given."""
        seats = [[i for i, s in enumerate(situations) if s.mover == seat] for seat in {s.mover for s in situations}]
        seats.sort()
        found = self._decide([view_of([situations[i] for i in some]) for some in seats], [rho[some] for some in seats])
        placed = {i: one for some, ones in zip(seats, found, strict=True) for i, one in zip(some, ones, strict=True)}
        return [placed[i] for i in range(len(situations))]

    def _decide(self, views: list[SeatView], rhos: list[Floats]) -> list[list[JanusDecision]]:
        if not views:
            return []
        internal = [self.agent.internal(view.games.seat, rho) for view, rho in zip(views, rhos, strict=True)]
        texts = [self.agent.prompts(view, rho) for view, rho in zip(views, internal, strict=True)]
        answers = self.agent.answer(views, internal, texts)
        return [
            [self._decision(view, answer, i, (float(rho[i]), float(dial[i])), prompts[i]) for i in range(len(view))]
            for view, answer, rho, dial, prompts in zip(views, answers, rhos, internal, texts, strict=True)
        ]

    def _decision(
        self, view: SeatView, answer: Answers, row: int, rho: tuple[float, float], prompt: str
    ) -> JanusDecision:
        games, moves, raw = view.games, answer.moves, answer.moves.raw
        assert raw is not None  # what a Janus tells
        standing, fallback = float(view.standing[row]), bool(raw.fallback[row])
        accepts, accepted_raw = bool(moves.accept[row]), bool(raw.accept[row])
        probability = float(answer.accept_probability[row])
        return JanusDecision(
            action="ACCEPT" if accepts else "OFFER",
            price=standing if accepts else float(moves.price[row]),
            accept_probability=None if np.isnan(probability) else probability,
            raw_action="NONE" if fallback else "ACCEPT" if accepted_raw else "OFFER",
            raw_price=None if fallback else standing if accepted_raw else float(raw.price[row]),
            guarded=bool(moves.guarded[row]),
            fallback=fallback,
            seat=games.seat.label,
            turn=int(np.broadcast_to(view.turn, len(view))[row]),
            max_turns=int(games.max_turns[row]),
            rho=rho[0],
            internal_rho=rho[1],
            prompt=prompt,
            written=answer.written[row],
            _janus=self,
            _axis=self.agent.axis(games).row(row),
            _may_accept=not np.isnan(standing),
        )

    def _distribution(self, prompt: str, rho: float, may_accept: bool) -> PriceDistribution:
        agent = self.agent
        ids = encode(agent.adapter.tokenizer, [prompt])
        bound = None if agent.base_only else np.array([rho])
        with MODEL_LOCK:
            return agent.scorer.distribution(ids, bound, np.array([may_accept]))[0]

    def _gates(self, rho: float) -> list[Any]:
        return [] if self.agent.base_only else gate_summaries(self.agent.adapter.model, rho)


def _is_vector(observation: Sequence[Any]) -> bool:
    """Whether it is an environment's bare numbers rather than a list of situations."""
    return len(observation) > 0 and all(isinstance(one, Real) for one in observation)
