"""Adapters made for tests: PEFT folders for a small stack of layers, and what they should compute, said plainly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hyperlora.adapters import AdapterManager, AdapterRegistry, LoRA, write_peft

WIDTH, LAYERS = 8, 3
TARGETS = ("q_proj", "v_proj")


class Block(nn.Module):
    """Two projections with something between, so that layers do not commute."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.v_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.v_proj(torch.sin(self.q_proj(x))))


class Stack(nn.Module):
    """A model of blocks; ``[B, T, WIDTH]`` to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def stack() -> Stack:
    """The same small model every time, whatever other threads do."""
    with torch.device("meta"):
        model = Stack()
    draw = torch.Generator().manual_seed(0)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.uniform_(-0.35, 0.35, generator=draw)
    return model


def inputs(batch: int = 4, seed: int = 1) -> Tensor:
    """``[batch, 3, WIDTH]``."""
    return torch.randn(batch, 3, WIDTH, generator=torch.Generator().manual_seed(seed))


def pairs(seed: int, rank: int = 2, targets: Sequence[str] = TARGETS) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of an adapter that moves the output by tenths."""
    draw = torch.Generator().manual_seed(seed)
    return {
        f"layers.{i}.{target}": (
            0.3 * torch.randn(rank, WIDTH, generator=draw),
            0.3 * torch.randn(WIDTH, rank, generator=draw),
        )
        for i in range(LAYERS)
        for target in targets
    }


def write(directory: Path, name: str, seed: int, rank: int = 2, targets: Sequence[str] = TARGETS, **meta: Any) -> Path:
    """An adapter folder; ``meta`` goes to its side file."""
    folder = write_peft(directory / name, LoRA.of(pairs(seed, rank, targets), alpha=1.5 * rank), base_model=None)
    if meta:
        (folder / "adapter_meta.json").write_text(json.dumps(meta))
    return folder


def write_many(directory: Path, names: Sequence[str], **options: Any) -> None:
    """Adapters that differ, one seed each."""
    for seed, name in enumerate(names, start=1):
        write(directory, name, seed, **options)


def manager_of(
    directory: Path, names: Sequence[str] = (), max_loaded: int = 3, **options: Any
) -> tuple[AdapterManager, AdapterRegistry, Stack]:
    """A manager over fresh adapters, its registry, and its model."""
    write_many(directory, names)
    registry, model = AdapterRegistry(directory, max_loaded), stack()
    return AdapterManager(model, registry, target_modules=TARGETS, **options), registry, model


@torch.no_grad()
def expected(x: Tensor, selection: Mapping[Path, float]) -> Tensor:
    """What the model should give under a sum of adapters: each added to the weights of a fresh one."""
    model = stack()
    for folder, scaling in selection.items():
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, module in model.named_modules():
            a = tensors.get(f"base_model.model.{name}.lora_A.weight")
            if a is not None:
                b = tensors[f"base_model.model.{name}.lora_B.weight"]
                module.weight += scaling * config["lora_alpha"] / config["r"] * b @ a
    return model(x)


@torch.no_grad()
def served(manager: AdapterManager, x: Tensor, selection: Mapping[str, float] | None = None) -> Tensor:
    """What the manager's model gives."""
    with manager.serving(selection):
        return manager.model(x)


def loaded(manager: AdapterManager) -> list[str]:
    """Names of the adapters in memory, least recently used first."""
    return [entry["name"] for entry in manager.status()["loaded"]]


def apart(*outputs: Tensor) -> float:
    """Smallest distance between any two; the control before an equality."""
    return min((a - b).abs().max().item() for i, a in enumerate(outputs) for b in outputs[:i])
