"""The seed's contract: let the model write, then read its text.

Kept for parity and for models that give no logits. What cannot be read is not mended here: it is counted, and the caller
plays a fallback.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MAX_NEW_TOKENS = 20
_OFFER = re.compile(r"OFFER\s+([+-]?(?:\d+\.?\d*|\.\d+))")


@dataclass(frozen=True, slots=True)
class Answer:
    """A text as it was understood.

    Attributes:
        accept: it holds ``ACCEPT``.
        price: normalised price of its first ``OFFER``; None without one, and beside ``ACCEPT``, which wins.
    """

    accept: bool
    price: float | None

    @property
    def understood(self) -> bool:
        """Whether it is an answer at all."""
        return self.accept or self.price is not None


def read_answer(text: str) -> Answer:
    """``ACCEPT`` anywhere wins; else the number behind the first ``OFFER``, whatever it is (seed report, section 8.4)."""
    if "ACCEPT" in text:
        return Answer(True, None)
    found = _OFFER.search(text)
    return Answer(False, float(found[1]) if found else None)


@torch.inference_mode()
def write(model: Any, prompts: Sequence[list[int]], pad_token_id: int, eos_token_id: int | None) -> list[list[int]]:
    """Greedy continuations of B prompts, each up to its end-of-sequence token; ρ must be bound, one or B.

    No sampling and no repetition penalty, whatever the model's own generation settings are.
    """
    from transformers import GenerationConfig

    device = model.get_input_embeddings().weight.device
    longest = max(len(p) for p in prompts)
    ids = torch.tensor([[pad_token_id] * (longest - len(p)) + p for p in prompts], device=device)
    real = torch.arange(longest, device=device) >= torch.tensor([[longest - len(p)] for p in prompts], device=device)
    ends = _ends(model, eos_token_id)
    settings = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1, pad_token_id=pad_token_id, eos_token_id=ends
    )
    with _without_own_settings(model):
        out = model.generate(ids, attention_mask=real.long(), generation_config=settings)
    return [_until(row, ends) for row in out[:, longest:].tolist()]


@contextlib.contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    """``generate`` fills what its settings leave open from the model's own; Qwen2 brings sampling and a penalty."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _ends(model: Any, eos_token_id: int | None) -> list[int]:
    """Every token that ends an answer: the tokenizer's and the model's own."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return sorted({int(token) for token in [eos_token_id, *listed] if token is not None})


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    at = np.flatnonzero(np.isin(tokens, list(ends)))
    return tokens[: int(at[0])] if len(at) else tokens
