"""Making room: old versions that nothing points to, and what killed processes left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bargain_env.errors import InputError
from bargain_env.files import locked

from .durable import sync
from .manifest import Version
from .names import ALIASES
from .pointers import MAP
from .store import LOCK, PRUNED, PUBLISHING, AdapterStore


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go.

    Attributes:
        versions: old ones.
        leftovers: temporary files and folders of processes that are gone.
    """

    versions: list[Version]
    leftovers: list[Path]


def prune(store: AdapterStore, keep: int, agent: str | None = None, dry_run: bool = False) -> Pruned:
    """Remove all but the ``keep`` versions of each agent that were published last, and those that something points to.

    Damaged versions and files that no process of ours wrote are left alone. A version disappears at once, as it appeared.

    Args:
        store: the store.
        keep: at least 1.
        agent: whose versions; all agents' by default.
        dry_run: remove nothing.

    Raises:
        InputError: ``keep`` is less than 1, no such agent, or a pointer cannot be read: what it keeps is not known then.
    """
    if keep < 1:
        raise InputError(f"--keep {keep} must be at least 1: the latest version always stays")
    with store.locked():
        agents = store.agents() if agent is None else [agent]
        going = [version for name in agents for version in _old(store, name, keep)]
        leftovers = [path for name in agents for path in _leftovers(store.folder_of(name))]
        if agent is None:
            leftovers += sorted(store.root.glob(f".{MAP}.*"))
        if not dry_run:
            for version in going:
                _remove(version.path)
            for path in leftovers:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Pruned(going, leftovers)


def _old(store: AdapterStore, agent: str, keep: int) -> list[Version]:
    entry = store.agent_map().get(agent)
    pointed = {*store.aliases(agent).values(), *([entry["version"]] if entry else [])}
    return [version for version in store.versions(agent)[:-keep] if version.name not in pointed]


def _leftovers(folder: Path) -> Iterator[Path]:
    """The caller holds the store's lock, under which all of these are made, and the publishers' own locks are taken."""
    for path in sorted(folder.glob(f"{PUBLISHING}*")):
        if not _in_use(path):
            yield path
    yield from sorted(folder.glob(f"{PRUNED}*"))
    yield from sorted((folder / ALIASES).glob(".*"))


def _in_use(work: Path) -> bool:
    """Whether the process that publishes from the folder ``work`` is alive."""
    if not (work / LOCK).exists():
        return False
    try:
        with locked(work / LOCK, "in use"):
            return False
    except InputError:
        return True


def _remove(folder: Path) -> None:
    """First out of sight, by one rename, then away."""
    grave = Path(tempfile.mkdtemp(prefix=PRUNED, dir=folder.parent))
    folder.rename(grave / folder.name)
    sync(folder.parent)
    shutil.rmtree(grave)
