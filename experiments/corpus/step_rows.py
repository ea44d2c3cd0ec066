"""The decisions of many games as one struct of numpy columns, and as an Arrow table.

`StepRows` is the form that everything here works on: games just played, a log read back, a foreign corpus after repair.
What a column can be computed from the moves (histories, labels, limits of both seats) is computed, here and only here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO, Seat, settlement, utilities

from . import records

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROLES = np.array([Seat.BUYER.label, Seat.SELLER.label])


@dataclass(frozen=True)
class StepRows:
    """N decisions of E episodes, sorted by episode, then turn. Unknown numbers are NaN, unknown names None.

    Attributes:
        ids: ``[E]`` trajectory ids, object.
        strategies: ``[E, 2]`` who played, buyer first, object.
        seeds: ``[E]`` run seeds as float, NaN where unknown.
        episode: ``[N]`` row of ``ids``, non-decreasing.
        turn: ``[N]`` from 1.
        role: ``[N]`` `Seat`.
        max_turns: ``[N]``.
        reservation: ``[N]`` limit of the seat that decides.
        price_low: ``[N]``.
        price_high: ``[N]``.
        last_offer: ``[N]`` offer of the other seat that stands, NaN where none.
        accept: ``[N]``.
        price: ``[N]`` offered, NaN where ``accept``.
        zopa_low: ``[N]`` the seller's limit as the source says.
        zopa_high: ``[N]`` the buyer's limit as the source says.
    """

    ids: NDArray[np.object_]
    strategies: NDArray[np.object_]
    seeds: Floats
    episode: NDArray[np.intp]
    turn: Ints
    role: Ints
    max_turns: Ints
    reservation: Floats
    price_low: Floats
    price_high: Floats
    last_offer: Floats
    accept: NDArray[np.bool_]
    price: Floats
    zopa_low: Floats
    zopa_high: Floats

    def __len__(self) -> int:
        return len(self.episode)

    @cached_property
    def first(self) -> NDArray[np.intp]:
        """``[E]`` first row of each episode."""
        lengths = np.bincount(self.episode, minlength=len(self.ids))
        return np.cumsum(lengths) - lengths

    @cached_property
    def last(self) -> NDArray[np.intp]:
        """``[E]`` last row of each episode."""
        return np.cumsum(np.bincount(self.episode, minlength=len(self.ids))) - 1

    @cached_property
    def agreement(self) -> NDArray[np.bool_]:
        """``[E]`` whether the last move accepts."""
        return self.accept[self.last]

    @cached_property
    def limits(self) -> Floats:
        """``[E, 2]`` buyer_max and seller_min: the seats' own where they moved, else what the source says."""
        limits = np.stack([self.zopa_high[self.first], self.zopa_low[self.first]], axis=1)
        limits[self.episode, self.role] = self.reservation
        return limits

    @cached_property
    def deal_price(self) -> Floats:
        """``[E]`` price of the deal, NaN at an impasse."""
        return np.where(self.agreement, self.last_offer[self.last], np.nan)

    @cached_property
    def rho(self) -> Floats:
        """``[E]`` label: settlement, -1 at an impasse, NaN for a deal without a ZOPA."""
        limits = self.limits
        return np.where(self.agreement, settlement(self.deal_price, limits[:, 0], limits[:, 1]), IMPASSE_RHO)

    def take(self, episodes: NDArray[np.bool_]) -> StepRows:
        """Only the episodes where the mask ``[E]`` is true."""
        rows = episodes[self.episode]
        renumbered = (np.cumsum(episodes) - 1)[self.episode[rows]]
        per_episode = {name: getattr(self, name)[episodes] for name in ("ids", "strategies", "seeds")}
        per_row = {f.name: getattr(self, f.name)[rows] for f in fields(self)[4:]}
        return StepRows(**per_episode, episode=renumbered, **per_row)


