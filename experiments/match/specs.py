"""Comma lists as people type them, where a name may hold commas of its own between parentheses."""

from __future__ import annotations

import re

from bargain_env.errors import InputError

_OUTSIDE = re.compile(r",(?![^()]*\))")


def split(text: str, option: str) -> list[str]:
    """The parts of a comma list: ``hardliner,mixture(weight=0.5, beta=2)`` has two.

    Args:
        text: as typed.
        option: the command-line option that the message names.

    Raises:
        InputError: there is none.
    """
    parts = [part.strip() for part in _OUTSIDE.split(text) if part.strip()]
    if not parts:
        raise InputError(f"{option} is empty; name at least one")
    return parts
