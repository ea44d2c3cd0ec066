"""The frontier of agreement and surplus: how often an agent deals, against what it keeps of a deal.

Scripts are landmarks, and so are the solutions of theory: each of them is a deal in every game.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .charts import AGENT_LOOKS, FAINT, INK, SEAT_COLOURS, new_figure, numbers, short, style

Row = Mapping[str, Any]

FIGURES = ("agreement_rate", "utility_deals", "utility")
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def frontier_chart(summary: Row, seat: str) -> Figure:
    """Agreement rate against utility over deals at one seat; thin curves join equal utility, their product."""
    rows = [row for row in _rows(summary, seat) if row["utility_deals"] is not None]
    with style():
        figure = new_figure(5.2, 4.7)
        axes = figure.subplots()
        _scripts(axes, [row for row in rows if row["rho_requested"] is None])
        asked = [row for row in rows if row["rho_requested"] is not None]
        for i, agent in enumerate(dict.fromkeys(row["agent"] for row in asked)):
            _path(axes, [row for row in asked if row["agent"] == agent], agent, i, seat)
        _theory(axes, summary, seat)
        axes.set(title=f"as {seat}", xlabel="agreement rate", xlim=(-0.02, 1.09))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylabel("utility over deals only")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left")
        _equal_utility(axes)
        return figure


def records(summary: Row, seat: str) -> Iterator[dict[str, Any]]:
    """What the chart draws, as rows of data."""
    for row in _rows(summary, seat):
        yield {"name": row["agent"], "rho_requested": row["rho_requested"], **{k: row[k] for k in FIGURES}}
    for name, utility in _solutions(summary, seat):
        yield {"name": name, "rho_requested": None, "agreement_rate": 1.0, "utility_deals": utility, "utility": utility}


def _rows(summary: Row, seat: str) -> list[Row]:
    """Everybody at that seat, with the scripts that were no agents; requests for an impasse are left out."""
    rows = [row for row in summary["overall"] if row["agent_seat"] == seat]
    absent = summary.get("landmarks", {}).get("scripts", {}).get("rows", [])
    rows += [{"agent": row["agent"], **row["seats"][seat]} for row in absent if seat in row["seats"]]
    return [row for row in rows if row["rho_requested"] is None or row["rho_requested"] >= 0]


def _scripts(axes: Axes, rows: Sequence[Row]) -> None:
    if not rows:
        return
    x, y = numbers([r["agreement_rate"] for r in rows]), numbers([r["utility_deals"] for r in rows])
    axes.scatter(x, y, s=16, marker="D", color=FAINT, label="agents without ρ", zorder=2)
    by_utility = sorted(rows, key=lambda r: r["utility"])
    for row in {r["agent"]: r for r in (by_utility[0], by_utility[-1])}.values():
        at = (row["agreement_rate"], row["utility_deals"])
        name = short(row["agent"].removeprefix("script:"))
        axes.annotate(name, at, xytext=(-6, 6), textcoords="offset points", fontsize=7.5, ha="right")


def _path(axes: Axes, rows: Sequence[Row], agent: str, number: int, seat: str) -> None:
    x, y = numbers([r["agreement_rate"] for r in rows]), numbers([r["utility_deals"] for r in rows])
    colour, marker, line = AGENT_LOOKS[number % len(AGENT_LOOKS)]
    if number == 0:
        colour = SEAT_COLOURS[seat]
    width = 1.5 if number == 0 else 1.0
    axes.plot(
        x, y, color=colour, marker=marker, linestyle=line, markersize=4.5, linewidth=width, label=short(agent), zorder=4
    )
    for i in sorted({0, len(rows) // 2, len(rows) - 1} if number == 0 else set()):
        text = f"ρ {rows[i]['rho_requested']:g}"
        axes.annotate(text, (x[i], y[i]), xytext=(6, -3), textcoords="offset points", fontsize=8, zorder=5)


def _solutions(summary: Row, seat: str) -> Iterator[tuple[str, float]]:
    """Where theory would settle, as the utility of that seat; solutions that agree share a name."""
    marks = summary.get("landmarks", {})
    named = [(name.replace("_", "–").title(), rho) for name, rho in marks.get("cooperative", {}).items()]
    perfect = marks.get("subgame_perfect", {})
    named += [(f"subgame perfect, {who} starts", perfect.get(f"{who}_starts")) for who in ("buyer", "seller")]
    together: dict[float, list[str]] = {}
    for name, rho in named:
        if rho is not None:
            together.setdefault(round(1.0 - rho if seat == "buyer" else rho, 6), []).append(name)
    for utility, names in together.items():
        yield " = ".join(names), utility


def _theory(axes: Axes, summary: Row, seat: str) -> None:
    for i, (name, utility) in enumerate(_solutions(summary, seat)):
        axes.scatter([1.0], [utility], s=70, marker="*", color=INK, zorder=3, label="theory" if i == 0 else None)
        axes.annotate(name, (1.0, utility), xytext=(-8, 5 if utility < 0.5 else -11), textcoords="offset points",
                      fontsize=7, ha="right", zorder=3)  # fmt: skip


def _equal_utility(axes: Axes) -> None:
    low, high = axes.get_ylim()
    low, high = min(low, 0.0), max(high, 1.0)
    x = np.linspace(0.02, 1.03, 200)
    for level in _LEVELS:
        y = level / x
        axes.plot(x[y <= high], y[y <= high], color=FAINT, linewidth=0.6, alpha=0.7, zorder=1)
        axes.text(1.04, level / 1.03, f"{level:.1f}", fontsize=7, va="center")
    axes.set_ylim(low, high)
