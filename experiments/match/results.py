"""The tournament's episodes table: one row a game, as ``episodes.parquet`` holds it.

Nothing in it depends on when or where it was played: a second run of the same plan writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env import MoveKind, Seat, Trajectories
from bargain_env.errors import InputError
from bargain_env.files import replacing

SCHEMA_VERSION = 1
EPISODES = "episodes.parquet"
GROUP_ROWS = 65_536
"""Rows of a row group of the file."""

SCHEMA = pa.schema(
    [
        pa.field("episode_id", pa.string(), nullable=False),
        pa.field("agent", pa.string(), nullable=False),
        pa.field("agent_seat", pa.string(), nullable=False),
        pa.field("rho_requested", pa.float64()),
        pa.field("opponent", pa.string(), nullable=False),
        pa.field("opponent_split", pa.string(), nullable=False),
        pa.field("scenario_id", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("starter", pa.string(), nullable=False),
        pa.field("buyer_max", pa.float64(), nullable=False),
        pa.field("seller_min", pa.float64(), nullable=False),
        pa.field("agreement", pa.bool_(), nullable=False),
        pa.field("price", pa.float64()),
        pa.field("rho_achieved", pa.float64()),
        pa.field("utility", pa.float64(), nullable=False),
        pa.field("opponent_utility", pa.float64(), nullable=False),
        pa.field("turns", pa.int32(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("invalid_moves", pa.int32(), nullable=False),
        pa.field("guard_moves", pa.int32(), nullable=False),
        pa.field("offers", pa.list_(pa.float64()), nullable=False),
        pa.field("offer_turns", pa.list_(pa.int32()), nullable=False),
        pa.field("fallback_moves", pa.int32(), nullable=False),
        pa.field("raw_turns", pa.list_(pa.int32())),
        pa.field("raw_accepts", pa.list_(pa.bool_())),
        pa.field("raw_prices", pa.list_(pa.float64())),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
"""Prices in currency units. ``price`` is null at an impasse; ``rho_achieved`` also without a ZOPA; ``rho_requested``
for agents that take no ρ. Utilities are 0 at an impasse. ``turns`` counts the moves of both seats, ``invalid_moves``
and ``guard_moves`` those of the agent. ``offers`` are the valid offers of both, oldest first, ``offer_turns`` (from 1)
when each was made: the starter moves on odd turns.

What the agent itself had decided, beside what was played: ``fallback_moves`` counts its answers that were no move, in whose
place its reservation was offered. ``raw_turns`` lists the turns on which something else was played than it decided, for its
guard or as a fallback: ``guard_moves + fallback_moves`` of them. On each, ``raw_accepts`` says whether it would have
accepted, ``raw_prices`` what it would have offered if not (null: nothing). On its other turns it played what it decided. The
three lists are null where the agent told nothing: scripts have no guard."""

_ADDED = ("fallback_moves", "raw_turns", "raw_accepts", "raw_prices")
"""Columns that earlier tournaments did not write; `read` fills them in."""


def rho_text(rho: float) -> str:
    """ρ in names and ids: two decimals, all of them where it has more; ``-`` for NaN."""
    if np.isnan(rho):
        return "-"
    short = f"{rho:.2f}"
    return short if float(short) == rho else repr(float(rho))


@dataclass(frozen=True, slots=True)
class Cell:
    """Who plays whom, and how: what the rows of a cell have in common.

    Attributes:
        agent: label.
        seat: where the agent sits.
        rho: requested ρ; NaN for an agent that takes none.
        opponent: name.
        split: of the opponent.
    """

    agent: str
    seat: Seat
    rho: float
    opponent: str
    split: str

    @property
    def prefix(self) -> str:
        """What the ids of its episodes begin with; the number of the scenario follows."""
        return f"{self.agent}|{self.seat.label}|{rho_text(self.rho)}|{self.opponent}|"


def table(played: Trajectories, cells: Sequence[Cell], which: NDArray[np.intp]) -> pa.Table:
    """Rows for B finished games.

    Args:
        played: the games.
        cells: all at one seat.
        which: ``[B]`` of them each game belongs to.

    Returns:
        ``[B]`` rows of `SCHEMA` in the order of ``played``.
    """
    seat = cells[0].seat
    scenarios, number = np.unique(played.scenarios.id, return_inverse=True)
    columns = {
        "episode_id": pc.binary_join_element_wise(
            _texts([cell.prefix for cell in cells], which), _texts([f"{i:09d}" for i in scenarios.tolist()], number), ""
        ),
        "agent": _texts([cell.agent for cell in cells], which),
        "agent_seat": _texts([seat.label], np.zeros(len(which), dtype=np.intp)),
        "rho_requested": _nullable(np.array([cell.rho for cell in cells])[which]),
        "opponent": _texts([cell.opponent for cell in cells], which),
        "opponent_split": _texts([cell.split for cell in cells], which),
        **_game_columns(played, seat),
    }
    arrays = [
        column if isinstance(column := columns[f.name], pa.Array) else pa.array(column, type=f.type) for f in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def _texts(words: Sequence[str], which: NDArray[np.intp]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(which))


def _game_columns(played: Trajectories, seat: Seat) -> dict[str, Any]:
    """The columns that follow from the games and from where the agent sat."""
    games, agreed, utility = played.scenarios, played.agreement, played.utilities
    offers, turns = _offers(played)
    return {
        "scenario_id": games.id,
        "seed": games.seed,
        "starter": _texts([s.label for s in Seat], games.starter),
        "buyer_max": games.buyer_max,
        "seller_min": games.seller_min,
        "agreement": agreed,
        "price": _nullable(played.price),
        "rho_achieved": _nullable(played.rho),
        "utility": utility[:, seat],
        "opponent_utility": utility[:, seat.other],
        "turns": played.turns,
        "outcome": _texts(["deadline", "deal"], agreed.astype(np.intp)),
        "invalid_moves": played.count(MoveKind.INVALID, seat),
        "guard_moves": played.guards(seat),
        "offers": offers,
        "offer_turns": turns,
        "fallback_moves": played.fallbacks(seat),
        **dict(zip(_ADDED[1:], _raw(played, seat), strict=True)),
    }


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _offers(played: Trajectories) -> tuple[pa.Array, pa.Array]:
    made = ~np.isnan(played.prices)
    offsets = pa.array(np.concatenate([[0], np.cumsum(made.sum(axis=1))]), pa.int32())
    turns = pa.array(np.nonzero(made)[1] + 1, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(played.prices[made])), pa.ListArray.from_arrays(offsets, turns)


def _raw(played: Trajectories, seat: Seat) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Turn, acceptance and price of what ``seat`` decided where that was not played; null lists where it does not tell."""
    raw, mine = played.raw, played.sides() == seat
    if raw is None:
        return tuple(pa.nulls(len(played), SCHEMA.field(name).type) for name in _ADDED[1:])
    silent = pa.array(~(raw.told & mine).any(axis=1))
    replaced = raw.told & mine & (played.guarded | raw.fallback)
    offsets = pa.array(np.concatenate([[0], np.cumsum(replaced.sum(axis=1))]), pa.int32())
    values = (
        pa.array(np.nonzero(replaced)[1] + 1, pa.int32()),
        pa.array(raw.accept[replaced]),
        _nullable(raw.price[replaced]),
    )
    return tuple(pa.ListArray.from_arrays(offsets, column, mask=silent) for column in values)


