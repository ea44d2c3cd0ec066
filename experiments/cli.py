"""What every command shares: options, errors and a console as `bargain_env.command` has them, and an output folder.

A command is a dataclass of settings (a line of docstring under each field is its help) and a function of it:

    if __name__ == "__main__":
        cli.main(Settings, run)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from bargain_env.command import PLAIN_WIDTH, console, fail, main, parse
from bargain_env.errors import InputError
from bargain_env.rho_grid import parse_grid

__all__ = ["PLAIN_WIDTH", "InputError", "console", "fail", "main", "output_folder", "parse", "parse_grid", "warner"]


def output_folder(path: Path) -> Path:
    """``path``, made if needed.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create output folder {path}: {error.strerror}; choose another --out") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"output folder {path} is not writable; choose another --out")
    return path


def warner(quiet: bool) -> Callable[[str], None]:
    """Where warnings go: stderr, so that they are no part of what ``--json`` prints."""
    return lambda text: None if quiet else print(f"warning: {text}", file=sys.stderr)
