"""Decisions for many prompts at once: P(ACCEPT), the price distribution, and what a decode mode makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..binding import bind_rho
from .grammar import ROOT, Grammar, compile_grammar
from .price import child_probabilities, chosen_price, expected_price
from .tree import PromptTree

Floats = NDArray[np.float64]
MODES = ("greedy", "sample", "mean")
UNIFORMS = 32
"""Uniform numbers a sampled decision may use: one for the form, one a token of the price."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the model answers to B prompts.

    Attributes:
        accept_probability: ``[B]`` P(ACCEPT) among the legal answers; 0 where accepting is not legal.
        price: ``[B]`` normalised price of the offer it would make if it does not accept.
        covered: ``[B]`` share of the offer mass whose price was resolved to the last level asked for; the rest counts at
            the middle of its interval (``mean`` only, else 1).
        accept: ``[B]`` the decision.
    """

    accept_probability: Floats
    price: Floats
    covered: Floats
    accept: NDArray[np.bool_]


class Scorer:
    """Constrained decoding over ``ACCEPT`` and ``OFFER d.dddd``.

    Args:
        model: causal LM, with or without a HyperLoRA.
        tokenizer: its tokenizer.
        mode: ``greedy`` takes the likelier form, then the likeliest token at each choice; ``sample`` draws from the
            distribution; ``mean`` accepts where P(ACCEPT) ≥ ½ and else offers the expected price.
        batch_size: prompts a forward pass.
        levels: ``mean`` only: digits resolved by the model beyond the first; each costs one call.
        width: ``mean`` only: candidates expanded a level.

    Raises:
        ValueError: unknown mode.
    """

    def __init__(
        self, model: Any, tokenizer: Any, mode: str = "mean", batch_size: int = 256, levels: int = 2, width: int = 12
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown decode mode {mode!r}; choose one of {', '.join(MODES)}")
        self.model, self.mode, self.batch_size = model, mode, batch_size
        self.levels, self.width = levels, width
        self.grammar: Grammar = compile_grammar(tokenizer)
        self.pad_token_id = int(tokenizer.pad_token_id)

    def decide(
        self,
        prompts: list[list[int]],
        rho: Floats | None,
        may_accept: NDArray[np.bool_],
        uniforms: Floats | None = None,
    ) -> Decisions:
        """Decide for B prompts.

        Args:
            prompts: token ids.
            rho: ``[B]`` bound to the gates; None for a bare base model.
            may_accept: ``[B]`` whether ACCEPT is legal.
            uniforms: ``[B, UNIFORMS]`` in [0, 1), for mode ``sample``.
        """
        parts = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            drawn = None if uniforms is None else uniforms[rows]
            parts.append(self._decide(prompts[rows], None if rho is None else rho[rows], may_accept[rows], drawn))
        names = ("accept_probability", "price", "covered", "accept")
        return Decisions(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    @torch.inference_mode()
    def _decide(
        self, prompts: list[list[int]], rho: Floats | None, may_accept: NDArray[np.bool_], uniforms: Floats | None
    ) -> Decisions:
        if not hasattr(self.model, "hyperlora_binding"):
            return self._walk(prompts, may_accept, uniforms)
        with bind_rho(self.model, None if rho is None else torch.from_numpy(rho.astype(np.float32)).unsqueeze(1)):
            return self._walk(prompts, may_accept, uniforms)

    def _walk(self, prompts: list[list[int]], may_accept: NDArray[np.bool_], uniforms: Floats | None) -> Decisions:
        grammar = self.grammar
        tree = PromptTree(self.model, prompts, grammar.forced, self.pad_token_id)
        root = child_probabilities(grammar, tree.logits[:, 0], np.full(len(prompts), ROOT))
        accept_probability = np.where(may_accept, root[:, grammar.accept], 0.0)
        covered = np.ones(len(prompts))
        if self.mode == "mean":
            price, covered = expected_price(tree, grammar, self.levels, self.width)
        else:
            price = chosen_price(
                tree, grammar, uniforms[:, 1:] if self.mode == "sample" and uniforms is not None else None
            )
        if self.mode == "sample" and uniforms is not None:
            accept = uniforms[:, 0] < accept_probability
        else:
            accept = may_accept & (accept_probability >= 0.5)
        return Decisions(accept_probability, price, covered, accept)
