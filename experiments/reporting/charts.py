"""The pictures of a tournament report, drawn from ``summary.json`` alone.

Each function gives a matplotlib figure; `svg` turns one into a string for a web page. Ink and background are CSS
variables there, so a chart follows the page into dark mode; the same summary gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

Row = Mapping[str, Any]

INK, FAINT = "#1f2430", "#a9afb9"
SEAT_COLOURS = {"buyer": "#2f7ed8", "seller": "#e07b1f"}
CONTROL_COLOURS = ("#8a8f99", "#a77fb5", "#6f9f7a")
SCALE = 105
"""Pixels on the page for an inch, where there is room."""

_STYLE: Any = {
    "svg.fonttype": "none",
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
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
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
    """An agent label for a chart: a long path keeps its end."""
    return label if len(label) <= width else f"…{label[1 - width :]}"


def calibration_chart(summary: Row) -> Figure:
    """Requested against achieved ρ with the diagonal and intervals; the agreement rate of the same games below.

    One column for each agent under test; controls are drawn in every column.
    """
    with style():
        by_agent, controls = summary["calibration_by_agent"], summary["settings"].get("controls", [])
        tested = [agent for agent in by_agent if agent not in controls] or list(by_agent)
        beside = [agent for agent in by_agent if agent not in tested]
        figure = new_figure(max(5.6, 4.4 * len(tested)), 5.8)
        axes = figure.subplots(2, len(tested), sharex=True, squeeze=False, height_ratios=(3.2, 1))
        for column, agent in enumerate(tested):
            top, bottom = axes[:, column]
            _frame(top, bottom, short(agent), first=column == 0)
            _dial(top, bottom, by_agent[agent], "", None)
            for i, control in enumerate(beside):
                _dial(top, bottom, by_agent[control], control, CONTROL_COLOURS[i % len(CONTROL_COLOURS)])
            top.legend(loc="upper left")
        return figure


def _frame(top: Axes, bottom: Axes, title: str, first: bool) -> None:
    top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    top.text(0.985, 0.945, "asked = got", rotation=36, ha="right", va="top", fontsize=8, rotation_mode="anchor")
    top.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=title)
    bottom.set(ylim=(0, 1.06), xlabel="requested ρ")
    bottom.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    if first:
        top.set_ylabel("achieved ρ (deals only)")
        bottom.set_ylabel("agreement")
    for axes in (top, bottom):
        axes.grid(True)
        axes.set_axisbelow(True)


def _dial(top: Axes, bottom: Axes, seats: Row, label: str, colour: str | None) -> None:
    """One agent's curves; ``colour`` None means the colour of the seat."""
    for seat, found in seats.items():
        rho, mean = numbers(found["rho"]), numbers(found["achieved"])
        low, high = numbers(found["achieved_low"]), numbers(found["achieved_high"])
        shown = rho >= 0
        control = colour is not None
        look: dict[str, Any] = {
            "color": colour or SEAT_COLOURS[seat],
            "marker": "o" if seat == "buyer" else "s",
            "markersize": 3.2 if control else 4.6,
            "linewidth": 1.0 if control else 1.7,
            "zorder": 2 if control else 3,
            "linestyle": "-" if seat == "buyer" or not control else ":",
        }
        bars = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
        name = f"{label} {seat}".strip()
        top.errorbar(rho[shown], mean[shown], yerr=bars[:, shown], label=name, elinewidth=1, capsize=2, **look)
        bottom.plot(rho[shown], numbers(found["agreement_rate"])[shown], **look)


def tradeoff_chart(summary: Row) -> Figure:
    """Agreement rate against utility over deals, with curves of equal utility (their product); scripts as landmarks."""
    with style():
        overall = [*summary["overall"], *_absent_scripts(summary)]
        seats = [seat for seat in ("buyer", "seller") if any(row["agent_seat"] == seat for row in overall)]
        figure = new_figure(5.4 * len(seats), 4.4)
        for axes, seat in zip(figure.subplots(1, len(seats), squeeze=False)[0], seats, strict=True):
            rows = [row for row in overall if row["agent_seat"] == seat and row["utility_deals"] is not None]
            rows = [row for row in rows if row["rho_requested"] is None or row["rho_requested"] >= 0]
            _landmarks(axes, [row for row in rows if row["rho_requested"] is None])
            for i, agent in enumerate(dict.fromkeys(r["agent"] for r in rows if r["rho_requested"] is not None)):
                colour = SEAT_COLOURS[seat] if i == 0 else CONTROL_COLOURS[(i - 1) % len(CONTROL_COLOURS)]
                _path(axes, [row for row in rows if row["agent"] == agent], short(agent), colour, labelled=i == 0)
            axes.set(title=f"as {seat}", xlabel="agreement rate", xlim=(-0.02, 1.06))
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="lower left")
            _equal_utility(axes)
        figure.axes[0].set_ylabel("utility over deals only")
        return figure


def _absent_scripts(summary: Row) -> Iterator[Row]:
    """What scripts that were no agents would have earned, as rows of ``overall``."""
    for row in summary.get("landmarks", {}).get("scripts", {}).get("rows", []):
        for seat, figures in row["seats"].items():
            yield {"agent": row["agent"], "agent_seat": seat, **figures}


def _landmarks(axes: Axes, rows: Sequence[Row]) -> None:
    if not rows:
        return
    x, y = numbers([r["agreement_rate"] for r in rows]), numbers([r["utility_deals"] for r in rows])
    axes.scatter(x, y, s=16, marker="D", color=FAINT, label="scripts", zorder=2)
    by_utility = sorted(rows, key=lambda r: r["utility"])
    for row in {r["agent"]: r for r in (by_utility[0], by_utility[-1])}.values():
        at = (row["agreement_rate"], row["utility_deals"])
        name = row["agent"].removeprefix("script:")
        axes.annotate(name, at, xytext=(-6, 6), textcoords="offset points", fontsize=7.5, ha="right")


def _path(axes: Axes, rows: Sequence[Row], label: str, colour: str, labelled: bool) -> None:
    x, y = numbers([r["agreement_rate"] for r in rows]), numbers([r["utility_deals"] for r in rows])
    axes.plot(x, y, color=colour, marker="o", markersize=4.5, linewidth=1.2, label=label, zorder=3)
    for i in sorted({0, len(rows) // 2, len(rows) - 1} if labelled else set()):
        text = f"ρ {rows[i]['rho_requested']:g}"
        axes.annotate(text, (x[i], y[i]), xytext=(6, -3), textcoords="offset points", fontsize=8, zorder=4)


def _equal_utility(axes: Axes) -> None:
    low, high = axes.get_ylim()
    low, high = min(low, 0.0), max(high, 1.0)
    x = np.linspace(0.02, 1.0, 200)
    for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        y = level / x
        axes.plot(x[y <= high], y[y <= high], color=FAINT, linewidth=0.6, alpha=0.7, zorder=1)
        axes.text(1.01, level, f"{level:.1f}", fontsize=7, va="center")
    axes.set_ylim(low, high)