def by_cell(blocks: Sequence[pa.Table], cells: int) -> pa.Table:
    """Blocks that follow each other, each with ``cells`` cells in the same order, as one table by cell, block, scenario."""
    each = np.array([len(block) // cells for block in blocks])
    cell = np.concatenate([np.repeat(np.arange(cells), n) for n in each])
    whole = pa.concat_tables(blocks)
    return whole if cells == 1 else whole.take(pa.array(np.argsort(cell, kind="stable"))).combine_chunks()


def ordered(tables: list[pa.Table]) -> pa.Table:
    """All rows as one table, sorted by ``episode_id``."""
    whole = pa.concat_tables(tables)
    return whole.take(pc.sort_indices(whole, sort_keys=[("episode_id", "ascending")])).combine_chunks()


def write(episodes: pa.Table, folder: Path) -> Path:
    """Write ``episodes.parquet`` into ``folder``, whole or not at all."""
    path = folder / EPISODES
    with replacing(path) as temporary:
        write_pieces([episodes], temporary)
    return path


def write_pieces(pieces: Iterable[pa.Table], path: Path) -> None:
    """Write rows as one Parquet file; its bytes do not depend on how they were cut into pieces.

    Args:
        pieces: of `SCHEMA`, sorted by ``episode_id`` within each and from one to the next.
        path: file to write. No more of the rows than a row group, `GROUP_ROWS`, and a piece are in memory.

    Raises:
        RuntimeError: they are not sorted.
    """
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        held, last = SCHEMA.empty_table(), ""
        for piece in pieces:
            if not len(piece):
                continue
            first, last, before = piece["episode_id"][0].as_py(), piece["episode_id"][-1].as_py(), last
            if not before < first <= last:
                raise RuntimeError(f"episodes are not sorted: {first!r} to {last!r} after {before!r}")
            held = pa.concat_tables([held, piece])
            while len(held) >= GROUP_ROWS:
                _write_group(writer, held.slice(0, GROUP_ROWS))
                held = held.slice(GROUP_ROWS)
        if len(held) or not last:
            _write_group(writer, held)


def _write_group(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    """One row group from one chunk a column: pages are cut where chunks are."""
    writer.write_table(pa.Table.from_batches([_one_batch(rows)]), row_group_size=GROUP_ROWS)


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=SCHEMA)


def read(folder: Path) -> pa.Table:
    """The episodes table of a tournament folder, all of it in memory.

    Raises:
        InputError: it is missing, is not Parquet, or lacks columns.
    """
    return filled(pq.read_table(located(folder))).select(SCHEMA.names)


def located(folder: Path) -> Path:
    """The file of the episodes of a tournament folder.

    Raises:
        InputError: it is missing, is not Parquet, or lacks columns.
    """
    path = folder / EPISODES
    if not path.is_file():
        raise InputError(f"no {EPISODES} in {folder}; give the --out folder of a finished tournament")
    try:
        present = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not readable Parquet ({error}); run the tournament again") from error
    missing = [name for name in SCHEMA.names if name not in present and name not in _ADDED]
    if missing:
        raise InputError(f"{path} lacks columns {', '.join(missing)}; run the tournament again with this version")
    return path


def filled(episodes: pa.Table) -> pa.Table:
    """``episodes`` with the columns that an earlier version did not write: nothing was told, nothing was a fallback."""
    for name in _ADDED:
        if name not in episodes.column_names:
            blank = pa.nulls(len(episodes), SCHEMA.field(name).type)
            blank = blank.fill_null(0) if name == "fallback_moves" else blank
            episodes = episodes.append_column(SCHEMA.field(name), blank)
    return episodes
