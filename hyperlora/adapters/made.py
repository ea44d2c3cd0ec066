"""Adapters that no folder holds: who they are, and whether they may be called that. `AdapterManager` keeps their weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace

from bargain_env.errors import InputError

from .registry import AdapterRegistry
from .spec import AdapterSpec, Parent
from .weights import Pair


def adopted_spec(spec: AdapterSpec, layers: Mapping[str, Pair], registry: AdapterRegistry) -> AdapterSpec:
    """``spec`` as that of an adapter made in memory, with the digest of its tensors.

    Args:
        spec: its name and what is known of it.
        layers: A ``[r, d_in]`` and B ``[d_out, r]`` by module name.
        registry: who has the name already.

    Raises:
        InputError: the name cannot be one, or is that of an adapter on disk.
    """
    registry.refuse_name(spec.name)
    taken = registry.get_adapter(spec.name)
    if taken is not None and taken.path:
        raise InputError(f"{spec.name!r} is the name of an adapter in {taken.path}; choose another")
    digest = hashlib.sha256()
    for name, pair in sorted(layers.items()):
        for tensor in pair:
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return replace(spec, kind="generated", digest=digest.hexdigest(), path="", lineage=())


def fused_spec(name: str, weights: Mapping[str, float], domain: str | None, registry: AdapterRegistry) -> AdapterSpec:
    """The spec of the weighted sum of adapters; its lineage says of which, so that it can be made again.

    Args:
        name: of the sum.
        weights: of each part, by name.
        domain: what it is for; by default the domains of its parts.
        registry: has the parts.

    Raises:
        InputError: no parts, one that nobody has, a weight that is not finite, or the name of another kind of adapter.
    """
    if not weights:
        raise InputError(f"nothing to fuse into {name!r}; name adapters and their weights")
    registry.refuse_name(name)
    taken = registry.get_adapter(name)
    if taken is not None and not taken.lineage:
        raise InputError(f"{name!r} is the name of another adapter; choose another for the fused one")
    parts = [(registry.require(part), finite(weights[part])) for part in sorted(weights)]
    lineage = tuple(Parent(spec.name, spec.digest, weight) for spec, weight in parts)
    digest = hashlib.sha256(json.dumps([tuple(parent) for parent in lineage]).encode()).hexdigest()
    said = domain or "+".join(sorted({spec.domain for spec, _ in parts}))
    targets = tuple(sorted({target for spec, _ in parts for target in spec.target_modules}))
    rank = sum(spec.rank for spec, _ in parts)
    return AdapterSpec(name, "", said, rank, float(rank), targets, kind="generated", digest=digest, lineage=lineage)


def finite(scaling: float) -> float:
    """``scaling``; raises `InputError` where it is no finite number."""
    if not math.isfinite(scaling):
        raise InputError(f"scaling {scaling} is not a finite number; choose another")
    return float(scaling)
