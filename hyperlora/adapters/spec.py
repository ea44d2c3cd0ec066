"""What is known of an adapter without its weights."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from bargain_env.errors import InputError
from bargain_env.rho_grid import valid_rho

Kind = Literal["lora", "hyperlora", "generated"]
KINDS = ("lora", "hyperlora", "generated")
"""A plain LoRA; a ρ-adapter, which becomes one at each ρ; one that a network made or that was fused of others."""
AT = "@"
"""Between the name of a ρ-adapter and its ρ: ``janus@0.3``."""


class Parent(NamedTuple):
    """One of the adapters that another was fused of.

    Attributes:
        name: its name in the registry.
        digest: of it, when it was fused.
        weight: factor of its update in the sum.
    """

    name: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """An adapter in a registry; immutable, so that threads may share it.

    Attributes:
        name: unique in its registry; of a ρ-adapter at one ρ ``NAME@RHO``.
        path: its folder; empty for one that was fused.
        domain: what it is for, for example a family of opponents.
        rank: r, the largest of its layers.
        alpha: α; the update is scaled by α / r.
        target_modules: suffixes of the layers that it changes.
        description: a sentence for people, and for the router.
        size_bytes: of its weights on disk.
        loaded: whether a manager held its weights when the registry was asked.
        keywords: words that speak for it.
        kind: ``lora``, ``hyperlora`` or ``generated``.
        digest: SHA-256 over its config and weights (and ρ): equal digests, equal effect on the base. Empty: not known.
        base_digest: `hyperlora.identity.base_digest` of the base it was trained on; None: nobody said.
        weights_digest: likewise, `hyperlora.identity.weights_digest`.
        rho: at which a ρ-adapter is meant; None for all ρ, and for other kinds.
        lineage: what it was fused of.
    """

    name: str
    path: str
    domain: str
    rank: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ()
    description: str = ""
    size_bytes: int = 0
    loaded: bool = False
    keywords: tuple[str, ...] = ()
    kind: Kind = "lora"
    digest: str = ""
    base_digest: str | None = None
    weights_digest: str | None = None
    rho: float | None = None
    lineage: tuple[Parent, ...] = ()

    def at(self, rho: float) -> AdapterSpec:
        """The same ρ-adapter at one ρ, as an adapter of its own.

        Raises:
            InputError: not a ρ-adapter, at a ρ already, or ρ out of range.
        """
        if self.kind != "hyperlora" or self.rho is not None:
            raise InputError(f"{self.name!r} does not depend on rho; name it without {AT!r}")
        value = valid_rho(rho)
        digest = self.digest_at(self.digest, value) if self.digest else ""
        short = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return replace(self, name=f"{self.name}{AT}{short}", rho=value, digest=digest)

    @staticmethod
    def digest_at(digest: str, rho: float) -> str:
        """Digest of a ρ-adapter at one ρ, from its own."""
        return hashlib.sha256(f"{digest}{AT}{rho!r}".encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """What an index holds; `loaded` is of the moment and left out."""
        return {name: value for name, value in asdict(self).items() if name != "loaded"}

    @classmethod
    def from_json(cls, entry: Any) -> AdapterSpec:
        """The inverse of `as_json`.

        Raises:
            TypeError, ValueError: not written by `as_json`.
        """
        known = {field.name for field in fields(cls)} - {"loaded"}
        if not isinstance(entry, dict) or entry.keys() != known:
            raise ValueError("not an entry of this version")
        lists = {name: tuple(entry[name]) for name in ("target_modules", "keywords")}
        lineage = tuple(Parent(*parent) for parent in entry["lineage"])
        return cls(**{**entry, **lists, "lineage": lineage})


def split_name(name: str) -> tuple[str, float | None]:
    """``janus@0.3`` as ``("janus", 0.3)``; a name without ρ as itself and None.

    Raises:
        InputError: what follows the @ is no number.
    """
    plain, at, rho = name.partition(AT)
    if not at:
        return name, None
    try:
        return plain, float(rho)
    except ValueError:
        raise InputError(f"adapter {name!r}: {rho!r} is not a rho; write it as {plain}{AT}0.3") from None
