"""Ranges of parameters, from which members of a family are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True, slots=True)
class Range:
    """An interval from which a parameter is drawn.

    Attributes:
        low: least value.
        high: largest value.
        log: even in the logarithm, for what acts by ratios.
        whole: whole numbers only, both ends included.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float:
        """The value at that share of the interval, in [0, 1)."""
        if self.whole:
            return int(self.low + share * (self.high - self.low + 1))
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + share * (self.high - self.low)

    def holds(self, value: object) -> bool:
        """Whether ``value`` could have been drawn."""
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        number = float(value)
        return self.low <= number <= self.high and (not self.whole or number.is_integer())
