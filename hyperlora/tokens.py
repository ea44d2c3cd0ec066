"""Tokenizers: the digit-level one of janus-nano, and the prompt's markers in anybody else's."""

from __future__ import annotations

import hashlib
import json
import string
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .prompt import INSTRUCTION, SPECIAL_TOKENS, markers

_WORDS = [
    f" {INSTRUCTION}\n",
    *(f" {side}:{digit}." for side in ("buyer", "seller") for digit in "01"),
    " EMPTY:EMPTY",
    " PAD:0.0000",
    "OFFER 0.",
    "OFFER 1.",
    "ACCEPT",
    " NA",
    " / ",
    " 0.",
    " 1.",
]
"""Fixed pieces of the prompt that are one token each; every digit after a decimal point stays a token of its own."""


def build_nano_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of about 120 tokens that spells every prompt and answer exactly, digit by digit.

    ASCII text outside the prompt is spelled character by character; other characters become ``<unk>``.
    """
    specials = ["<pad>", "<eos>", "<unk>", *SPECIAL_TOKENS]
    characters = [c for c in string.printable if c not in "\r\x0b\x0c"]
    vocabulary = {token: i for i, token in enumerate([*specials, *_WORDS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    alternatives = "|".join(_escape(word) for word in sorted(_WORDS, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{alternatives}|[\\s\\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL_TOKENS,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _escape(word: str) -> str:
    return "".join(f"\\{c}" if c in ".^$*+?()[]{}|\\/<>" else "\\n" if c == "\n" else c for c in word)


def add_markers(tokenizer: Any, prompt_format: int = 2) -> list[int]:
    """Give each marker of the prompt an id of its own.

    Returns:
        The ids that lie beyond the tokenizer's previous size, in order: rows that no pretraining has seen.
    """
    before = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": markers(prompt_format)})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return list(range(before, len(tokenizer)))


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with nothing added in front or behind."""
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary: equal for tokenizers that give the same ids to the same tokens."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()
