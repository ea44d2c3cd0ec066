"""What an adapter is, in 64 digits: equal for adapters that do the same to the same base, different otherwise.

Whatever is computed with an adapter (a cache of keys and values, an export) belongs to its bytes, not to its name: a folder
can be trained again under the name it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .inject import HyperLoRASettings, adapter_state


def adapter_digest(source: Any, settings: HyperLoRASettings | None = None) -> str:
    """SHA-256 over settings, names, dtypes, shapes and bytes of an adapter; every part preceded by its length.

    Neither ρ, device, merging nor the order of a state's entries changes it.

    Args:
        source: a model that carries an adapter, or the state of one (`hyperlora.inject.adapter_state`).
        settings: of a state; a model brings its own.

    Raises:
        TypeError: a state without its settings.
    """
    if not isinstance(source, Mapping):
        source, settings = adapter_state(source), source.hyperlora_settings
    if settings is None:
        raise TypeError("a state says nothing of its alpha and gates; give its settings too")
    digest = hashlib.sha256()
    for part in _parts(source, settings):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(state: Mapping[str, Tensor], settings: HyperLoRASettings) -> Iterable[Any]:
    config = {name: float(v) if name in ("alpha", "dropout") else v for name, v in settings.as_config().items()}
    yield json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        yield name.encode()
        yield str(tensor.dtype).encode()
        yield json.dumps(list(tensor.shape)).encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
