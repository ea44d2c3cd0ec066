"""How an agent gives way: the offers it makes, turn by turn, at each requested ρ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.match.results import rho_text

from .charts import INK, new_figure, style

Floats = NDArray[np.float64]

LINES = 6
"""Curves of one panel at most: the ends of the grid and others evenly between them."""
ALIVE = 0.1
"""A curve ends where fewer than this share of its games (or 3 of them) still saw an offer."""


def own_offers(episodes: pa.Table) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Every offer that the agent made: row of its game, its number among the agent's turns (from 1), and position.

    The position is (price - seller_min) / (buyer_max - seller_min): 0 is the seller's limit, 1 the buyer's. Games
    without a ZOPA are left out.
    """
    row = pc.list_parent_indices(episodes["offers"]).to_numpy().astype(np.intp)
    price = pc.list_flatten(episodes["offers"]).to_numpy().astype(np.float64)
    turn = pc.list_flatten(episodes["offer_turns"]).to_numpy().astype(np.intp)
    starts = pc.equal(episodes["starter"], episodes["agent_seat"]).to_numpy(zero_copy_only=False)
    buyer_max, seller_min = (episodes[name].to_numpy()[row] for name in ("buyer_max", "seller_min"))
    mine = (turn % 2 == 1) == starts[row]
    mine &= buyer_max > seller_min
    row, price, turn, low, high = row[mine], price[mine], turn[mine], seller_min[mine], buyer_max[mine]
    return row, (turn + 1) // 2, (price - low) / (high - low)


def concession_chart(episodes: pa.Table, agent: str) -> Figure:
    """Median position of one agent's offers by its own turn, one line for each ρ, a panel for each seat."""
    mine = episodes.filter(pc.field("agent") == agent)
    seats = [s for s in ("buyer", "seller") if s in set(mine["agent_seat"].unique().to_pylist())]
    with style():
        figure = new_figure(max(5.6, 5.0 * len(seats)), 4.0)
        panels = figure.subplots(1, len(seats), sharey=True, squeeze=False)[0]
        for axes, seat in zip(panels, seats, strict=True):
            _curves(axes, mine.filter(pc.field("agent_seat") == seat))
            for level, name in ((0.0, "seller's limit"), (1.0, "buyer's limit")):
                axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (5, 4)))
                axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                              textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
            axes.set(title=f"as {seat}", xlabel="own turn")
            axes.grid(True)
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("median offer, position in the ZOPA")
        if panels[-1].get_legend_handles_labels()[0]:
            panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="requested ρ")
        return figure


def _curves(axes: Axes, episodes: pa.Table) -> None:
    row, number, position = own_offers(episodes)
    requested = episodes["rho_requested"].to_numpy().astype(np.float64)
    grid = _some(sorted(set(requested[requested >= 0].tolist())))
    for i, rho in enumerate(grid):
        games = int((requested == rho).sum())
        chosen = requested[row] == rho
        colour = to_hex(colormaps["plasma"](0.08 + 0.78 * i / max(1, len(grid) - 1)))
        turns, medians = [], []
        for turn in range(1, int(number[chosen].max(initial=0)) + 1):
            offers = position[chosen & (number == turn)]
            if len(offers) < max(3, ALIVE * games):
                break
            turns.append(turn)
            medians.append(float(np.median(offers)))
        axes.plot(turns, medians, color=colour, marker="o", markersize=3, linewidth=1.5, label=rho_text(rho))


def _some(grid: Sequence[float]) -> list[float]:
    chosen = np.unique(np.round(np.linspace(0, len(grid) - 1, min(LINES, len(grid)))).astype(int))
    return [grid[i] for i in chosen]
