"""Tables with a tint: each number of the summary's cells in its own square, coloured by what is to be noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.match.contestants import SCRIPT
from experiments.match.results import rho_text

from .charts import FAINT, INK, new_figure, short, style

Row = Mapping[str, Any]
Floats = NDArray[np.float64]

ABOVE, BELOW = "#d9541e", "#2b74c9"
"""Orange and blue: told apart with any kind of colour vision."""
ALL = "all opponents"
MEASURES = {"rho_achieved": "achieved ρ", "agreement_rate": "agreement rate", "utility": "utility"}
DENSE = 26
"""Tables with more columns than this have smaller squares."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of numbers, each with a tint.

    Attributes:
        title: of the table.
        rows, columns: their names, ``[R]`` and ``[C]``, in full.
        values: ``[R, C]``; NaN where there is none.
        tints: ``[R, C]`` from -1 (blue) to 1 (orange).
        breaks: numbers of the rows, and of the columns, before which there is a line.
        corner: what the columns are.
        starred: names that are drawn with a star.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Floats
    tints: Floats
    breaks: tuple[Sequence[int], Sequence[int]] = ((), ())
    corner: str = ""
    starred: frozenset[str] = frozenset()

    def label(self, name: str) -> str:
        """A name as it is drawn."""
        return f"{short(name)}{' *' if name in self.starred else ''}"

    def text(self, i: int, j: int, digits: int) -> str:
        """A number as it is written."""
        value = self.values[i, j]
        if np.isnan(value):
            return "–"
        number = f"{round(value, digits) + 0.0:.{digits}f}"
        return number.replace("0.", ".", 1) if number.lstrip("-").startswith("0.") else number

    def records(self) -> Iterator[dict[str, Any]]:
        """Every number as a row of data."""
        for (i, j), value in np.ndenumerate(self.values):
            number = None if np.isnan(value) else float(value)
            yield {"table": self.title, "row": self.rows[i], "column": self.columns[j], "value": number}


def dial_grids(summary: Row, agent: str, measure: str) -> list[Grid]:
    """ρ x opponent for one agent, a grid for each seat.

    Args:
        summary: the document.
        agent: one that takes ρ.
        measure: of `MEASURES`; ``rho_achieved`` is tinted by its distance from the request.
    """
    cells = [c for c in summary["cells"] if c["agent"] == agent]
    totals = [{**c, "opponent": ALL} for c in summary["overall"] if c["agent"] == agent]
    known = summary.get("strategies", {})
    opponents = [*dict.fromkeys(c["opponent"] for c in cells), ALL]
    values = {(c["agent_seat"], c["opponent"], c["rho_requested"]): c[measure] for c in [*cells, *totals]}
    found = []
    for seat in _seats(cells):
        grid = sorted({c["rho_requested"] for c in cells if c["agent_seat"] == seat})
        numbers = np.array([[_number(values.get((seat, o, rho))) for rho in grid] for o in opponents])
        target = np.where(np.array(grid) >= 0, grid, np.nan)
        shade = _from_target(target) if measure == "rho_achieved" else _SHADES[measure]
        columns, breaks = [rho_text(rho) for rho in grid], ([len(opponents) - 1], ())
        title, stars = f"{MEASURES[measure]} as {seat}", _held_out(known)
        found.append(Grid(title, opponents, columns, numbers, shade(numbers), breaks, "requested ρ", stars))
    return found


def payoff_grids(summary: Row, *, seats_together: bool = False) -> list[Grid]:
    """Agent x opponent utility of the agents that take no ρ; families side by side, held-out strategies with a star.

    Args:
        summary: the document.
        seats_together: one grid, the mean of both seats, in place of one for each.
    """
    rows = [c for c in summary["cells"] if c["rho_requested"] is None]
    known = summary.get("strategies", {})
    opponents = _by_family(dict.fromkeys(c["opponent"] for c in rows), known)
    agents = _by_family(dict.fromkeys(c["agent"] for c in rows), known)
    totals = [{**c, "opponent": ALL} for c in summary["overall"] if c["rho_requested"] is None]
    values = {(c["agent_seat"], c["agent"], c["opponent"]): c["utility"] for c in [*rows, *totals]}
    panels = {
        f"as {seat}": np.array([[_number(values.get((seat, a, o))) for o in [*opponents, ALL]] for a in agents])
        for seat in _seats(rows)
    }
    if seats_together:
        panels = {f"mean of {' and '.join(_seats(rows))}": np.mean(list(panels.values()), axis=0)}
    names = [name.removeprefix(SCRIPT) for name in agents], [*opponents, ALL]
    families = [[_family(name, known) for name in group] for group in (agents, opponents)]
    breaks = _breaks(families[0]), _breaks([*families[1], ALL])
    shade = _SHADES["utility"]
    stars = _held_out(known)
    return [Grid(title, *names, v, shade(v), breaks, starred=stars) for title, v in panels.items()]


