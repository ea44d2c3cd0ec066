"""What the pictures of a report have in common: their style, their colours, and how they become SVG and PNG.

Ink and background are CSS variables on a page, so a chart follows it into dark mode; the same summary gives the same
bytes. Colours are told apart with any kind of colour vision, and never alone: each has a marker or a line of its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

Row = Mapping[str, Any]

INK, FAINT = "#1f2430", "#a9afb9"
SEAT_COLOURS = {"buyer": "#2f7ed8", "seller": "#e07b1f"}
CONTROL_COLOURS = ("#8a8f99", "#a77fb5", "#6f9f7a")
AGENT_LOOKS = (
    ("#2f7ed8", "o", "-"),
    ("#e07b1f", "s", (0, (6, 2))),
    ("#1b9e77", "^", (0, (2, 1.5))),
    ("#c25fa8", "D", (0, (7, 2, 1.5, 2))),
    ("#8f8a2a", "v", (0, (4, 1, 1, 1, 1, 1))),
    ("#56b4e9", "P", (0, (1, 1))),
    ("#8a8f99", "X", "-"),
    ("#b25d4a", "h", (0, (6, 2))),
)
"""Colour, marker and line of the first, second, … of several agents in one chart."""
SCALE = 105
"""Pixels on the page for an inch, where there is room."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a $
    "font.family": "sans-serif",
    "font.size": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def style() -> Any:
    """Context in which figures are drawn."""
    return mpl.rc_context(_STYLE)


def svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element for HTML.

    Args:
        figure: drawn within `style`.
        name: unique on the page; keeps the identifiers of two charts apart.
    """
    text = _drawn(figure, name)
    text = text[text.index("<svg") :]
    widest = round(figure.get_figwidth() * SCALE)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r'id="(figure|axes|text|patch|line2d|matplotlib\.axis|xtick|ytick|legend)_', rf'id="{name}-\1_', text)
    text = text.replace("<svg", f'<svg style="max-width: {widest}px"', 1)
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)").strip()


def _drawn(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def svg_file(figure: Figure, path: Path, name: str) -> None:
    """The figure as a file of its own, on nothing; ``name`` as for `svg`."""
    path.write_text(_drawn(figure, name), encoding="utf-8")


def png(figure: Figure, path: Path) -> None:
    """The figure as a picture on white, for a page that cannot hold SVG; a palette makes it a quarter the size."""
    drawn = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(drawn, format="png", dpi=130, facecolor="white")
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, format="png", optimize=True)


def numbers(values: Sequence[Any]) -> np.ndarray:
    """JSON numbers as float64 with NaN for null."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def short(label: str, width: int = 28) -> str:
    """A label for a chart: a long one keeps its beginning and its end."""
    if len(label) <= width:
        return label
    tail = (width - 1) * 2 // 3
    return f"{label[: width - 1 - tail]}…{label[-tail:]}"
