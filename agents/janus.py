"""Janus: a language model at the table, whose posture is ρ."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from bargain_env.core import Seat, quantise_array
from bargain_env.errors import InputError
from bargain_env.policy import Bools, Floats, Moves, SeatGames, SeatView
from hyperlora.checkpoint import Adapter, load_hyperlora_adapter
from hyperlora.decode.scorer import MODES, UNIFORMS, Scorer
from hyperlora.prompt import K_HISTORY, decision_prompt
from hyperlora.tokens import encode

GUARDS = ("ir", "none")


class JanusAgent:
    """A `bargain_env.Policy` played by an LLM with a HyperLoRA.

    One number, ρ, goes three ways and cannot diverge: into the prompt's ``<RHO>`` text, into its ``<SUCCESS>`` flag, and
    as a tensor into every gate (seed report, section 8.3). Answers are decoded among the two legal forms only.

    Decisions are quantised to 1e-4 of the price range and then to the game's tick. The model's floats depend on batch
    shape and number of threads in their last bits, so games are reproducible for the same batches and threads.

    Args:
        adapter: ``janus-nano`` (shipped), a folder, or an adapter already loaded.
        rho: requested settlement, one for all games or ``[B]`` one a game; in [0, 1], or -1 (impasse).
        decode: ``mean``, ``greedy`` or ``sample``; see `hyperlora.decode.Scorer`.
        guard: ``ir`` never accepts or offers what is worse than the reservation: such an acceptance becomes the offer that
            the model would otherwise make, such an offer becomes the reservation, and each is counted; ``none`` lets both
            happen.
        batch_size: prompts a forward pass.
        base_only: leave the adapter off: the ρ-blind base model.
        base: base model to load the adapter on, if not the one its config names.

    Raises:
        InputError: ρ out of range, unknown mode or guard, or the adapter cannot be loaded.
    """

    def __init__(
        self,
        adapter: str | Path | Adapter = "janus-nano",
        rho: float | Floats = 0.5,
        decode: str = "mean",
        guard: str = "ir",
        batch_size: int = 256,
        base_only: bool = False,
        base: str | None = None,
    ) -> None:
        if decode not in MODES:
            raise InputError(f"unknown decode mode {decode!r}; choose one of {', '.join(MODES)}")
        if guard not in GUARDS:
            raise InputError(f"unknown guard {guard!r}; choose one of {', '.join(GUARDS)}")
        self.rho = np.asarray(rho, dtype=np.float64)
        if not (((self.rho >= 0) & (self.rho <= 1)) | (self.rho == -1.0)).all():
            raise InputError(f"rho {rho} is outside [0, 1] and is not -1 (impasse)")
        loaded = adapter if isinstance(adapter, Adapter) else _load(str(adapter), base, _stamp(str(adapter)))
        self.name = "base" if base_only else "janus"
        self.adapter, self.guard, self.base_only = loaded, guard, base_only
        self.scorer = Scorer(loaded.model, loaded.tokenizer, decode, batch_size)
        self._k = int(loaded.config.get("k_history", K_HISTORY))
        self._format = int(loaded.config.get("prompt_format", 2))
        self._rho = np.zeros(0)

    def reset(self, games: SeatGames) -> None:
        """Start B games.

        Raises:
            ValueError: neither one ρ nor one a game was given.
        """
        if self.rho.ndim and len(self.rho) != len(games):
            raise ValueError(f"{len(self.rho)} values of rho for {len(games)} games; give one, or one a game")
        self._rho = np.broadcast_to(self.rho, len(games)).astype(np.float64)

    def act(self, view: SeatView) -> Moves:
        """Prompt, score, guard."""
        games, rho = view.games, self._rho[view.rows]
        may_accept = ~np.isnan(view.standing)
        uniforms = games.uniform(view.turn, UNIFORMS) if self.scorer.mode == "sample" else None
        ids = encode(self.adapter.tokenizer, self.prompts(view))
        decided = self.scorer.decide(ids, None if self.base_only else rho, may_accept, uniforms)
        normalised = np.rint(decided.price * 1e4) / 1e4
        price = quantise_array(games.price_low + normalised * (games.price_high - games.price_low), games.tick)
        return self._guarded(view, decided.accept, np.clip(price, games.price_low, games.price_high))

    def prompts(self, view: SeatView) -> list[str]:
        """The text of each row's decision."""
        games = view.games
        roles = [Seat(int(side)).label for side in (view.sides[0] if len(view) else [])]
        lows, highs = games.price_low.tolist(), games.price_high.tolist()
        limits, turns = games.reservation.tolist(), games.max_turns.tolist()
        texts = []
        for i, (rho, standing, prices) in enumerate(
            zip(self._rho[view.rows].tolist(), view.standing.tolist(), view.prices.tolist(), strict=True)
        ):
            offers = [(role, price) for role, price in zip(roles, prices, strict=True) if price == price]
            texts.append(
                decision_prompt(
                    rho=rho,
                    turn=view.turn,
                    max_turns=turns[i],
                    reservation=limits[i],
                    roles=[role for role, _ in offers],
                    prices=[price for _, price in offers],
                    last_offer=standing if standing == standing else None,
                    low=lows[i],
                    high=highs[i],
                    k=self._k,
                    prompt_format=self._format,
                )
            )
        return texts

    def _guarded(self, view: SeatView, accept: Bools, price: Floats) -> Moves:
        """Replace what is worse than the reservation by an offer of the reservation."""
        if self.guard == "none":
            return Moves(accept, price)
        limit, sign = view.games.reservation, view.games.sign
        with np.errstate(invalid="ignore"):
            bad_deal = accept & (sign * (limit - view.standing) < 0)
        bad_offer = (~accept | bad_deal) & (sign * (limit - price) < 0)
        return Moves(accept & ~bad_deal, np.where(bad_offer, limit, price), bad_deal | (~accept & bad_offer))


@lru_cache(maxsize=4)
def _load(adapter: str, base: str | None, stamp: int) -> Adapter:
    """Models are loaded once a process and shared by all seats."""
    return load_hyperlora_adapter(adapter, base)


def _stamp(adapter: str) -> int:
    """Changes when the adapter in a folder is trained again."""
    folder = Path(adapter)
    return max((p.stat().st_mtime_ns for p in (folder, folder / "adapter") if p.is_dir()), default=0)
