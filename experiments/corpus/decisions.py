"""Decisions grouped by trajectory id, beside what their file claims about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from . import records
from .step_rows import StepRows

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """N rows of E trajectory ids, each id whole; ids in the order in which they appear, their rows by turn.

    Attributes:
        rows: the decisions; equal turns of one id keep the order of the file. A seat's strategy is the last one named.
        table: `experiments.corpus.claims.CLAIMS` in the same order.
        first: ``[E]`` least place of each id.
        players: ``[N, 2]`` strategy of the seat that decides and of the other one, as index of ``names``; -1 where unknown.
        names: strategies that occur.
        seats: ``[E, 2]`` strategy of the buyer and of the seller, likewise: the last one named.
    """

    rows: StepRows
    table: pa.Table
    first: NDArray[np.int64]
    players: NDArray[np.int32]
    names: NDArray[np.object_]
    seats: NDArray[np.int32]

    def column(self, name: str) -> np.ndarray:
        """``[N]`` a claim: a number, or true and false."""
        return values(self.table, name)

    def take(self, ids: Mask) -> Corpus:
        """Only the ids where the mask ``[E]`` is true."""
        if ids.all():
            return self
        kept = ids[self.rows.episode]
        table = self.table.filter(pa.array(kept)).combine_chunks()
        return Corpus(self.rows.take(ids), table, self.first[ids], self.players[kept], self.names, self.seats[ids])

    def without(self, rows: Mask) -> Corpus:
        """All but the rows where the mask ``[N]`` is true; every id keeps one."""
        return group(self.table.filter(pa.array(~rows)).combine_chunks()) if rows.any() else self


def values(table: pa.Table, name: str) -> np.ndarray:
    """``[N]`` a column without nulls."""
    if not len(table):
        return np.empty(0, table.schema.field(name).type.to_pandas_dtype())
    return table[name].chunk(0).to_numpy(zero_copy_only=False)


def group(table: pa.Table) -> Corpus:
    """Rows whose ids are whole.

    Args:
        table: `experiments.corpus.claims.CLAIMS` in one chunk, at least one row, no id null; ids in the order wanted.
    """
    ids = table["trajectory_id"].chunk(0)
    codes = ids.indices.to_numpy()
    begins = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
    if len(np.unique(codes[begins])) == len(begins):
        first = begins
        episode = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(codes)))
    else:
        _, first, code = np.unique(codes, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        first, episode = np.sort(first), rank[code]
    names = ids.take(pa.array(first)).dictionary_decode()
    turn = values(table, "turn")
    later = np.diff(episode)
    if not ((later > 0) | ((later == 0) & (np.diff(turn) >= 0))).all():
        order = np.lexsort((turn, episode))
        table, episode = table.take(pa.array(order)).combine_chunks(), episode[order]
    return _corpus(table, episode.astype(np.intp), names)


def _corpus(table: pa.Table, episode: NDArray[np.intp], ids: pa.StringArray) -> Corpus:
    n = len(ids)
    role = values(table, "role").astype(np.int64)
    players, names = _players(table)
    last = np.full((n, 2), -1, dtype=np.int32)
    for column, seat in ((1, 1 - role), (0, role)):
        known = players[:, column] >= 0
        last[episode[known], seat[known]] = players[known, column]
    accept = values(table, "accept")
    rows = StepRows(
        ids=ids.to_numpy(zero_copy_only=False),
        strategies=np.array([*names, None], dtype=object)[last],
        seeds=_seeds(ids, values(table, "seed"), episode),
        episode=episode,
        turn=values(table, "turn"),
        role=role,
        max_turns=values(table, "max_turns"),
        reservation=values(table, "reservation"),
        price_low=values(table, "price_low"),
        price_high=values(table, "price_high"),
        last_offer=values(table, "last_offer"),
        accept=accept,
        price=np.where(accept, np.nan, values(table, "price")),
        zopa_low=values(table, "zopa_low"),
        zopa_high=values(table, "zopa_high"),
    )
    first = np.minimum.reduceat(values(table, "place"), rows.first)
    return Corpus(rows, table, first, players, names, last)


def _players(table: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    own, other = (table[name].chunk(0) for name in ("strategy", "opponent_strategy"))
    names = pa.concat_arrays([own.dictionary, other.dictionary]).unique()
    codes = []
    for column in (own, other):
        index = pc.index_in(column.dictionary, names).to_numpy(zero_copy_only=False).astype(np.int32)
        codes.append(np.append(index, -1).astype(np.int32)[column.indices.fill_null(-1).to_numpy()])
    return np.stack(codes, axis=1), np.array(names.to_pylist(), dtype=object)


def _seeds(ids: pa.StringArray, claimed: Floats, episode: NDArray[np.intp]) -> Floats:
    """``[E]`` what the id says, else the column."""
    seeds = np.full(len(ids), np.nan)
    seeds[episode] = claimed
    said = records.seeds(ids)
    return np.where(_unknown(said), seeds, said.fill_null(0).to_numpy())


def _unknown(array: pa.Array) -> Mask:
    return array.is_null().to_numpy(zero_copy_only=False)
