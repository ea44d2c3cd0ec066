"""A game as text, showing only what both seats see."""

from __future__ import annotations

from .core import MoveKind, Scenario, Seat, State, is_over, mover


def transcript(scenario: Scenario, state: State) -> str:
    """One line a turn, and a last line that says who is to move or how it ended."""
    lines = [
        f"game {scenario.id}: prices {scenario.price_low:g} to {scenario.price_high:g}, {scenario.max_turns} turns"
    ]
    for k, (kind, price) in enumerate(zip(state.kinds, state.prices, strict=True)):
        what = {MoveKind.OFFER: f"offers {price}", MoveKind.ACCEPT: f"accepts {state.standing}"}.get(
            kind, "wastes the turn"
        )
        lines.append(f"{k + 1:>3} {Seat((scenario.starter + k) % 2).label:<6} {what}")
    if state.agreement:
        lines.append(f"deal at {state.standing}")
    elif is_over(scenario, state):
        lines.append("impasse")
    else:
        lines.append(f"{mover(scenario, state).label} to move")
    return "\n".join(lines)
