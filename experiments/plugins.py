"""Strategies from a user's own file: ``--plugin path/to/file.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bargain_env.errors import InputError


def load_plugin(path: Path) -> None:
    """Run a Python file that calls `agents.register`.

    Raises:
        InputError: no such file, or it failed.
    """
    if not path.is_file():
        raise InputError(f"--plugin {path}: no such file")
    specification = importlib.util.spec_from_file_location(f"bargain_plugin_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise InputError(f"--plugin {path}: not a Python file; give a path that ends in .py")
    try:
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--plugin {path} failed: {type(error).__name__}: {error}; mend the file") from error
