"""Rows as token ids, with labels where the loss is: on the response alone, or on a whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bargain_env.errors import InputError

from .rows import Row

IGNORED = -100
"""Label of a position that has no loss, as transformers has it."""
DEFAULT_TEMPLATE = "{prompt}{response}"


@dataclass(frozen=True, slots=True)
class Template:
    """How a prompt and a response become one text.

    Attributes:
        before: the prompt.
        between: it and the response.
        after: the response.
    """

    before: str
    between: str
    after: str

    @classmethod
    def of(cls, text: str) -> Template:
        r"""A template from a text with ``{prompt}`` and ``{response}``, once each and in this order.

        ``\n`` and ``\t`` in it, as a shell hands them over, are a new line and a tab; all else stands for itself.

        Raises:
            InputError: one of the two is missing, there twice, or they are the wrong way round.
        """
        text = text.replace("\\n", "\n").replace("\\t", "\t")
        if text.count("{prompt}") != 1 or text.count("{response}") != 1:
            raise InputError(f"--prompt-template {text!r} must hold {{prompt}} and {{response}} once each")
        before, rest = text.split("{prompt}")
        if "{response}" not in rest:
            raise InputError(f"--prompt-template {text!r}: {{prompt}} must stand before {{response}}")
        between, after = rest.split("{response}")
        return cls(before, between, after)


@dataclass(frozen=True, slots=True)
class Lengths:
    """What tokenisation made of the rows.

    Attributes:
        rows: how many.
        tokens: in all of them.
        targets: tokens that have a loss.
        longest: tokens of the longest row, before anything was cut.
        median: tokens of the row in the middle, before anything was cut.
        prompts_cut: rows whose prompt lost its front.
        responses_cut: rows whose response, or whole text, lost its end.
        unknown: rows of which some text became the tokenizer's unknown token.
    """

    rows: int
    tokens: int
    targets: int
    longest: int
    median: int
    prompts_cut: int
    responses_cut: int
    unknown: int


class TokenRows(Dataset[dict[str, list[int]]]):
    """Token ids and labels of rows, one dictionary each.

    A prompt and a response are tokenised apart, so that what is learned is what follows a prompt in use. Where both are
    longer than ``longest``, the prompt loses its front; a response that alone is longer loses its end. An end-of-sequence
    token follows what was not cut.

    Args:
        rows: to tokenise.
        tokenizer: of the base.
        template: for prompts and responses.
        longest: tokens of a row, at least 2.

    Raises:
        InputError: a row has a chat and the tokenizer no chat template, or a response is no token at all.
    """

    def __init__(self, rows: Sequence[Row], tokenizer: Any, template: Template, longest: int) -> None:
        self._tokenizer, self._template, self._longest = tokenizer, template, longest
        opening = tokenizer("a")["input_ids"][:1]
        self._front = opening if tokenizer.bos_token_id is not None and opening == [tokenizer.bos_token_id] else []
        self._end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._prompts_cut = self._responses_cut = self._unknown = 0
        self._whole: list[int] = []
        self._items = [self._item(k, row) for k, row in enumerate(rows, 1)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._items[index]

    def lengths(self) -> Lengths:
        """Counts of what was made."""
        return Lengths(
            rows=len(self),
            tokens=sum(len(item["input_ids"]) for item in self._items),
            targets=sum(sum(label != IGNORED for label in item["labels"]) for item in self._items),
            longest=max(self._whole),
            median=sorted(self._whole)[len(self._whole) // 2],
            prompts_cut=self._prompts_cut,
            responses_cut=self._responses_cut,
            unknown=self._unknown,
        )

    def _item(self, number: int, row: Row) -> dict[str, list[int]]:
        prompt, target, ends = self._pieces(row)
        ids, answer = self._ids(prompt), self._ids(target)
        if not answer:
            raise InputError(f"{row.place or f'row {number}'}: its response is no token at all; mend or remove it")
        self._unknown += self._tokenizer.unk_token_id in (*ids, *answer)
        answer = answer + (self._end if ends else [])
        front = self._front if not ids or ids[: len(self._front)] != self._front else []
        self._whole.append(len(front) + len(ids) + len(answer))
        room = self._longest - len(front)
        if len(answer) > room - bool(ids):
            self._responses_cut += 1
            answer = answer[: room - bool(ids)]
        kept = room - len(answer)
        if len(ids) > kept:
            self._prompts_cut += 1
            ids = ids[-kept:] if kept else []
        return {"input_ids": [*front, *ids, *answer], "labels": [IGNORED] * len(front + ids) + answer}

    def _pieces(self, row: Row) -> tuple[str, str, bool]:
        """What is read, what is learned, and whether an end-of-sequence token follows."""
        if row.text is not None:
            return "", row.text, True
        if row.messages:
            return self._chat(row)
        assert row.prompt is not None
        assert row.response is not None
        shape = self._template
        return f"{shape.before}{row.prompt}{shape.between}", f"{row.response}{shape.after}", True

    def _chat(self, row: Row) -> tuple[str, str, bool]:
        if not getattr(self._tokenizer, "chat_template", None):
            raise InputError(
                "rows with messages need a tokenizer with a chat template, and this base's has none; give rows with prompt "
                "and response, or another base"
            )
        said = [{"role": role, "content": content} for role, content in row.messages]
        prompt = self._tokenizer.apply_chat_template(said[:-1], tokenize=False, add_generation_prompt=True)
        whole = self._tokenizer.apply_chat_template(said, tokenize=False)
        if not whole.startswith(prompt):
            raise InputError(
                "the chat template writes a prompt otherwise once it is answered; give prompt and response rows"
            )
        return prompt, whole[len(prompt) :], False  # the template ends a turn in its own way

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


@dataclass(frozen=True, slots=True)
class Padded:
    """Makes a batch of items: ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, T]`` int64, padded on the right.

    Attributes:
        pad: id of the padding token.
    """

    pad: int

    def __call__(self, items: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """The batch."""
        longest = max(len(item["input_ids"]) for item in items)

        def stacked(name: str, fill: int) -> Tensor:
            return torch.tensor([[*item[name], *[fill] * (longest - len(item[name]))] for item in items])

        ids = stacked("input_ids", self.pad)
        mask = torch.tensor([[int(i < len(item["input_ids"])) for i in range(longest)] for item in items])
        return {"input_ids": ids, "attention_mask": mask, "labels": stacked("labels", IGNORED)}
