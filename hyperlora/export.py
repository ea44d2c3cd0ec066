"""An adapter at one ρ as a plain PEFT LoRA: B' = B · diag(g(ρ)), A and α / r as they are.

    W_base + (α / r) · B · diag(g) · A = W_base + (α / r) · (B · diag(g)) · A

so PEFT, vLLM and llama.cpp's converter read it, and nothing of ours is needed where it is served.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from bargain_env.errors import InputError
from bargain_env.files import refuse_foreign, replacing_folder
from bargain_env.rho_grid import valid_rho

from .base import NANO, nano_folder
from .digest import adapter_digest
from .export_card import card
from .layer import HyperLoRALinear
from .merge import adapted_layers, gates_at
from .peft_format import PEFT_CONFIG, PEFT_WEIGHTS, PREFIX, in_order, lora_config
from .token_rows import HeadRows, TokenRows
from .tokens import save_tokenizer

EXPORT_RECORD = "hyperlora_export.json"
"""Says what a folder was exported from, and that it may be replaced by another export."""
_NANO_BASE = nano_folder() / "base"


def export(
    model: Any, rho: float, out_dir: Path | str, *, base_model: str | None = None, tokenizer: Any = None
) -> Path:
    """Write the adapter at ``rho`` as a PEFT LoRA folder, whole or not at all.

    Load it with ``PeftModel.from_pretrained(base, folder)`` on a fresh base, dense or in 4 bits; the card (``README.md``)
    says how. Rows trained for new tokens travel as PEFT's ``trainable_token_indices``.

    Args:
        model: causal LM with an adapter, merged or not; it does not change.
        rho: one value, in [0, 1] or -1.
        out_dir: replaced if it holds an earlier export; refused if it holds something else.
        base_model: hub id or path to name as the base; the one the model was loaded from by default. Nothing is loaded.
        tokenizer: saved beside the adapter; needed by whoever serves it where the adapter brought tokens of its own.

    Returns:
        The folder.

    Raises:
        InputError: no adapter, ρ out of range, a weight or gate that is not finite, or a foreign folder.
    """
    value = valid_rho(rho)
    _refuse_broken(model, [value])
    return _write(model, value, Path(out_dir), _identity(model, base_model), tokenizer)


def export_grid(
    model: Any,
    rhos: Sequence[float],
    out_dir: Path | str,
    *,
    base_model: str | None = None,
    tokenizer: Any = None,
) -> list[Path]:
    """Export a family ``rho-0.00``, ``rho-0.10``, … in ``out_dir``; everything is checked before anything is written.

    Args:
        model, base_model, tokenizer: as for `export`.
        rhos: values in [0, 1] or -1; repeated ones are written once.
        out_dir: made if needed; other files in it are left alone.

    Returns:
        The folders, in the order of ``rhos``.

    Raises:
        InputError: as `export`, or no ρ.
    """
    values = list(dict.fromkeys(valid_rho(rho) for rho in rhos))
    if not values:
        raise InputError("no rho to export at; give at least one")
    _refuse_broken(model, values)
    folders = [Path(out_dir) / grid_name(value) for value in values]
    for folder in folders:
        refuse_foreign(folder, EXPORT_RECORD)
    identity = _identity(model, base_model)
    return [_write(model, rho, folder, identity, tokenizer) for rho, folder in zip(values, folders, strict=True)]


def grid_name(rho: float) -> str:
    """The folder of one ρ in a family: ``rho-0.30``; more decimals only where two do not say it."""
    short = f"{rho:.2f}"
    return f"rho-{short if float(short) == rho else rho}"


@torch.no_grad()
def peft_tensors(model: Any, rho: float) -> dict[str, Tensor]:
    """What ``adapter_model.safetensors`` holds: A ``[r, d_in]`` and B' ``[d_out, r]`` of every layer, then token rows.

    Float32, contiguous, on the CPU, under PEFT's names.

    Raises:
        InputError: no adapter, or a value that is not finite.
    """
    gates = gates_at(model, [rho])[:, 0]
    tensors: dict[str, Tensor] = {}
    for name, layer in adapted_layers(model):
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B * gates[layer.index]
    for name, module in _token_rows(model).items():
        tensors[f"{PREFIX}{name}.token_adapter.trainable_tokens_delta"] = module.rows
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} at rho = {rho:g} holds NaN or infinity; export an earlier checkpoint")
        tensors[name] = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
    return tensors


def peft_config(model: Any, base_model: str | None = None) -> dict[str, Any]:
    """``adapter_config.json`` of an export, with the fields that PEFT, vLLM and llama.cpp read.

    Args:
        model: causal LM with an adapter.
        base_model: to name; see `export`.
    """
    settings, rows, base = model.hyperlora_settings, _token_rows(model), base_name(model, base_model)
    tokens: Any = {name.rpartition(".")[2]: list(range(*_span(module))) for name, module in rows.items()}
    tokens = tokens if len(tokens) > 1 else next(iter(tokens.values()), None)  # a list means the embedding
    suffixes = dict.fromkeys(name.rpartition(".")[2] for name, _ in adapted_layers(model))
    config = lora_config(base, settings.rank, settings.alpha, suffixes)
    return config if tokens is None else {**config, "trainable_token_indices": tokens}


def _refuse_broken(model: Any, rhos: list[float]) -> None:
    """Raise `InputError` where a gate at one of ``rhos`` is not finite; which layer, and what to do."""
    finite = torch.isfinite(gates_at(model, rhos)).flatten(1).all(dim=1)
    for name, layer in adapted_layers(model):
        if not finite[layer.index]:
            raise InputError(f"a gate of {name} is NaN or infinite; export an earlier checkpoint")


def _token_rows(model: Any) -> dict[str, TokenRows | HeadRows]:
    """The embedding's rows for new tokens, then those of a head of its own; a tied head's are the embedding's, in PEFT too.

    Raises:
        InputError: the head has rows besides a LoRA, which PEFT cannot express, or besides a bias, which it would drop.
    """
    found: dict[str, TokenRows | HeadRows] = {}
    for name, module in model.named_modules():
        if isinstance(module, TokenRows) or (isinstance(module, HeadRows) and not module.tied):
            found[name] = module
        if isinstance(module, HeadRows):
            adapted, bias = isinstance(module.base, HyperLoRALinear), getattr(module.base, "bias", None)
            if adapted or bias is not None:
                also = "a LoRA" if adapted else "a bias"
                raise InputError(f"{name} has {also} and rows for new tokens, which PEFT cannot hold; use save_merged")
    return found


def _span(rows: TokenRows | HeadRows) -> tuple[int, int]:
    """First id and the one after the last."""
    return rows.first, rows.first + len(rows.rows)


def base_name(model: Any, given: str | None = None) -> str | None:
    """The base's name for people, the shipped one by its own wherever the package lies; None for a model made in memory."""
    spec = given or getattr(model, "base_spec", None) or model.config.name_or_path
    return NANO if spec == str(_NANO_BASE) else spec or None


