"""Routing by embedding: how near a query lies to what each adapter is for, said in words or learned from examples."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
from collections.abc import Awaitable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from bargain_env.errors import InputError

from .offer_features import Vector
from .routing import Scores
from .spec import AdapterSpec

FLOOR = 1e-4
"""Smallest variance of a feature: a hundredth of the range of prices, squared."""


class EmbeddingClient(Protocol):
    """Turns a query into a vector of fixed length; plain or a coroutine."""

    def embed(self, query: Any) -> Sequence[float] | Vector | Awaitable[Sequence[float]]:
        """The vector."""
        ...


class HashedNgrams:
    """Embeds text as hashed character n-grams of its words (the hashing trick, Weinberger et al. 2009); needs no model.

    Args:
        dimension: of the vector.
        lengths: smallest and largest n; words carry a blank on either side.
    """

    def __init__(self, dimension: int = 1024, lengths: tuple[int, int] = (3, 5)) -> None:
        if dimension < 1 or not 1 <= lengths[0] <= lengths[1]:
            raise InputError(f"dimension {dimension} and n-gram lengths {lengths} must be at least 1 and ascending")
        self.dimension, self.lengths = dimension, lengths

    def embed(self, query: str) -> Vector:
        """``[dimension]`` of length 1; zeros for a text without words."""
        if not isinstance(query, str):
            raise InputError(f"n-grams are of text, not of {type(query).__name__}; choose a client for such queries")
        vector = np.zeros(self.dimension)
        for word in query.lower().split():
            padded = f" {word} "
            for n in range(self.lengths[0], self.lengths[1] + 1):
                for i in range(len(padded) - n + 1):
                    code = int.from_bytes(hashlib.blake2b(padded[i : i + n].encode(), digest_size=8).digest(), "little")
                    vector[(code >> 1) % self.dimension] += 1.0 if code & 1 else -1.0
        norm = float(np.linalg.norm(vector))
        return vector / norm if norm > 0 else vector


class Embeddings:
    """Nearest of the adapters' embeddings.

    Until examples are learned, an adapter is where its ``domain: description`` is embedded, and its score is the cosine of
    the query with it. `learn` puts it to the mean of its examples; the score is then the log-density of a normal
    distribution around that mean, with one variance a feature common to all adapters (diagonal linear discriminant
    analysis, Dudoit et al. 2002). The null hypothesis is somebody else of their kind: the mean is drawn as theirs were, so
    that the density is that of all examples together (a random-effects model). A query that is further from every mean
    than nearly all examples are from what was learned without them is like nothing known.

    Args:
        client: embeds queries and descriptions.
        novelty: share of queries of a known kind that are near enough to a mean; 1 for no limit.
    """

    threshold = 0.3

    def __init__(self, client: EmbeddingClient, novelty: float = 0.99) -> None:
        if not 0.0 < novelty <= 1.0:
            raise InputError(f"novelty {novelty} must be above 0 and at most 1")
        self.client, self.novelty = client, novelty
        self._described: dict[str, Vector] = {}
        self._means: dict[str, Vector] = {}
        self._variance: Vector | None = None
        self._centre = self._total = np.zeros(0)
        self._farthest = np.inf

    def prepare(self, query: Any) -> Any:
        """The embedding; awaitable where the client's is."""
        return self.client.embed(query)

    def scores(self, prepared: Any, specs: Sequence[AdapterSpec]) -> Scores:
        """Log-densities once examples are learned, cosines before."""
        vector = np.asarray(prepared, dtype=np.float64)
        if self._variance is not None:
            return self._densities(vector, specs)
        norm = float(np.linalg.norm(vector))
        if norm == 0.0:
            return Scores(reason="the query has no words")
        found = {}
        for spec in specs:
            place = self._place(spec)
            length = float(np.linalg.norm(place)) * norm
            found[spec.name] = float(vector @ place) / length if length else 0.0
        return Scores({name: cosine for name, cosine in found.items() if cosine > 0.0})

    def _densities(self, vector: Vector, specs: Sequence[AdapterSpec]) -> Scores:
        means = {spec.name: self._means[spec.name] for spec in specs if spec.name in self._means}
        assert self._variance is not None
        distances = {name: float((((vector - mean) ** 2) / self._variance).sum()) for name, mean in means.items()}
        if distances and min(distances.values()) > self._farthest:
            return Scores(log=True, reason="the query is like no example that was learned")
        # Up to the constant that all share, the normaliser of the common variance.
        null = -0.5 * float(((vector - self._centre) ** 2 / self._total + np.log(self._total / self._variance)).sum())
        return Scores({name: -0.5 * distance for name, distance in distances.items()}, log=True, null=null)

    def _place(self, spec: AdapterSpec) -> Vector:
        text = _text(spec)
        if text not in self._described:
            place: Any = self.client.embed(text)
            if inspect.isawaitable(place):
                _close(place)
                raise InputError("this embedding client is asynchronous; await initialize_domain_embeddings() first")
            self._described[text] = np.asarray(place, dtype=np.float64)
        return self._described[text]

    async def describe(self, specs: Sequence[AdapterSpec]) -> None:
        """Embed those descriptions of ``specs`` that are not yet, with either kind of client."""
        for text in dict.fromkeys(map(_text, specs)):
            if text not in self._described:
                place: Any = await asyncio.to_thread(self.client.embed, text)
                self._described[text] = np.asarray(
                    await place if inspect.isawaitable(place) else place, dtype=np.float64
                )

    def learn(self, examples: Mapping[str, Sequence[Any]]) -> None:
        """Learn where adapters are.

        Args:
            examples: queries that belong to each adapter, by its name, embedded or not (``client.embed``).

        Raises:
            InputError: fewer than two adapters, or one with fewer than two examples; or an asynchronous client.
        """
        few = [name for name, queries in examples.items() if len(queries) < 2]
        if len(examples) < 2 or few:
            raise InputError(
                "centroids need two adapters or more with two examples each or more; too few for "
                f"{', '.join(few or examples) or 'any'}"
            )
        embedded = {name: np.stack([self._embedded(q) for q in queries]) for name, queries in sorted(examples.items())}
        means = {name: rows.mean(axis=0) for name, rows in embedded.items()}
        spread = np.concatenate([rows - means[name] for name, rows in embedded.items()])
        everything = np.concatenate(list(embedded.values()))
        # Features that never vary within an adapter would decide alone; part of the whole variance keeps them finite.
        floor = 0.05 * everything.var(axis=0) + FLOOR
        within, freedom = (spread**2).sum(axis=0), len(spread) - len(means)
        count = np.concatenate([np.full((len(rows), 1), float(len(rows))) for rows in embedded.values()])
        part = spread**2 * count / (count - 1)  # of an example in `within`
        without = (within - part) / max(1, freedom - 1) + floor
        self._farthest = _limit((part * count / (count - 1) / without).sum(axis=1), self.novelty)
        self._means, self._variance = means, within / freedom + floor
        centres = np.stack(list(means.values()))
        self._centre, self._total = centres.mean(axis=0), self._variance + centres.var(axis=0)

    def _embedded(self, query: Any) -> Vector:
        vector: Any = self.client.embed(query)
        if inspect.isawaitable(vector):
            _close(vector)
            raise InputError("centroids are learned with a plain client; this one is asynchronous")
        return np.asarray(vector, dtype=np.float64)


