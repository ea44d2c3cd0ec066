"""Answers by question, in memory and, if a folder is given, on disk: nobody is asked the same thing twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError
from bargain_env.files import replacing

from .chat import Reply

FORMAT = 1


class AnswerCache:
    """Replies keyed by the SHA-256 of the request that brought them.

    On disk each is a file of its own, ``FOLDER/ab/abcd….json``, whole or absent, which holds the request as well. A file
    that cannot be read, or holds another request, counts as absent and is written again. Processes may share a folder.

    Args:
        folder: where to keep the files; None keeps answers in memory only.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._memory = folder, dict[str, Reply]()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot keep answers in {folder}: {error.strerror}; choose another cache") from error

    def get(self, key: str, request: dict[str, Any]) -> Reply | None:
        """The reply to ``request``, whose `digest` is ``key``, or None."""
        if key not in self._memory and self._folder is not None:
            found = _read(_file(self._folder, key), request)
            if found is not None:
                self._memory[key] = found
        return self._memory.get(key)

    def put(self, key: str, request: dict[str, Any], reply: Reply) -> None:
        """Keep the reply to ``request``, whose `digest` is ``key``."""
        if self._folder is not None:
            path = _file(self._folder, key)
            path.parent.mkdir(exist_ok=True)
            kept = {"format": FORMAT, "request": request, "text": reply.text, "cut": reply.cut}
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self._memory[key] = reply


def digest(request: dict[str, Any]) -> str:
    """Hex SHA-256 of a request, the same however its keys are ordered."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _file(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def _read(path: Path, request: dict[str, Any]) -> Reply | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        whole = kept["format"] == FORMAT and kept["request"] == request and isinstance(kept["text"], str)
        return Reply(kept["text"], bool(kept["cut"])) if whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
