"""Hidden states of a causal LM, and the logits of only those tokens that may come next.

The full head of a 0.5B model costs as much as nine of its layers at every position; a choice of ten digits needs ten rows
of it. Where the head is something else than a plain linear layer over the decoder's hidden states, the model's own logits
are taken: one try on the first prompt tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..binding import bind_rho
from .cache import roomy_cache
from .last_layer import last_layer, only_last

_TRIED, _TRIED_LAST = 16, 2
"""Tokens of the prompt that the two ways to logits are compared on, and of them the last ones whose logits are."""


class NonFiniteLogits(ArithmeticError):
    """The model gave NaN or infinity for a legal token; ``row`` of the batch is the first."""

    def __init__(self, row: int) -> None:
        super().__init__(f"logits of row {row} are not finite")
        self.row = row


class LegalHead:
    """A model as a function from tokens to states, and from states to the logits of given tokens.

    Args:
        model: a Hugging Face causal LM. Its ρ, where it takes one, must be bound and its gates computed for the batch.

    Attributes:
        plain: logits of single tokens come from their rows of the head; None until `try_on` has found out. Otherwise states
            are the model's logits themselves.
        passes: forward passes so far.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.plain: bool | None = None
        self.passes = 0
        self._last: Any | None = None

    @property
    def device(self) -> torch.device:
        """Where tokens have to be."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @contextlib.contextmanager
    def bound(self, rho: NDArray[np.float64] | None) -> Iterator[None]:
        """Within the block the model runs at ``rho`` ``[B]``, or with its adapter off; its gates are computed on entry.

        The decoder is called without the model around it, whose forward pass would compute them otherwise.
        """
        binding = getattr(self.model, "hyperlora_binding", None)
        if binding is None:
            yield
            return
        rows = None if rho is None else torch.from_numpy(rho.astype(np.float32)).unsqueeze(1)
        with bind_rho(self.model, rows):
            binding.refresh(self.model.current_rho)
            yield

    @torch.inference_mode()
    def try_on(self, prompt: list[int]) -> None:
        """Find out, once, whether legal rows and a last layer run in part give what the model gives."""
        if self.plain is not None:
            return
        ids = torch.tensor([(prompt * _TRIED)[:_TRIED]], device=self.device)
        with self.bound(None):
            self.plain = self._is_whole() and type(self.model.get_output_embeddings()) is nn.Linear
            self._last = last_layer(self.model) if self.plain else None
            if self._last is not None and not self._agrees(ids):
                self._last = None
            self.plain = self.plain and self._agrees(ids)

    def _is_whole(self) -> bool:
        """Whether the decoder may run alone: a sharded one is gathered only by the forward pass of the model around it."""
        sharded = hasattr(self.model.get_input_embeddings().weight, "device_mesh")
        return hasattr(self.model, "get_decoder") and not sharded

    def _agrees(self, ids: Tensor) -> bool:
        whole = self.model(input_ids=ids).logits[:, -_TRIED_LAST:]
        try:
            states = self._hidden(_TRIED_LAST, input_ids=ids, past_key_values=roomy_cache(self.model, 0))
        except (AttributeError, TypeError):  # another kind of decoder than a causal LM of this library has
            return False
        head = self.model.get_output_embeddings()
        if states.shape[-1] != head.in_features:
            return False
        own = F.linear(states, head.weight, head.bias)
        relative = 1e-5 if whole.dtype in (torch.float32, torch.float64) else 2**-7  # two roundings of bfloat16
        return own.shape == whole.shape and torch.allclose(own.float(), whole.float(), rtol=relative, atol=relative)

    def states(self, keep: int, **inputs: Any) -> Tensor:
        """States ``[B, keep, ·]`` of the last ``keep`` positions; ``inputs`` are those of the model, with a cache."""
        self.passes += 1
        if self.plain:
            return self._hidden(keep, **inputs)
        logits: Tensor = self.model(**inputs, logits_to_keep=keep, use_cache=True).logits
        return logits[:, -keep:]

    def _hidden(self, keep: int, **inputs: Any) -> Tensor:
        with only_last(self._last, keep):
            hidden: Tensor = self.model.get_decoder()(**inputs, use_cache=True).last_hidden_state
        return hidden[:, -keep:]

    def logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Logits ``[B, …, U]`` of ``tokens`` ``[U]`` from ``states`` ``[B, …, ·]``, in at least float32.

        Raises:
            NonFiniteLogits: one of them is NaN or +∞, or all of a row are -∞.
        """
        if self.plain:
            head = self.model.get_output_embeddings()
            found = F.linear(states, head.weight[tokens], None if head.bias is None else head.bias[tokens])
        else:
            found = states[..., tokens]
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        highest = found.amax(dim=-1)  # NaN where one of them is
        if not torch.isfinite(highest).all():
            raise NonFiniteLogits(int((~torch.isfinite(highest)).nonzero()[0, 0]))
        return found
