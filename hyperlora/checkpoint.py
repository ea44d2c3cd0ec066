"""Adapters on disk: safetensors, a JSON config that names the base, the tokenizer, a card. Whole or absent."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from bargain_env.errors import InputError, unknown
from bargain_env.files import replacing_folder

from .adapter_files import (
    CARD,
    CONFIG,
    PICKLE,
    SCHEMA_VERSION,
    WEIGHTS,
    adapter_folder,
    library_versions,
    read_config,
    read_state,
    refuse_broken,
)
from .base import NANO, load_base, load_tokenizer, nano_folder
from .card import adapter_card
from .digest import adapter_digest
from .inject import HyperLoRASettings, adapter_state, inject_hyperlora, load_adapter_state
from .prompt import K_HISTORY
from .prompt import markers as markers_of
from .token_rows import HeadRows, TokenRows, add_token_rows
from .tokens import add_markers, save_tokenizer, tokenizer_digest

__all__ = [
    "CONFIG", "PICKLE", "SCHEMA_VERSION", "WEIGHTS", "Adapter", "load_hyperlora_adapter", "prepare_model", "read_config",
    "read_state", "save_hyperlora_adapter",
]  # fmt: skip

Precision = Literal["trained", "dense", "nf4"]
PRECISIONS = ("trained", "dense", "nf4")
"""Of the base an adapter is loaded on: the one it was trained on, dense weights, or 4 bits."""
_DENSE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(slots=True)
class Adapter:
    """A base model with its adapter loaded, ready to bind ρ.

    Attributes:
        model: injected causal LM, in eval mode.
        tokenizer: that of its prompts.
        config: what ``adapter_config.json`` holds, and ``served_precision``, that of the base it is loaded on.
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
    card: str | None = None,
    pickle: bool = False,
    extra: dict[str, Any] | None = None,
    files: dict[str, dict[str, Tensor]] | None = None,
) -> Path:
    """Write an adapter: all of it, or nothing. What is loaded and saved again has the same bytes.

    Args:
        model: from `prepare_model` or `inject_hyperlora`.
        tokenizer: that of its prompts.
        output_dir: replaced if it holds an adapter; refused if it holds something else.
        k_history: history slots of the prompts it was trained on.
        prompt_format: of those prompts.
        card: text of the model card (``README.md``); by default `adapter_card` of the config.
        pickle: also write the seed's ``adapter_state.pt``.
        extra: further config entries, for example the training settings.
        files: further tensors to store, by file name, for example the optimizer's.

    Returns:
        The folder.

    Raises:
        InputError: a weight of the adapter is not finite, nobody said which base this is, an entry of ``extra`` has a name
            that the config uses itself, or the folder holds something else. Nothing is written.
    """
    folder, state = Path(output_dir), adapter_state(model)
    refuse_broken(state, f"nothing was saved to {folder}: publish refuses a NaN adapter")
    described = _describe(model, tokenizer, _base_name(model, folder), k_history, prompt_format)
    config = _with_extra(described, extra or {})
    with replacing_folder(folder, CONFIG) as temporary:
        save_file(state, temporary / WEIGHTS)
        if pickle:
            torch.save(state, temporary / PICKLE)
        for name, tensors in (files or {}).items():
            save_file(tensors, temporary / name)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        save_tokenizer(tokenizer, temporary)
        (temporary / CARD).write_text(adapter_card(config) if card is None else card)
        for path in temporary.glob("*.safetensors"):
            path.chmod(0o644)  # that library writes files which nobody else may read
    return folder


