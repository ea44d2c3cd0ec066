"""ρ as people write it: one value, a list ``0.2,0.8``, or a range ``0:1:0.1``; what is allowed is decided here."""

from __future__ import annotations

import math
from typing import Any

from .errors import InputError

MOST_RHO = 1000


def valid_rho(value: Any, option: str = "rho") -> float:
    """``value`` as one number in [0, 1], or -1 (impasse).

    Args:
        value: a number, or anything that ``float`` takes, such as a tensor of one element.
        option: what the message tells the reader to change.

    Raises:
        InputError: not one number, not finite, or outside [0, 1] ∪ {-1}.
    """
    try:
        rho = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"rho {value!r} is not one number; choose another {option}") from error
    if not (0.0 <= rho <= 1.0 or rho == -1.0):
        raise InputError(f"rho {rho} is outside [0, 1] and is not -1 (impasse); choose another {option}")
    return rho + 0.0  # -0.0 is 0.0


def parse_grid(text: str, option: str = "--rho") -> list[float]:
    """ρ values from ``a,b,c`` or ``start:stop:step`` (stop included), each in [0, 1] or -1.

    Args:
        text: as typed.
        option: the command-line option that messages name.

    Raises:
        InputError: not numbers, an empty range, or a value outside [0, 1] ∪ {-1}.
    """
    try:
        values = _range(text, option) if ":" in text else [float(part) for part in text.split(",")]
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{option} {text!r} is neither a list a,b,c nor a range start:stop:step") from None
    return [valid_rho(value, option) for value in values]


def _range(text: str, option: str) -> list[float]:
    start, stop, step = (float(part) for part in text.split(":"))
    if not (math.isfinite(start) and math.isfinite(stop) and step > 0 and stop >= start):
        raise InputError(f"{option} {text!r} is an empty range; write start:stop:step with step > 0")
    if (stop - start) / step > MOST_RHO:
        raise InputError(f"{option} {text!r} is more than {MOST_RHO} values; choose a larger step")
    return [round(start + i * step, 10) for i in range(int((stop - start) / step + 1e-9) + 1)]
