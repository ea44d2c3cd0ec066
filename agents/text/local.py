"""A chat model in this process: any causal LM that `hyperlora.base` loads, through its tokenizer's chat template."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from agents.janus_models import MODEL_LOCK
from bargain_env.errors import InputError
from hyperlora.base import load_base

from .chat import Question, Reply

MAX_TOKENS = 24
"""Tokens of an answer: room for either form and a few words around it."""
PLAIN = "{prompt}\n\nAnswer:"
"""The layout for a model without a chat template."""


class LocalChat:
    """A `ChatModel` of a model in memory; it decodes greedily, whatever its own generation settings say.

    Its floats depend on the batch's shape in their last bits, so answers are reproducible for the same batches and threads.

    Args:
        model: a Hugging Face causal LM.
        tokenizer: its tokenizer.
        max_tokens: of an answer.
        batch_size: prompts a forward pass; halved, and so kept, where memory runs out.

    Raises:
        InputError: the tokenizer has neither a padding nor an end-of-sequence token.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = MAX_TOKENS, batch_size: int = 16) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_tokens, self.batch_size = max_tokens, batch_size
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise InputError(
                "the tokenizer has neither a padding nor an end-of-sequence token; give a model that has one"
            )
        self._pad = int(pad)
        self._ends = _ends(model, tokenizer)

    @classmethod
    def load(
        cls, base: str, max_tokens: int = MAX_TOKENS, batch_size: int = 16, device: str = "cpu", use_qlora: bool = False
    ) -> LocalChat:
        """The model that ``base`` names, see `hyperlora.base.load_base`.

        Raises:
            InputError: it cannot be loaded.
        """
        return cls(*load_base(base, use_qlora, device=device), max_tokens, batch_size)

    def layout(self, prompt: str) -> list[int]:
        """The token ids of a prompt: as a chat with one message where the tokenizer has a template, else as `PLAIN`."""
        if not getattr(self.tokenizer, "chat_template", None):
            return list(self.tokenizer(PLAIN.format(prompt=prompt))["input_ids"])
        messages = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # the template has spelled them

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply for each question, in order; prompts that are the same are answered once."""
        prompts = list(dict.fromkeys(question.prompt for question in questions))
        ids = [self.layout(prompt) for prompt in prompts]
        replies: list[Reply] = []
        while len(replies) < len(ids):
            part = ids[len(replies) : len(replies) + self.batch_size]
            try:
                replies += self._generate(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.batch_size = len(part) // 2
        found = dict(zip(prompts, replies, strict=True))
        return [found[question.prompt] for question in questions]

    @torch.inference_mode()
    def _generate(self, ids: list[list[int]]) -> list[Reply]:
        longest = max(len(row) for row in ids)
        device = self.model.device
        padded = torch.tensor([[self._pad] * (longest - len(row)) + row for row in ids], device=device)
        real = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=device)
        with MODEL_LOCK, self._greedy():
            out = self.model.generate(padded, attention_mask=real)
        rows = out[:, longest:].tolist()
        texts = self.tokenizer.batch_decode([self._until_end(row) for row in rows], skip_special_tokens=True)
        return [Reply(text, not self._ends & set(row)) for text, row in zip(texts, rows, strict=True)]

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(row) if token in self._ends), len(row))
        return row[:end]

    @contextlib.contextmanager
    def _greedy(self) -> Iterator[None]:
        """Without the model's own settings: a repetition penalty would punish the digits that the prompt has used."""
        own = self.model.generation_config
        self.model.generation_config = GenerationConfig(
            max_new_tokens=self.max_tokens, do_sample=False, pad_token_id=self._pad, eos_token_id=sorted(self._ends)
        )
        try:
            yield
        finally:
            self.model.generation_config = own


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the model's own, and the tokenizer's."""
    own = getattr(model.generation_config, "eos_token_id", None)
    some = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return frozenset(int(token) for token in some if token is not None)