def history(rows: StepRows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The last `records.HISTORY_LENGTH` offers before each row, as list offsets and flat row numbers.

    Returns:
        ``offsets`` ``[N + 1]`` and ``source`` ``[offsets[-1]]``: the list of row ``i`` is made of the offers in
        the rows ``source[offsets[i]:offsets[i + 1]]``, oldest first.
    """
    offers = np.flatnonzero(~rows.accept).astype(np.int32)  # there are many of them below: half as wide is faster
    before = np.cumsum(~rows.accept, dtype=np.int32) - ~rows.accept  # offers in all rows above this one
    in_game = before - before[rows.first][rows.episode] if len(rows) else before
    kept = np.minimum(in_game, np.int32(records.HISTORY_LENGTH))
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(kept, dtype=np.int32)])
    position = np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1] - (before - kept), kept)
    return offsets, offers[position]


def steps_table(rows: StepRows, split: NDArray[np.object_] | None = None) -> pa.Table:
    """`records.STEPS` of ``rows``.

    Args:
        rows: the decisions.
        split: ``[E]`` the split of each episode; empty strings where not given.
    """
    return encoded_steps(rows, split).cast(records.STEPS)


def encoded_steps(rows: StepRows, split: NDArray[np.object_] | None = None) -> pa.Table:
    """`steps_table` with its texts as dictionaries, which is how `experiments.corpus.parquet_stream` writes them anyway."""
    offsets, source = history(rows)
    episode, limits, role = rows.episode, rows.limits, rows.role.astype(np.int32)
    columns = {
        "trajectory_id": _spread(rows.ids, episode),
        "turn": rows.turn,
        "role": _spread(ROLES, role),
        "max_turns": rows.max_turns,
        "turns_remaining": rows.max_turns - rows.turn,
        "reservation_price": rows.reservation,
        "price_low": rows.price_low,
        "price_high": rows.price_high,
        "last_offer_price": nullable(rows.last_offer),
        "history_roles": pa.ListArray.from_arrays(pa.array(offsets), _spread(ROLES, role[source])),
        "history_prices": pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.price[source])),
        "target_action": _spread(np.array(["OFFER", "ACCEPT"]), rows.accept.astype(np.intp)),
        "target_price": nullable(rows.price),
        "success": rows.agreement[episode],
        "rho_train": nullable(rows.rho[episode]),
        "strategy": _spread(rows.strategies.ravel(), 2 * episode + rows.role),
        "opponent_strategy": _spread(rows.strategies.ravel(), 2 * episode + 1 - rows.role),
        "starter": _spread(ROLES, _starter(rows)[episode]),
        "zopa_low": nullable(limits[episode, 1]),
        "zopa_high": nullable(limits[episode, 0]),
        "seed": _integers(rows.seeds).take(pa.array(episode)),
        "split": _spread(_splits(rows, split), episode),
        "schema_version": np.full(len(rows), records.SCHEMA_VERSION, dtype=np.int32),
    }
    return _table(columns, encoded(records.STEPS))


def episodes_table(rows: StepRows, split: NDArray[np.object_] | None = None) -> pa.Table:
    """`records.EPISODES` of ``rows``, one row for each of ``rows.ids``; arguments as in `steps_table`."""
    first, limits, rho, deal = rows.first, rows.limits, rows.rho, rows.agreement
    gains = utilities(rows.deal_price, limits[:, 0], limits[:, 1], scale=(rows.price_high - rows.price_low)[first])
    ids = pa.array(rows.ids, pa.string())
    columns = {
        "trajectory_id": ids,
        "scenario_id": records.scenario_ids(ids),
        "seed": _integers(rows.seeds),
        "starter": _spread(ROLES, _starter(rows)),
        "buyer_max": nullable(limits[:, 0]),
        "seller_min": nullable(limits[:, 1]),
        "price_low": rows.price_low[first],
        "price_high": rows.price_high[first],
        "max_turns": rows.max_turns[first],
        "buyer_strategy": pa.array(rows.strategies[:, 0], pa.string()),
        "seller_strategy": pa.array(rows.strategies[:, 1], pa.string()),
        "agreement": deal,
        "price": nullable(rows.deal_price),
        "rho": nullable(rho),
        "buyer_utility": gains[:, 0],
        "seller_utility": gains[:, 1],
        "turns": np.where(deal, rows.turn[rows.last], rows.max_turns[first]),
        "split": pa.array(_splits(rows, split), pa.string()),
        "schema_version": np.full(len(rows.ids), records.SCHEMA_VERSION, dtype=np.int32),
    }
    return _table(columns, records.EPISODES)


def nullable(values: Floats) -> pa.Array:
    """NaN becomes null."""
    return pa.array(values, pa.float64(), from_pandas=True)


def _integers(values: Floats) -> pa.Array:
    known = ~np.isnan(values)
    return pa.array(np.where(known, values, 0).astype(np.int64), mask=~known)


def encoded(schema: pa.Schema) -> pa.Schema:
    """``schema`` with dictionaries in place of texts."""
    return pa.schema([field.with_type(_dictionary(field.type)) for field in schema], metadata=schema.metadata)


def _dictionary(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_dictionary(kind.value_type))
    return pa.dictionary(pa.int32(), pa.string()) if pa.types.is_string(kind) else kind


def _spread(values: NDArray, index: NDArray) -> pa.DictionaryArray:
    known = pa.array(values, pa.string()).dictionary_encode()
    distinct = len(known.dictionary) == len(values)  # then each is its own code
    codes = pa.array(index.astype(np.int32)) if distinct else known.indices.take(pa.array(index))
    return pa.DictionaryArray.from_arrays(codes, known.dictionary, safe=False)


def _starter(rows: StepRows) -> NDArray[np.intp]:
    return (rows.role + rows.turn - 1)[rows.first] % 2


def _splits(rows: StepRows, split: NDArray[np.object_] | None) -> NDArray[np.object_]:
    return np.full(len(rows.ids), "", dtype=object) if split is None else split


def _table(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(c, f.type) if isinstance(c := columns[f.name], np.ndarray) else c for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
