"""What points to versions: an agent's aliases, a small file each, and the store's ``AGENT_MODEL_MAP.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError

from .durable import refuse_symlink, write_text
from .manifest import DIGEST, Version
from .names import ALIASES, is_automatic, is_name, refuse_clash, valid_name

MAP = "AGENT_MODEL_MAP.json"


def read_aliases(folder: Path) -> dict[str, str]:
    """Version that each alias of an agent points to, by alias.

    Args:
        folder: the agent's.

    Raises:
        InputError: an alias is a symbolic link or holds no name of a version.
    """
    where = folder / ALIASES
    refuse_symlink(where)
    found = {}
    for path in sorted(where.iterdir()) if where.is_dir() else []:
        if not is_name(path.name, "alias"):
            continue
        refuse_symlink(path)
        version = path.read_bytes().decode("utf-8", "replace").removesuffix("\n")
        if not is_name(version, "version"):
            raise InputError(
                f"{path} holds no version's name; set it again: python -m experiments.adapters alias "
                f"{folder.name} {path.name} VERSION"
            )
        found[path.name] = version
    return found


def write_alias(folder: Path, alias: str, version: str) -> None:
    """Point an alias of the agent with this folder to a version; the caller holds the store's lock.

    Raises:
        InputError: the alias cannot be a name, is that of a version or looks like an automatic one, or differs from another
            in case alone.
    """
    valid_name(alias, "alias")
    where = folder / ALIASES
    refuse_symlink(where)
    where.mkdir(exist_ok=True)
    refuse_clash(alias, [path.name for path in where.iterdir()], "alias")
    if is_automatic(alias):
        raise InputError(f"alias {alias!r} looks like an automatic version; choose another name for the alias")
    if (folder / alias).exists():
        raise InputError(f"{folder.name} has a version {alias!r}; choose another name for the alias")
    write_text(where / alias, version + "\n")


def read_map(root: Path) -> dict[str, dict[str, Any]]:
    """``AGENT_MODEL_MAP.json``: what stands for each agent; empty where there is none yet.

    Raises:
        InputError: it is not what this package writes.
    """
    path = root / MAP
    refuse_symlink(path)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(entry, dict) and is_name(str(entry.get("version", "")), "version") for entry in found.values()
    ):
        raise InputError(
            f"{path} is no map of agents to versions; move it away, then `python -m experiments.adapters alias AGENT "
            "latest VERSION` writes each entry anew"
        )
    return found


def entry_of(version: Version, alias: str) -> dict[str, Any]:
    """What the map says of an agent for which ``version`` stands."""
    said = version.manifest
    return {
        "adapter_name": said["adapter_name"],
        "version": version.name,
        "alias": alias,
        "path": f"{version.agent}/{version.name}",
        "kind": said["kind"],
        "base": said["base"].get("name"),
        "base_digest": said["base"].get("digest"),
        "created": said["created"],
        "manifest_digest": said[DIGEST],
    }


def write_map(root: Path, version: Version, alias: str) -> None:
    """Let ``version`` stand for its agent; the caller holds the store's lock. Other agents' entries stay as they are."""
    found = read_map(root) | {version.agent: entry_of(version, alias)}
    write_text(root / MAP, json.dumps(dict(sorted(found.items())), indent=1) + "\n")
