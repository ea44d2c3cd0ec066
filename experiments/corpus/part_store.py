"""Finished parts of a collection, each file whole and in its place, and what is known of them: what makes it resumable.

While a collection is made, ``unfinished.parts`` has a line for what it is and one for each part that is in its place, with
the checksums of its files; at the end ``manifest.json`` takes over, so there is never more than one of the two. A run that
finds either keeps the parts that are as they were written, and plays the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError
from bargain_env.files import replacing

from . import manifest
from .parts import EPISODES, LOG, STEPS, Part, Played

JOURNAL = "unfinished.parts"
KINDS = (STEPS, EPISODES, LOG)
_OURS = re.compile(r"\.?part-\d{5}\.(parquet|jsonl)(\.\w+)?")
"""Files of parts; those with a dot before and letters behind are half written."""
_SHADOWS = ("steps.parquet", "decision_steps.parquet", "episodes.parquet", "episodes.jsonl")
"""Files of another layout, which a reader might take for the data."""

Entry = dict[str, Any]


class PartStore:
    """The folder of a collection, in which one collector works.

    Args:
        out: the folder.
        identity: all that the bytes of its parts depend on, JSON-ready; parts of anything else are not mixed with these.
        parts: all of the collection.
        kinds: of files that each has.
        warn: told, in one line each, of what was found and cannot be used.
        fresh: drop what is there.

    Raises:
        InputError: the folder holds other data.
    """

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        parts: Sequence[Part],
        kinds: Sequence[str],
        warn: Callable[[str], None],
        *,
        fresh: bool = False,
    ) -> None:
        self.folder, self._parts, self._kinds, self._warn = out, parts, kinds, warn
        self._identity = json.loads(json.dumps(identity))
        self.entries: dict[int, Entry] = {}
        """What is known of each part that is in its place, by its number."""
        self._refuse_foreign()
        for name in (manifest.NAME, JOURNAL):
            for path in out.glob(f".{name}.*"):
                path.unlink()  # half written
        if fresh:
            self._discard()
        for entry in self._earlier():
            self._keep(entry)
        self._begin()

    # ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_foreign(self) -> None:
        """Raise `InputError` where this would destroy, or mingle with, what no collector wrote."""
        found = [self.folder / name for name in _SHADOWS if (self.folder / name).exists()]
        for kind in KINDS:
            found += [path for path in _inside(self.folder / kind) if not _OURS.fullmatch(path.name)]
        if found:
            raise InputError(f"{found[0]} is no part of a collection; move it away, or choose another --out")

    def _discard(self) -> None:
        for name in (manifest.NAME, JOURNAL):
            (self.folder / name).unlink(missing_ok=True)
        for kind in KINDS:
            shutil.rmtree(self.folder / kind, ignore_errors=True)

    def _earlier(self) -> list[Entry]:
        """What an earlier run says of its parts.

        Raises:
            InputError: it was another collection, or a longer one.
        """
        way_out = "choose another --out, or discard what is there with --fresh"
        found = self._journal() or self._manifest()
        if found is None:
            if any(path for kind in KINDS for path in _inside(self.folder / kind)):
                raise InputError(f"{self.folder} holds parts of a data set without its {manifest.NAME}; {way_out}")
            return []
        identity, entries = found
        other = _differing(self._identity, identity)
        if other:
            raise InputError(
                f"{self.folder} holds a collection with other settings (different: {', '.join(other)}); {way_out}, or give "
                "its settings to continue it"
            )
        most = max((entry["first"] + entry["games"] for entry in entries), default=0)
        wanted = sum(part.games for part in self._parts)
        if most > wanted:
            raise InputError(f"{self.folder} holds {most:,} games, and --episodes {wanted} are fewer; {way_out}")
        return entries

    def _journal(self) -> tuple[Mapping[str, Any], list[Entry]] | None:
        path = self.folder / JOURNAL
        if not path.exists():
            return None
        lines = path.read_bytes().split(b"\n")[:-1]  # what has no line break was cut short
        try:
            identity, *entries = map(json.loads, lines)
        except ValueError as error:
            raise InputError(f"{path} is not what was written ({error}); discard the run with --fresh") from None
        return identity, entries

    def _manifest(self) -> tuple[Mapping[str, Any], list[Entry]] | None:
        if not (self.folder / manifest.NAME).exists():
            return None
        document = manifest.read(self.folder)
        if document.get("command") != "collect" or "parts" not in document:
            maker = document.get("command", "something else")
            raise InputError(f"{self.folder} holds a data set of experiments.{maker}; choose another --out")
        numbered = {Path(name).stem: [] for name in document["files"]}  # type: dict[str, list[str]]
        for name in document["files"]:
            numbered[Path(name).stem].append(name)
        entries = [
            {**entry, "files": {name: document["files"][name] for name in numbered[f"part-{entry['number']:05d}"]}}
            for entry in document["parts"]
        ]
        identity = {key: document.get(key) for key in self._identity}
        settings = {key: value for key, value in document["settings"].items() if key != "episodes"}
        return {**identity, "settings": settings}, entries

    def _keep(self, entry: Entry) -> None:
        """Take a part over, if it is one of this collection and its files are what was written."""
        number = entry["number"]
        part = self._parts[number]
        if (entry["first"], entry["games"]) != (part.first, part.games):
            return  # the last of a shorter collection
        wanted = {part.file(kind) for kind in self._kinds}
        for name in sorted(wanted):
            if name not in entry["files"] or not _agrees(self.folder / name, entry["files"][name]):
                self._warn(f"{self.folder / name} is not what was written; its games are played again")
                return
        self.entries[number] = entry

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        """From here on the folder is an unfinished collection of the kept parts, and nothing else is in it."""
        with self._writing(self.folder / JOURNAL), replacing(self.folder / JOURNAL) as temporary:
            lines = [self._identity, *(self.entries[number] for number in sorted(self.entries))]
            temporary.write_text("".join(map(_line, lines)), encoding="utf-8")
        (self.folder / manifest.NAME).unlink(missing_ok=True)
        kept = {name for entry in self.entries.values() for name in entry["files"]}
        for kind in KINDS:
            for path in _inside(self.folder / kind):
                if f"{kind}/{path.name}" not in kept:
                    path.unlink()
            if kind in self._kinds:
                (self.folder / kind).mkdir(exist_ok=True)

    def put(self, played: Played) -> None:
        """Keep a part that was played.

        Raises:
            InputError: it cannot be written; nothing of it is then under the name of a finished file.
        """
        for name, content in played.files.items():
            path = self.folder / name
            with self._writing(path), replacing(path) as temporary, temporary.open("wb") as file:
                file.writelines(content.chunks())
                file.flush()
                os.fsync(file.fileno())
        files = {name: content.described() for name, content in played.files.items()}
        entry = {"number": played.part.number, **played.counts, "files": files}
        path = self.folder / JOURNAL
        with self._writing(path):
            _append(path, _line(entry))
        self.entries[played.part.number] = entry

    def finish(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest of the whole, once all parts are there; returns it.

        Args:
            document: what it says beside the identity, parts and files.
        """
        entries = [self.entries[part.number] for part in self._parts]
        files = {name: entry["files"][name] for kind in KINDS for entry in entries for name in _of(kind, entry)}
        parts = [{key: value for key, value in entry.items() if key != "files"} for entry in entries]
        settings = {"episodes": sum(part.games for part in self._parts), **self._identity["settings"]}
        whole = {
            "command": "collect",
            **self._identity,
            "settings": settings,
            **document,
            "parts": parts,
            "files": files,
        }
        with self._writing(self.folder / manifest.NAME):
            manifest.write(self.folder, whole)
        (self.folder / JOURNAL).unlink()
        return manifest.read(self.folder)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """What the operating system has against it becomes an `InputError`."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}; {len(self.entries)} of {len(self._parts)} parts are kept: make "
                "room, or mend the permissions, and give the same command to continue"
            ) from error


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _of(kind: str, entry: Entry) -> list[str]:
    return [name for name in entry["files"] if name.startswith(f"{kind}/")]


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _agrees(path: Path, said: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != said["bytes"]:
        return False
    with path.open("rb") as file:
        digest: str = hashlib.file_digest(file, "sha256").hexdigest()
    return digest == said["sha256"]


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of what differs, settings and libraries by name."""

    def flat(document: Mapping[str, Any]) -> dict[str, Any]:
        inner = [document[name] for name in ("settings", "libraries") if isinstance(document.get(name), dict)]
        return {k: v for part in (document, *inner) for k, v in part.items() if k not in ("settings", "libraries")}

    mine, other = flat(ours), flat(theirs)
    return sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
