"""What is seen of a persona before its adapter is generated: the first offers of some of its training games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from experiments.persona.folder import PersonaData
from hyperlora.adapters.offer_embedding import OfferEmbedding, first_offers
from hyperlora.adapters.offer_features import OfferHistory

SPLIT = "train"
"""Games that may be seen; what is predicted lies in others."""
SPREAD = (1, 2, 3, 5, 10)
"""Numbers of offers that embeddings are normalised over, and that training draws from."""


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Training games of every persona as its counterpart saw them.

    Attributes:
        seats: ``[P]``.
        games: ``[P]`` numbers of a persona's training games in which it makes an offer, ascending.
        histories: ``[P]`` these games, whole.
    """

    seats: list[str]
    games: list[list[int]]
    histories: list[list[OfferHistory]]

    def embed(self, embedding: OfferEmbedding, persona: int, games: Sequence[int], offers: int) -> Tensor:
        """Of the first ``offers`` offers in each of these games ``[dim]``; without games, or offers, of the seat alone."""
        at = [self.games[persona].index(game) for game in games] if offers else []
        return embedding.embed(self.seats[persona], [first_offers(self.histories[persona][i], offers) for i in at])

    def fitted(self, personas: Sequence[int]) -> OfferEmbedding:
        """Normalised by the games of these personas, seen after so many offers as `SPREAD` says."""
        whole = [history for persona in personas for history in self.histories[persona]]
        return OfferEmbedding.fitted([first_offers(history, count) for history in whole for count in SPREAD])


def read_support(data: PersonaData) -> Support:
    """The training games of all personas; their limits, parameters and counterparts' names stay out of it."""
    rows = data.rows(SPLIT)
    part = data.table.take(rows)
    names = ("price_low", "price_high", "last_offer_price", "target_price")
    low, high, last, target = (part[name].to_numpy(zero_copy_only=False).astype(float) for name in names)
    owner, game = data.owner[rows], data.game[rows]
    count = len(data.personas)
    games: list[list[int]] = [[] for _ in range(count)]
    histories: list[list[OfferHistory]] = [[] for _ in range(count)]
    cuts = np.flatnonzero((np.diff(owner) != 0) | (np.diff(game) != 0)) + 1
    for at in np.split(np.arange(len(rows)), cuts):
        at = at[~np.isnan(target[at])]  # decisions to accept are no offers
        if not len(at):
            continue
        k, replies = int(owner[at[0]]), last[at]
        games[k].append(int(game[at[0]]))
        histories[k].append(
            OfferHistory(
                data.personas[k].seat, target[at].tolist(), replies[~np.isnan(replies)].tolist(),
                float(low[at[0]]), float(high[at[0]]),
            )
        )  # fmt: skip
    return Support([persona.seat for persona in data.personas], games, histories)
