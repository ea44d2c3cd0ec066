"""A batch of prompts in a KV cache, extended by trees of candidate tokens.

Candidates of one level are fed side by side in one call: each attends to its prompt, its own ancestors and itself, by a
four-dimensional attention mask. So ten first digits cost one call and no copy of the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PromptTree:
    """Prompts ``[B]`` with the tokens that every candidate shares, and the candidates fed so far.

    Args:
        model: a Hugging Face causal LM; its ρ must stay bound while the tree is used.
        prompts: token ids of each prompt; lengths may differ.
        shared: tokens appended to every prompt.
        pad_token_id: for padding on the left.

    Attributes:
        logits: ``[B, 1 + len(shared), V]`` after the prompt and after each shared token, float32.
    """

    def __init__(self, model: Any, prompts: list[list[int]], shared: tuple[int, ...], pad_token_id: int) -> None:
        self.model = model
        device = next(model.parameters()).device
        longest = max(len(p) for p in prompts)
        padding = np.array([longest - len(p) for p in prompts])
        ids = np.array([[pad_token_id] * int(n) + p + list(shared) for n, p in zip(padding, prompts, strict=True)])
        self._real = torch.from_numpy(np.arange(ids.shape[1]) >= padding[:, None]).to(device)
        self._length = torch.from_numpy(ids.shape[1] - padding).to(device)
        out = model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=self._real.long() if padding.any() else None,
            position_ids=(self._real.long().cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=1 + len(shared),
            use_cache=True,
        )
        self._cache, self.logits = out.past_key_values, out.logits.float()
        self._ancestors = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=device)
        self._depth, self._shared = 0, len(shared)

    def feed(
        self, tokens: NDArray[np.int64], parents: NDArray[np.int64], shared_used: NDArray[np.int64] | None = None
    ) -> Tensor:
        """Extend the tree by one level.

        Args:
            tokens: ``[B, W]`` one candidate token each.
            parents: ``[B, W]`` which candidate of the previous level it follows; not read at the first level.
            shared_used: ``[B]`` how many of the shared tokens come before the candidates; all of them by default. It must
                not change between calls.

        Returns:
            ``[B, W, V]`` logits after each candidate, float32.
        """
        device = self._real.device
        batch, width = tokens.shape
        unused = np.zeros(batch, dtype=np.int64) if shared_used is None else self._shared - shared_used
        skipped = torch.from_numpy(unused).to(device)
        columns = torch.arange(self._real.shape[1], device=device)
        prefix = self._real & (columns < self._real.shape[1] - skipped.unsqueeze(1))
        index = torch.from_numpy(np.ascontiguousarray(parents) if self._depth else np.zeros_like(parents)).to(device)
        inherited = torch.take_along_dim(self._ancestors, index.unsqueeze(-1), dim=1)
        itself = torch.eye(width, dtype=torch.bool, device=device).expand(batch, -1, -1)
        self._ancestors = torch.cat([inherited, itself], dim=2)
        visible = torch.cat([prefix.unsqueeze(1).expand(-1, width, -1), self._ancestors], dim=2)
        dtype = self.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)
        out = self.model(
            input_ids=torch.from_numpy(np.ascontiguousarray(tokens)).to(device),
            attention_mask=mask.unsqueeze(1),
            position_ids=(self._length - skipped + self._depth).unsqueeze(1).expand(-1, width),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._depth += 1
        self._cache = out.past_key_values
        return out.logits.float()
