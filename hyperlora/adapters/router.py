"""From a query to adapters: by keywords, by embedding, or by the likelihood of what was seen. Abstains when unsure."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from bargain_env.errors import InputError, unknown

from .embedding import EmbeddingClient, Embeddings, HashedNgrams
from .keywords import Keywords
from .registry import AdapterRegistry
from .routing import Method, Route, confidences, fitted_temperature

METHODS = ("keyword", "embedding", "likelihood")


class AdapterRouter:
    """Chooses adapters of a registry for a query.

    The same query and adapters give the same answer, whatever the order of the registry: equal confidences are in the
    order of names. Base and ρ-adapters are routed to by their name without a ρ, unless they are loaded at one.

    Args:
        registry: of the adapters.
        embedding_client: for ``embedding``; hashed n-grams of text by default.
        method: ``embedding``; ``keyword``; ``likelihood``, with ``scorer``; or a `Method` of your own as ``scorer``.
        scorer: a `hyperlora.adapters.Likelihood`, or another `Method`.
        threshold: abstain where the best confidence is below; the method's own by default. Keywords: share of the weight of
            an adapter's keywords. Embedding: cosine, or posterior once examples are learned. Likelihood: posterior.
        margin: abstain where the best is not at least so much more confident than the second.
        known: abstain where the posterior that some adapter fits, whichever it is, is below: who resembles two of them is
            no stranger, however unsure the choice. Methods without a null hypothesis take everybody for known.

    Raises:
        InputError: unknown method, one without what it needs, or a threshold, margin or known outside [0, 1].
    """

    def __init__(
        self,
        registry: AdapterRegistry,
        embedding_client: EmbeddingClient | None = None,
        method: str = "embedding",
        *,
        scorer: Method | None = None,
        threshold: float | None = None,
        margin: float = 0.0,
        known: float = 0.5,
    ) -> None:
        if method not in METHODS:
            raise unknown("routing method", method, METHODS)
        if embedding_client is not None and (method != "embedding" or scorer is not None):
            raise InputError(f"an embedding client is of no use to method {method!r} with its scorer; leave it out")
        self._registry, self.method = registry, method
        self.scorer: Method = scorer if scorer is not None else _scorer(method, embedding_client)
        self.threshold = self.scorer.threshold if threshold is None else threshold
        self.margin, self.known = margin, known
        self.temperature: float | None = None
        for name in ("threshold", "margin", "known"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} {getattr(self, name)} must lie in [0, 1]")

    def select(self, query: Any, top_k: int = 2, domains: Sequence[str] | None = None) -> Route:
        """The adapters for ``query``.

        Args:
            query: text; for a client or method of your own whatever it reads; for ``likelihood`` decisions as pairs of
                prompt and answer.
            top_k: at most so many.
            domains: only adapters of these.

        Returns:
            ``(name, confidence)``, the best first; empty where the router abstains or there are no adapters.

        Raises:
            InputError: ``top_k`` below 1, a query of a kind that the method does not read, or an asynchronous client.
        """
        return self._decide(self._prepared(query), top_k, domains)

    async def route(self, query: Any, top_k: int = 2, domains: Sequence[str] | None = None) -> Route:
        """`select` without blocking the event loop, and with an asynchronous client too."""
        prepared = await asyncio.to_thread(self.scorer.prepare, query)
        if inspect.isawaitable(prepared):
            await self.initialize_domain_embeddings()
            prepared = await prepared
        return await asyncio.to_thread(self._decide, prepared, top_k, domains)

    async def initialize_domain_embeddings(self) -> None:
        """Embed what each adapter is for; done as needed otherwise. Other methods have nothing to initialise."""
        if isinstance(self.scorer, Embeddings):
            await self.scorer.describe(self._registry.list_adapters())

    def learn(self, examples: Mapping[str, Sequence[Any]]) -> None:
        """Learn from queries that belong to each adapter, by its name; see `Embeddings.learn`.

        Raises:
            InputError: another method than ``embedding``, or too few examples.
        """
        if not isinstance(self.scorer, Embeddings):
            raise InputError(f"method {self.method!r} learns no centroids; choose 'embedding'")
        self.scorer.learn(examples)

    def calibrate(self, examples: Mapping[str, Sequence[Any]]) -> float:
        """Fit the temperature of the posterior to queries whose adapter is known; not those that it learned from.

        Returns:
            The temperature; from now on confidences are posteriors at it.

        Raises:
            InputError: no example has a score for its own adapter, or an asynchronous client.
        """
        specs = self._registry.list_adapters()
        labelled = [
            (self.scorer.scores(self._prepared(query), specs), name)
            for name, queries in sorted(examples.items())
            for query in queries
        ]
        if not any(name in scores.values for scores, name in labelled):
            raise InputError("no example has a score for its own adapter, so nothing can be calibrated")
        self.temperature = fitted_temperature(labelled)
        return self.temperature

    def _prepared(self, query: Any) -> Any:
        prepared = self.scorer.prepare(query)
        if inspect.isawaitable(prepared):
            if inspect.iscoroutine(prepared):
                prepared.close()
            raise InputError("this embedding client is asynchronous: it can only be asked by `await route()`")
        return prepared

    def _decide(self, prepared: Any, top_k: int, domains: Sequence[str] | None) -> Route:
        if top_k < 1:
            raise InputError(f"top_k {top_k} must be at least 1")
        specs = [spec for spec in self._registry.list_adapters() if domains is None or spec.domain in domains]
        if not specs:
            return []
        found, none = confidences(self.scorer.scores(prepared, specs), self.temperature)
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        if not ranked or not 0.0 < ranked[0][1] >= self.threshold or 1.0 - none < self.known:
            return []
        if len(ranked) > 1 and ranked[0][1] - ranked[1][1] < self.margin:
            return []
        return ranked[:top_k]


def _scorer(method: str, client: EmbeddingClient | None) -> Method:
    if method == "keyword":
        return Keywords()
    if method == "embedding":
        return Embeddings(HashedNgrams() if client is None else client)
    raise InputError("likelihood needs a model to ask: give scorer=Likelihood(manager, tokenizer)")
