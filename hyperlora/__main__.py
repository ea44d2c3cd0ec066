"""Adapters for other people's servers.

``python -m hyperlora export janus-nano --rho 0.3 --out runs/lora``: a PEFT LoRA at one ρ.
``python -m hyperlora export runs/adapter/final --grid 0:1:0.1 --out runs/family``: one at each ρ.
``python -m hyperlora merge janus-nano --rho 0.3 --out runs/merged``: a model with no adapter any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from bargain_env import command
from bargain_env.errors import InputError
from bargain_env.rho_grid import parse_grid, valid_rho

from .checkpoint import load_hyperlora_adapter
from .dense import save_merged
from .digest import adapter_digest
from .export import export, export_grid

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Export:
    """Write an adapter at one rho, or at a grid of them, as PEFT LoRA folders."""

    adapter: Annotated[str, tyro.conf.Positional]
    """Adapter folder, or janus-nano for the shipped one."""
    out: Path
    """Folder to write; with --grid, the folder of the family."""
    rho: str | None = None
    """The one rho, in [0, 1] or -1 (impasse)."""
    grid: str | None = None
    """Several: a list a,b,c or start:stop:step; each becomes a folder rho-0.30 in --out."""
    base: str | None = None
    """Base to load it on, if not the one its config names."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print what was written as JSON, and nothing else."""


@dataclass(frozen=True)
class Merge:
    """Write the base with an adapter merged in at one rho, as a complete Hugging Face model folder with its tokenizer."""

    adapter: Annotated[str, tyro.conf.Positional]
    """Adapter folder, or janus-nano for the shipped one."""
    rho: str
    """The rho, in [0, 1] or -1 (impasse)."""
    out: Path
    """Folder to write."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the weights; that of the base if not given. A 4-bit base is written dense and needs it."""
    base: str | None = None
    """Base to load it on, if not the one its config names."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print what was written as JSON, and nothing else."""


@dataclass(frozen=True)
class Settings:
    """Adapters for other people's servers."""

    command: Annotated[
        Annotated[Export, tyro.conf.subcommand("export")] | Annotated[Merge, tyro.conf.subcommand("merge")],
        tyro.conf.arg(name=""),
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.OmitArgPrefixes,
    ]


def run(settings: Settings) -> list[Path]:
    """Do what was asked for; returns the folders written.

    Raises:
        InputError: a setting, the adapter or its base cannot be used; nothing is written.
    """
    asked = settings.command
    return exporting(asked) if isinstance(asked, Export) else merging(asked)


def exporting(settings: Export) -> list[Path]:
    """Load, export, and say how to load the result.

    Raises:
        InputError: as `run`.
    """
    if (settings.rho is None) == (settings.grid is None):
        raise InputError("give either --rho, one value, or --grid, a list or a range")
    one = settings.rho is not None
    rhos = [valid_rho(settings.rho, "--rho")] if one else parse_grid(settings.grid or "", "--grid")
    rhos = list(dict.fromkeys(rhos))
    adapter = load_hyperlora_adapter(settings.adapter, settings.base)
    if one:
        folders = [export(adapter.model, rhos[0], settings.out, tokenizer=adapter.tokenizer)]
    else:
        folders = export_grid(adapter.model, rhos, settings.out, tokenizer=adapter.tokenizer)
    _report(settings, folders, rhos, adapter_digest(adapter.model), f'PeftModel.from_pretrained(base, "{folders[0]}")')
    return folders


def merging(settings: Merge) -> list[Path]:
    """Load, merge, write, and say how to load the result.

    Raises:
        InputError: as `run`.
    """
    rho, dtype = valid_rho(settings.rho, "--rho"), DTYPES[settings.dtype] if settings.dtype else None
    adapter = load_hyperlora_adapter(settings.adapter, settings.base)
    folder = save_merged(adapter.model, rho, settings.out, tokenizer=adapter.tokenizer, dtype=dtype)
    load = f'AutoModelForCausalLM.from_pretrained("{folder}")'
    _report(settings, [folder], [rho], adapter_digest(adapter.model), load)
    return [folder]


def _report(settings: Export | Merge, folders: list[Path], rhos: list[float], digest: str, load: str) -> None:
    console = command.console(settings.quiet or settings.json)
    for folder in folders:
        names = ", ".join(sorted(p.name for p in folder.iterdir()))
        console.print(f"wrote {folder}: {names}", soft_wrap=True, markup=False)
    console.print(f"next: {load}; {folders[0] / 'README.md'} has all the lines", soft_wrap=True, markup=False)
    if settings.json:
        print(json.dumps({"folders": [str(f) for f in folders], "rho": rhos, "adapter_digest": digest}))


def main(argv: list[str] | None = None) -> None:
    """The command."""
    command.main(Settings, run, argv, prog="python -m hyperlora")


if __name__ == "__main__":
    main()
