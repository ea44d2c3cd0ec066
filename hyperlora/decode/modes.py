"""What is made of the distribution over the legal answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bargain_env.errors import InputError, unknown

MODES = ("greedy", "sample", "mean", "median", "quantile", "free")
"""Names of the modes; `Mode.parse` says what may follow them."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to decide.

    Attributes:
        kind: ``greedy`` takes the likeliest legal token at each choice; ``sample`` draws from the distribution; ``mean``
            offers the expected price, ``quantile`` (and ``median``, its half) the one that is not exceeded with
            probability ``q``, counted as the prompt counts prices, and both accept where P(ACCEPT) ≥ ½; ``free`` lets the
            model write and reads its text.
        temperature: ``sample`` only: logits are divided by it at each choice.
        q: ``quantile`` only, in (0, 1).
    """

    kind: str
    temperature: float = 1.0
    q: float = 0.5

    @classmethod
    def parse(cls, text: str | Mode) -> Mode:
        """``greedy``, ``sample``, ``sample:0.7`` (temperature), ``mean``, ``median``, ``quantile:0.3`` or ``free``.

        Raises:
            InputError: anything else, a temperature that is not positive, or a quantile outside (0, 1).
        """
        if isinstance(text, Mode):
            return text
        kind, colon, given = text.partition(":")
        if kind not in MODES:
            raise unknown("decode mode", text, MODES)
        number = _number(text, given) if colon else None
        if kind == "sample":
            if number is not None and not number > 0:
                raise InputError(f"decode mode {text!r}: the temperature must be positive, as in sample:0.7")
            return cls(kind, temperature=1.0 if number is None else number)
        if kind == "quantile":
            if number is None or not 0 < number < 1:
                raise InputError(f"decode mode {text!r}: give a quantile between 0 and 1, as in quantile:0.3")
            return cls(kind, q=number)
        if number is not None:
            raise InputError(f"decode mode {text!r}: {kind} takes no number; write {kind!r}")
        return cls("quantile") if kind == "median" else cls(kind)

    @property
    def draws(self) -> bool:
        """Whether decisions need uniform numbers."""
        return self.kind == "sample"

    def __str__(self) -> str:
        """What `parse` makes this mode of."""
        if self.kind == "quantile":
            return "median" if self.q == 0.5 else f"quantile:{self.q:g}"
        return f"sample:{self.temperature:g}" if self.draws and self.temperature != 1.0 else self.kind


def _number(text: str, given: str) -> float:
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"decode mode {text!r}: {given!r} is no number; write sample:0.7 or quantile:0.3")
    return number
