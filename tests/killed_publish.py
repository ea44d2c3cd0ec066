"""Publishes in child processes that are killed (SIGKILL) at every file-system event in turn, for `adapter_store`.

    python tests/killed_publish.py SOURCE FOLDER

Every event is what Python's audit hooks tell of the store: each file opened or made, renamed, changed or removed; and each
fsync, before which the file is cut to half, as a power cut may leave what was not yet on disk. Prints a JSON line for each
event: its name, and what the store holds after the kill and after the next publication.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from killing import Trap, forked

from hyperlora.adapters.prune import prune
from hyperlora.adapters.store import AdapterStore
from hyperlora.adapters.verify import verify, verify_pointers

WATCHED = ("open", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir", "tempfile.mkdtemp", "shutil.rmtree")


def store_at(root: Path) -> AdapterStore:
    """With a clock that stands still."""
    return AdapterStore(root, clock=lambda: datetime(2026, 1, 2, 3, 4, tzinfo=UTC), wait=5.0)


def watch(trap: Trap, root: Path) -> None:
    """Make every event below ``root`` one of the trap's."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and any(
            str(root) in os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | Path)
        ):
            trap.event(event)

    inner = os.fsync

    def fsync(handle: int) -> None:
        last = trap.at is not None and len(trap.names) + 1 == trap.at
        if last and stat.S_ISREG(os.fstat(handle).st_mode):
            os.truncate(f"/proc/self/fd/{handle}", os.fstat(handle).st_size // 2)
        trap.event("fsync")
        inner(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def child(source: Path, root: Path, at: int | None) -> list[str]:
    """Publish once more in a fork; the names of its events, or nothing if it was killed."""

    def run() -> list[str]:
        trap = Trap(at)
        watch(trap, root)
        store_at(root).publish(source, "buyer", "second")
        return list(trap.names)

    return forked(run, must_end=at is None) or []


def state(store: AdapterStore) -> dict[str, Any]:
    """What a reader finds."""
    problems = [str(p) for name in store.version_names("buyer") for p in verify(store, "buyer", name)]
    return {
        "versions": [version.name for version in store.versions("buyer")],
        "names": store.version_names("buyer"),
        "problems": [*problems, *map(str, verify_pointers(store))],
        "resolved": store.resolve("buyer").name,
        "latest": store.resolve("buyer@latest").name,
    }


def main(source: str, folder: str) -> None:
    """See the top of the file."""
    made = Path(folder) / "made"
    store_at(made).publish(source, "buyer", "first")

    def copied(name: str) -> Path:
        return Path(shutil.copytree(made, Path(folder) / name))

    names = child(Path(source), copied("whole"), None)
    for at, name in enumerate(names, 1):
        root = copied(f"killed-{at}")
        survived = child(Path(source), root, at)
        after = state(store_at(root))
        again = store_at(root).publish(source, "buyer", "third").name
        prune(store_at(root), keep=9)
        hidden = [p.name for p in root.rglob(".*")]
        line = {"event": name, "survived": bool(survived), "after": after, "again": again, "hidden": hidden}
        print(json.dumps({**line, "then": state(store_at(root))}), flush=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main(*sys.argv[1:])
