"""What an adapter's folder tells of how it was made, for the manifest of its version; and whether it can be used at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bargain_env.errors import InputError

CONFIG = "adapter_config.json"
SUMMARY = "training_summary.json"
EXPORT_RECORD = "hyperlora_export.json"
PEFT, HYPERLORA = "peft", "hyperlora"
_PEFT_SETTINGS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "bias",
    "use_rslora",
    "use_dora",
    "modules_to_save",
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an adapter was made.

    Attributes:
        kind: ``peft`` or ``hyperlora``.
        base: ``name``, ``digest`` (`hyperlora.identity.base_digest`) and what else is known of the base.
        data: ``sha256`` and source of what it was trained on.
        hyperparameters: by name.
        summary: what ``training_summary.json`` holds, if there is one.
    """

    kind: str
    base: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None


def provenance_of(folder: Path) -> Provenance:
    """What the files of an adapter's folder say.

    Raises:
        InputError: no adapter's folder, or one of these files is no JSON object.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder of an adapter")
    config = _object(folder / CONFIG)
    if config is None:
        raise InputError(
            f"{folder} holds no {CONFIG}, so no adapter; train one with `python -m experiments.train_qlora`"
        )
    summary, export = _object(folder / SUMMARY), _object(folder / EXPORT_RECORD) or {}
    kind = PEFT if "peft_type" in config else HYPERLORA
    if summary is not None and all(isinstance(summary.get(key), dict) for key in ("base", "data", "hyperparameters")):
        return Provenance(kind, summary["base"], summary["data"], summary["hyperparameters"], summary)
    if kind == PEFT:
        base = {"name": export.get("base_model") or config.get("base_model_name_or_path")}
        base |= {"digest": export.get("base_digest"), "precision": export.get("base_precision")}
        settings = {name: config[name] for name in _PEFT_SETTINGS if name in config}
        return Provenance(kind, base, {}, settings | ({"rho": export["rho"]} if "rho" in export else {}), summary)
    said = config.get("run")
    run: dict[str, Any] = said if isinstance(said, dict) else {}
    base = {"name": config.get("base_model"), "digest": config.get("base_digest")}
    base |= {"weights_digest": config.get("weights_digest"), "precision": config.get("base_precision")}
    return Provenance(kind, base, {"sha256": run.get("data_sha256")}, run, summary)


def _object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object: the adapter is damaged; train it again")
    return found


def refuse_unusable(folder: Path) -> None:
    """Raise `InputError` where an adapter has no weights in safetensors, or they are damaged or not finite."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError("the adapter has no weights (*.safetensors), and nothing else is published; train it again")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_tensor(name)
                    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
                        raise InputError(f"{path.name}: {name} holds NaN or infinity; publish an earlier checkpoint")
        except SafetensorError as error:
            raise InputError(f"{path.name} cannot be read ({error}); train the adapter again") from error
