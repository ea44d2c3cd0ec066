"""How an agent gives way: the offers it makes, turn by turn, at each requested ρ.

Offers are counted in bins of `STEP` of the ZOPA while episodes are read, so that any number of games takes the same memory;
medians are exact to half a bin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.match.results import rho_text

from .charts import INK, new_figure, short, style
from .columns import cells_of, names, numbers

Floats = NDArray[np.float64]
Key: TypeAlias = tuple[str, str, float]
"""Agent, seat and requested ρ; NaN is not equal to itself, so who takes none has `NO_RHO`."""

NO_RHO = -2.0
LINES = 6
"""Curves of one panel at most: the ends of the grid and others evenly between them."""
ALIVE = 0.1
"""A curve ends where fewer than this share of its games (or 3 of them) still saw an offer."""
STEP = 0.002
LOW, HIGH = -1.0, 2.0
"""Positions beyond these are counted at them."""
TURNS = 60
"""Own turns that are counted."""
COLUMNS = (
    "agent",
    "agent_seat",
    "rho_requested",
    "opponent",
    "opponent_split",
    "starter",
    "buyer_max",
    "seller_min",
    "offers",
    "offer_turns",
)
_BINS = round((HIGH - LOW) / STEP) + 1


class Concessions:
    """Offers of everybody, counted by agent, seat, ρ and own turn."""

    def __init__(self) -> None:
        self.games: dict[Key, int] = {}
        self._counts: dict[Key, NDArray[np.uint32]] = {}

    def add(self, episodes: pa.RecordBatch) -> None:
        """Count the offers of more episodes; of their columns, `COLUMNS` are read."""
        row, number, position = own_offers(episodes)
        local, cells = cells_of(episodes)
        asked = [(c.agent, c.agent_seat, NO_RHO if c.rho_requested is None else c.rho_requested) for c in cells]
        keys = list(dict.fromkeys(asked))
        which = np.array([keys.index(key) for key in asked], dtype=np.intp)[local]
        played = np.bincount(which, minlength=len(keys))
        place = np.clip(np.rint((position - LOW) / STEP), 0, _BINS - 1).astype(np.intp)
        kept = number <= TURNS
        row, number, place = row[kept], number[kept], place[kept]
        of = which[row]
        for k, key in enumerate(keys):
            mine = of == k
            turns = int(number[mine].max(initial=0))
            counts = self._room(key, turns)
            np.add.at(counts, (number[mine] - 1, place[mine]), 1)
            self.games[key] = self.games.get(key, 0) + int(played[k])

    def _room(self, key: Key, turns: int) -> NDArray[np.uint32]:
        counts = self._counts.get(key, np.zeros((0, _BINS), dtype=np.uint32))
        if turns > len(counts):
            counts = np.concatenate([counts, np.zeros((turns - len(counts), _BINS), dtype=np.uint32)])
        self._counts[key] = counts
        return counts

    def agents(self) -> list[str]:
        """Everybody who was counted."""
        return list(dict.fromkeys(agent for agent, _, _ in self.games))

    def curves(self, agent: str, seat: str) -> dict[float, Floats]:
        """Median position of the offers at each own turn, ``[turns]``, by requested ρ, ascending; see `ALIVE`."""
        keys = sorted(key for key in self._counts if key[:2] == (agent, seat) and not -2 < key[2] < 0)
        return {key[2]: _medians(self._counts[key], max(3.0, ALIVE * self.games[key])) for key in keys}


def _medians(counts: NDArray[np.uint32], least: float) -> Floats:
    found = []
    for turn in counts:
        total = int(turn.sum())
        if total < least:
            break
        sums = np.cumsum(turn)
        middle = [int(np.searchsorted(sums, place, side="right")) for place in ((total - 1) // 2, total // 2)]
        found.append(LOW + STEP * (middle[0] + middle[1]) / 2)
    return np.array(found)


def own_offers(episodes: pa.RecordBatch) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Every offer that the agent made: row of its game, its number among the agent's turns (from 1), and position.

    The position is (price - seller_min) / (buyer_max - seller_min): 0 is the seller's limit, 1 the buyer's. Games
    without a ZOPA are left out.
    """
    offers, turns = (episodes.column(name) for name in ("offers", "offer_turns"))
    row = pc.list_parent_indices(offers).to_numpy(zero_copy_only=False).astype(np.intp)
    price = pc.list_flatten(offers).to_numpy(zero_copy_only=False).astype(np.float64)
    turn = pc.list_flatten(turns).to_numpy(zero_copy_only=False).astype(np.intp)
    starts = names(episodes, "agent_seat") == names(episodes, "starter")
    buyer_max, seller_min = (numbers(episodes, name)[row] for name in ("buyer_max", "seller_min"))
    mine = (turn % 2 == 1) == starts[row]
    mine &= buyer_max > seller_min
    row, price, turn, low, high = row[mine], price[mine], turn[mine], seller_min[mine], buyer_max[mine]
    return row, (turn + 1) // 2, (price - low) / (high - low)


def concession_chart(counted: Concessions, agent: str, seat: str) -> Figure:
    """Median position of one agent's offers by its own turn, one line for each ρ, with both reservations."""
    curves = counted.curves(agent, seat)
    grid = _some(list(curves))
    with style():
        figure = new_figure(5.2, 4.0)
        axes = figure.subplots()
        for i, rho in enumerate(grid):
            colour = to_hex(colormaps["plasma"](0.28 + 0.54 * i / max(1, len(grid) - 1)))
            turns = np.arange(1, len(curves[rho]) + 1)
            name = None if rho == NO_RHO else rho_text(rho)
            marker = "osD^vP"[i % 6]
            axes.plot(turns, curves[rho], color=colour, marker=marker, markersize=3, linewidth=1.5, label=name)
        _limits(axes)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.09), max(high, 1.09))
        axes.set(title=f"{short(agent.removeprefix('script:'))} as {seat}", xlabel="own turn")
        axes.set_ylabel("median offer, position in the ZOPA")
        axes.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="requested ρ")
        return figure


def _limits(axes: Axes) -> None:
    for level, name, away in ((0.0, "seller's reservation", -9), (1.0, "buyer's reservation", 3)):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (5, 4)))
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, away),
                      textcoords="offset points", ha="right", fontsize=8)  # fmt: skip


def records(counted: Concessions, agent: str, seat: str) -> Iterator[dict[str, Any]]:
    """All curves of an agent at a seat as rows of data, those too that the chart leaves out."""
    for rho, medians in counted.curves(agent, seat).items():
        for turn, position in enumerate(medians.tolist(), 1):
            asked = None if rho == NO_RHO else rho
            yield {
                "agent": agent,
                "seat": seat,
                "rho_requested": asked,
                "own_turn": turn,
                "median_offer": round(position, 4),
            }


def _some(grid: Sequence[float]) -> list[float]:
    places = np.linspace(0, len(grid) - 1, min(LINES, len(grid))).round().astype(int).tolist() if grid else []
    return [grid[i] for i in dict.fromkeys(places)]
