"""The files of a PEFT LoRA: their names, the fields that PEFT, vLLM and llama.cpp read, and bytes that repeat."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .base import NANO, nano_folder

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the name of a module in the name of its tensors."""


def lora_config(
    base_model: str | None, rank: int, alpha: float, target_modules: Iterable[str], dropout: float = 0.0
) -> dict[str, Any]:
    """``adapter_config.json`` of a plain LoRA.

    Args:
        base_model: hub id or path to name; the shipped base is named by where it lies, which transformers can load.
        rank: r.
        alpha: α; whole numbers are written as such.
        target_modules: suffixes or names of the adapted layers.
        dropout: that of the training.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "auto_mapping": None,
        "base_model_name_or_path": str(nano_folder() / "base") if base_model == NANO else base_model,
        "revision": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": dropout,
        "target_modules": list(target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted: the library writes metadata in another order every time."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants its tensors aligned
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
