"""Names in a store: of agents, adapters, versions and aliases. Each is a folder or a file on any file system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from bargain_env.errors import InputError

LATEST = "latest"
ALIASES = "aliases"
"""Folder of an agent's aliases, beside its versions."""
LONGEST = 64
"""Characters of a name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = {
    "agent": {"agent_model_map.json"},
    "adapter name": set[str](),
    "version": {LATEST, ALIASES},
    "alias": {ALIASES},
}
"""Lower case; what the store itself calls so."""
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""File names that Windows keeps for itself, with any suffix."""


def valid_name(name: str, kind: str) -> str:
    """``name``, if it can be one.

    Args:
        name: as given.
        kind: ``agent``, ``adapter name``, ``version`` or ``alias``.

    Raises:
        InputError: it is empty, too long, reserved, or has other characters than letters of ASCII, digits, ``.``, ``_`` and
            ``-``; so it holds no separator and no ``..``, and begins with no dot.
    """
    advice = "use letters, digits, '-', '_' and inner dots"
    if not name:
        raise InputError(f"the {kind} is empty; {advice}")
    if len(name) > LONGEST:
        raise InputError(f"{kind} {name[:20] + '…'!r} has {len(name)} characters; use at most {LONGEST}")
    if not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise InputError(f"{kind} {name!r} could lead to another folder or is no portable file name; {advice}")
    if name.lower() in _RESERVED[kind] or name.lower().partition(".")[0] in _DEVICES:
        raise InputError(f"{kind} {name!r} is reserved; choose another")
    return name


def is_name(name: str, kind: str) -> bool:
    """Whether `valid_name` accepts ``name``."""
    try:
        valid_name(name, kind)
    except InputError:
        return False
    return True


def refuse_clash(name: str, taken: Iterable[str], kind: str) -> None:
    """Raise `InputError` where ``name`` differs from one of ``taken`` in case alone: one file, on some systems."""
    for other in taken:
        if other != name and other.lower() == name.lower():
            raise InputError(f"{kind} {name!r} differs from {other!r} in case alone; use {other!r} or another name")


def is_automatic(name: str) -> bool:
    """Whether `version_at` gives such names."""
    return re.fullmatch(r"v[0-9]{8}-[0-9]{4}(-[0-9]+)?", name.lower()) is not None


def version_at(moment: datetime, taken: Iterable[str]) -> str:
    """``vYYYYMMDD-HHMM`` in UTC, followed by ``-2``, ``-3`` … after the highest that is ``taken``: no name comes back.

    Raises:
        ValueError: ``moment`` does not say its time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("the clock must tell its time zone")
    stem = f"v{moment.astimezone(UTC):%Y%m%d-%H%M}"
    found = (re.fullmatch(rf"{stem}(?:-([0-9]{{1,9}}))?", name.lower()) for name in taken)
    highest = max((int(match[1] or 1) for match in found if match), default=0)
    return f"{stem}-{highest + 1}" if highest else stem
