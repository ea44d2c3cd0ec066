"""A batch of prompts in a KV cache, extended by trees of candidate tokens.

Candidates of one level are fed side by side in one call: each attends to its prompt, its own ancestors and itself, by a
four-dimensional attention mask. So ten first digits cost one call and no copy of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cache import Layers, layers_of, roomy_cache
from .head import LegalHead

Ints = NDArray[np.int64]


class PromptTree:
    """Prompts ``[B]`` with the tokens that every candidate shares, and the candidates fed so far.

    Args:
        head: a model; its ρ must stay bound while the tree is used.
        prompts: token ids of each prompt; lengths may differ.
        shared: tokens appended to every prompt.
        pad_token_id: for padding on the left.
        keep: how many of the shared tokens, counted from the last, candidates can follow; all by default.
        room: how many candidates will be fed.
        begun: keys and values of the first tokens of each prompt, as many of each.

    Attributes:
        states: ``[B, 1 + keep, ·]`` after the last token that is not kept and after each kept one; see `LegalHead`.
        prompt_tokens: fed, of prompts.
        answer_tokens: fed, shared ones and candidates.
    """

    def __init__(
        self,
        head: LegalHead,
        prompts: Sequence[list[int]],
        shared: tuple[int, ...],
        pad_token_id: int,
        keep: int | None = None,
        room: int = 0,
        begun: Layers | None = None,
    ) -> None:
        self.head = head
        begin = begun[0][0].shape[2] if begun else 0
        rest = [p[begin:] for p in prompts]
        longest = max(len(p) for p in rest)
        padding = np.array([longest - len(p) for p in rest])
        ids = np.array([[pad_token_id] * int(n) + p + list(shared) for n, p in zip(padding, rest, strict=True)])
        real = np.arange(ids.shape[1]) >= padding[:, None]
        self._real = _on(np.concatenate([np.ones((len(ids), begin), dtype=bool), real], axis=1), head)
        self._length = _on(begin + real.sum(axis=1), head)
        self._cache = roomy_cache(head.model, self._real.shape[1] + room, begun)
        self._keep = len(shared) if keep is None else keep
        self.states = head.states(
            1 + self._keep,
            input_ids=_on(ids, head),
            attention_mask=self._real.long() if padding.any() else None,
            position_ids=_on(begin + (real.cumsum(axis=1) - 1).clip(min=0), head),
            past_key_values=self._cache,
        )
        self._ancestors = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=head.device)
        self._depth = 0
        self.answer_tokens = len(ids) * len(shared)
        self.prompt_tokens = int(real.sum()) - self.answer_tokens

    def feed(self, tokens: Ints, parents: Ints, used: Ints | None = None) -> Tensor:
        """Extend the tree by one level.

        Args:
            tokens: ``[B, W]`` one candidate token each.
            parents: ``[B, W]`` which candidate of the previous level it follows; not read at the first level.
            used: ``[B]`` how many of the kept shared tokens come before the candidates; all of them by default. It must not
                change between calls.

        Returns:
            ``[B, W, ·]`` states after each candidate.
        """
        head, (batch, width) = self.head, tokens.shape
        skipped = _on(np.zeros(batch, dtype=np.int64) if used is None else self._keep - used, head)
        columns = torch.arange(self._real.shape[1], device=head.device)
        prefix = self._real & (columns < self._real.shape[1] - skipped.unsqueeze(1))
        index = _on(parents if self._depth else np.zeros_like(parents), head)
        inherited = torch.take_along_dim(self._ancestors, index.unsqueeze(-1), dim=1)
        itself = torch.eye(width, dtype=torch.bool, device=head.device).expand(batch, -1, -1)
        self._ancestors = torch.cat([inherited, itself], dim=2)
        visible = torch.cat([prefix.unsqueeze(1).expand(-1, width, -1), self._ancestors], dim=2)
        dtype = layers_of(self._cache)[0][0].dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=head.device).masked_fill(~visible, torch.finfo(dtype).min)
        states = head.states(
            width,
            input_ids=_on(tokens, head),
            attention_mask=mask.unsqueeze(1),
            position_ids=(self._length - skipped + self._depth).unsqueeze(1).expand(-1, width),
            past_key_values=self._cache,
        )
        self._depth += 1
        self.answer_tokens += tokens.size
        return states

    def only(self, rows: Ints) -> None:
        """Go on with ``rows`` alone, in their order; before the first `feed`."""
        index = _on(rows, self.head)
        self._cache.batch_select_indices(index)
        self._real, self._length, self.states, self._ancestors = (
            x.index_select(0, index) for x in (self._real, self._length, self.states, self._ancestors)
        )

    def prompt_layers(self, row: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``[heads, length, d]`` of the first ``length`` tokens of one prompt."""
        columns = self._real[row].nonzero()[:length, 0]
        return [(k[row].index_select(1, columns), v[row].index_select(1, columns)) for k, v in layers_of(self._cache)]


def _on(array: NDArray[np.generic], head: LegalHead) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(head.device)