def _limit(distances: Vector, share: float) -> float:
    """What a fresh distance exceeds with probability 1 - ``share``, from ``[N]`` distances that are like it.

    The ⌈(N + 1) · share⌉-th smallest (Vovk et al. 2005). Where N is too small for that, the tail is that of the multiple of
    a χ² with their mean and variance (Satterthwaite 1946; quantile of Wilson and Hilferty 1931), from the largest on.
    """
    rank = math.ceil((len(distances) + 1) * share)
    if share == 1.0:
        return math.inf
    if rank <= len(distances):
        return float(np.sort(distances)[rank - 1])
    mean, variance = float(distances.mean()), float(distances.var(ddof=1))
    if variance == 0.0:
        return mean
    scale, freedom = variance / (2.0 * mean), 2.0 * mean**2 / variance

    def quantile(p: float) -> float:
        spread = 2.0 / (9.0 * freedom)
        return scale * freedom * max(0.0, 1.0 - spread + NormalDist().inv_cdf(p) * math.sqrt(spread)) ** 3

    largest = float(distances.max())
    return max(quantile(share), largest + quantile(share) - quantile(len(distances) / (len(distances) + 1)))


def _text(spec: AdapterSpec) -> str:
    return f"{spec.domain}: {spec.description}"


def _close(coroutine: Any) -> None:
    """A coroutine that nobody awaits would warn when it is collected."""
    if inspect.iscoroutine(coroutine):
        coroutine.close()
