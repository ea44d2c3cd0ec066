"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place only if the block succeeds."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, message: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock that one process (or thread) at a time can have; it ends with the process, however that ends.

    Args:
        path: of the lock's file, which is there as long as the lock is held.
        message: for whoever finds it held.
        wait: seconds to wait for it.

    Raises:
        InputError: another process holds it, and still did so after ``wait`` seconds.
    """
    if fcntl is None:  # where there are no such locks
        yield
        return
    until = time.monotonic() + wait
    while (file := _lock(path)) is None:
        if time.monotonic() >= until:
            raise InputError(message)
        time.sleep(_POLL)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


_POLL = 0.02
"""Seconds between two tries to get a lock."""


def _lock(path: Path) -> IO[str] | None:
    """The locked file, if nobody else holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (
        BlockingIOError,
        FileNotFoundError,
    ):  # held; or let go of and removed just now: who comes next makes another
        pass
    file.close()
    return None


@contextlib.contextmanager
def replacing_folder(path: Path, mark: str) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place, with all it holds, only if the block succeeds.

    Args:
        path: the folder.
        mark: a file that shows an existing folder to be an earlier one of the same kind.

    Raises:
        InputError: ``path`` holds something else, which would be lost.
    """
    refuse_foreign(path, mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        except BaseException:  # an interrupt too: between the two renames neither version stands where it belongs
            if old.exists() and not path.exists():
                old.replace(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(path: Path, mark: str) -> None:
    """Raise `InputError` where writing the folder ``path`` anew would destroy something that is not ours.

    A folder may be replaced if it is empty or holds the file ``mark``.
    """
    if path.exists() and not (path.is_dir() and ((path / mark).is_file() or not any(path.iterdir()))):
        raise InputError(f"{path} exists and holds no {mark}: it would be lost; choose another --out")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
