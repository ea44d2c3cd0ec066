"""Keys and values: with room for the answer, for a beginning that several prompts share, and kept between calls.

Keys and values belong to what computed them: an adapter's bytes, a base, a precision, a ρ and the tokens before. Used with
another ρ they give other logits and nothing shows it, so a kept beginning says what it belongs to and is refused elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values ``[B, heads, S, d]`` of each layer."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that has room for what follows.

    The library's own layer copies everything whenever a token is added; to a batch of prompts that is as much as the
    token itself costs.

    Args:
        room: positions to make room for; more are made where they do not suffice.
        begun: keys and values that stand in front.
    """

    def __init__(self, room: int, begun: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self._room, self._used = room, 0
        self._whole: tuple[Tensor, ...] = ()
        if begun is not None:
            self.update(*begun)

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[B, heads, S, d]`` and return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, end = self._used, self._used + key_states.shape[2]
        new, old = (key_states, value_states), self._whole
        if not old or end > old[0].shape[2]:
            self._room = max(self._room, end)
            self._whole = tuple(x.new_empty(*x.shape[:2], self._room, x.shape[3]) for x in new)
            for roomier, before in zip(self._whole, old, strict=False):
                roomier[:, :, :begin] = before[:, :, :begin]
        for whole, added in zip(self._whole, new, strict=True):
            whole[:, :, begin:end] = added
        self._used = end
        return self._shown()

    def _shown(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (whole[:, :, : self._used] for whole in self._whole)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows."""
        self._whole = tuple(whole.index_select(0, indices) for whole in self._whole)
        self._shown()


def roomy_cache(model: Any, room: int, begun: Layers | None = None) -> DynamicCache:
    """An empty cache for ``model``, or one that ``begun`` stands in.

    Models whose layers keep anything else than all keys and values (sliding windows, recurrent states) get the library's
    own cache, and cannot begin with something.
    """
    cache = DynamicCache(config=model.config)
    if keeps_everything(cache):
        cache.layers = [RoomyLayer(room, begun[i] if begun else None) for i in range(len(cache.layers))]
    elif begun is not None:
        raise ValueError(f"{type(model).__name__} does not keep all keys and values; it cannot begin with some")
    return cache


def keeps_everything(cache: DynamicCache) -> bool:
    """Whether every layer keeps the keys and values of all positions, and nothing else."""
    return bool(cache.layers) and all(type(layer) in (DynamicLayer, RoomyLayer) for layer in cache.layers)


def layers_of(cache: DynamicCache) -> Layers:
    """What ``cache`` holds."""
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr, misc]


# ── kept between calls ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values of the beginning of a prompt, and what they belong to.

    Attributes:
        owner: digest of what computed them, without ρ; see `Scorer.digest`.
        rho: that was bound; None where the adapter was off.
        tokens: that they are of.
        layers: keys and values ``[heads, S, d]`` of each layer.
    """

    owner: str
    rho: float | None
    tokens: tuple[int, ...]
    layers: list[tuple[Tensor, Tensor]]

    def first(self, length: int, owner: str, rho: float | None, tokens: Sequence[int]) -> Layers:
        """Keys and values ``[1, heads, length, d]`` of the first ``length`` of ``tokens``.

        Raises:
            ValueError: they were computed by another adapter, at another ρ or for other tokens.
        """
        if owner != self.owner:
            raise ValueError(
                f"kept keys and values belong to {self.owner[:12]}…, not to {owner[:12]}…; compute them anew"
            )
        if rho != self.rho:
            raise ValueError(f"kept keys and values were computed at rho = {self.rho}, not {rho}; compute them anew")
        if length > len(self.tokens) or self.tokens[:length] != tuple(tokens[:length]):
            raise ValueError(f"kept keys and values are of other tokens than the first {length}; compute them anew")
        return [(k[None, :, :length], v[None, :, :length]) for k, v in self.layers]

    @property
    def nbytes(self) -> int:
        """Memory of keys and values."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


class PrefixCache:
    """Beginnings of prompts kept between calls, the least recently used dropped first.

    It pays where prompts return, or begin alike from turn to turn; the canonical prompt does not, for ρ, the turn and the
    limit come first.

    Args:
        max_bytes: memory to stay within.
        block: beginnings are found at multiples of so many tokens.
    """

    def __init__(self, max_bytes: int = 2**28, block: int = 8) -> None:
        self.max_bytes, self.block = max_bytes, block
        self.nbytes = 0
        self._kept: OrderedDict[int, Prefix] = OrderedDict()
        self._begin: dict[tuple[str, float | None, tuple[int, ...]], int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, owner: str, rho: float | None, tokens: Sequence[int]) -> tuple[Prefix | None, int]:
        """The kept beginning that reaches furthest into ``tokens``, and how far; (None, 0) where there is none."""
        for length in range(len(tokens) // self.block * self.block, 0, -self.block):
            number = self._begin.get((owner, rho, tuple(tokens[:length])))
            if number is not None:
                self._kept.move_to_end(number)
                return self._kept[number], length
        return None, 0

    def put(self, prefix: Prefix) -> None:
        """Keep ``prefix``; its tensors must not be written to."""
        if prefix.nbytes > self.max_bytes or self.find(prefix.owner, prefix.rho, prefix.tokens)[1] >= self._whole(
            prefix
        ):
            return
        self._number += 1
        self._kept[self._number] = prefix
        self.nbytes += prefix.nbytes
        for key in self._keys(prefix):
            self._begin[key] = self._number
        while self.nbytes > self.max_bytes:
            number, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.nbytes
            for key in self._keys(dropped):
                if self._begin.get(key) == number:
                    del self._begin[key]

    def _whole(self, prefix: Prefix) -> int:
        return len(prefix.tokens) // self.block * self.block

    def _keys(self, prefix: Prefix) -> list[tuple[str, float | None, tuple[int, ...]]]:
        ends = range(self.block, self._whole(prefix) + 1, self.block)
        return [(prefix.owner, prefix.rho, prefix.tokens[:end]) for end in ends]


def stacked(beginnings: Sequence[Layers]) -> Layers:
    """Rows of equal length as one batch."""
    return [
        (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*beginnings, strict=True)
    ]
