"""Tables with a tint: each number of the summary's cells in its own square, coloured by what is to be noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.match.results import rho_text

from .charts import FAINT, INK, new_figure, short, style

Row = Mapping[str, Any]
Floats = NDArray[np.float64]

ABOVE, BELOW = "#d9541e", "#2b74c9"
ALL = "all opponents"


def dial_heatmap(summary: Row, agent: str, measure: str) -> Figure:
    """ρ x opponent at both seats for one agent.

    Args:
        summary: the document.
        agent: one that takes ρ.
        measure: ``rho_achieved`` (tinted by its distance from the request), ``agreement_rate`` or ``utility``.
    """
    cells = [c for c in summary["cells"] if c["agent"] == agent]
    totals = [{**c, "opponent": ALL} for c in summary["overall"] if c["agent"] == agent]
    seats = [seat for seat in ("buyer", "seller") if any(c["agent_seat"] == seat for c in cells)]
    opponents = [*dict.fromkeys(c["opponent"] for c in cells), ALL]
    grid = sorted({c["rho_requested"] for c in cells})
    values = {(c["agent_seat"], c["opponent"], c["rho_requested"]): c[measure] for c in [*cells, *totals]}
    panels = {
        f"as {seat}": np.array([[_number(values.get((seat, o, rho))) for rho in grid] for o in opponents])
        for seat in seats
    }
    target = np.broadcast_to(np.array(grid), (len(opponents), len(grid)))
    shade = _from_target(np.where(target >= 0, target, np.nan)) if measure == "rho_achieved" else _SHADES[measure]
    return _draw(panels, opponents, [rho_text(rho) for rho in grid], shade, "requested ρ", rule=1)


def payoff_heatmap(summary: Row) -> Figure:
    """Agent x opponent utility of the agents that take no ρ, at both seats; the best agents on top."""
    rows = [c for c in summary["cells"] if c["rho_requested"] is None]
    seats = [seat for seat in ("buyer", "seller") if any(c["agent_seat"] == seat for c in rows)]
    opponents = [*dict.fromkeys(c["opponent"] for c in rows), ALL]
    totals = [{**c, "opponent": ALL} for c in summary["overall"] if c["rho_requested"] is None]
    values = {(c["agent_seat"], c["agent"], c["opponent"]): c["utility"] for c in [*rows, *totals]}
    labels = dict.fromkeys(c["agent"] for c in rows)
    ranked = sorted(labels, key=lambda a: -np.mean([values[seat, a, ALL] for seat in seats]))
    panels = {
        f"as {seat}": np.array([[_number(values.get((seat, a, o))) for o in opponents] for a in ranked])
        for seat in seats
    }
    names = [short(a.removeprefix("script:")) for a in ranked]
    return _draw(panels, names, opponents, _SHADES["utility"], "opponent", stacked=True)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


Shade = Callable[[Floats], Floats]
"""From ``[rows, columns]`` values to tints in [-1, 1]: below, at, above."""


def _from_target(target: Floats) -> Shade:
    return lambda values: np.clip((values - target) / 0.4, -1.0, 1.0)


_SHADES: dict[str, Shade] = {
    "agreement_rate": lambda values: np.clip((values - 1.0) / 0.8, -1.0, 0.0),
    "utility": lambda values: np.clip((values - 0.5) / 0.45, -1.0, 1.0),
}


def _draw(
    panels: Mapping[str, Floats],
    rows: Sequence[str],
    columns: Sequence[str],
    shade: Shade,
    xlabel: str,
    *,
    rule: int = 0,
    stacked: bool = False,
) -> Figure:
    """Panels beside each other, or ``stacked`` where columns need room for names; a line sets the last rows apart."""
    with style():
        across, down = (1, len(panels)) if stacked else (len(panels), 1)
        width = 1.9 + across * max(2.2, (0.40 if stacked else 0.42) * len(columns))
        height = 0.9 + down * (0.25 * len(rows) + (1.5 if stacked else 0.3))
        figure = new_figure(width, height)
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            _panel(axes, values, shade(values))
            axes.set_title(title)
            axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=55 if stacked else 0, fontsize=8)
            if stacked:
                for label in axes.get_xticklabels():
                    label.set(ha="right", rotation_mode="anchor")
            else:
                axes.set_xlabel(xlabel)
            axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8.5)
            if rule:
                axes.axhline(len(rows) - rule, color=INK, linewidth=0.8)
        return figure


def _panel(axes: Axes, values: Floats, tint: Floats) -> None:
    colours = np.zeros((*tint.shape, 4))
    colours[..., :3] = np.where((tint > 0)[..., None], to_rgb(ABOVE), to_rgb(BELOW))
    colours[..., 3] = 0.68 * np.abs(np.nan_to_num(tint))
    x, y = np.arange(values.shape[1] + 1), np.arange(values.shape[0] + 1)
    axes.pcolormesh(x, y, colours, edgecolors="none")
    for (row, column), value in np.ndenumerate(values):
        missing = bool(np.isnan(value))
        text = "–" if missing else f"{value:.2f}".replace("0.", ".", 1)
        colour = FAINT if missing else INK
        axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set(xlim=(0, values.shape[1]), ylim=(values.shape[0], 0))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
