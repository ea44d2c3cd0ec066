"""Tables with a tint: each number of the summary's cells in its own square, coloured by what is to be noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
DENSE = 26
"""Stacked tables with more columns than this have smaller squares."""


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


def payoff_heatmap(summary: Row, *, seats_together: bool = False) -> Figure:
    """Agent x opponent utility of the agents that take no ρ; families side by side, held-out strategies with a star.

    Args:
        summary: the document.
        seats_together: one panel, the mean of both seats, in place of a panel for each.
    """
    rows = [c for c in summary["cells"] if c["rho_requested"] is None]
    seats = [seat for seat in ("buyer", "seller") if any(c["agent_seat"] == seat for c in rows)]
    known = summary.get("strategies", {})
    opponents = _by_family(dict.fromkeys(c["opponent"] for c in rows), known)
    agents = _by_family(dict.fromkeys(c["agent"] for c in rows), known)
    totals = [{**c, "opponent": ALL} for c in summary["overall"] if c["rho_requested"] is None]
    values = {(c["agent_seat"], c["agent"], c["opponent"]): c["utility"] for c in [*rows, *totals]}
    panels = {
        f"as {seat}": np.array([[_number(values.get((seat, a, o))) for o in [*opponents, ALL]] for a in agents])
        for seat in seats
    }
    if seats_together:
        panels = {f"mean of {' and '.join(seats)}": np.mean(list(panels.values()), axis=0)}
    names = [[_starred(name, known) for name in group] for group in (agents, opponents)]
    families = [[_family(name, known) for name in group] for group in (agents, opponents)]
    return _draw(
        panels,
        names[0],
        [*names[1], ALL],
        _SHADES["utility"],
        "",
        stacked=True,
        breaks=(_breaks(families[0]), _breaks([*families[1], ALL])),
    )


def _family(name: str, known: Row) -> str:
    strategy = known.get(name.removeprefix("script:"))
    return str(strategy["family"]) if strategy else ""


def _by_family(names: Iterable[str], known: Row) -> list[str]:
    """Families in the order in which ``known`` begins them, members likewise; what is not known comes last."""
    places = {name: i for i, name in enumerate(known)}
    first: dict[str, int] = {}
    for name, i in places.items():
        first.setdefault(_family(name, known), i)
    last = len(places)
    return sorted(
        names, key=lambda n: (first.get(_family(n, known), last), places.get(n.removeprefix("script:"), last))
    )


def _starred(name: str, known: Row) -> str:
    name = name.removeprefix("script:")
    return f"{short(name)}{' *' if known.get(name, {}).get('split') == 'held_out' else ''}"


def _breaks(families: Sequence[str]) -> list[int]:
    """Where one family ends and the next begins."""
    return [i for i in range(1, len(families)) if families[i] != families[i - 1]]


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
    breaks: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Figure:
    """Panels beside each other, or ``stacked`` where columns need room for names; a line sets the last ``rule`` rows apart,
    thin ones are drawn before the rows and columns in ``breaks``. Large ``stacked`` tables are in hundredths.
    """
    dense = stacked and len(columns) > DENSE
    with style():
        across, down = (1, len(panels)) if stacked else (len(panels), 1)
        column, row = (0.26, 0.19) if dense else (0.40 if stacked else 0.42, 0.25)
        width = 1.9 + across * max(2.2, column * len(columns))
        height = 0.9 + down * (row * len(rows) + (1.5 if stacked else 0.3))
        figure = new_figure(width, height)
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            _panel(axes, values, shade(values), dense)
            axes.set_title(title)
            axes.set_xticks(
                np.arange(len(columns)) + 0.5,
                columns,
                rotation=(90 if dense else 55) if stacked else 0,
                fontsize=7 if dense else 8,
            )
            if stacked:
                for label in axes.get_xticklabels():
                    label.set(ha="right", va="center" if dense else "baseline", rotation_mode="anchor")
            else:
                axes.set_xlabel(xlabel)
            axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=7 if dense else 8.5)
            for draw, places in zip((axes.axhline, axes.axvline), breaks, strict=True):
                for place in places:
                    draw(place, color=INK, linewidth=0.6)
            if rule:
                axes.axhline(len(rows) - rule, color=INK, linewidth=0.8)
        return figure


def _panel(axes: Axes, values: Floats, tint: Floats, dense: bool) -> None:
    colours = np.zeros((*tint.shape, 4))
    colours[..., :3] = np.where((tint > 0)[..., None], to_rgb(ABOVE), to_rgb(BELOW))
    colours[..., 3] = 0.68 * np.abs(np.nan_to_num(tint))
    x, y = np.arange(values.shape[1] + 1), np.arange(values.shape[0] + 1)
    axes.pcolormesh(x, y, colours, edgecolors="none")
    for (row, column), value in np.ndenumerate(values):
        missing = bool(np.isnan(value))
        text = "–" if missing else f"{100 * value:.0f}" if dense else f"{value:.2f}".replace("0.", ".", 1)
        colour = FAINT if missing else INK
        axes.text(
            column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=6.5 if dense else 7.5, color=colour
        )
    axes.set(xlim=(0, values.shape[1]), ylim=(values.shape[0], 0))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
