"""Tokenizers: the digit-level one of janus-nano, and the prompt's markers in anybody else's."""

from __future__ import annotations

import hashlib
import json
import string
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bargain_env.errors import InputError, unknown

from .prompt import INSTRUCTION, SPECIAL_TOKENS, markers

_WORDS = [
    f" {INSTRUCTION}\n",
    *(f" {side}:{sign}{digit}." for side in ("buyer", "seller") for sign in ("", "-") for digit in "01"),
    " EMPTY:EMPTY",
    " PAD:0.0000",
    "OFFER 0.",
    "OFFER 1.",
    "ACCEPT",
    " NA",
    " / ",
    " 0.",
    " 1.",
    " -0.",
    " -1.",
]
"""Fixed pieces of the prompt that are one token each; every digit after a decimal point stays a token of its own."""


def build_nano_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of about 130 tokens that spells every prompt and answer exactly, digit by digit.

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


MARKER_MODES = ("new", "existing")
"""How the prompt's markers are spelled: each as a token of its own, or in pieces that the base already knows."""


def add_markers(tokenizer: Any, prompt_format: int = 2, mode: str = "new") -> list[int]:
    """Make ``tokenizer`` ready for prompts; the prompt's text is the same in both modes.

    ``new`` gives each marker a token of its own, and its embedding must be trained. ``existing`` leaves the vocabulary
    alone: a marker is read in the pieces that the tokenizer cuts it into, and an export is a plain LoRA. Either way a
    tokenizer without a padding token pads with its end-of-sequence token, which adds nothing.

    Returns:
        The ids of the markers that the vocabulary did not have, in order: rows that no pretraining has seen.

    Raises:
        InputError: unknown mode, or the tokenizer has neither a padding nor an end-of-sequence token.
    """
    if mode not in MARKER_MODES:
        raise unknown("markers", mode, MARKER_MODES)
    added = []
    if mode == "new":
        known, wanted = tokenizer.get_vocab(), markers(prompt_format)
        tokenizer.add_special_tokens({"extra_special_tokens": wanted}, replace_extra_special_tokens=False)
        added = sorted(tokenizer.convert_tokens_to_ids([marker for marker in wanted if marker not in known]))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(
                "this tokenizer has neither a pad nor an eos token; set tokenizer.eos_token and load it again"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return added


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with nothing added in front or behind."""
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary: equal for tokenizers that give the same ids to the same tokens."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def spelling_digest(tokenizer: Any) -> str | None:
    """SHA-256 of all that decides how ``tokenizer`` spells a text and reads it back; None where it cannot be written out.

    What callers switch on and off, padding and truncation, is left out.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    machine = {
        name: part for name, part in json.loads(backend.to_str()).items() if name not in ("padding", "truncation")
    }
    switches = {
        name: getattr(tokenizer, name, None) for name in ("split_special_tokens", "clean_up_tokenization_spaces")
    }
    ends = {"eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    whole = [tokenizers.__version__, type(tokenizer).__name__, machine, switches, ends]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write ``tokenizer`` to ``folder``, without the notes on where this copy of it came from.

    With them a tokenizer that was saved, loaded and saved again would be another file than before.
    """
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("is_local", "local_files_only")}
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
