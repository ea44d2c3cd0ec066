"""Parameters that cannot be meant are refused, with their name and what is allowed."""

from __future__ import annotations

import math
from numbers import Real

from bargain_env.errors import InputError


def require_between(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Refuse what is not a finite number from ``low`` to ``high``, both included.

    Raises:
        InputError: it is not.
    """
    if not (is_number(value) and low <= value <= high):  # type: ignore[operator]
        allowed = f"a number from {low:g} to {high:g}" if high < math.inf else f"a number, {low:g} or more"
        raise InputError(f"{name} {value!r} must be {allowed if low > -math.inf else 'a finite number'}")


def require_positive(name: str, value: object, high: float = math.inf) -> None:
    """Refuse what is not a finite number above 0, and at most ``high``.

    Raises:
        InputError: it is not.
    """
    if not (is_number(value) and 0 < value <= high):  # type: ignore[operator]
        raise InputError(
            f"{name} {value!r} must be a positive number{f', at most {high:g}' if high < math.inf else ''}"
        )


def require_finite(name: str, value: object) -> None:
    """Refuse what is not a finite number.

    Raises:
        InputError: it is not.
    """
    require_between(name, value, -math.inf)


def require_whole(name: str, value: object, least: int) -> None:
    """Refuse what is not a whole number of ``least`` or more.

    Raises:
        InputError: it is not.
    """
    if not (is_number(value) and value == int(value) and value >= least):  # type: ignore[call-overload, operator]
        raise InputError(f"{name} {value!r} must be a whole number, {least} or more")


def is_number(value: object) -> bool:
    """Whether it is one finite number, of whatever type; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
