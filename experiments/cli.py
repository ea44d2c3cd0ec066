"""What every command shares: options from a dataclass, errors as one line with exit code 2, a console, an output folder.

A command is a dataclass of settings (a line of docstring under each field is its help) and a function of it:

    if __name__ == "__main__":
        cli.main(Settings, run)
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from bargain_env.errors import InputError

T = TypeVar("T")
MOST_RHO = 1000
PLAIN_WIDTH = 120
"""Columns of a line where there is no terminal to fit into."""


def parse(settings: type[T], argv: list[str] | None = None) -> T:
    """The command line as an instance of the dataclass ``settings``; ``-`` and ``_`` are the same in option names.

    Raises:
        InputError: unknown option or bad value, in one line.
    """
    argv = sys.argv[1:] if argv is None else argv
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(settings, args=argv)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def _one_line(text: str) -> str:
    words = re.sub(r"[\u2500-\u257f]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split()
    message = " ".join(words).split(" For full helptext")[0]
    return f"{message}; see --help" if message else "bad usage; see --help"


def main(settings: type[T], run: Callable[[T], Any], argv: list[str] | None = None) -> None:
    """Parse, run, and turn errors that the user can mend into one line on stderr and exit code 2."""
    try:
        run(parse(settings, argv))
    except (InputError, FloatingPointError) as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"{error.strerror}: {error.filename}; check the path and its permissions" if error.filename else str(error)
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def fail(message: str) -> None:
    """Print one line to stderr and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def console(quiet: bool = False) -> Console:
    """Where people read: stdout, plain when it is not a terminal, silent with ``quiet``."""
    made = Console(quiet=quiet, highlight=False)
    if not made.is_terminal:
        made.width = max(made.width, PLAIN_WIDTH)
    return made


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


def parse_grid(text: str) -> list[float]:
    """ρ values from ``a,b,c`` or ``start:stop:step`` (stop included), each in [0, 1] or -1.

    Raises:
        InputError: not numbers, an empty range, or a value outside [0, 1] ∪ {-1}.
    """
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not (math.isfinite(start) and math.isfinite(stop) and step > 0 and stop >= start):
                raise InputError(f"--rho {text!r} is an empty range; write start:stop:step with step > 0")
            if (stop - start) / step > MOST_RHO:
                raise InputError(f"--rho {text!r} is more than {MOST_RHO} values; choose a larger step")
            values = [round(start + i * step, 10) for i in range(int((stop - start) / step + 1e-9) + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--rho {text!r} is neither a list a,b,c nor a range start:stop:step") from None
    for value in values:
        if not (0.0 <= value <= 1.0 or value == -1.0):
            raise InputError(f"rho {value} is outside [0, 1] and is not -1 (impasse); choose another --rho")
    return values