def _with_extra(config: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    taken = sorted(config.keys() & extra.keys())
    if taken:
        raise InputError(f"extra config entries {taken} have names that the config uses itself; rename them")
    return {**config, **extra}


def _base_name(model: Any, folder: Path) -> str:
    """What an adapter in ``folder`` should call its base: by the relative name that it had, where that still leads there."""
    spec, before = getattr(model, "base_spec", ""), getattr(model, "base_named", "")
    if not spec:
        raise InputError(
            "nobody said which base this is; set model.base_spec to the folder or hub id it can be loaded from"
        )
    return before if before and resolve_base(folder, before) == spec else spec


def _describe(model: Any, tokenizer: Any, base: str, k_history: int, prompt_format: int) -> dict[str, Any]:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = embedding if isinstance(embedding, TokenRows) else None
    spelling = getattr(model, "hyperlora_markers", "new")
    return {
        "schema_version": SCHEMA_VERSION,
        **model.hyperlora_settings.as_config(),
        "base_model": base,
        "base_digest": model.base_digest,
        "weights_digest": model.weights_digest,
        "base_precision": getattr(model, "trained_precision", model.base_precision),
        "vocab_rows": int(embedding.weight.shape[0]),
        "token_rows": 0 if rows is None else len(rows.rows),
        "head_rows": len(head.rows) if isinstance(head, HeadRows) else 0,
        "first_new_id": None if rows is None else rows.first,
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "k_history": k_history,
        "prompt_format": prompt_format,
        "markers": spelling,
        "augmented_tokens": markers_of(prompt_format) if spelling == "new" else [],
        "seed": model.hyperlora_seed,
        "versions": library_versions(),
    }


def prepare_model(
    model: Any,
    tokenizer: Any,
    settings: HyperLoRASettings,
    prompt_format: int = 2,
    seed: int = 0,
    markers: str = "new",
    head_rows: bool = False,
) -> Any:
    """Markers, their rows, and a fresh adapter on a loaded base.

    Args:
        model: from `load_base`; changed in place.
        tokenizer: its tokenizer; changed in place.
        settings: shape of the adapter.
        prompt_format: 1, 2, 3 or 4.
        seed: of the initial A and gate networks.
        markers: ``new`` tokens with rows of their own, or ``existing`` ones, which leave the tokenizer alone and make
            exports plain LoRAs.
        head_rows: let the model also produce the new tokens.

    Returns:
        ``model``.

    Raises:
        InputError: unknown ``markers``, or as `inject_hyperlora` and `add_token_rows`.
    """
    new_ids = add_markers(tokenizer, prompt_format, markers)
    options = {f.name: getattr(settings, f.name) for f in fields(settings)}
    inject_hyperlora(model, **options, seed=seed)
    add_token_rows(model, new_ids, head_rows)
    model.hyperlora_markers = markers
    return model


def load_hyperlora_adapter(
    adapter: Path | str,
    base: str | None = None,
    *,
    allow_base_mismatch: bool = False,
    device: str = "cpu",
    precision: Precision = "trained",
) -> Adapter:
    """Load an adapter onto its base.

    Args:
        adapter: a folder written by `save_hyperlora_adapter`, one that holds it as ``adapter/``, or ``janus-nano`` for
            the shipped one.
        base: base to load it on; the one named in its config by default.
        allow_base_mismatch: load onto a base that is not the one it was trained on.
        device: where to put the model.
        precision: of the base: ``trained``, the one it was trained on; ``dense`` or ``nf4`` whatever that was. An adapter
            never saw the rounding of another precision, so serving it there warns.

    Raises:
        InputError: missing or damaged files, a newer schema, or another base than the one it was trained on.
    """
    folder = adapter_folder(nano_folder() if str(adapter) == NANO else Path(adapter))
    config, state = read_config(folder), read_state(folder)
    spec = resolve_base(folder, base or config["base_model"])
    trained = config.get("base_precision")
    four_bits, dtype = _serving(precision, trained)
    model, tokenizer = load_base(spec, use_qlora=four_bits, dtype=dtype, device=device)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder)
    else:
        add_markers(tokenizer, int(config.get("prompt_format", 2)), config.get("markers", "new"))
    if not allow_base_mismatch:
        _check_base(model, tokenizer, config, spec)
    _wrap(model, tokenizer, config)
    load_adapter_state(model, state)
    model.base_named, model.trained_precision = config["base_model"], trained
    model.hyperlora_digest = adapter_digest(model)
    if trained not in (None, model.base_precision):
        warnings.warn(
            f"the adapter in {folder} was trained on its base in {trained} and is served on {model.base_precision}: it "
            "never saw that rounding and answers differently; precision='trained' serves it as it was trained",
            stacklevel=2,
        )
    return Adapter(model.eval(), tokenizer, {**config, "served_precision": model.base_precision})


def _serving(precision: str, trained: str | None) -> tuple[bool, torch.dtype | None]:
    """Whether to load the base in 4 bits, and the dtype to load; None for the base's own."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "trained":
        return trained == "nf4", _DENSE.get(trained or "")
    return precision == "nf4", _DENSE.get(trained or "") if precision == "dense" else None


def _wrap(model: Any, tokenizer: Any, config: dict[str, Any]) -> None:
    """Make of a bare base what was saved, weights aside."""
    names = {f.name for f in fields(HyperLoRASettings)}
    options: dict[str, Any] = {k: tuple(v) if k == "target_modules" else v for k, v in config.items() if k in names}
    inject_hyperlora(model, **options)
    count, first = int(config.get("token_rows", 0)), config.get("first_new_id")
    first = len(tokenizer) - count if first is None else int(first)
    add_token_rows(model, range(first, first + count), head=bool(config.get("head_rows")))
    model.hyperlora_markers, model.hyperlora_seed = config.get("markers", "new"), config.get("seed")


def resolve_base(folder: Path, spec: str) -> str:
    """The base of the adapter in ``folder``: one named relative to it (as the pipeline writes it) moves with the pair."""
    beside = (folder / spec).resolve()
    return str(beside) if spec.startswith("..") and beside.is_dir() else spec


def _check_base(model: Any, tokenizer: Any, config: dict[str, Any], spec: str) -> None:
    """Refuse a base or a tokenizer other than the one trained with.

    What the config does not say is not checked: an older one says less, and the projections of a base in 4 bits have no
    digest that its dense copy could be held against.
    """
    found = {
        "base_digest": model.base_digest,
        "weights_digest": model.weights_digest,
        "vocab_rows": int(model.get_input_embeddings().weight.shape[0]),
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }
    for name, value in found.items():
        trained = config.get(name)
        if None not in (trained, value) and trained != value:
            raise InputError(
                f"adapter was trained on {config['base_model']} ({name} {str(trained)[:12]}), "
                f"not on {spec} ({str(value)[:12]}); give that base, or allow the mismatch"
            )
