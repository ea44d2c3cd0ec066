"""Routing by words: the share of an adapter's keywords that a text holds, rare ones weighing more."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from bargain_env.errors import InputError

from .routing import Scores
from .spec import AdapterSpec

SHORTEST = 4
"""Letters of a word of a description that counts as a keyword, where an adapter names none itself."""


class Keywords:
    """Share of the inverse document frequency of an adapter's keywords that is found in a text.

    The documents are the adapters: idf = 1 + log((1 + N) / (1 + adapters that have the word)), so that keywords that all
    adapters share decide little. Words are matched whole and without regard to case; keywords of several words as such.
    """

    threshold = 0.1

    def prepare(self, query: object) -> str:
        """The words of a text, between single blanks."""
        if not isinstance(query, str):
            raise InputError(
                f"keyword routing reads text, not {type(query).__name__}; give a str, or choose another method"
            )
        return _plain(query)

    def scores(self, prepared: str, specs: Sequence[AdapterSpec]) -> Scores:
        """A share in (0, 1] for each adapter that has a word in the text."""
        keywords = {spec.name: keywords_of(spec) for spec in specs}
        documents = Counter(word for words in keywords.values() for word in words)
        weight = {word: 1.0 + math.log((1 + len(specs)) / (1 + count)) for word, count in documents.items()}
        found = {}
        for name, words in keywords.items():
            hits = [word for word in words if f" {word} " in prepared]
            if hits:
                found[name] = sum(weight[word] for word in hits) / sum(weight[word] for word in words)
        return Scores(found)


def keywords_of(spec: AdapterSpec) -> list[str]:
    """An adapter's own keywords, or else its domain and the longer words of its description; sorted."""
    own = {_plain(word).strip() for word in spec.keywords} - {""}
    if own:
        return sorted(own)
    described = _plain(f"{spec.domain.replace('_', ' ')} {spec.description}").split()
    return sorted({word for word in described if len(word) >= SHORTEST})


def _plain(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.lower())
    return f" {' '.join(words)} "
