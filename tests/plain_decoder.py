"""What a decision is, written down plainly: one prompt at a time, no cache, softmax over the whole vocabulary.

Legal tokens are found by walking the 10,002 answers as strings of tokens, and nothing of `hyperlora.decode` is used but
the shape of its answers.
"""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import torch

from hyperlora import bind_rho
from hyperlora.decode import Decisions

PRICES = [f"{i / 10_000:.4f}" for i in range(10_001)]


class PlainDecoder:
    """A slow `Scorer`: ``greedy``, ``sample`` or ``mean``, with its defaults."""

    def __init__(self, model, tokenizer, mode="greedy", levels=2, width=12):
        self.model, self.mode, self.levels, self.width = model, mode, levels, width
        texts = ["ACCEPT", *(f"OFFER {price}" for price in PRICES)]
        self.answers = {
            tuple(ids): None if text == "ACCEPT" else float(text.split()[1])
            for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True)
        }
        self.accept = next(ids for ids, price in self.answers.items() if price is None)

    def decide(self, prompts, rho, may_accept, uniforms=None, offers=True):
        rows = []
        for i, prompt in enumerate(prompts):
            bound = None if rho is None else float(np.float32(rho[i]))
            drawn = None if self.mode != "sample" else list(uniforms[i])
            rows.append(self.one(prompt, bound, bool(may_accept[i]), drawn))
        return Decisions(*(np.array(column) for column in zip(*rows, strict=True)))

    def one(self, prompt, rho, may_accept, uniforms):
        first = self.following(prompt, rho, ())
        p = first[self.accept[:1]]
        if uniforms:
            accept = may_accept and uniforms[0] < p
        elif self.mode == "greedy":
            accept = may_accept and max(first, key=first.get) == self.accept[:1]
        else:
            accept = may_accept and p >= 0.5
        price = self.mean(prompt, rho) if self.mode == "mean" else self.price(prompt, rho, uniforms and uniforms[1:])
        return p if may_accept else 0.0, price, 1.0, accept

    def following(self, prompt, rho, path):
        """Longer path → probability, among the legal ones."""
        depth = len(path)
        longer = list(
            dict.fromkeys(ids[: depth + 1] for ids in self.answers if ids[:depth] == path and len(ids) > depth)
        )
        if len(longer) == 1:
            return {longer[0]: 1.0}
        bound = bind_rho(self.model, rho) if hasattr(self.model, "hyperlora_binding") else contextlib.nullcontext()
        with torch.no_grad(), bound:
            logits = self.model(torch.tensor([[*prompt, *path]])).logits[0, -1]
        whole = torch.softmax(logits.double(), dim=-1)
        legal = [whole[ids[-1]].item() for ids in longer]
        return {ids: p / sum(legal) for ids, p in zip(longer, legal, strict=True)}

    @functools.cache  # noqa: B019
    def longer(self, path):
        """Paths of one token more, in the order of prices."""
        depth = len(path)
        return list(dict.fromkeys(ids[: depth + 1] for ids in self.answers if ids[:depth] == path and len(ids) > depth))

    def offers(self, prompt, rho, path):
        """`following` without ACCEPT."""
        found = {ids: p for ids, p in self.following(prompt, rho, path).items() if ids != self.accept[: len(path) + 1]}
        return {ids: p / sum(found.values()) for ids, p in found.items()}

    def price(self, prompt, rho, uniforms):
        path = ()
        while path not in self.answers:
            options = self.offers(prompt, rho, path)
            if uniforms is None:
                path = max(options, key=options.get)
            else:
                edges = np.cumsum(list(options.values()))
                path = list(options)[min(int((edges <= uniforms[len(path)] * edges[-1]).sum()), len(options) - 1)]
        return self.answers[path]

    def mean(self, prompt, rho):
        """Sum over the beam: beginnings that are not continued count at the middle of their prices."""
        total, open_ = 0.0, {(): 1.0}
        while len(open_) == 1:
            (path, p), *_ = open_.items()
            open_ = {ids: p * q for ids, q in self.offers(prompt, rho, path).items()}
            for ids in [ids for ids in open_ if len(self.below(ids)) == 1]:
                total += open_.pop(ids) * self.below(ids)[0]
        for _ in range(self.levels):
            kept = dict(sorted(open_.items(), key=lambda item: -item[1])[: self.width])
            total += sum(p * self.middle(ids) for ids, p in open_.items() if ids not in kept)
            open_ = {ids: p * q for path, p in kept.items() for ids, q in self.offers(prompt, rho, path).items()}
        return total + sum(p * self.middle(ids) for ids, p in open_.items())

    @functools.cache  # noqa: B019
    def below(self, path):
        return [price for ids, price in self.answers.items() if ids[: len(path)] == path]

    def middle(self, path):
        prices = self.below(path)
        return (min(prices) + max(prices)) / 2

    def probability(self, prompt, rho, text_ids):
        """P of one answer, the product over its tokens."""
        found = 1.0
        for depth in range(len(text_ids)):
            found *= self.following(prompt, rho, tuple(text_ids[:depth]))[tuple(text_ids[: depth + 1])]
        return found
