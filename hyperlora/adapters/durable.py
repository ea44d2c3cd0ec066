"""Writing that survives a kill and a power cut: on disk first, then renamed into its place."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bargain_env.errors import InputError
from bargain_env.files import replacing

READ_ONLY = 0o444
_BLOCK = 1 << 20


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handles of folders to flush
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace the file ``path`` at once: whoever reads it finds the old text or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
    sync(path.parent)


def refuse_symlink(path: Path) -> None:
    """Raise `InputError` where ``path`` is a symbolic link: it might lead out of the store, or change under it."""
    if path.is_symlink():
        raise InputError(
            f"{path} is a symbolic link, which a store does not follow; put the file or folder itself there"
        )


def copy_folder(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> dict[str, dict[str, int | str]]:
    """Copy the files of ``source`` into the new folder ``target``, read-only and on disk when it returns.

    Names that begin with a dot stay behind: writers that were killed leave such.

    Args:
        source: a folder of files and folders.
        target: is made.
        skip: names of folders at the top of ``source`` that are left behind.

    Returns:
        What a manifest says of each file, by its path below the folder: ``bytes`` and ``sha256`` of what was written.

    Raises:
        InputError: a symbolic link or something that is no file lies in ``source``.
    """
    found: dict[str, dict[str, int | str]] = {}
    target.mkdir()
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue  # what a killed writer left, or a tool keeps for itself; no part of an adapter
        refuse_symlink(path)
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in skip:
                below = copy_folder(path, target / entry.name)
                found |= {f"{entry.name}/{name}": said for name, said in below.items()}
        elif entry.is_file(follow_symlinks=False):
            found[entry.name] = _copy_file(path, target / entry.name)
        else:
            raise InputError(f"{path} is neither a file nor a folder; move it away and publish again")
    sync(target)
    return found


def _copy_file(source: Path, target: Path) -> dict[str, int | str]:
    """Copy and describe in one pass: the digest is of the bytes that were written, whatever happens to the source."""
    digest, size = hashlib.sha256(), 0
    opened = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(opened, "rb") as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            size += len(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(READ_ONLY)
    return {"bytes": size, "sha256": digest.hexdigest()}
