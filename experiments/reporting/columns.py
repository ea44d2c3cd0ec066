"""Episodes read into what the summary needs of them, a batch at a time, so that a tournament need not fit in memory.

A tournament is dense: every cell (agent, seat, requested ρ, opponent) plays every scenario once. So what must be known
game by game is kept as ``[cells, scenarios]`` arrays, `BYTES_PER_GAME` each game; everything else is added up by cell while
it is read. A summary of 10⁷ games in a file was measured to take 0.7 GB in all, and 11 s of one core. Nothing
depends on how the rows are cut into batches, nor on their order: what is added up while reading are whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env.errors import InputError

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Source: TypeAlias = pa.Table | pa.RecordBatchReader | Path | Iterable[pa.RecordBatch]
"""Episodes: in memory, as a stream of record batches, or the path of a Parquet file, which is read a batch at a time."""

POOLS = 1000
"""Clusters that are resampled at most: of more scenarios, neighbours are pooled. Sums over pools are independent and alike
too, so intervals stay valid, and what they cost stays bounded."""
BYTES_PER_GAME = 25
_BATCH = 1 << 16
_NAMES = ("agent", "agent_seat", "opponent", "opponent_split")
_PLAYED = ("utility", "opponent_utility", "rho_achieved", "agreement")
_COUNTED = ("invalid_moves", "guard_moves", "fallback_moves")
_SUMMED = (
    *("turns", "moves", "zopa", "zopa_deals", "troubled_games"),
    *(f"{name}_{kind}" for name in ("invalid", "guard", "fallback") for kind in ("moves", "games")),
)
READ = (*_NAMES, "rho_requested", "scenario_id", "starter", "buyer_max", "seller_min", "turns", *_PLAYED, *_COUNTED)
"""Columns of episodes that `Columns` is made from."""


class Cell(NamedTuple):
    """What a cell's games have in common; ``rho_requested`` is None for an agent that takes none."""

    agent: str
    agent_seat: str
    rho_requested: float | None
    opponent: str
    opponent_split: str


@dataclass(frozen=True, slots=True)
class Columns:
    """What the summary reads of the games of C cells in S scenarios.

    Attributes:
        cells: ``[C]``, sorted; no ρ comes first.
        scenarios: ``[S]`` ids, ascending.
        utility: ``[C, S]``; NaN where the cell did not play the scenario.
        opponent_utility: ``[C, S]`` likewise.
        rho: ``[C, S]`` achieved ρ, NaN also without a deal or a ZOPA.
        agreement: ``[C, S]`` whether there was a deal; False where there was no game.
        totals: whole numbers added up over the games of each cell, ``[C]`` by name.
    """

    cells: list[Cell]
    scenarios: NDArray[np.int64]
    utility: Floats
    opponent_utility: Floats
    rho: Floats
    agreement: NDArray[np.bool_]
    totals: dict[str, Floats]

    @classmethod
    def of(cls, episodes: Source) -> Columns:
        """Read them.

        Raises:
            InputError: a game is there twice.
        """
        reader = _Reader()
        for batch in batches(episodes, READ):
            reader.add(batch)
        return reader.columns()

    def pooled(self, values: NDArray[Any]) -> Floats:
        """``[..., S]`` added up to the clusters that are resampled, ``[..., G]``: scenarios, or at most `POOLS` of them."""
        count = len(self.scenarios)
        if count <= POOLS:
            return np.asarray(values, dtype=np.float64)
        starts = (np.arange(POOLS) * count + POOLS - 1) // POOLS
        found: Floats = np.add.reduceat(values, starts, axis=-1, dtype=np.float64)
        return found


