"""The files of an adapter folder: their names, and reading them with errors that say what to do."""

from __future__ import annotations

import glob
import importlib.metadata
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bargain_env.errors import InputError

SCHEMA_VERSION = 2
"""Of ``adapter_config.json``. 0: the seed's, which names none. 1: names the base. 2: also its projections, the markers, the
seed and the versions of the libraries."""
CONFIG, WEIGHTS, PICKLE, CARD = "adapter_config.json", "adapter_state.safetensors", "adapter_state.pt", "README.md"


def adapter_folder(path: Path) -> Path:
    """Where the adapter called ``path`` lies: there, in its ``adapter`` (of a base and adapter in one folder), or aside.

    A folder is replaced by two renames. Where a process was killed between them, the earlier version lies beside its place
    under a temporary name; it is read there, until the next save.
    """
    if (path / "adapter" / CONFIG).is_file():
        return path / "adapter"
    if path.exists():
        return path
    aside = [old for old in path.parent.glob(f".{glob.escape(path.name)}.*.old") if (old / CONFIG).is_file()]
    return max(aside, key=lambda old: old.stat().st_mtime_ns, default=path)


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter folder.

    Raises:
        InputError: no such folder, no config in it, not JSON, not that of an adapter, or of a newer version of this package.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"no adapter in {folder}: {CONFIG} is missing; train one with `python -m experiments.train`")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); the checkpoint is damaged, take an earlier one"
        ) from error
    if not isinstance(config, dict) or "base_model" not in config:
        raise InputError(f"{path} names no base_model, so it is not the config of a HyperLoRA adapter")
    version = config.get("schema_version", 0)
    if not isinstance(version, int):
        raise InputError(f"{path}: schema_version {version!r} is not a whole number; the checkpoint is damaged")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by a newer version of bargain-lab (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); upgrade with `pip install --upgrade bargain-lab`"
        )
    return config


def read_state(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors: safetensors, or else the seed's ``adapter_state.pt`` (tensors only, no pickled objects).

    Raises:
        InputError: neither is there, the file is damaged, or a tensor is not finite.
    """
    try:
        state = _tensors(folder)
    except (SafetensorError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"weights in {folder} cannot be read ({reason}); take an earlier checkpoint") from error
    if state is None:
        raise InputError(
            f"no weights in {folder}: neither {WEIGHTS} nor {PICKLE}; train with `python -m experiments.train`"
        )
    refuse_broken(state, f"weights in {folder} cannot be used")
    return state


def _tensors(folder: Path) -> dict[str, Tensor] | None:
    if (folder / WEIGHTS).is_file():
        return load_file(folder / WEIGHTS)
    if not (folder / PICKLE).is_file():
        return None
    state = torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise ValueError(f"{PICKLE} holds something other than named tensors")
    return state


def refuse_broken(state: dict[str, Tensor], what: str) -> None:
    """Raise `InputError` where a tensor of an adapter holds NaN or infinity; ``what`` begins the message."""
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"{what}: {broken[0]}{more} holds NaN or infinity; take an earlier checkpoint")


def library_versions() -> dict[str, str]:
    """Versions of what wrote a checkpoint; this package's is ``unknown`` where it runs from a bare checkout."""
    try:
        own = importlib.metadata.version("bargain-lab")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"bargain-lab": own, "torch": str(torch.__version__), "transformers": str(transformers.__version__)}
