"""A plain LoRA as PEFT keeps it: ``adapter_model.safetensors`` and ``adapter_config.json``, read and written exactly."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bargain_env.errors import InputError
from bargain_env.files import replacing_folder
from hyperlora.adapter_files import refuse_broken
from hyperlora.peft_format import PEFT_CONFIG, PEFT_WEIGHTS, PREFIX, in_order, lora_config

from .plain import refuse_other_methods

_TENSOR = re.compile(rf"^{re.escape(PREFIX)}(?P<name>.+)\.lora_(?P<matrix>[AB])\.weight$")


@dataclass(frozen=True, slots=True, eq=False)
class LoRA:
    """One adapter: W + s · B A in each of its layers.

    Attributes:
        layers: A ``[r, d_in]`` and B ``[d_out, r]`` by module name, B not scaled.
        rank: r of most layers, and what PEFT's config says.
        alpha: α of most layers.
        scaling: s of each layer, α / r unless the folder says otherwise.
        config: ``adapter_config.json``; empty for an adapter made in memory.
        metadata: text that travels in the weights file.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float
    scaling: Mapping[str, float]
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, layers: Mapping[str, tuple[Tensor, Tensor]], alpha: float) -> LoRA:
        """An adapter of plain tensors with the same α everywhere; its rank is the commonest of its layers."""
        rank = Counter(a.shape[0] for a, _ in layers.values()).most_common(1)[0][0]
        return cls(layers, rank, alpha, {name: alpha / a.shape[0] for name, (a, _) in layers.items()})

    def scaled(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A and s · B by module name, which `hyperlora.adapters.rows.stack_adapters` takes."""
        return {name: (a, b * self.scaling[name]) for name, (a, b) in self.layers.items()}

    def size(self) -> int:
        """Bytes of A and B."""
        return sum(m.numel() * m.element_size() for pair in self.layers.values() for m in pair)


def write_peft(
    folder: Path | str,
    lora: LoRA,
    *,
    base_model: str | None,
    dropout: float = 0.0,
    metadata: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter as PEFT does, whole or not at all; the same adapter gives the same bytes.

    Args:
        folder: replaced if it holds an adapter; refused if it holds something else.
        lora: in float32 or a narrower floating type, which is kept.
        base_model: hub id or path to name as the base.
        dropout: that of the training, for the record.
        metadata: text beside PEFT's in the header of the weights file.
        files: further text files by name.

    Returns:
        The folder.

    Raises:
        InputError: NaN or infinity in it, or a foreign folder.
    """
    tensors = {}
    for name, (a, b) in lora.layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    folder = Path(folder)
    refuse_broken(tensors, f"the adapter for {folder} cannot be saved")
    config = lora_config(base_model, lora.rank, lora.alpha, _targets(lora), dropout)
    for name, (a, _) in lora.layers.items():
        if a.shape[0] != lora.rank:
            config["rank_pattern"][name] = a.shape[0]
        alpha = lora.scaling[name] * a.shape[0]
        if not math.isclose(alpha, lora.alpha, rel_tol=1e-12):
            config["alpha_pattern"][name] = alpha
    header = {"format": "pt", **dict(metadata or {})}
    with replacing_folder(folder, PEFT_CONFIG) as temporary:
        (temporary / PEFT_WEIGHTS).write_bytes(in_order(save(tensors, header)))
        (temporary / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        for name, text in (files or {}).items():
            (temporary / name).write_text(text)
    return folder


def _targets(lora: LoRA) -> list[str]:
    """Suffixes of the adapted layers, in order of appearance."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in lora.layers))


def read_peft(folder: Path | str) -> LoRA:
    """Read a LoRA folder of PEFT, or one that `write_peft` or `hyperlora.export` has written.

    Raises:
        InputError: files are missing or damaged, a tensor is not finite or has no partner, or the adapter is more than a
            plain LoRA (DoRA, token rows, biases, …); names the file.
    """
    folder = Path(folder)
    config, (tensors, metadata) = _config(folder), _tensors(folder)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _TENSOR.match(key)
        if match is None or tensor.ndim != 2:
            raise InputError(f"{folder / PEFT_WEIGHTS}: {key} {tuple(tensor.shape)} is no A or B of a plain LoRA")
        halves.setdefault(match["name"], {})[match["matrix"]] = tensor
    layers, scaling = {}, {}
    for name, half in halves.items():
        if len(half) < 2 or half["A"].shape[0] != half["B"].shape[1]:
            raise InputError(f"{folder / PEFT_WEIGHTS}: A and B of {name} do not fit each other; the file is damaged")
        rank, alpha = half["A"].shape[0], _of(config["alpha_pattern"], name, config["lora_alpha"])
        said = _of(config["rank_pattern"], name, config["r"])
        if rank != said:
            raise InputError(
                f"{folder}: {name} has rank {rank}, but {PEFT_CONFIG} says {said}; they do not belong together"
            )
        layers[name] = (half["A"], half["B"])
        scaling[name] = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
    refuse_broken(tensors, f"weights in {folder} cannot be used")
    return LoRA(layers, int(config["r"]), float(config["lora_alpha"]), scaling, config, metadata)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / PEFT_CONFIG
    if not path.is_file():
        raise InputError(f"no adapter in {folder}: {PEFT_CONFIG} is missing")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); take an earlier copy of the adapter") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not the config of a PEFT LoRA (peft_type LORA)")
    refuse_other_methods(path, config)
    missing = [name for name in ("r", "lora_alpha") if not isinstance(config.get(name), int | float)]
    if missing:
        raise InputError(f"{path} has no number as {missing[0]}; take an earlier copy of the adapter")
    return {"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, **config}


def _tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the text in the file's header."""
    path = folder / PEFT_WEIGHTS
    if not path.is_file():
        raise InputError(f"no weights in {folder}: {PEFT_WEIGHTS} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}); take an earlier copy of the adapter") from error
    if not tensors:
        raise InputError(f"{path} holds no tensors")
    return tensors, metadata


def _of(pattern: Mapping[str, Any], name: str, default: Any) -> Any:
    """PEFT's rule: the first key that is the module's name, or a pattern that ends it after a dot."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(?:.*\.)?(?:{key})$", name):
            return value
    return default