def batches(episodes: Source, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Batches of some columns, in order; names as dictionaries where the source can give them so.

    Args:
        episodes: see `Source`.
        wanted: names of columns; those that an earlier version did not write are left out.
    """
    if isinstance(episodes, Path):
        # Without pre_buffer: it keeps the bytes of the whole file.
        with pq.ParquetFile(episodes, read_dictionary=[*_NAMES, "starter"], pre_buffer=False) as file:
            present = [name for name in wanted if name in file.schema_arrow.names]
            yield from file.iter_batches(batch_size=_BATCH, columns=present)
        return
    if isinstance(episodes, pa.Table):
        present = [name for name in wanted if name in episodes.column_names]
        episodes = episodes.select(present).to_batches(max_chunksize=_BATCH)
    yield from episodes


class _Reader:
    """Batches so far: of each cell its row, of each scenario its column, as they were met."""

    def __init__(self) -> None:
        self._cells: dict[Cell, int] = {}
        self._scenarios: dict[int, int] = {}
        self._played: dict[str, NDArray[Any]] = {name: np.zeros((0, 0)) for name in _PLAYED[:-1]}
        self._played["agreement"] = np.zeros((0, 0), dtype=np.bool_)
        self._totals: dict[str, Floats] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        local, cells = cells_of(batch)
        known = np.array([self._cells.setdefault(cell, len(self._cells)) for cell in cells], dtype=np.intp)
        ids, scenario = np.unique(numbers(batch, "scenario_id"), return_inverse=True)
        columns = [self._scenarios.setdefault(i, len(self._scenarios)) for i in ids.tolist()]
        self._make_room()
        row, place = known[local], np.array(columns, dtype=np.intp)[scenario]
        self._require_new(row, place)
        for name, array in self._played.items():
            array[row, place] = numbers(batch, name)
        for name, counts in _counts(batch).items():
            self._totals[name][known] += np.bincount(local, counts, len(known))

    def _make_room(self) -> None:
        """Rows are added where they are, so that nothing is held twice; columns become twice as many at a time."""
        rows, wanted = len(self._cells), len(self._scenarios)
        for name, array in self._played.items():
            blank = False if name == "agreement" else np.nan
            old, width = array.shape
            if wanted > width:
                self._played[name] = np.full((rows, max(wanted, 2 * width)), blank, dtype=array.dtype)
                self._played[name][:old, :width] = array
            elif rows > old:
                array.resize((rows, width), refcheck=False)
                array[old:] = blank
        for name in _SUMMED:
            total = self._totals.get(name, np.zeros(0))
            self._totals[name] = np.concatenate([total, np.zeros(rows - len(total))])

    def _require_new(self, row: Index, place: Index) -> None:
        """Refuse a batch that holds a game twice, or one that was there before."""
        utility = self._played["utility"]
        again = ~np.isnan(utility[row, place])
        first = np.unique(row * utility.shape[1] + place, return_index=True)[1]
        again[np.setdiff1d(np.arange(len(row)), first, assume_unique=True)] = True
        if again.any():
            i = int(again.argmax())
            cell, scenario = list(self._cells)[row[i]], list(self._scenarios)[place[i]]
            raise InputError(
                f"the episodes hold the game of {cell.agent!r} as {cell.agent_seat} at rho {cell.rho_requested} against "
                f"{cell.opponent!r} in scenario {scenario} twice; give the episodes of one tournament"
            )

    def columns(self) -> Columns:
        """All of it, in an order that does not depend on how it came; the reader is done with then."""
        cells, scenarios = sorted(self._cells, key=_place), sorted(self._scenarios)
        rows = np.array([self._cells[cell] for cell in cells], dtype=np.intp)
        places = np.array([self._scenarios[scenario] for scenario in scenarios], dtype=np.intp)
        utility, other, rho, agreement = (_taken(self._played.pop(name), rows, places) for name in _PLAYED)
        totals = {name: total[rows] for name, total in self._totals.items()}
        return Columns(cells, np.array(scenarios, dtype=np.int64), utility, other, rho, agreement, totals)


def _taken(array: NDArray[Any], rows: Index, places: Index) -> NDArray[Any]:
    """``array[rows][:, places]``, without a copy where that is the array."""
    same = array.shape == (len(rows), len(places))
    if same and all((index == np.arange(len(index))).all() for index in (rows, places)):
        return array
    return array[rows[:, None], places]


def _place(cell: Cell) -> tuple[Any, ...]:
    return tuple(-2.0 if value is None else value for value in cell)


def numbers(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    """A column as an array, NaN for null."""
    if name not in batch.schema.names:  # what earlier tournaments did not write
        return np.zeros(batch.num_rows)
    return batch.column(name).to_numpy(zero_copy_only=False)


def cells_of(batch: pa.RecordBatch) -> tuple[Index, list[Cell]]:
    """Of each row its cell among those of the batch, and these."""
    parts: list[tuple[Index, list[Any]]] = [dictionary(batch.column(name)) for name in _NAMES]
    rho, which = np.unique(numbers(batch, "rho_requested").astype(np.float64), return_inverse=True)
    parts.insert(2, (which, [None if np.isnan(value) else value for value in rho.tolist()]))
    code = np.zeros(batch.num_rows, dtype=np.int64)
    for index, values in parts:
        code = code * len(values) + index
    _, first, local = np.unique(code, return_index=True, return_inverse=True)
    return local, [Cell(*(values[index[row]] for index, values in parts)) for row in first.tolist()]


def dictionary(column: pa.Array) -> tuple[Index, list[Any]]:
    """Codes of the rows of a column of names, and the names."""
    coded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    return coded.indices.to_numpy().astype(np.intp), coded.dictionary.to_pylist()


def _counts(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """``[N]`` whole numbers that are added up over games, by name."""
    turns, agreed = numbers(batch, "turns"), numbers(batch, "agreement")
    zopa = numbers(batch, "buyer_max") > numbers(batch, "seller_min")
    starts = names(batch, "starter") == names(batch, "agent_seat")
    found = {"turns": turns, "moves": (turns + starts) // 2, "zopa": zopa, "zopa_deals": zopa & agreed.astype(bool)}
    troubled = np.zeros(batch.num_rows, dtype=bool)
    for name in _COUNTED:
        moves = numbers(batch, name)
        troubled |= moves > 0
        found |= {name: moves, f"{name.removesuffix('_moves')}_games": moves > 0}
    return found | {"troubled_games": troubled}


def names(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    """A column of names as an array of objects."""
    codes, values = dictionary(batch.column(name))
    return np.array(values, dtype=object)[codes]


def groups_of(keys: Sequence[Any]) -> dict[Any, Index]:
    """Places of each distinct key, in the order in which they first occur."""
    found: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return {key: np.array(places, dtype=np.intp) for key, places in found.items()}
