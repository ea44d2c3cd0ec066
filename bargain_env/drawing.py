"""The drawn chart and the coloured lines of `bargain_env.render`; loaded only when they are asked for."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.text import Text

from .core import MoveKind, Scenario, Seat, State, is_over
from .render import ending, heading, turn_line

COLOURS = {Seat.BUYER: "#1f6fb4", Seat.SELLER: "#c8552b"}
DEAL = "#2e8b57"


def chart(scenario: Scenario, state: State) -> np.ndarray:
    """``[360, 560, 3]`` uint8: the offers of both seats by turn, wasted turns, and the deal."""
    figure = Figure(figsize=(5.6, 3.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for seat in Seat:
        turns = [k + 1 for k in range(len(state.kinds)) if (scenario.starter + k) % 2 == seat]
        made = [(turn, price) for turn in turns if (price := state.prices[turn - 1]) is not None]
        axes.plot(
            [t for t, _ in made], [p for _, p in made], "o-", ms=4, color=COLOURS[seat], label=f"{seat.label} offers"
        )
        wasted = [turn for turn in turns if state.kinds[turn - 1] == MoveKind.INVALID]
        axes.plot(wasted, [scenario.price_low] * len(wasted), "x", color=COLOURS[seat], clip_on=False)
    if state.agreement and state.standing is not None:
        axes.axhline(state.standing, color=DEAL, linewidth=1, linestyle="--")
        axes.plot([len(state.kinds)], [state.standing], "*", color=DEAL, markersize=13, label="deal")
    axes.set_xlim(0.5, scenario.max_turns + 0.5)
    margin = 0.03 * (scenario.price_high - scenario.price_low)
    axes.set_ylim(scenario.price_low - margin, scenario.price_high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("turn")
    axes.set_ylabel("price")
    axes.set_title(f"game {scenario.id}: {ending(scenario, state)}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def print_lines(scenario: Scenario, state: State, already: int) -> int:
    """Print the transcript but for its first ``already`` lines; coloured in a terminal. Returns how many are out now."""
    lines = [Text(heading(scenario), style="bold")]
    for k in range(len(state.kinds)):
        lines.append(Text(turn_line(scenario, state, k), style=COLOURS[Seat((scenario.starter + k) % 2)]))
    if is_over(scenario, state):
        lines.append(Text(ending(scenario, state), style=f"bold {DEAL}" if state.agreement else "bold"))
    console = Console(highlight=False)
    for line in lines[already:]:
        console.print(line)
    return len(lines)
