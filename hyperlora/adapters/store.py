"""A store of adapters: immutable versions, published at once or not at all, and names that point to them.

    ROOT/AGENT_MODEL_MAP.json           agent → adapter name, version, path, base: what a loader resolves
    ROOT/AGENT/VERSION/manifest.json    and the adapter's files, read-only
    ROOT/AGENT/aliases/latest           a line: the version it points to
    ROOT/AGENT/.publishing-*, .pruned-* what a killed process left; reads do not see it, `prune` removes it

A version appears by one rename, under a lock, when everything in it is on disk. Whoever is killed before leaves nothing that
reads see; whoever is killed after leaves a whole version, to which `latest` or the map may not point yet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError, unknown
from bargain_env.files import locked

from . import manifest
from .durable import copy_folder, refuse_symlink, sync
from .manifest import Version
from .names import ALIASES, LATEST, is_name, refuse_clash, valid_name, version_at
from .pointers import read_aliases, read_map, write_alias, write_map
from .provenance import Provenance, provenance_of, refuse_unusable

ROOT_VARIABLE = "MODEL_STORE_ROOT"
PUBLISHING, PRUNED = ".publishing-", ".pruned-"
LOCK, _WAIT = ".lock", 60.0


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def store_root(given: Path | str | None = None) -> Path:
    """The folder of the store: ``given``, or what the environment says.

    Raises:
        InputError: neither is there.
    """
    root = given if given is not None else os.environ.get(ROOT_VARIABLE)
    if not root or not str(root):
        raise InputError(f"no store is named; give --store DIR or set {ROOT_VARIABLE}")
    return Path(root)


class AdapterStore:
    """Adapters of agents, in versions that do not change.

    Args:
        root: folder of the store; ``MODEL_STORE_ROOT`` by default. `publish` makes it, reading does not.
        clock: tells the time, with its zone.
        wait: seconds to wait for another process that is publishing.

    Raises:
        InputError: no root is given.
    """

    def __init__(
        self, root: Path | str | None = None, *, clock: Callable[[], datetime] = utc_now, wait: float = _WAIT
    ) -> None:
        self.root, self.clock, self._wait = store_root(root), clock, wait

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def agents(self) -> list[str]:
        """Names of all agents.

        Raises:
            InputError: there is no store, or a symbolic link lies in it.
        """
        return sorted(path.name for path in _folders(self._existing_root()) if is_name(path.name, "agent"))

    def folder_of(self, agent: str) -> Path:
        """The folder of an agent, which is there.

        Raises:
            InputError: no such agent; says who there is.
        """
        folder = self._existing_root() / valid_name(agent, "agent")
        refuse_symlink(folder)
        known = self.agents()
        if agent not in known:
            if not known:
                raise InputError(f"nothing was published to {self.root} yet; train_qlora --publish does")
            raise unknown("agent", agent, known)
        return folder

    def version_names(self, agent: str) -> list[str]:
        """Names of an agent's versions, whole or damaged, by name.

        Raises:
            InputError: no such agent, or a symbolic link lies there.
        """
        folders = _folders(self.folder_of(agent))
        return sorted(path.name for path in folders if is_name(path.name, "version"))

    def versions(self, agent: str) -> list[Version]:
        """An agent's versions in the order in which they were published; damaged ones, which `verify` names, are left out.

        Raises:
            InputError: as `version_names`.
        """
        found = []
        for name in self.version_names(agent):
            with contextlib.suppress(InputError):
                found.append(self.version(agent, name))
        return sorted(found, key=lambda version: (version.manifest["sequence"], version.name))

    def version(self, agent: str, name: str) -> Version:
        """One version.

        Raises:
            InputError: there is none of this name, or its manifest is damaged.
        """
        folder = self.folder_of(agent) / valid_name(name, "version")
        if not folder.is_dir():
            raise unknown(f"version of {agent}", name, self.version_names(agent))
        return Version(agent, name, folder, manifest.read(folder))

    def aliases(self, agent: str) -> dict[str, str]:
        """Version that each alias points to, by alias.

        Raises:
            InputError: no such agent, or a damaged alias.
        """
        return read_aliases(self.folder_of(agent))

    def agent_map(self) -> dict[str, dict[str, Any]]:
        """What ``AGENT_MODEL_MAP.json`` holds.

        Raises:
            InputError: there is no store, or the map is damaged.
        """
        return read_map(self._existing_root())

    def resolve(self, reference: str) -> Version:
        """The version that ``AGENT``, ``AGENT@ALIAS`` or ``AGENT@VERSION`` means; an agent alone is what the map says.

        Raises:
            InputError: nothing of the name, or what it points to is not there.
        """
        agent, at, name = reference.partition("@")
        if at and not name:
            raise InputError(f"{reference!r} ends where an alias or a version should stand; give AGENT@NAME, or AGENT")
        aliases = self.aliases(agent)
        if not name:
            entry = self.agent_map().get(agent)
            name = entry["version"] if entry else LATEST
        name = aliases.get(name, name)
        names = self.version_names(agent)
        if name not in names:
            raise unknown(f"alias or version of {agent}", name, {*names, *aliases})
        return self.version(agent, name)

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        source: Path | str,
        agent: str,
        adapter_name: str,
        *,
        version: str | None = None,
        provenance: Provenance | None = None,
        skip: tuple[str, ...] = (),
    ) -> Version:
        """Copy an adapter's folder into the store as a new version, and point ``latest`` and the map to it.

        Args:
            source: the adapter's folder: PEFT's or ours.
            agent: whose it is.
            adapter_name: what it is called.
            version: its name; ``vYYYYMMDD-HHMM`` in UTC by default, with a suffix where that is taken.
            provenance: how it was made; what the folder's files say by default.
            skip: names of folders in ``source`` that are not published.

        Returns:
            The version, on disk.

        Raises:
            InputError: a name, the adapter or the store cannot be used; nothing is published.
        """
        source = Path(source)
        valid_name(agent, "agent")
        valid_name(adapter_name, "adapter name")
        if version is not None:
            valid_name(version, "version")
        self._refuse_nested(source)
        told = provenance or provenance_of(source)
        self.check_writable()
        self.root.mkdir(parents=True, exist_ok=True)
        with self._workspace(agent) as work:
            made = work / "version"
            files = copy_folder(source, made, frozenset(skip))
            if manifest.NAME in files:
                raise InputError(f"{source} holds a {manifest.NAME}, which the store writes itself; move it away")
            refuse_unusable(made)  # what was copied: the source may change meanwhile
            with self.locked():
                read_map(self.root)  # a damaged map stops it here, not halfway
                moment = self.clock()
                name = self._new_name(agent, version, moment)
                document = _document(told, agent, adapter_name, name, self._sequence(agent), moment, files)
                sealed = manifest.write(made, document)
                folder = self.root / agent / name
                made.rename(folder)  # the one moment at which it appears
                sync(folder.parent)
                published = Version(agent, name, folder, sealed)
                self._point(published, LATEST)
        return published

    def alias(self, agent: str, alias: str, version: str) -> Version:
        """Point an alias to a version; ``latest`` moves the agent's entry in the map with it, which undoes a publication.

        Raises:
            InputError: no such version, or the alias cannot be a name.
        """
        valid_name(alias, "alias")
        with self.locked():
            found = self.version(agent, self.aliases(agent).get(version, version))
            self._point(found, alias)
        return found

    def planned_version(self, agent: str, version: str | None = None) -> str:
        """What `publish` would call a version now; nothing is written.

        Raises:
            InputError: a name that cannot be one, or a version that is there already.
        """
        valid_name(agent, "agent")
        if self.root.is_dir():
            refuse_clash(agent, self.agents(), "agent")
        return self._new_name(agent, version, self.clock())

    def check_writable(self) -> None:
        """Raise `InputError` where the store, or the folder that it would be made in, cannot be written to."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"store {self.root} cannot be written to ({place}); give another --store")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store: one process at a time publishes, points or prunes.

        Raises:
            InputError: another process has held it for too long.
        """
        lock = self._existing_root() / LOCK
        with locked(
            lock, f"another process has held {lock} for {self._wait:g} s; try again when it is done", self._wait
        ):
            yield

    # ── pieces ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _existing_root(self) -> Path:
        if not self.root.is_dir():
            raise InputError(
                f"{self.root} is no store: there is no such folder; publish to it first, or give another --store"
            )
        return self.root

    def _refuse_nested(self, source: Path) -> None:
        outer, inner = self.root.resolve(), source.resolve()
        if outer == inner or outer in inner.parents or inner in outer.parents:
            raise InputError(f"{source} and the store {self.root} lie in each other; publish from a folder of its own")

    @contextlib.contextmanager
    def _workspace(self, agent: str) -> Iterator[Path]:
        """A folder to make a version in, on the store's file system; locked, which tells it from a dead process's."""
        with contextlib.ExitStack() as stack:
            with self.locked():
                refuse_clash(agent, self.agents(), "agent")
                folder = self.root / agent
                refuse_symlink(folder)
                stack.callback(self._leave, folder)
                folder.mkdir(exist_ok=True)
                sync(self.root)
                work = Path(tempfile.mkdtemp(prefix=PUBLISHING, dir=folder))
                stack.callback(shutil.rmtree, work, ignore_errors=True)
                stack.enter_context(locked(work / LOCK, f"{work} is in use"))
            yield work

    def _new_name(self, agent: str, version: str | None, moment: datetime) -> str:
        known = self.root.is_dir() and agent in self.agents()
        taken = self.version_names(agent) if known else []
        aliases = self.aliases(agent) if known else {}
        if version is None:
            return version_at(moment, [*taken, *aliases])
        valid_name(version, "version")
        refuse_clash(version, [*taken, *aliases], "version")
        if version in taken:
            raise InputError(f"{agent} has a version {version} already, and versions never change; choose another name")
        if version in aliases:
            raise InputError(f"{agent} has an alias {version!r}; choose another name for the version")
        return version

    def _leave(self, folder: Path) -> None:
        """Remove an agent's folder in which nothing is: it would take the agent's name and stand for nobody."""
        with contextlib.suppress(OSError, InputError), self.locked():
            folder.rmdir()  # which refuses a folder that is not empty

    def _sequence(self, agent: str) -> int:
        return max((version.manifest["sequence"] for version in self.versions(agent)), default=0) + 1

    def _point(self, version: Version, alias: str) -> None:
        write_alias(version.path.parent, alias, version.name)
        if alias == LATEST:
            write_map(self.root, version, alias)


def _folders(folder: Path) -> list[Path]:
    """Folders in ``folder`` that are not hidden, nor links to elsewhere."""
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in found:
        refuse_symlink(path)
    return [path for path in found if path.is_dir() and path.name != ALIASES]


def _document(
    told: Provenance,
    agent: str,
    adapter_name: str,
    version: str,
    sequence: int,
    moment: datetime,
    files: Mapping[str, Mapping[str, int | str]],
) -> dict[str, Any]:
    """The manifest, without its digest."""
    versions = manifest.packages()
    return {
        "schema_version": manifest.SCHEMA_VERSION,
        "agent": agent,
        "adapter_name": adapter_name,
        "version": version,
        "sequence": sequence,
        "created": moment.astimezone(UTC).isoformat(timespec="seconds"),
        "kind": told.kind,
        "base": dict(told.base),
        "data": dict(told.data),
        "hyperparameters": dict(told.hyperparameters),
        "code": {"bargain-lab": versions["bargain-lab"], "hyperlora_sha256": manifest.code_digest()},
        "packages": versions,
        "training_summary": None if told.summary is None else dict(told.summary),
        "files": {name: dict(said) for name, said in files.items()},
    }
