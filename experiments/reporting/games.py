"""What a report needs of single games: offers turn by turn, and of each cell its best game, its worst and one at random.

Two readings of the file, a batch at a time: the first counts offers and finds which games to show, the second takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env import rng
from bargain_env.rng import Stream
from experiments.match import results

from .columns import Cell, batches, cells_of
from .concession import COLUMNS, Concessions

Game = dict[str, Any]
Source: TypeAlias = pa.Table | Path
"""Episodes in memory, or the path of their file."""

MOST_CELLS = 1000
"""Cells whose games are shown: the first of the table, whole agents before others."""
KINDS = ("best", "worst", "random")


@dataclass(frozen=True, slots=True)
class Games:
    """What single games tell.

    Attributes:
        concessions: offers by agent, seat, ρ and turn.
        shown: of each shown cell its games: ``best`` and ``worst`` by the agent's utility (the lowest scenario of equals),
            ``random`` a scenario drawn with the seed, the same in every cell.
        cells: how many cells there are.
    """

    concessions: Concessions
    shown: dict[Cell, dict[str, Game]]
    cells: int

    @classmethod
    def of(cls, episodes: Source, settings: dict[str, Any]) -> Games:
        """Read them.

        Args:
            episodes: sorted by ``episode_id``, as a tournament writes them.
            settings: of the summary: ``agents``, ``controls``, ``seed``.
        """
        concessions, finder = Concessions(), _Finder(int(settings.get("seed", 0)))
        first = 0
        for batch in batches(episodes, (*COLUMNS, "scenario_id", "utility")):
            concessions.add(batch)
            finder.add(first, batch)
            first += batch.num_rows
        chosen = _chosen(finder, settings)
        rows = sorted({row for places in chosen.values() for row in places.values()})
        taken = dict(zip(rows, _take(episodes, np.array(rows, dtype=np.int64)), strict=True))
        shown = {cell: {kind: taken[row] for kind, row in places.items()} for cell, places in chosen.items()}
        return cls(concessions, shown, len(finder.cells))


@dataclass
class _Place:
    """The best game so far by some order: its rank, which is compared, and its row."""

    rank: tuple[float, ...]
    row: int


@dataclass
class _Finder:
    """Of each cell, the rows to show."""

    seed: int
    cells: dict[Cell, dict[str, _Place]] = field(default_factory=dict)

    def add(self, first: int, batch: pa.RecordBatch) -> None:
        which, cells = cells_of(batch)
        utility = batch.column("utility").to_numpy().astype(np.float64)
        scenario = batch.column("scenario_id").to_numpy().astype(np.int64)
        drawn = rng.uniform(self.seed, scenario, stream=Stream.SPLIT)[:, 0]
        orders = {"best": -utility, "worst": utility, "random": drawn}
        for kind, key in orders.items():
            order = np.lexsort((scenario, key, which))
            heads = order[np.unique(which[order], return_index=True)[1]]
            for row in heads.tolist():
                cell = cells[which[row]]
                rank, places = (float(key[row]), float(scenario[row])), self.cells.setdefault(cell, {})
                if kind not in places or rank < places[kind].rank:
                    places[kind] = _Place(rank, first + row)


def _chosen(finder: _Finder, settings: dict[str, Any]) -> dict[Cell, dict[str, int]]:
    """Rows of the cells that are shown: those of the first agents, controls last."""
    agents = {agent: i for i, agent in enumerate(settings.get("agents", []))}
    controls = set(settings.get("controls", []))

    def place(cell: Cell) -> tuple[Any, ...]:
        asked = -2.0 if cell.rho_requested is None else cell.rho_requested
        return cell.agent in controls, agents.get(cell.agent, len(agents)), cell.agent_seat, asked, cell.opponent

    shown = sorted(finder.cells, key=place)[:MOST_CELLS]
    return {cell: {kind: finder.cells[cell][kind].row for kind in KINDS} for cell in shown}


def _take(episodes: Source, rows: NDArray[np.int64]) -> list[Game]:
    """Whole rows by their numbers, ascending."""
    if not isinstance(episodes, Path):
        return _whole(episodes.take(pa.array(rows)))
    found: list[Game] = []
    with pq.ParquetFile(episodes, pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + size)]
            if len(mine):
                found += _whole(file.read_row_group(group).take(pa.array(mine - start)))
            start += size
    return found


def _whole(some: pa.Table) -> list[Game]:
    rows: list[Game] = results.filled(some).to_pylist()
    return rows


def standing_out(games: Games, agent: str, seat: str, seed: int) -> list[tuple[str, Game]]:
    """The best and the worst deal of an agent at a seat, an impasse and a game at random, of those shown."""
    mine = [places for cell, places in games.shown.items() if (cell.agent, cell.agent_seat) == (agent, seat)]
    every = {game["episode_id"]: game for places in mine for game in places.values()}
    ordered = sorted(every.values(), key=lambda g: (-g["utility"], g["episode_id"]))
    deals = [game for game in ordered if game["agreement"]]
    failed = [game for game in ordered if not game["agreement"]]
    random = sorted((places["random"] for places in mine), key=lambda g: g["episode_id"])
    found: dict[str, tuple[str, Game]] = {}
    chosen = [("best deal", deals[:1]), ("worst deal", deals[-1:]), ("impasse", failed[len(failed) // 2 :][:1])]
    if random:
        chosen.append(("at random", [random[int(rng.uniform(seed, 0, stream=Stream.SPLIT)[0, 0] * len(random))]]))
    for name, some in chosen:
        for game in some:
            found.setdefault(game["episode_id"], (name, game))
    return list(found.values())
