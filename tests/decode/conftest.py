"""A small model that is sure of some things, and prompts of several lengths."""

from __future__ import annotations

import pytest
import torch

from hyperlora import build_nano_tokenizer, inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.inject import adapter_modules
from hyperlora.prompt import decision_prompt


def awake(sharp: float = 3.0, seed: int = 212):
    """An untrained model whose adapter is awake, sharpened so that its distributions are far from uniform.

    With this seed it is in doubt between the two forms, and its prices spread over the range.
    """
    model = inject_hyperlora(nano_model(hidden=32, layers=2, heads=2, intermediate=64, seed=seed), dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharp)
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def texts_of(count: int) -> list[str]:
    """Prompts of a game that goes on, at growing ρ: each is longer than the one before."""
    return [
        decision_prompt(
            0.1 * (i % 11), i + 1, 20, 700.0 + 31 * i, ["buyer", "seller"] * i, [300.0 + 7 * j for j in range(2 * i)],
            300.0 + 7 * i if i else None, 200.0, 1500.0,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer():
    return build_nano_tokenizer()


@pytest.fixture(scope="module")
def model():
    return awake()


@pytest.fixture(scope="session")
def prompts(tokenizer):
    """Token ids of the first ``n`` prompts."""

    def made(count):
        return tokenizer(texts_of(count), add_special_tokens=False)["input_ids"]

    return made
