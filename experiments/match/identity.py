"""What a tournament is, in a digest: everything that its games depend on, so that no shard is taken for another's.

Settings are compared as they were resolved, files by what they hold, our own code as it stands; who plays the shards, how
many at once and where to, does not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from . import opponents
from .arena import Plan, Shard
from .contestants import Contestant
from .results import SCHEMA_VERSION, rho_text

ROOT = Path(__file__).resolve().parents[2]
CODE = ("bargain_env", "agents", "hyperlora", "experiments/match")
"""What decides how a game goes, the shipped weights included."""
LIBRARIES = ("numpy", "torch", "transformers")
WHOLE = 2**28
"""Bytes of a file that is read to its end; of a longer one, a base model, only so much from either end."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What the games of a tournament depend on.

    Attributes:
        document: JSON-ready, by subject.
    """

    document: Document

    @property
    def digest(self) -> str:
        """SHA-256 of the document, in hex."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()

    def of(self, shard: Shard) -> str:
        """SHA-256 of one shard's specification, in hex."""
        parts = [self.digest, shard.team, shard.seat.label, shard.first, shard.count, shard.block]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def differs(self, other: Document) -> list[str]:
        """Names of what ``other`` has otherwise, settings by name."""
        ours, theirs = dict(_flat(self.document)), dict(_flat(other))
        return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def identify(
    described: Document, players: Sequence[Contestant], plan: Plan, files: Sequence[str | Path | None] = ()
) -> Identity:
    """The identity of a tournament.

    Args:
        described: settings that results depend on, JSON-ready.
        players: agents, in order.
        plan: what they play.
        files: a plugin, a base: files or folders; None, or a name that is no path, counts for nothing.
    """
    names = [*(player.label for player in players), *plan.opponents]
    named = [place for name in names for place in opponents.sources(name)]
    places = [Path(name) for name in dict.fromkeys([*named, *map(str, filter(None, files))]) if name]
    places = [place for place in places if place.exists()]
    document = {
        "settings": dict(described),
        "agents": [player.label for player in players],
        "opponents": list(plan.opponents),
        "rho": {seat.label: [rho_text(rho) for rho in plan.rho[seat]] for seat in plan.seats},
        "games": plan.games,
        "seed": plan.seed,
        "max_turns": plan.max_turns,
        "scenario": plan.preset.name,
        "files": {str(place): tree_digest([place]) for place in places},
        "code": tree_digest([ROOT / name for name in CODE]),
        "schema": SCHEMA_VERSION,
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }
    return Identity(json.loads(json.dumps(document)))


def tree_digest(places: Sequence[Path]) -> str:
    """SHA-256 over names and contents of files and of all files below folders, in hex."""
    total = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{path.relative_to(place)}\0{path.stat().st_size}\0".encode())
                total.update(_content(path))
    return total.hexdigest()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        ends = hashlib.sha256(file.read(WHOLE // 2))
        file.seek(-WHOLE // 2, 2)
        ends.update(file.read())
        return ends.digest()


def _flat(document: Document) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in ("settings", "libraries") and isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value
