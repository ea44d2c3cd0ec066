"""A counterpart as a vector: its seat, and what its first few offers in one game or several look like from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bargain_env.errors import InputError

from .offer_features import FEATURES, OfferFeatures, OfferHistory, Vector

PATH = 5
"""Offers and replies of a game that stand in the embedding one by one, beside the features of all of them."""
ENTRIES = len(FEATURES) + 2 * PATH
"""Entries of one game."""
_LIMIT = 5.0
"""Normalised entries are cut off there: an odd game must not drive the network where it never was."""


@dataclass(frozen=True, slots=True, eq=False)
class OfferEmbedding:
    """Embeds histories of one counterpart as ``[dim]``: a mean over games, its spread, how many games, and the seat.

    A game gives `OfferFeatures` and its first `PATH` offers and replies as demands; where there are fewer, the latest is
    repeated. Entries are normalised by mean and deviation over training counterparts. Nothing seen is the mean of these.

    Attributes:
        mean: ``[ENTRIES]``.
        deviation: ``[ENTRIES]``, above 0.
    """

    mean: Vector
    deviation: Vector

    @property
    def dim(self) -> int:
        """Entries of an embedding."""
        return 2 * ENTRIES + 2

    @classmethod
    def fitted(cls, histories: Sequence[OfferHistory]) -> OfferEmbedding:
        """Normalised by these games.

        Raises:
            InputError: no game.
        """
        if not histories:
            raise InputError("no game with an offer to normalise embeddings by; give personas more games")
        entries = np.stack([entries_of(history) for history in histories])
        deviation = entries.std(axis=0)
        return cls(entries.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0))

    def embed(self, seat: str, histories: Sequence[OfferHistory]) -> Tensor:
        """``[dim]``, float32, of the counterpart's seat and of games with at least one offer of it; none is fine.

        Raises:
            InputError: an unknown seat, or a history of the other one.
        """
        if seat not in ("buyer", "seller"):
            raise InputError(f"seat {seat!r} is neither buyer nor seller")
        if any(history.seat != seat for history in histories):
            raise InputError(f"a history of the other seat was given for a {seat}")
        games = np.zeros((0, ENTRIES))
        if histories:
            games = (np.stack([entries_of(history) for history in histories]) - self.mean) / self.deviation
            games = games.clip(-_LIMIT, _LIMIT)
        mean = games.mean(axis=0) if histories else np.zeros(ENTRIES)
        spread = games.std(axis=0) if len(histories) > 1 else np.zeros(ENTRIES)
        rest = [np.log1p(len(histories)), 1.0 if seat == "buyer" else -1.0]
        return torch.from_numpy(np.concatenate([mean, spread, rest]).astype(np.float32))

    def as_config(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"entries": ENTRIES, "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_config(cls, config: Any) -> OfferEmbedding:
        """What `as_config` gave.

        Raises:
            InputError: not that, or of another version's features.
        """
        lists = [config.get(name) for name in ("mean", "deviation")] if isinstance(config, Mapping) else []
        if not lists or not all(isinstance(x, list) and len(x) == ENTRIES for x in lists):
            raise InputError(f"the config holds no offer embedding of {ENTRIES} entries; train the hypernetwork again")
        mean, deviation = (np.asarray(x, dtype=np.float64) for x in lists)
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
            raise InputError("the config's offer embedding is not finite; train the hypernetwork again")
        return cls(mean, deviation)


def entries_of(history: OfferHistory) -> Vector:
    """``[ENTRIES]`` of one game, not normalised."""
    demands, replies = (_path(history, side) for side in (history.offers, history.replies))
    return np.concatenate([OfferFeatures().embed(history), demands, replies])


def _path(history: OfferHistory, prices: Sequence[float]) -> Vector:
    """The first `PATH` prices as demands of ``history.seat``, in [0, 1] of the public range; 0 where there is none."""
    if not prices:
        return np.zeros(PATH)
    share = (np.asarray(prices, dtype=np.float64)[:PATH] - history.low) / (history.high - history.low)
    return np.pad(share if history.seat == "seller" else 1.0 - share, (0, PATH - len(share)), mode="edge")


def first_offers(history: OfferHistory, count: int) -> OfferHistory:
    """What was seen of a game when its counterpart had made ``count`` offers.

    Args:
        history: whose reply ``i`` was made before offer ``i`` (or ``i + 1``, where the counterpart opened the game).
        count: at least 1.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"{count} offers say nothing; ask for at least 1")
    opened = len(history.replies) < len(history.offers)
    kept = min(count, len(history.offers))
    return replace(history, offers=history.offers[:kept], replies=history.replies[: kept - opened])
