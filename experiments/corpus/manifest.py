"""What a folder of data says of itself: ``manifest.json``, with a checksum of every file and one of its own.

    {"schema_version", "command", …, "files": {"steps/part-00000.parquet": {"sha256", "rows", "bytes"}, …}, "digest"}

``digest`` is the SHA-256 of all the rest, so that not even the manifest can change unseen. It is written last: where it is,
the data are complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError
from bargain_env.files import replacing, sha256

NAME = "manifest.json"
DIGEST = "digest"


def described(path: Path, rows: int | None) -> dict[str, Any]:
    """What a manifest says of a file.

    Args:
        path: the file.
        rows: of a table or log; None for what has none.
    """
    return {"sha256": sha256(path), "rows": rows, "bytes": path.stat().st_size}


def text(document: Mapping[str, Any]) -> str:
    """The manifest of ``document``, sealed with its digest."""
    body = {key: value for key, value in document.items() if key != DIGEST}
    seal = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, DIGEST: seal}, indent=1) + "\n"


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``folder/manifest.json``, as `text` makes it."""
    with replacing(folder / NAME) as temporary:
        temporary.write_text(text(document), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of ``folder``, if it is what was written.

    Raises:
        InputError: there is none, it is no JSON object, or it is not what was written.
    """
    path = folder / NAME
    try:
        content = path.read_text(encoding="utf-8")
        document = json.loads(content)
    except FileNotFoundError:
        raise InputError(f"{folder} has no {NAME}: it is no data set, or one that was not finished") from None
    except ValueError:
        document, content = None, ""
    sealed = isinstance(document, dict) and (DIGEST in document or "files" in document)
    if not isinstance(document, dict) or (sealed and text(document) != content):
        raise InputError(f"{path} is not what was written; make the data again")
    return document
