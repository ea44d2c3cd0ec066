"""Adapters loaded once a process and shared by every seat, agent and session that plays them.

Threads may share a model if they take turns: ρ is bound to the model itself for the length of a pass. Everything in
`agents` that runs one holds `MODEL_LOCK` meanwhile, so decisions asked for by several threads are made one after another.
Nothing is lost by it, since one pass keeps all cores busy; to decide faster, ask for many decisions in one call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hyperlora.checkpoint import Adapter, Precision, load_hyperlora_adapter
from hyperlora.constant_gates import mean_gates, with_constant_gates
from hyperlora.digest import adapter_digest

KEPT = 8
"""Adapters, each with its base, that stay loaded; the one used longest ago makes room."""
MODEL_LOCK = threading.RLock()

_Key = tuple[str, str | None, bool, str, str, bool]
_loaded: OrderedDict[_Key, tuple[int, Adapter]] = OrderedDict()


def shared_adapter(
    adapter: str | Path,
    base: str | None = None,
    *,
    allow_base_mismatch: bool = False,
    precision: Precision = "trained",
    device: str = "cpu",
    frozen_gates: bool = False,
) -> Adapter:
    """What `hyperlora.load_hyperlora_adapter` gives for these arguments, loaded at the first call only.

    A folder that was written since, because its adapter was trained again, is loaded anew; whoever holds the earlier one
    keeps it.

    Args:
        adapter, base, allow_base_mismatch, precision, device: see `hyperlora.load_hyperlora_adapter`.
        frozen_gates: what `at_mean_gates` makes of it; both are kept.

    Raises:
        InputError: as `hyperlora.load_hyperlora_adapter`; what was loaded before stays.
    """
    key = (str(adapter), base, allow_base_mismatch, precision, device, frozen_gates)
    options: Any = {"allow_base_mismatch": allow_base_mismatch, "device": device, "precision": precision}
    with MODEL_LOCK:
        stamp = _stamp(key[0], base)
        if key not in _loaded or _loaded[key][0] != stamp:
            if frozen_gates:
                _loaded[key] = (stamp, at_mean_gates(shared_adapter(adapter, base, **options)))
            else:
                _loaded[key] = (stamp, load_hyperlora_adapter(key[0], base, **options))
        _loaded.move_to_end(key)
        while len(_loaded) > KEPT:
            _loaded.popitem(last=False)
        return _loaded[key][1]


def at_mean_gates(adapter: Adapter) -> Adapter:
    """``adapter`` with its gates frozen at their mean over ρ in [0, 1]: the prompt alone says what is asked for.

    It shares every other weight with ``adapter``, which stays as it is.
    """
    with MODEL_LOCK:
        model = with_constant_gates(adapter.model, mean_gates(adapter.model))
    model.hyperlora_digest = adapter_digest(model)
    return Adapter(model.eval(), adapter.tokenizer, adapter.config)


def clear_models() -> int:
    """Forget all loaded adapters and say how many; their memory is free once no agent or session holds them."""
    with MODEL_LOCK:
        count = len(_loaded)
        _loaded.clear()
        return count


def _stamp(adapter: str, base: str | None) -> int:
    """Changes when the adapter in a folder is trained again, or the base in another."""
    folder, other = Path(adapter), Path(base or adapter)
    places = (folder, folder / "adapter", folder / "base", other)
    return max((place.stat().st_mtime_ns for place in places if place.is_dir()), default=0)
