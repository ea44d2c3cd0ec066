"""A game for people: text, a rich transcript, a drawn chart. None of them shows a reservation."""

from __future__ import annotations

from collections.abc import Sequence

from gymnasium.error import UnsupportedMode

from .core import MoveKind, Scenario, Seat, State, is_over, mover

RENDER_MODES = ("human", "ansi", "rgb_array")


def check_render_mode(mode: str | None, modes: Sequence[str] = RENDER_MODES) -> str | None:
    """``mode`` itself.

    Raises:
        UnsupportedMode: it is not one of ``modes`` or None.
    """
    if mode is not None and mode not in modes:
        raise UnsupportedMode(f"render_mode {mode!r} is not one of {', '.join(modes)}, or None")
    return mode


def transcript(scenario: Scenario, state: State) -> str:
    """One line a turn, and a last line that says who is to move or how it ended."""
    lines = [heading(scenario), *(turn_line(scenario, state, k) for k in range(len(state.kinds)))]
    return "\n".join([*lines, ending(scenario, state)])


def heading(scenario: Scenario) -> str:
    """What both seats know before the first move."""
    return f"game {scenario.id}: prices {scenario.price_low:g} to {scenario.price_high:g}, {scenario.max_turns} turns"


def turn_line(scenario: Scenario, state: State, k: int) -> str:
    """What happened on turn ``k + 1``."""
    what = {
        MoveKind.OFFER: f"offers {state.prices[k]}",
        MoveKind.ACCEPT: f"accepts {state.standing}",
    }.get(state.kinds[k], "wastes the turn")
    return f"{k + 1:>3} {Seat((scenario.starter + k) % 2).label:<6} {what}"


def ending(scenario: Scenario, state: State) -> str:
    """How it ended, or who is to move."""
    if state.agreement:
        return f"deal at {state.standing}"
    return "impasse" if is_over(scenario, state) else f"{mover(scenario, state).label} to move"
