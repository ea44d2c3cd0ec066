"""Janus: a language model at the table, whose posture is ρ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bargain_env.core import Seat
from bargain_env.errors import InputError, unknown
from bargain_env.policy import Floats, Moves, SeatGames, SeatView
from bargain_env.scenarios import preset
from hyperlora.checkpoint import Adapter, Precision
from hyperlora.decode import Decisions, Mode, PrefixCache, Scorer
from hyperlora.decode.scorer import UNIFORMS
from hyperlora.dial import Dial
from hyperlora.prompt import K_HISTORY, STATIC_FIRST, Axis
from hyperlora.tokens import encode

from . import janus_prompts
from .guards import beyond_limit, check_guard, guarded, playable
from .janus_models import MODEL_LOCK, at_mean_gates, shared_adapter

CHANNELS = ("both", "text", "gates")
"""Ways in which ρ reaches the model: its prompt, its gates, or both, as it is trained."""
TEXT_RHO = 0.5
"""What the prompt says where ρ goes through the gates alone: an even split, which favours neither seat."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What Janus answers to the b decisions of a `SeatView`.

    Attributes:
        moves: to be played; its ``raw`` are the model's own.
        accept_probability: ``[b]`` P(ACCEPT) among the legal answers; NaN in mode ``free``.
        written: ``[b]`` what the model wrote in mode ``free``, else empty.
    """

    moves: Moves
    accept_probability: Floats
    written: list[str]


class JanusAgent:
    """A `bargain_env.Policy` played by an LLM with a HyperLoRA.

    One number, ρ, goes three ways and cannot diverge: into the prompt's ``<RHO>`` text, into its ``<SUCCESS>`` flag, and
    as a tensor into every gate (seed report, section 8.3). Where the adapter has a calibrated dial, that number is the
    internal ρ that its map gives for the request and the seat (`hyperlora.dial`).

    Answers are decoded among the two legal forms only; in mode ``free``, an answer of neither form is replaced by an offer
    of the reservation, and counted as a fallback.

    Decisions are quantised to 1e-4 of the price range and then to the game's tick. The model's floats depend on batch
    shape and number of threads in their last bits, so games are reproducible for the same batches and threads.

    Args:
        adapter: ``janus-nano`` (shipped), a folder, or an adapter already loaded. Named ones are loaded once a process, see
            `agents.janus_models`.
        rho: requested settlement, one for all games or ``[B]`` one a game; in [0, 1], or -1 (impasse).
        decode: ``median``, ``mean``, ``quantile:0.3``, ``greedy``, ``sample``, ``sample:0.7`` or ``free``, see
            `hyperlora.decode.modes.Mode`. What is drawn is a pure function of the game's seed and id, the seat and the turn.
        guard: ``ir`` never accepts or offers what is worse than the reservation, ``monotone`` nor takes an offer back,
            ``none`` lets both happen; see `agents.guards`. Moves carry what the model itself had decided.
        batch_size: prompts a forward pass.
        base_only: leave the adapter off: the ρ-blind base model.
        base: base model to load the adapter on, if not the one its config names.
        allow_base_mismatch: load it on a base that it was not trained on.
        precision: of the base: ``trained``, ``dense`` or ``nf4``; see `hyperlora.load_hyperlora_adapter`.
        device: where to put the model.
        channel: which ways ρ goes, for ablations: ``both``; ``text``, through gates frozen at their mean over ρ in [0, 1];
            or ``gates``, with `TEXT_RHO` in every prompt. An adapter trained with one ρ in all its prompts
            (``experiments.train --text-rho``) is always shown that one.
        compute: precision of decisions: ``auto`` is bf16 for large models where that is faster; ``own`` (that of the base's
            weights), ``fp32`` or ``bf16``; see `hyperlora.decode.precision.in_precision`.
        raw_dial: set the dial to what is asked for, whatever map the adapter has. The base alone has none.
        scenario: preset that the games are of, for a dial with a map of it; None where that is not known.
        reuse: keep keys and values of a batch of games from turn to turn, which pays where prompts begin as those of earlier
            turns (prompt format 3); None for where they do. Nothing is kept from one `reset` to the next.

    Attributes:
        text_rho: what every prompt says; None where it says the internal ρ.
        dial: the map from requested to internal ρ; None where they are the same.
        scenario: as given.

    Raises:
        InputError: ρ out of range, unknown mode, guard, channel or preset, an adapter that cannot be loaded, or its dial is
            none.
    """

    mixed_turns = True

    def __init__(
        self,
        adapter: str | Path | Adapter = "janus-nano",
        rho: float | Floats = 0.5,
        decode: str = "median",
        guard: str = "monotone",
        batch_size: int = 256,
        base_only: bool = False,
        base: str | None = None,
        *,
        allow_base_mismatch: bool = False,
        precision: Precision = "trained",
        device: str = "cpu",
        channel: str = "both",
        compute: str = "auto",
        raw_dial: bool = False,
        scenario: str | None = None,
        reuse: bool | None = None,
    ) -> None:
        self.guard, self.rho, mode = check_guard(guard), check_rho(rho), Mode.parse(decode)
        if channel not in CHANNELS:
            raise unknown("channel", channel, CHANNELS)
        if not isinstance(adapter, Adapter):
            adapter = shared_adapter(
                adapter,
                base,
                allow_base_mismatch=allow_base_mismatch,
                precision=precision,
                device=device,
                frozen_gates=channel == "text",
            )
        elif channel == "text":
            adapter = at_mean_gates(adapter)
        self.name = "base" if base_only else "janus"
        self.adapter, self.base_only, self.channel = adapter, base_only, channel
        trained: float | None = adapter.config.get("run", {}).get("text_rho")
        self.text_rho = TEXT_RHO if trained is None and channel == "gates" else trained
        if scenario is not None:
            preset(scenario)  # who mistypes it would play by another map
        self.scenario = scenario
        self.dial = None if raw_dial or base_only else Dial.from_config(adapter.config)
        self.k_history = int(adapter.config.get("k_history", K_HISTORY))
        self._format = int(adapter.config.get("prompt_format", 2))
        self._reuse = self._format == STATIC_FIRST if reuse is None else reuse
        self.scorer = Scorer(
            adapter.model, adapter.tokenizer, mode, batch_size, precision=compute, prefixes=self._fresh_prefixes()
        )
        self._draws = mode.draws
        self._rho = np.zeros(0)

    def reset(self, games: SeatGames) -> None:
        """Start B games.

        Raises:
            ValueError: neither one ρ nor one a game was given.
        """
        if self.rho.ndim and len(self.rho) != len(games):
            raise ValueError(f"{len(self.rho)} values of rho for {len(games)} games; give one, or one a game")
        self._rho = self.internal(games.seat, np.broadcast_to(self.rho, len(games)).astype(np.float64))
        self.scorer.prefixes = self._fresh_prefixes()  # decisions must not depend on what was played before

    def internal(self, seat: Seat, rho: Floats) -> Floats:
        """What the dial is set to at ``seat`` for each request; `prompts` and `answer` take this."""
        return rho if self.dial is None else self.dial.of(seat, self.scenario)(rho)

    def _fresh_prefixes(self) -> PrefixCache | None:
        return PrefixCache() if self._reuse else None

    def act(self, view: SeatView) -> Moves:
        """Prompt, score, guard."""
        return self.answer([view], [self._rho[view.rows]], [self.prompts(view)])[0].moves

    def prompts(self, view: SeatView, rho: Floats | None = None) -> list[str]:
        """The text of each row's decision, at internal ``rho`` ``[b]`` or that of its game; or at `text_rho`."""
        said = self._rho[view.rows] if rho is None else rho
        if self.text_rho is not None:
            said = np.full(len(view), self.text_rho)
        return janus_prompts.prompts(view, said, self.k_history, self._format)

    def axis(self, games: SeatGames) -> Axis:
        """How its answers count prices, one for each of these games."""
        return janus_prompts.axis(games, self._format)

    def answer(self, views: Sequence[SeatView], rhos: Sequence[Floats], texts: Sequence[list[str]]) -> list[Answers]:
        """Decide in several views, of either seat, as one batch.

        Args:
            views: at least one row in all.
            rhos: ``[b]`` internal ρ of each view.
            texts: what `prompts` makes of each view at these ρ.
        """
        ids = encode(self.adapter.tokenizer, [text for some in texts for text in some])
        rho = None if self.base_only else np.concatenate(rhos)
        may_accept = np.concatenate([~np.isnan(view.standing) for view in views])
        uniforms = None
        if self._draws:
            uniforms = np.concatenate([view.games.uniform(view.turn, UNIFORMS) for view in views])
        # An offer that accepting makes needless is not computed, except in place of what the guard will refuse.
        offers = np.concatenate([beyond_limit(view) & (self.guard != "none") for view in views])
        with MODEL_LOCK:
            decided = self.scorer.decide(ids, rho, may_accept, uniforms, offers)
        ends = np.cumsum([len(view) for view in views]).tolist()
        return [
            self._answers(view, decided, slice(end - len(view), end)) for view, end in zip(views, ends, strict=True)
        ]

    def offers(self, view: SeatView, rhos: Sequence[Floats]) -> list[Floats]:
        """What it would offer at each internal ρ, accepting or not, before any guard.

        Args:
            view: b decisions.
            rhos: C times ``[b]``.

        Returns:
            C times ``[b]`` playable prices; NaN for an answer that is none.
        """
        texts = [text for rho in rhos for text in self.prompts(view, rho)]
        count = len(rhos)
        uniforms = np.tile(view.games.uniform(view.turn, UNIFORMS), (count, 1)) if self._draws else None
        rho = None if self.base_only else np.concatenate(rhos)
        may_accept = np.tile(~np.isnan(view.standing), count)
        with MODEL_LOCK:
            decided = self.scorer.decide(encode(self.adapter.tokenizer, texts), rho, may_accept, uniforms)
        axis = self.axis(view.games)
        return [
            playable(axis.price(np.rint(share * 1e4) / 1e4), view.games) for share in np.split(decided.price, count)
        ]

    def _answers(self, view: SeatView, decided: Decisions, rows: slice) -> Answers:
        games, fallback = view.games, decided.fallback[rows]
        share = np.rint(decided.price[rows] * 1e4) / 1e4
        price = playable(self.axis(games).price(share), games)
        moves = guarded(self.guard, view, decided.accept[rows], price, fallback)
        return Answers(moves, decided.accept_probability[rows], list(decided.text[rows]))


def check_rho(rho: Any) -> Floats:
    """``rho``, a number or several, as an array.

    Raises:
        InputError: a value is neither in [0, 1] nor -1.
    """
    try:
        values = np.asarray(rho, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"rho {rho!r} must be a number in [0, 1] or -1 (impasse), or several") from error
    if not (((values >= 0) & (values <= 1)) | (values == -1.0)).all():
        raise InputError(f"rho {rho} is outside [0, 1] and is not -1 (impasse)")
    return values
