"""What a command line is made of on every floor: options from a dataclass, errors as one line and exit code 2, a console.

A command is a dataclass of settings (a line of docstring under each field is its help) and a function of it:

    if __name__ == "__main__":
        command.main(Settings, run)
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

from .errors import InputError

T = TypeVar("T")
PLAIN_WIDTH = 120
"""Columns of a line where there is no terminal to fit into."""


def parse(settings: type[T], argv: list[str] | None = None, prog: str | None = None) -> T:
    """The command line as an instance of the dataclass ``settings``; ``-`` and ``_`` are the same in option names.

    Args:
        settings: the dataclass.
        argv: arguments; those of the process by default.
        prog: how the help calls the command, if not by its file.

    Raises:
        InputError: unknown option or bad value, in one line.
    """
    argv = sys.argv[1:] if argv is None else argv
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(settings, args=argv, prog=prog)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def _one_line(text: str) -> str:
    words = re.sub(r"[\u2500-\u257f]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split()
    message = " ".join(words).split(" For full helptext")[0]
    return f"{message}; see --help" if message else "bad usage; see --help"


def main(settings: type[T], run: Callable[[T], Any], argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse, run, and turn errors that the user can mend into one line on stderr and exit code 2."""
    try:
        run(parse(settings, argv, prog))
    except (InputError, FloatingPointError) as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"{error.strerror}: {error.filename}; check the path and its permissions" if error.filename else str(error)
        )
    except KeyboardInterrupt as stop:  # one with a message says how to go on
        print(str(stop) or "interrupted", file=sys.stderr)
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
