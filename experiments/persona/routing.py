"""How well a router tells personas apart by their offers: scores of what was seen, by likelihood and by embedding.

A query is a game up to a persona's n-th offer; who may be routed to are the personas of the same seat and preset, which
are public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import agents
from agents.modelling import Counterpart
from agents.modelling.models import OpponentModels
from hyperlora.adapters import AdapterSpec, Embeddings, OfferFeatures, OfferHistory
from hyperlora.adapters.likelihood import row_losses, under_adapters
from hyperlora.data import NegotiationDataset
from hyperlora.outside import OUTSIDE_RHO

from .cast import Persona
from .folder import PersonaData
from .games import FEWEST_GAMES, play_games, public_limits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SEEN = (1, 2, 3, 5, 8, 10)
"""Offers after which a router is asked."""
LIKELIHOOD, EMBEDDING, KEYWORD = "likelihood", "embedding", "keyword"
NO_KEYWORDS = (
    "offers hold no words, and all that can be said of an opponent in words before it has moved, its seat and the preset, "
    "is common to everybody who may be routed to"
)
NOVEL = -1e9
"""Log-score of every persona for a query that is like none of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Q queries with the offers that they consist of.

    Attributes:
        table: a steps table of M offers, those of a game together and in order.
        game: ``[M]`` number of the game of each offer.
        nth: ``[M]`` which of the game's offers it is, from 1.
        label: ``[M]`` number of the persona in its group; -1 for an opponent that is none of them.
    """

    table: pa.Table
    game: Ints
    nth: Ints
    label: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Q queries after ``seen`` ``[Q]`` offers, scored against P personas.

    Attributes:
        logs: ``[Q, P]`` log-score of each persona.
        null: ``[Q]`` of none of them; -∞ where a method has no such hypothesis.
        seen: ``[Q]``.
        label: ``[Q]``, see `Queries`.
    """

    logs: Floats
    null: Floats
    seen: Ints
    label: Ints


@dataclass(frozen=True, slots=True)
class Group:
    """Personas that may be taken for each other.

    Attributes:
        seat: of all of them.
        preset: likewise.
        members: in the order of their names.
    """

    seat: str
    preset: str
    members: tuple[Counterpart, ...]


def groups(counterparts: Sequence[Counterpart]) -> list[Group]:
    """Counterparts by seat and preset; those with nobody to be taken for are left out."""
    found: dict[tuple[str, str], list[Counterpart]] = {}
    for one in sorted(counterparts, key=lambda one: one.name):
        found.setdefault((one.seat, one.preset), []).append(one)
    return [Group(*key, tuple(members)) for key, members in sorted(found.items()) if len(members) > 1]


def queries(data: PersonaData, group: Group, split: str, games: int | None = None) -> Queries:
    """Games of the group's members in a split; the first ``games`` of each, or all."""
    number = {persona.id: k for k, persona in enumerate(data.personas)}
    rows, label = [], []
    for i, member in enumerate(group.members):
        own = data.rows(split, number[member.name], games)
        rows.append(own)
        label.append(np.full(len(own), i))
    at = np.concatenate(rows)
    return _offers(data.table.take(at), data.owner[at] * 1_000_000 + data.game[at], np.concatenate(label))


def strangers(data: PersonaData, group: Group, games: int) -> Queries:
    """Games of every held-out strategy at the group's seat and preset, which no adapter was trained on."""
    names = agents.list_strategies(split="held_out", evaluable=True)
    cast = [Persona(f"stranger_{k:03d}", name, agents.describe(name).family, group.preset, group.seat)
            for k, name in enumerate(names)]  # fmt: skip
    table = play_games(cast, max(games, FEWEST_GAMES), int(data.settings["seed"]), int(data.settings["max_turns"]))
    table = public_limits(table.filter(pc.less(table["game"], games)))
    number = {one.id: k for k, one in enumerate(cast)}
    owner = np.array([number[name] for name in table["persona"].to_pylist()], dtype=np.int64)
    return _offers(table, owner * 1_000_000 + table["game"].to_numpy(), np.full(table.num_rows, -1))


