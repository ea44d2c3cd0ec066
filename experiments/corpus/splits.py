"""Which episodes train, which evaluate, which test: by episode, stratified by outcome and by who played.

Episodes are put in the order (outcome, pair of strategies, draw) and taken from it at even distances, so every stratum (an
impasse, or a tenth of ρ; within it a buyer's and a seller's strategy) is represented in proportion, however small. The draw
is a hash of seed and id: the order of the rows in the input makes no difference, nor what else is done with the data.

A strategy that is held out has all its episodes in ``test``, whichever seat it played; shares are of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO
from bargain_env.errors import InputError, unknown

from .hashing import Words, mixed, text_hashes

TRAIN, EVAL, TEST = "train", "eval", "test"
NAMES = (TRAIN, EVAL, TEST)
_CODES = {name: code for code, name in enumerate(NAMES)}


def base_name(label: str) -> str:
    """A drawn member of a family counts as its family: ``exponential(beta=0.5)`` as ``exponential``."""
    return label.partition("(")[0]


class Splits:
    """Seventeen bytes of each episode, from which all of them are assigned.

    Args:
        seed: shuffles within a stratum.
        eval_share: share of episodes in ``eval``, rounded up.
        test_share: share in ``test``, rounded up.
        holdout: strategies, or names of families of drawn ones, whose episodes are all for ``test``.
    """

    def __init__(self, seed: int, eval_share: float, test_share: float, holdout: Sequence[str] = ()) -> None:
        self._seed, self._eval_share, self._test_share = seed, eval_share, test_share
        self._holdout, self._met = tuple(holdout), set[str]()
        self._names: dict[str, None] = {}
        self._unknown: str | None = None
        self._outcome, self._pair = list[NDArray[np.int8]](), list[Words]()
        self._draw, self._held = list[Words](), list[NDArray[np.bool_]]()

    def add(self, ids: pa.ChunkedArray, rho: NDArray[np.float64], players: NDArray[np.object_]) -> None:
        """Some more episodes.

        Args:
            ids: ``[E]`` trajectory ids, all different.
            rho: ``[E]`` labels, -1 at an impasse.
            players: ``[E, 2]`` strategies of buyer and seller, None where unknown.
        """
        self._outcome.append(np.where(rho == IMPASSE_RHO, -1, np.clip(np.floor(rho * 10), 0, 9)).astype(np.int8))
        self._draw.append(mixed(text_hashes(ids.combine_chunks()) ^ _seed_word(self._seed)))
        labels = pa.array(players.ravel(), pa.string()).dictionary_encode()
        code = labels.indices.fill_null(-1).to_numpy().reshape(-1, 2)
        known = labels.dictionary.to_pylist()
        bases = text_hashes(pa.array([base_name(label) for label in known] + [""], pa.string()))
        buyer, seller = bases[code].T
        self._pair.append(mixed(buyer) ^ seller)
        held = np.zeros(len(ids), dtype=bool)
        if self._holdout:
            self._names |= dict.fromkeys(map(base_name, known))
            hit = {name: [name in (label, base_name(label)) for label in known] + [False] for name in self._holdout}
            for name, is_hit in hit.items():
                found = np.array(is_hit)[code].any(axis=1)
                held |= found
                if found.any():
                    self._met.add(name)
            nobody = (code < 0).any(axis=1) & ~held
            if nobody.any() and self._unknown is None:
                self._unknown = ids[int(np.argmax(nobody))].as_py()
        self._held.append(held)

    def assign(self) -> NDArray[np.int8]:
        """``[E]`` index of `NAMES` for each episode, in the order in which they were added.

        A pure function of the set of (id, ρ, players) and the settings.

        Raises:
            InputError: a strategy to hold out does not occur, an episode does not say who played, or none is left to train.
        """
        self._check()
        held = np.concatenate([np.empty(0, bool), *self._held])
        columns = [np.concatenate(c)[~held] if c else np.empty(0) for c in (self._draw, self._pair, self._outcome)]
        order = np.flatnonzero(~held)[np.lexsort(columns)]
        split = np.full(len(held), _CODES[TRAIN], dtype=np.int8)
        split[held] = _CODES[TEST]
        for_eval = _every(len(order), self._eval_share)
        rest = order[~for_eval]
        split[order[for_eval]] = _CODES[EVAL]
        split[rest[_every(len(rest), self._test_share / (1 - self._eval_share))]] = _CODES[TEST]
        if held.any() and not (split == _CODES[TRAIN]).any():
            raise InputError(f"--holdout {','.join(self._holdout)} leaves no episode to train on; hold out fewer")
        return split

    def _check(self) -> None:
        for name in self._holdout:
            if name not in self._met:
                raise unknown("strategy in --holdout", name, self._names)
        if self._unknown is not None:
            raise InputError(
                f"--holdout: {self._unknown!r} does not say who played both seats, so a strategy that is held out could be "
                "one of them; name an input that says it, or leave --holdout out"
            )


def _seed_word(seed: int) -> np.uint64:
    return mixed(np.array([seed % 2**64], dtype=np.uint64))[0]


def _every(n: int, share: float) -> NDArray[np.bool_]:
    """``[n]`` true at ``ceil(n * share)`` evenly spaced places, the first included."""
    reached = np.ceil(np.arange(n + 1) * share - 1e-9)
    return np.diff(reached) > 0
