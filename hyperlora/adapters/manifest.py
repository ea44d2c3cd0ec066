"""What a version says of itself: ``manifest.json``, with a checksum of every file and one of its own.

    {"schema_version", "agent", "adapter_name", "version", "sequence", "created", "kind", "base": {"name", "digest", …},
     "data": {…}, "hyperparameters": {…}, "code": {…}, "packages": {…}, "training_summary": {…} or null,
     "files": {"adapter_model.safetensors": {"bytes", "sha256"}, …}, "digest"}

``digest`` is the SHA-256 of all the rest. ``sequence`` counts an agent's versions: it orders them whatever their names and
the clocks of the machines that published them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError
from bargain_env.installed import installed_versions

from .durable import READ_ONLY, refuse_symlink, sync

NAME = "manifest.json"
SCHEMA_VERSION = 1
DIGEST = "digest"
PACKAGES = ("bargain-lab", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers", "safetensors")
_KINDS: dict[str, type] = {
    "agent": str, "adapter_name": str, "version": str, "sequence": int, "created": str, "kind": str, "base": dict,
    "data": dict, "hyperparameters": dict, "files": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Version:
    """A published version of an agent's adapter.

    Attributes:
        agent: whose.
        name: of the version.
        path: its folder, which does not change any more.
        manifest: what it says of itself.
    """

    agent: str
    name: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its files, without the manifest."""
        return sum(said["bytes"] for said in self.manifest["files"].values())

    def __str__(self) -> str:
        return f"{self.agent}@{self.name}"


def text(document: Mapping[str, Any]) -> str:
    """The manifest of ``document``, sealed with its digest."""
    body = {key: value for key, value in document.items() if key != DIGEST}
    seal = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, DIGEST: seal}, indent=1) + "\n"


def write(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest into a folder that nobody reads yet; returns it with its digest."""
    path, sealed = folder / NAME, text(document)
    with path.open("x", encoding="utf-8") as file:
        file.write(sealed)
    sync(path)
    path.chmod(READ_ONLY)
    sync(folder)
    return json.loads(sealed)


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a version's folder, if it is what was written there.

    Raises:
        InputError: none, no JSON, not what was written, of a newer version of this package, or of another folder.
    """
    path = folder / NAME
    refuse_symlink(folder)
    refuse_symlink(path)
    try:
        content = path.read_text(encoding="utf-8")
        document = json.loads(content)
    except FileNotFoundError:
        raise InputError(f"{folder} has no {NAME}, so it is no published version; move it out of the store") from None
    except (ValueError, RecursionError):
        document, content = None, ""
    if isinstance(document, dict) and isinstance(document.get("schema_version"), int):
        if document["schema_version"] > SCHEMA_VERSION:
            raise InputError(f"{path} was written by a newer version of bargain-lab; upgrade to read it")
    else:
        document = None
    if document is None or text(document) != content or any(
        not isinstance(document.get(name), kind) for name, kind in _KINDS.items()
    ):  # fmt: skip
        raise InputError(f"{path} is not what was written; publish the adapter again, as another version")
    if (document["agent"], document["version"]) != (folder.parent.name, folder.name):
        raise InputError(
            f"{path} is that of {document['agent']}@{document['version']}; a version cannot be moved, publish it instead"
        )
    return document


def packages() -> dict[str, str]:
    """Version of Python and of each of `PACKAGES`, see `bargain_env.installed`."""
    return installed_versions(PACKAGES)


@cache
def code_digest() -> str:
    """SHA-256 over the names and the contents of the modules of ``hyperlora``: the code, installed or in a checkout."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()