def _seats(rows: Sequence[Row]) -> list[str]:
    return [seat for seat in ("buyer", "seller") if any(row["agent_seat"] == seat for row in rows)]


def _family(name: str, known: Row) -> str:
    strategy = known.get(name.removeprefix(SCRIPT))
    return str(strategy["family"]) if strategy else ""


def _by_family(names: Iterable[str], known: Row) -> list[str]:
    """Families in the order in which ``known`` begins them, members likewise; what is not known comes last."""
    places = {name: i for i, name in enumerate(known)}
    first: dict[str, int] = {}
    for name, i in places.items():
        first.setdefault(_family(name, known), i)
    last = len(places)
    return sorted(names, key=lambda n: (first.get(_family(n, known), last), places.get(n.removeprefix(SCRIPT), last)))


def _held_out(known: Row) -> frozenset[str]:
    return frozenset(name for name, about in known.items() if about["split"] == "held_out")


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


def heatmap(grids: Sequence[Grid]) -> Figure:
    """Grids as a picture: side by side, or one above the other where their columns need room for names."""
    stacked = max(map(len, grids[0].columns)) > 6
    dense = len(grids[0].columns) > DENSE
    with style():
        across, down = (1, len(grids)) if stacked else (len(grids), 1)
        column, row = (0.26, 0.19) if dense else (0.40 if stacked else 0.42, 0.25)
        rows, columns = len(grids[0].rows), max(len(grid.columns) for grid in grids)
        width = 1.9 + across * max(2.2, column * columns)
        height = 0.9 + down * (row * rows + (1.5 if stacked else 0.3))
        figure = new_figure(width, height)
        for axes, grid in zip(figure.subplots(down, across, sharey=True, squeeze=False).ravel(), grids, strict=True):
            _panel(axes, grid, dense)
            _names(axes, grid, stacked, dense)
        return figure


def _names(axes: Axes, grid: Grid, stacked: bool, dense: bool) -> None:
    axes.set_title(grid.title)
    places = np.arange(len(grid.columns)) + 0.5
    columns = [grid.label(name) for name in grid.columns]
    axes.set_xticks(places, columns, rotation=(90 if dense else 55) if stacked else 0, fontsize=7 if dense else 8)
    if stacked:
        for label in axes.get_xticklabels():
            label.set(ha="right", va="center" if dense else "baseline", rotation_mode="anchor")
    axes.set_xlabel(grid.corner)
    axes.set_yticks(
        np.arange(len(grid.rows)) + 0.5, [grid.label(name) for name in grid.rows], fontsize=7 if dense else 8.5
    )


def _panel(axes: Axes, grid: Grid, dense: bool) -> None:
    tint = grid.tints
    colours = np.zeros((*tint.shape, 4))
    colours[..., :3] = np.where((tint > 0)[..., None], to_rgb(ABOVE), to_rgb(BELOW))
    colours[..., 3] = 0.68 * np.abs(np.nan_to_num(tint))
    height, width = tint.shape
    axes.pcolormesh(np.arange(width + 1), np.arange(height + 1), colours, edgecolors="none")
    for (i, j), value in np.ndenumerate(grid.values):
        missing = bool(np.isnan(value))
        text = f"{100 * value:.0f}" if dense and not missing else grid.text(i, j, 2)
        size, colour = 6.5 if dense else 7.5, FAINT if missing else INK
        axes.text(j + 0.5, i + 0.52, text, ha="center", va="center", fontsize=size, color=colour)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for draw, breaks in zip((axes.axhline, axes.axvline), grid.breaks, strict=True):
        for place in breaks:
            draw(place, color=INK, linewidth=0.6)
