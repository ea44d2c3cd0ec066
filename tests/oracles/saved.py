"""Bases and adapters on disk for the oracles of checkpoints: small, and wide enough for 4 bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from hyperlora import bind_rho, prepare_model, save_hyperlora_adapter
from hyperlora.adapter_files import CONFIG
from hyperlora.base import load_base, nano_model
from hyperlora.inject import HyperLoRASettings, adapter_parameters
from hyperlora.tokens import build_nano_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "adapters"
SHAPE = HyperLoRASettings(rank=2, alpha=4.0, dropout=0.0, hyper_hidden=4)


def write_base(folder: Path, seed: int = 1, projections: int | None = None, **shape) -> Path:
    """A base of 64 wide (bitsandbytes' block) and one layer; ``projections`` draws those anew from another seed."""
    model = nano_model(**{"hidden": 64, "layers": 1, "heads": 2, "intermediate": 64, "seed": seed, **shape})
    if projections is not None:
        generator = torch.Generator().manual_seed(projections)
        with torch.no_grad():
            for module in model.model.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(0.0, 0.08, generator=generator)
    model.save_pretrained(str(folder))
    build_nano_tokenizer().save_pretrained(str(folder))
    return folder


def trained(base: Path, seed: int = 2, use_qlora: bool = False):
    """An adapter that does something, on ``base``, and its tokenizer."""
    model, tokenizer = load_base(str(base), use_qlora=use_qlora)
    prepare_model(model, tokenizer, SHAPE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.normal_(0.0, 0.4, generator=generator)
    return model, tokenizer


def save(base: Path, folder: Path, seed: int = 2, **options) -> Path:
    return save_hyperlora_adapter(*trained(base, seed), folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits(model, rho=0.3) -> torch.Tensor:
    x = torch.arange(20, 60).view(2, 20)
    with torch.no_grad(), bind_rho(model, rho):
        return model(x).logits


def edit(folder: Path, to: Path, **changes) -> Path:
    """A copy of an adapter with other config entries; None removes one."""
    shutil.copytree(folder, to)
    config = {**json.loads((to / CONFIG).read_text()), **changes}
    (to / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return to
