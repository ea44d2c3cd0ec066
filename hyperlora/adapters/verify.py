"""Whether a store is as it was written: every byte of every version, and that all pointers point to something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bargain_env.errors import InputError
from bargain_env.files import sha256

from . import manifest
from .names import ALIASES, LATEST
from .pointers import MAP, entry_of
from .store import AdapterStore


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written.

    Attributes:
        version: ``AGENT@VERSION``, or what else it concerns.
        file: below the version's folder, or below the store's.
        what: is wrong with it.
    """

    version: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.version}: {self.file}: {self.what}"


def verify(store: AdapterStore, agent: str, name: str) -> list[Problem]:
    """Problems of one version: all of its files are read.

    Raises:
        InputError: no such version.
    """
    folder = store.folder_of(agent) / name
    if name not in store.version_names(agent):
        store.version(agent, name)  # says what there is
    return [Problem(f"{agent}@{name}", file, what) for file, what in _in_version(folder)]


def verify_pointers(store: AdapterStore) -> list[Problem]:
    """Aliases and entries of the map that point to no version, entries that do not say what their version says, and files
    that do not belong into the store.
    """
    return [*_stray(store), *(problem for agent in store.agents() for problem in _aliases(store, agent)), *_map(store)]


def _in_version(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        files = manifest.read(folder)["files"]
    except InputError as error:
        yield manifest.NAME, str(error)
        return
    found = dict(_found(folder))
    for name, said in files.items():
        path = folder / name
        if name not in found:
            yield name, "is missing"
        elif not found[name]:
            yield name, "is a symbolic link or no file any more"
        elif path.stat().st_size != said["bytes"]:
            yield name, f"has {path.stat().st_size:,} bytes, not the {said['bytes']:,} that were published"
        elif sha256(path) != said["sha256"]:
            yield name, "is corrupt: its bytes are not those that were published (SHA-256)"
    for name in sorted(set(found) - set(files) - {manifest.NAME}):
        yield name, "was not published: it was put here later; move it away"


def _found(folder: Path, below: str = "") -> Iterator[tuple[str, bool]]:
    """Everything below a folder that is not a folder itself, and whether it is a file."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _found(Path(entry.path), f"{below}{entry.name}/")
        else:
            yield f"{below}{entry.name}", entry.is_file(follow_symlinks=False)


def _aliases(store: AdapterStore, agent: str) -> Iterator[Problem]:
    try:
        aliases, names = store.aliases(agent), store.version_names(agent)
    except InputError as error:
        yield Problem(agent, ALIASES, str(error))
        return
    for alias, version in aliases.items():
        if version not in names:
            yield Problem(f"{agent}@{alias}", f"{ALIASES}/{alias}", f"points to {version}, which is not there")


def _map(store: AdapterStore) -> Iterator[Problem]:
    try:
        entries, agents = store.agent_map(), store.agents()
    except InputError as error:
        yield Problem("store", MAP, str(error))
        return
    for agent, entry in entries.items():
        if agent not in agents or entry["version"] not in store.version_names(agent):
            yield Problem(agent, MAP, f"points to {agent}@{entry['version']}, which is not there")
            continue
        try:
            told = entry_of(store.version(agent, entry["version"]), LATEST)
        except InputError:
            continue  # a damaged manifest, which `verify` names
        for key in sorted(told.keys() | entry.keys()):
            if entry.get(key) != told.get(key):
                what = f"says {key} {entry.get(key)!r}, its version {told.get(key)!r}"
                yield Problem(agent, MAP, f"{what}; alias {agent} latest {entry['version']} writes it anew")


def _stray(store: AdapterStore) -> Iterator[Problem]:
    for path in sorted(store.root.iterdir()):
        if not path.name.startswith(".") and path.name != MAP and path.name not in store.agents():
            yield Problem("store", path.name, "is no agent's folder; move it away")
    for agent in store.agents():
        folder = store.folder_of(agent)
        for path in sorted(folder.iterdir()):
            known = path.name in (ALIASES, *store.version_names(agent))
            if not path.name.startswith(".") and not known:
                yield Problem(agent, path.name, "is no version; move it away")
