"""Embedding rows for new tokens, trained and saved with the adapter, without touching the base's table.

Resizing a table to ``len(tokenizer)`` shrinks models whose table is padded (Qwen2) and stores the whole table with the
adapter. Here the base keeps its table, and ids at or beyond ``first`` are looked up in rows of our own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TokenRows(nn.Module):
    """An embedding whose ids from ``first`` on live in a small trainable table.

    The new tokens can be read, never produced: the head is the base's own.

    Args:
        base: the base model's embedding; frozen.
        first: first id held here.
        count: number of rows.
    """

    def __init__(self, base: nn.Module, first: int, count: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        weight: Tensor = base.weight  # type: ignore[assignment]
        mean, spread = weight.detach().float().mean(dim=0), weight.detach().float().std(dim=0)
        noise = torch.randn(count, weight.shape[1], generator=torch.Generator().manual_seed(0))
        self.rows = nn.Parameter(mean + 0.1 * spread * noise.to(mean.device))

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes and a checkpoint holds."""
        return {"rows": self.rows}

    @property
    def weight(self) -> Tensor:
        """The base's table, for code that ties heads to it."""
        return self.base.weight  # type: ignore[return-value]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, S]`` → vectors ``[B, S, d]``."""
        new = ids >= self.first
        known = self.base(ids.masked_fill(new, 0))
        own = self.rows[(ids - self.first).clamp(min=0, max=len(self.rows) - 1)]
        return torch.where(new.unsqueeze(-1), own.to(known.dtype), known)


def add_token_rows(model: Any, new_ids: list[int]) -> None:
    """Give ``model`` trainable rows for ``new_ids`` (consecutive, as `hyperlora.tokens.add_markers` returns them)."""
    if new_ids:
        model.set_input_embeddings(TokenRows(model.get_input_embeddings(), new_ids[0], len(new_ids)))
