"""Charts of a data card: pure functions of its document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.reporting.charts import AGENT_LOOKS, INK, SEAT_COLOURS, new_figure, numbers, style
from experiments.reporting.heatmaps import Grid

Document = Mapping[str, Any]

_DEAL, _IMPASSE = "#2b74c9", "#c9cdd5"
_DASHES = ((0, (5, 4)), (0, (1, 2)), (0, (6, 2, 1, 2)))
MOST_NAMES = 60
"""Strategies of a matrix at most; of more, those that played most."""


def rho_chart(rows: Sequence[Document], starter: str) -> Figure:
    """Share of the decisions of each seat by the ρ of their game, where ``starter`` moved first."""
    with style():
        figure = new_figure(5.2, 3.1)
        axes = figure.subplots()
        for k, row in enumerate(row for row in rows if row["starter"] == starter):
            total = max(row["decisions"], 1)
            edges = np.array(row["edges"])
            middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
            side, colour = (k - 0.5) * 0.42 * width, SEAT_COLOURS[row["seat"]]
            look: dict[str, Any] = {"width": 0.42 * width, "color": colour, "hatch": ["", "////"][k],
                                    "edgecolor": "#ffffff", "linewidth": 0}  # fmt: skip
            label = f"{row['seat']} decides ({row['impasse'] / total:.1%} impasse)"
            axes.bar(middle + side, np.array(row["counts"]) / total, label=label, **look)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.set(
            title=f"{starter} moved first", xlabel="ρ of the game", ylabel="share of decisions", xlim=(-0.02, 1.02)
        )
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])
        axes.grid(True, axis="y")
        axes.legend(loc="upper right")
        return figure


def rho_records(rows: Sequence[Document], starter: str) -> Iterator[dict[str, Any]]:
    """What `rho_chart` draws, as rows of data."""
    for row in rows:
        if row["starter"] == starter:
            same = {"seat": row["seat"], "starter": starter}
            for low, high, count in zip(row["edges"], row["edges"][1:], row["counts"], strict=False):
                yield {**same, "rho_from": low, "rho_to": high, "decisions": count}
            yield {**same, "rho_from": -1, "rho_to": -1, "decisions": row["impasse"]}


def disclosure_chart(rows: Sequence[Document], seat: str, references: Iterable[tuple[str, float]]) -> Figure:
    """R² of the other side's reservation over turns, with 95 % bands, and what the presets tell by themselves.

    Args:
        rows: of the curve.
        seat: who predicts.
        references: ``(preset, R²)`` at turn 1, in fresh games.
    """
    models = [name for name in ("linear", "boosting") if name in rows[0]]
    with style():
        figure = new_figure(5.2, 3.3)
        axes = figure.subplots()
        turns = [row["turn"] for row in rows]
        for model, (colour, marker, line) in zip(models, (AGENT_LOOKS[6], AGENT_LOOKS[0]), strict=False):
            value, low, high = (numbers([row[model][n] for row in rows]) for n in ("r2", "low", "high"))
            axes.fill_between(turns, low, high, color=colour, alpha=0.18, linewidth=0)
            label = "least squares" if model == "linear" else "gradient boosting"
            axes.plot(
                turns, value, color=colour, marker=marker, markersize=3.2, linewidth=1.6, linestyle=line, label=label
            )
        for k, (name, level) in enumerate(references):
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=_DASHES[k % 3], label=f"{name} itself, turn 1")
        least = min((numbers([r[m]["low"] for r in rows]).min() for m in models), default=0.0)
        axes.set_ylim(min(0.0, float(np.nan_to_num(least))) - 0.03, 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title=f"{seat} predicts the other's limit", xlabel="turn", ylabel="R² on held-out games")
        axes.grid(True)
        axes.legend(loc="best")
        return figure


def disclosure_records(rows: Sequence[Document], seat: str) -> Iterator[dict[str, Any]]:
    """What `disclosure_chart` draws, as rows of data."""
    for row in rows:
        figures = {f"{m}_{n}": row[m][n] for m in ("linear", "boosting") if m in row for n in ("r2", "low", "high")}
        yield {"seat": seat, "turn": row["turn"], "games": row["games"], **figures}


def turns_chart(rows: Sequence[Document]) -> Figure:
    """Games by how many turns they took, deals and impasses."""
    with style():
        figure = new_figure(5.2, 3.1)
        axes = figure.subplots()
        _stacked(axes, [row["turns"] for row in rows], rows, 0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.3, max(row["turns"] for row in rows) + 0.7)
        axes.set(title="length of games", xlabel="turns", ylabel="games")
        return figure


def widths_chart(rows: Sequence[Document], span: float | None) -> Figure:
    """Games by width of the ZOPA, deals and impasses.

    Args:
        rows: classes, in parts of the public range.
        span: the range where there is one only: widths are then in currency units.
    """
    unit = span or 100.0
    places = [(((row["over"] or 0.0) + (row["up_to"] or 0.0)) / 2 if row["over"] is not None else -0.03) * unit
              for row in rows]  # fmt: skip
    step = next((row["up_to"] - row["over"] for row in rows if row["over"] is not None and row["up_to"]), 0.04) * unit
    with style():
        figure = new_figure(5.2, 3.1)
        axes = figure.subplots()
        _stacked(axes, places, rows, 0.86 * step)
        if rows[0]["over"] is None:
            axes.annotate(
                "no ZOPA", (places[0], 0), xytext=(0, -22), textcoords="offset points", ha="center", fontsize=8
            )
        inside = [place for place in places if place > 0]
        axes.set_xlim(min(places[0], 0.0) - step, max(inside, default=0.0) + 2 * step)
        what = "currency units" if span else "% of the public range"
        axes.set(title="width of the ZOPA", xlabel=f"width, {what}", ylabel="games")
        return figure


def _stacked(axes: Axes, places: Sequence[float], rows: Sequence[Document], width: float) -> None:
    deals, impasses = (np.array([row[name] for row in rows]) for name in ("deals", "impasses"))
    axes.bar(places, deals, width=width, color=_DEAL, label="deal")
    axes.bar(places, impasses, width=width, bottom=deals, color=_IMPASSE, hatch="////", edgecolor="#8a8f99", linewidth=0,
             label="impasse")  # fmt: skip
    axes.grid(True, axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="best")


def pair_grids(strategies: Document) -> list[Grid]:
    """Two matrices, buyer x seller: games as a multiple of an even share, and share of impasses."""
    busiest = sorted(strategies["names"], key=lambda row: -row["as_buyer"] - row["as_seller"])[:MOST_NAMES]
    shown = {row["strategy"] for row in busiest}
    names = [row["strategy"] for row in strategies["names"] if row["strategy"] in shown]
    games, impasses = (np.zeros((len(names), len(names))) for _ in range(2))
    for pair in strategies["pairs"]:
        if pair["buyer"] in shown and pair["seller"] in shown:
            at = names.index(pair["buyer"]), names.index(pair["seller"])
            games[at], impasses[at] = pair["games"], pair["impasses"]
    with np.errstate(divide="ignore", invalid="ignore"):
        even = games / games.mean()
        share = np.where(games > 0, impasses / games, np.nan)
        tint = np.where(games > 0, np.clip(np.log2(even) / 2, -1, 1), -1.0)
    corner = "buyer, seller"
    return [
        Grid("games, as multiples of an even share", names, names, even, tint, corner=corner),
        Grid("share of impasses", names, names, share, np.nan_to_num(share), corner=corner),
    ]
