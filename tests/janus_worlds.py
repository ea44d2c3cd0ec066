"""Small Januses for tests: in memory, on disk, and one whose decisions are made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from hyperlora import Adapter, build_nano_tokenizer, inject_hyperlora, load_base, save_hyperlora_adapter
from hyperlora.base import nano_model
from hyperlora.inject import adapter_modules

TABLE = {"seat": "buyer", "reservation": 900.0, "price_low": 200.0, "price_high": 1500.0, "max_turns": 20}
OFFERS = [("buyer", 450.0), ("seller", 1150.0)]
BESIDE = {"max_turns": 20, "price_low": 200, "price_high": 1500}
"""What an environment's observation leaves out."""
STEP = 0.14
"""One step of 1e-4 of the range; what another batch shape may do to a price."""


def small_adapter(k_history: int = 8, prompt_format: int = 2, sharpness: float = 3.0) -> Adapter:
    """An untrained model whose adapter is awake, with distributions far from uniform."""
    model = inject_hyperlora(nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=4), dropout=0.0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharpness)
    _wake(model, 0)
    return Adapter(model.eval(), build_nano_tokenizer(), {"k_history": k_history, "prompt_format": prompt_format})


def write_base(folder: Path, seed: int = 1) -> Path:
    """The folder of a small base."""
    nano_model(hidden=32, layers=1, heads=2, intermediate=48, seed=seed).save_pretrained(str(folder))
    build_nano_tokenizer().save_pretrained(str(folder))
    return folder


def write_adapter(folder: Path, base: Path, seed: int = 1) -> Path:
    """The folder of an adapter of that base."""
    model, tokenizer = load_base(str(base))
    inject_hyperlora(model, rank=4, alpha=8.0, dropout=0.0, hyper_hidden=8, seed=seed)
    _wake(model, seed)
    return save_hyperlora_adapter(model, tokenizer, folder)


def _wake(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.5, generator=generator)


@dataclasses.dataclass
class Decided:
    """What a scorer answers."""

    accept_probability: np.ndarray
    price: np.ndarray
    covered: np.ndarray
    accept: np.ndarray
    fallback: np.ndarray

    @property
    def text(self) -> tuple[str, ...]:
        """Nothing was written."""
        return ("",) * len(self.price)


class Hostile:
    """A scorer that decides anything: prices beyond every limit, acceptances of anything, answers that are none."""

    def __init__(self, seed: int, fallbacks: float = 0.2, illegal: float = 0.0) -> None:
        self.random, self.fallbacks, self.illegal = np.random.default_rng(seed), fallbacks, illegal

    def decide(self, prompts, rho, may_accept, uniforms=None, offers=True):
        """As `hyperlora.decode.Scorer.decide`."""
        n, random = len(prompts), self.random
        price = np.where(random.random(n) < 0.2, random.choice([-0.5, 0.0, 1.0, 1.7], n), random.random(n))
        accept = (random.random(n) < 0.3) & (may_accept | (random.random(n) < self.illegal))
        self.decided = Decided(np.full(n, 0.5), price, np.ones(n), accept, random.random(n) < self.fallbacks)
        return self.decided


class Fixed:
    """A scorer that always decides the same."""

    def __init__(self, price: float, accept: bool = False, fallback: bool = False) -> None:
        self.answer = (price, accept, fallback)

    def decide(self, prompts, rho, may_accept, uniforms=None, offers=True):
        """As `hyperlora.decode.Scorer.decide`."""
        n = len(prompts)
        price, accept, fallback = self.answer
        return Decided(np.full(n, 0.25), np.full(n, price), np.ones(n), np.full(n, accept), np.full(n, fallback))
