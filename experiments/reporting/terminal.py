"""Pictures made of characters, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

HEIGHT = 13
COLUMN = 4
"""Characters from one turn to the next, where there is room."""
LABEL = 9
"""Characters of a price at the left edge."""


def curve(points: Sequence[tuple[int, float]], levels: Mapping[str, float], width: int, *, plain: bool = False) -> Text:
    """Prices over turns, with named levels as lines across.

    Args:
        points: ``(turn, price)``, oldest first; where they are too many for the width, some of them evenly.
        levels: lines by what they are called.
        width: characters of a line at most.
        plain: in ASCII.
    """
    dot, dash, bar, corner, rule = "o-|+-" if plain else "●╌│└─"
    names = max((len(name) for name in levels), default=0) + 1
    columns = max(1, width - LABEL - 2 - names)
    kept = _some(points, columns)
    step = max(1, min(COLUMN, columns // max(1, len(kept))))
    span = [*levels.values(), *(price for _, price in kept)]
    low, high = min(span, default=0.0), max(span, default=0.0)
    across = step * len(kept)
    canvas = [[" "] * across for _ in range(HEIGHT)]
    ends, labels = [""] * HEIGHT, [""] * HEIGHT
    labels[0], labels[-1] = f"{high:.2f}" if high > low else "", f"{low:.2f}"
    for name, level in levels.items():
        row = _row(level, low, high)
        canvas[row], ends[row], labels[row] = [dash] * across, f" {name}", f"{level:.2f}"
    for i, (_, price) in enumerate(kept):
        canvas[_row(price, low, high)][i * step + step // 2] = dot
    text = Text()
    for label, line, end in zip(labels, canvas, ends, strict=True):
        text.append(f"{label:>{LABEL}} {bar}", style="dim")
        for character in line:
            text.append(character, style="bold cyan" if character == dot else "dim")
        text.append(f"{end}\n", style="dim")
    text.append(f"{'':>{LABEL}} {corner}{rule * across}\n", style="dim")
    text.append(f"{'turn':>{LABEL}}  {_ticks([turn for turn, _ in kept], step)}", style="dim")
    return text


def _some(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    chosen = np.unique(np.round(np.linspace(0, len(points) - 1, min(most, len(points)))).astype(int))
    return [points[i] for i in chosen]


def _row(price: float, low: float, high: float) -> int:
    """Rows are counted from the top; without a span everything lies at the bottom."""
    share = (price - low) / (high - low) if high > low else 0.0
    return HEIGHT - 1 - round(share * (HEIGHT - 1))


def _ticks(turns: Sequence[int], step: int) -> str:
    """Numbers of the turns under their points, those that do not run into the one before."""
    line = ""
    for i, turn in enumerate(turns):
        at = i * step + step // 2
        if at > len(line) or not line:
            line = f"{line:<{at}}{turn}"
    return line
