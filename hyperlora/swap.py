"""Another adapter into a live model, in place: everything is read and checked first, and only then copied.

A load that fails leaves the old adapter serving, bit for bit; one that succeeds equals a fresh load, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bargain_env.errors import InputError

from .adapter_files import adapter_folder, read_config, read_state
from .base import NANO, nano_folder
from .checkpoint import Adapter
from .digest import adapter_digest
from .inject import adapter_tensors, load_adapter_state
from .merge import binding_of
from .token_rows import HeadRows, TokenRows
from .tokens import tokenizer_digest


def swap(target: Any, source: Path | str | Mapping[str, Tensor], *, allow_base_mismatch: bool = False) -> str:
    """Replace the adapter that ``target`` serves by another of the same shape for the same base.

    Call it between forward passes: copying is not one step, and a pass on another thread could see both adapters. Agents
    that read an `Adapter`'s config when they were made (history slots, prompt format) are to be made again.

    Args:
        target: an `Adapter`, whose config becomes that of ``source``, or its bare model.
        source: a folder of `save_hyperlora_adapter`, one that holds it as ``adapter/``, ``janus-nano``, or a state as
            `hyperlora.inject.adapter_state` returns it, of which only the tensors can be checked.
        allow_base_mismatch: take an adapter that was trained on another base or tokenizer.

    Returns:
        The digest of the adapter that now serves, also in ``model.hyperlora_digest``: what a cache is keyed by.

    Raises:
        InputError: no adapter in ``target``; or ``source`` is missing, damaged, of another shape, of another base, or not
            finite; nothing is changed.
        RuntimeError: the model is merged, or a ρ is bound.
    """
    model = target.model if isinstance(target, Adapter) else target
    binding = binding_of(model)
    if binding.merged_at is not None:
        raise RuntimeError(f"the adapter is merged at rho = {binding.merged_at:g}; call unmerge(model) before swap")
    if model.current_rho is not None:
        raise RuntimeError("a rho is bound; leave bind_rho, or set current_rho to None, before swap")
    config, where = None, "this state"
    if isinstance(source, Mapping):
        state: Mapping[str, Tensor] = source
    else:
        folder, where = adapter_folder(nano_folder() if str(source) == NANO else Path(source)), str(source)
        config, state = read_config(folder), read_state(folder)
        _check_settings(model, config, where)
        if not allow_base_mismatch:
            _check_base(model, target.tokenizer if isinstance(target, Adapter) else None, config, where)
    load_adapter_state(model, _stage(model, state, where))
    binding.refresh(None)  # gates of the old adapter
    if config is not None:
        _become(target, model, config, where)
    model.hyperlora_digest = adapter_digest(model)
    return model.hyperlora_digest


def _become(target: Any, model: Any, config: dict[str, Any], where: str) -> None:
    """Let ``model``, and ``target`` around it, say what it serves now, as after a fresh load."""
    trained = config.get("base_precision")
    model.base_named, model.trained_precision = config["base_model"], trained
    model.hyperlora_markers, model.hyperlora_seed = config.get("markers", "new"), config.get("seed")
    if isinstance(target, Adapter):
        target.config = {**config, "served_precision": model.base_precision}
    if trained not in (None, model.base_precision):
        warnings.warn(
            f"{where} was trained on its base in {trained} and is served on {model.base_precision}: it never saw that "
            "rounding and answers differently",
            stacklevel=3,
        )


def _check_settings(model: Any, config: dict[str, Any], where: str) -> None:
    """Refuse another shape of adapter; what an older config does not say is left to the tensors."""
    for name, mine in model.hyperlora_settings.as_config().items():
        theirs = config.get(name, mine)
        if name == "dropout":  # of training alone
            continue
        same = set(theirs) == set(mine) if isinstance(mine, list) and isinstance(theirs, list) else theirs == mine
        if not same:
            raise InputError(
                f"{where} has {name} {theirs}, the live adapter {mine}; load it with load_hyperlora_adapter instead"
            )


def _check_base(model: Any, tokenizer: Any, config: dict[str, Any], where: str) -> None:
    """Refuse an adapter of another base, tokenizer or place for its tokens; what its config does not say is not checked."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = {
        "base_digest": model.base_digest,
        "weights_digest": model.weights_digest,
        "vocab_rows": int(embedding.weight.shape[0]),
        "tokenizer_digest": None if tokenizer is None else tokenizer_digest(tokenizer),
        "first_new_id": embedding.first if isinstance(embedding, TokenRows) else None,
        "head_rows": len(head.rows) if isinstance(head, HeadRows) else 0,
    }
    for name, value in found.items():
        theirs = config.get(name)
        if None not in (theirs, value) and theirs != value:
            raise InputError(
                f"{where} was trained on {config['base_model']} ({name} {str(theirs)[:12]}), not on the live base "
                f"({str(value)[:12]}); load it on its own base, or allow the mismatch"
            )


def _stage(model: Any, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """``state`` as the live parameters hold it, on their devices and in their dtypes: what is left is a plain copy.

    Raises:
        InputError: a name is missing or unexpected, a shape differs, or a value is not a finite number.
    """
    own = adapter_tensors(model)
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise InputError(f"{where} does not fit the live adapter: missing {missing[:3]}, unexpected {unexpected[:3]}")
    staged = {}
    for name, parameter in own.items():
        tensor = state[name]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.shape != parameter.shape:
            found = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"{where} does not fit: {name} is {found}, the live one {list(parameter.shape)} of floats")
        staged[name] = tensor.detach().to(parameter.device, parameter.dtype)
        if not torch.isfinite(staged[name]).all():
            raise InputError(f"{where} holds NaN or infinity in {name}; take an earlier checkpoint")
    return staged