def _identity(model: Any, base_model: str | None) -> dict[str, Any]:
    """What all exports of one adapter have in common."""
    rows, settings = _token_rows(model), model.hyperlora_settings
    return {
        "schema_version": 1,
        "base_model": base_name(model, base_model),
        "base_digest": model.base_digest,
        "base_precision": getattr(model, "trained_precision", None) or model.base_precision,
        "adapter_digest": adapter_digest(model),
        "rank": settings.rank,
        "alpha": settings.alpha,
        "vocab_rows": int(model.get_input_embeddings().weight.shape[0]),
        "token_rows": next((list(_span(module)) for module in rows.values()), None),
        "head_rows": any(isinstance(module, HeadRows) for module in model.modules()),
    }


def _write(model: Any, rho: float, folder: Path, identity: dict[str, Any], tokenizer: Any) -> Path:
    tensors, config = peft_tensors(model, rho), peft_config(model, identity["base_model"])
    record = {"rho": rho, **identity}
    metadata = {"format": "pt", "hyperlora": json.dumps(record, sort_keys=True)}
    with replacing_folder(folder, EXPORT_RECORD) as temporary:
        (temporary / PEFT_WEIGHTS).write_bytes(in_order(save(tensors, metadata)))
        (temporary / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (temporary / EXPORT_RECORD).write_text(json.dumps(record, indent=2) + "\n")
        (temporary / "README.md").write_text(card(record, config["target_modules"]))
        if tokenizer is not None:
            save_tokenizer(tokenizer, temporary)
    return folder
