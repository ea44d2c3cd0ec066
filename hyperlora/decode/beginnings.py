"""Beginnings that prompts have in common are computed once: within a batch always, between calls on request."""

from __future__ import annotations

import numpy as np
import torch

from ..digest import adapter_digest
from ..inject import adapter_parameters
from .batches import PASS_TOKENS, Sharing, share
from .cache import Layers, Prefix, PrefixCache, keeps_everything, layers_of, roomy_cache, stacked
from .head import LegalHead
from .questions import Questions
from .tree import PromptTree


class Beginnings:
    """Computes and finds keys and values of beginnings.

    Args:
        head: the model.
        store: keeps beginnings between calls; None keeps nothing.

    Attributes:
        store: keeps beginnings between calls.
        fed: tokens of beginnings fed so far.
    """

    def __init__(self, head: LegalHead, store: PrefixCache | None) -> None:
        self._head, self.store = head, store
        self._possible = keeps_everything(roomy_cache(head.model, 0))
        self._owner: tuple[object, str] | None = None
        self.fed = 0

    def of(self, asked: Questions) -> Layers | None:
        """Keys and values ``[B, heads, P, d]`` of the first P tokens of each prompt; None where there is nothing to gain.

        No ρ of the batch may be bound: that of each beginning is.
        """
        if not self._possible:
            return None
        found, shared = self._kept(asked), share(asked.prompts, asked.keys)
        if found is not None and found[0] * len(asked) > (_saved(shared, len(asked)) if shared else 0):
            return stacked(found[1])
        return None if shared is None else self._computed(asked, shared)

    def keep(self, asked: Questions, tree: PromptTree) -> None:
        """Keep what ``tree`` computed of the prompts for later calls, where that was asked for."""
        if self.store is not None and self._possible:
            owner = self.owner()
            for row, (key, prompt) in enumerate(zip(asked.keys, asked.prompts, strict=True)):
                self.store.put(Prefix(owner, key, tuple(prompt), tree.prompt_layers(row, len(prompt))))

    def owner(self) -> str:
        """What keys and values belong to, beside ρ: the adapter's bytes, the base and its precision.

        It follows the adapter where its tensors are written or replaced; the frozen base is taken as it is named.
        """
        model = self._head.model
        tensors = list(adapter_parameters(model).values())
        now = tuple((id(t), t.data_ptr(), t._version) for t in tensors)
        if self._owner is None or self._owner[0] != now:
            adapter = adapter_digest(model) if hasattr(model, "hyperlora_settings") else "base"
            base = getattr(model, "base_digest", None) or f"object {id(model)}"
            dtype = model.get_input_embeddings().weight.dtype
            self._owner = now, f"{adapter}:{base}:{dtype}"
        return self._owner[1]

    def _kept(self, asked: Questions) -> tuple[int, list[Layers]] | None:
        """As many tokens as are kept of every prompt of the batch, and their keys and values."""
        if self.store is None:
            return None
        owner, found = self.owner(), []
        for key, prompt in zip(asked.keys, asked.prompts, strict=True):
            prefix, reach = self.store.find(owner, key, prompt[:-1])
            if prefix is None:
                return None
            found.append((prefix, reach, key, prompt))
        length = min(reach for _, reach, _, _ in found)
        return length, [prefix.first(length, owner, key, prompt) for prefix, _, key, prompt in found]

    def _computed(self, asked: Questions, shared: Sharing) -> Layers:
        head, first = self._head, shared.first
        ids = torch.tensor([asked.prompts[i][: shared.length] for i in first], device=head.device)
        cache = roomy_cache(head.model, shared.length)
        with head.bound(None if asked.rho is None else asked.rho[first]):
            head.states(1, input_ids=ids, attention_mask=None, position_ids=_positions(ids), past_key_values=cache)
        self.fed += ids.numel()
        which = torch.from_numpy(shared.which).to(head.device)
        return [(k.index_select(0, which), v.index_select(0, which)) for k, v in layers_of(cache)]


def _saved(shared: Sharing, rows: int) -> int:
    return (rows - len(shared.first)) * shared.length - PASS_TOKENS


def _positions(ids: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.arange(ids.shape[1])).to(ids.device).expand(len(ids), -1)
