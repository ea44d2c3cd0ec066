"""The cost of a move by batch size, as a picture."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bargain_env.files import replacing
from experiments.speed.stopwatch import Speed

_NAME = re.compile(r"vector, (\d+) games, bids")


def draw(found: list[Speed], path: Path) -> None:
    """Write the picture: nanoseconds a move of the vector environment, and a step of its reference."""
    points = [(int(match[1]), s.rate, s.ratio) for s in found if (match := _NAME.fullmatch(s.name)) and s.ratio]
    sizes = [n for n, _, _ in points]
    figure = Figure(figsize=(6.4, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        sizes, [1e9 * ratio / rate for _, rate, ratio in points], "s--", color="#8a8a8a", label="CartPole, a step"
    )
    axes.plot(sizes, [1e9 / rate for _, rate, _ in points], "o-", color="#1f6fb4", label="bargaining, a move")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.set_xlabel("games at once")
    axes.set_ylabel("nanoseconds")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as file:
        figure.savefig(file, format="png")