def left_out(group: Group, scored: Scored) -> Scored:
    """The same queries as if no adapter of their persona's family were there: opponents of a kind that no adapter is of.

    Only their columns go: the null hypothesis has read this family's games too. Those of the only family are left out.
    """
    families = np.array([one.family for one in group.members])
    kin = families[None, :] == families[scored.label][:, None]
    at = np.flatnonzero(~kin.all(axis=1))
    logs = np.where(kin, -np.inf, scored.logs)[at]
    return Scored(logs, scored.null[at], scored.seen[at], np.full(len(at), -1))


def _offers(table: pa.Table, game: Ints, label: Ints) -> Queries:
    """The first offers of each game, as many as `SEEN` asks for."""
    order = np.lexsort((table["turn"].to_numpy(), game))
    order = order[np.array(table["target_action"].to_pylist(), dtype=object)[order] == "OFFER"]
    game, label = game[order], label[order]
    first = np.unique(game, return_index=True)[1]
    nth = np.arange(len(game)) - np.repeat(first, np.diff(np.append(first, len(game)))) + 1
    kept = nth <= max(SEEN)
    return Queries(table.take(order[kept]), game[kept], nth[kept], label[kept])


def by_likelihood(models: OpponentModels, group: Group, asked: Queries) -> Scored:
    """Log-likelihood of all offers so far under each member's adapter, and under the null hypothesis."""
    number = {one.name: k for k, one in enumerate(models.counterparts)}
    hypotheses = np.array([*(number[one.name] for one in group.members), models.null])
    dataset = NegotiationDataset(
        asked.table, models.tokenizer, prompt_format=models.pool.prompt_format, max_length=1024,
        rho=np.full(asked.table.num_rows, OUTSIDE_RHO), text_rho=OUTSIDE_RHO,
    )  # fmt: skip
    rows = np.repeat(np.arange(len(dataset)), len(hypotheses))
    which = np.tile(hypotheses, len(dataset))
    loss, _ = row_losses(models.model, dataset, rows, under_adapters(models.model, models.weights, which))
    each = -loss.reshape(len(dataset), len(hypotheses))
    total = np.cumsum(each, axis=0)
    first = np.unique(asked.game, return_index=True)[1]
    before = np.repeat(np.where(first[:, None] > 0, total[first - 1], 0.0), np.bincount(
        np.unique(asked.game, return_inverse=True)[1]), axis=0)  # fmt: skip
    at = np.flatnonzero(np.isin(asked.nth, SEEN))
    logs = (total - before)[at]
    return Scored(logs[:, :-1], logs[:, -1], asked.nth[at], asked.label[at])


def by_embedding(group: Group, learned: Queries, asked: Queries) -> Scored:
    """Log-density of the features of all offers so far around the mean of each member's training games of that length.

    A member with fewer than two such games has no mean that could be told from chance: it is not recognised there.
    """
    specs = [AdapterSpec(one.name, str(one.folder), one.family) for one in group.members]
    parts = []
    for seen in SEEN:
        known, at = np.flatnonzero(learned.nth == seen), np.flatnonzero(asked.nth == seen)
        examples = {spec.name: [_history(learned, i) for i in known[learned.label[known] == k]]
                    for k, spec in enumerate(specs)}  # fmt: skip
        examples = {name: some for name, some in examples.items() if len(some) > 1}
        logs = np.full((len(at), len(specs)), NOVEL)
        null = np.zeros(len(at))
        if len(examples) > 1:
            method = Embeddings(OfferFeatures())
            method.learn(examples)
            for row, i in enumerate(at.tolist()):
                found = method.scores(method.prepare(_history(asked, i)), specs)
                if found.values:
                    logs[row] = [found.values.get(spec.name, NOVEL) for spec in specs]
                    null[row] = -np.inf if found.null is None else found.null
        parts.append(Scored(logs, null, asked.nth[at], asked.label[at]))
    return Scored(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("logs", "null", "seen", "label"))
    )


def _history(asked: Queries, i: int) -> OfferHistory:
    """The game of an offer up to it: a row's own history holds the last offers only, but each row has the reply it saw."""
    table, here = asked.table, slice(i + 1 - int(asked.nth[i]), i + 1)
    own, replies = (table[name].slice(here.start, here.stop - here.start).to_pylist()
                    for name in ("target_price", "last_offer_price"))  # fmt: skip
    return OfferHistory(
        table["role"][i].as_py(),
        own,
        [price for price in replies if price is not None and price == price],
        table["price_low"][i].as_py(),
        table["price_high"][i].as_py(),
    )
