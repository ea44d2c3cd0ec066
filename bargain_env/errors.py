"""The one error class for input that its user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The message is one line: the cause, the file or row, and the next step.

    Commands print it to stderr and exit with 2.
    """


def unknown(kind: str, given: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in ``known``: suggests the nearest and lists them all."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {given!r}; {hint}known: {', '.join(names)}")
