"""Adapters on disk: safetensors, a JSON config that names the base, the tokenizer, a card. Whole or absent."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bargain_env.errors import InputError
from bargain_env.files import replacing_folder

from .base import NANO, base_digest, load_base, load_tokenizer, nano_folder
from .inject import HyperLoRASettings, adapter_state, inject_hyperlora, load_adapter_state
from .prompt import K_HISTORY, markers
from .token_rows import TokenRows, add_token_rows
from .tokens import add_markers, tokenizer_digest

SCHEMA_VERSION = 1
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_state.safetensors", "adapter_state.pt"


@dataclass(slots=True)
class Adapter:
    """A base model with its adapter loaded, ready to bind ρ.

    Attributes:
        model: injected causal LM, in eval mode.
        tokenizer: with the markers.
        config: what ``adapter_config.json`` holds.
    """

    model: Any
    tokenizer: Any
    config: dict[str, Any]


def save_hyperlora_adapter(
    model: Any,
    tokenizer: Any,
    output_dir: Path | str,
    *,
    k_history: int = K_HISTORY,
    prompt_format: int = 2,
    card: str = "",
    pickle: bool = False,
    extra: dict[str, Any] | None = None,
    files: dict[str, dict[str, Tensor]] | None = None,
) -> Path:
    """Write an adapter: all of it, or nothing.

    Args:
        model: from `inject_hyperlora`.
        tokenizer: with the markers.
        output_dir: replaced if it holds an adapter; refused if it holds something else.
        k_history: history slots of the prompts it was trained on.
        prompt_format: of those prompts.
        card: text of the model card (``README.md``).
        pickle: also write the seed's ``adapter_state.pt``.
        extra: further config entries, for example the training settings.
        files: further tensors to store, by file name, for example the optimizer's.

    Returns:
        The folder.
    """
    folder = Path(output_dir)
    state = adapter_state(model)
    with replacing_folder(folder, CONFIG) as temporary:
        save_file(state, temporary / WEIGHTS)
        if pickle:
            torch.save(state, temporary / PICKLE)
        for name, tensors in (files or {}).items():
            save_file(tensors, temporary / name)
        config = {**_describe(model, tokenizer, k_history, prompt_format), **(extra or {})}
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        tokenizer.save_pretrained(str(temporary))
        if card:
            (temporary / "README.md").write_text(card)
    return folder


def _describe(model: Any, tokenizer: Any, k_history: int, prompt_format: int) -> dict[str, Any]:
    embedding = model.get_input_embeddings()
    return {
        "schema_version": SCHEMA_VERSION,
        **model.hyperlora_settings.as_config(),
        "base_model": model.base_spec,
        "base_digest": base_digest(model),
        "base_precision": model.base_precision,
        "vocab_rows": int(embedding.weight.shape[0]),
        "token_rows": len(embedding.rows) if isinstance(embedding, TokenRows) else 0,
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "k_history": k_history,
        "prompt_format": prompt_format,
        "augmented_tokens": markers(prompt_format),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter folder.

    Raises:
        InputError: no such folder, no config in it, not JSON, or not that of an adapter.
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
    return config


def read_state(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors: safetensors, or else the seed's ``adapter_state.pt`` (tensors only, no pickled objects).

    Raises:
        InputError: neither is there, or the file is damaged.
    """
    try:
        if (folder / WEIGHTS).is_file():
            return load_file(folder / WEIGHTS)
        if (folder / PICKLE).is_file():
            return torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"weights in {folder} cannot be read ({reason}); take an earlier checkpoint") from error
    raise InputError(
        f"no weights in {folder}: neither {WEIGHTS} nor {PICKLE}; train with `python -m experiments.train`"
    )


def prepare_model(
    model: Any, tokenizer: Any, settings: HyperLoRASettings, prompt_format: int = 2, seed: int = 0
) -> Any:
    """Markers, their embedding rows, and a fresh adapter on a loaded base; returns ``model``."""
    new_ids = add_markers(tokenizer, prompt_format)
    options = {f.name: getattr(settings, f.name) for f in fields(settings)}
    inject_hyperlora(model, **options, seed=seed)
    add_token_rows(model, new_ids)
    return model


def load_hyperlora_adapter(
    adapter: Path | str, base: str | None = None, *, allow_base_mismatch: bool = False, device: str = "cpu"
) -> Adapter:
    """Load an adapter onto its base.

    Args:
        adapter: a folder written by `save_hyperlora_adapter`, one that holds it as ``adapter/``, or ``janus-nano`` for
            the shipped one.
        base: base to load it on; the one named in its config by default.
        allow_base_mismatch: load onto a base that is not the one it was trained on.
        device: where to put the model.

    Raises:
        InputError: missing or damaged files, or another base than the one it was trained on.
    """
    folder = nano_folder() if str(adapter) == NANO else Path(adapter)
    folder = folder / "adapter" if (folder / "adapter" / CONFIG).is_file() else folder
    config, state = read_config(folder), read_state(folder)
    four_bits = config.get("base_precision") == "nf4"
    spec = _resolve_base(folder, base or config["base_model"])
    model, tokenizer = load_base(spec, use_qlora=four_bits, device=device)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder)
    else:
        add_markers(tokenizer, int(config.get("prompt_format", 2)))
    if not allow_base_mismatch:
        _check_base(model, tokenizer, config, spec)
    names = {f.name for f in fields(HyperLoRASettings)}
    options: dict[str, Any] = {k: tuple(v) if k == "target_modules" else v for k, v in config.items() if k in names}
    inject_hyperlora(model, **options)
    if config.get("token_rows"):
        first = len(tokenizer) - int(config["token_rows"])
        add_token_rows(model, list(range(first, len(tokenizer))))
    load_adapter_state(model, state)
    return Adapter(model.eval(), tokenizer, config)


def _resolve_base(folder: Path, spec: str) -> str:
    """A base given relative to the adapter folder (as the pipeline writes it) is found wherever the pair is moved."""
    beside = (folder / spec).resolve()
    return str(beside) if spec.startswith("..") and beside.is_dir() else spec


def _check_base(model: Any, tokenizer: Any, config: dict[str, Any], spec: str) -> None:
    """Refuse a base or a tokenizer other than the one trained with; what an older config does not say is not checked."""
    found = {
        "base_digest": base_digest(model),
        "vocab_rows": int(model.get_input_embeddings().weight.shape[0]),
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }
    for name, value in found.items():
        if config.get(name, value) != value:
            raise InputError(
                f"adapter was trained on {config['base_model']} ({name} {str(config[name])[:12]}), "
                f"not on {spec} ({str(value)[:12]}); give that base, or allow the mismatch"
            )
