"""What who sits opposite knows of a decision: how a model of one's opponent is asked, in training and at the table.

The offers, the clock and the public range are common knowledge. A limit is not: in its place stands the worst end of the
range, which is all that can be told of it from outside. ρ is not either: every prompt says the same.
"""

from __future__ import annotations

from typing import Any

OUTSIDE_RHO = 0.5
"""The ρ that every such prompt says. Bases are pretrained on prompts whose ρ was that of another game, so it tells nothing;
the hindsight ρ of a game would tell how it ends."""


def public_limit(seat: str, low: Any, high: Any) -> Any:
    """The worst that a seat could take, in the type of its ends: a buyer pays at most ``high``, a seller takes at least
    ``low``.

    Args:
        seat: ``buyer`` or ``seller``.
        low: lower end of the public range, a number or an array.
        high: upper end.

    Raises:
        ValueError: another seat.
    """
    if seat not in ("buyer", "seller"):
        raise ValueError(f"seat {seat!r} is neither buyer nor seller")
    return high if seat == "buyer" else low
