"""The games that models are fitted to: drawn by the digest of their id, with what a seat sees at each decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bargain_env import rng
from bargain_env.rng import Stream
from experiments.corpus.records import HISTORY_LENGTH

from .games import SEATS
from .moves import hashed
from .source import Group, Source, coded, groups, numbers, recoded

Floats = NDArray[np.float64]

COLUMNS = (
    *("trajectory_id", "turn", "role", "max_turns", "reservation_price", "price_low", "price_high"),
    *("last_offer_price", "history_roles", "history_prices", "success", "rho_train", "starter", "zopa_low"),
    "zopa_high",
)
LIMIT = ("own limit", "price_low", "price_high", "max_turns")
"""What every game tells a seat before it begins."""
DIGITS = ("own limit mod 1", "own limit mod 10")
"""The last digits, in which nothing should be hidden; a tree would need a thousand leaves to find them itself."""
TALK = (
    "standing offer",
    "standing offer mod 1",
    "own offers",
    *(f"offer {k} ago" for k in range(1, HISTORY_LENGTH + 1)),
)
"""The offers so far, as the columns give them; prices as distances from the own limit."""
SEEN = ("turn", *LIMIT, *DIGITS, *TALK)
"""All that a seat sees when it decides."""
_SPREAD = 4
"""Row groups are read until they hold this many times the games wanted, so that those come from many places."""
_LEAST_GROUPS = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """Decisions of some games.

    Attributes:
        ids: ``[games]`` trajectory ids.
        game: ``[n]`` place of each decision's game in ``ids``.
        row: ``[n]`` its row in the table.
        turn: ``[n]`` from 1.
        seat: ``[n]`` 0 buyer, 1 seller.
        starter: ``[n]`` likewise; -1 where unknown.
        seen: ``[n, len(SEEN)]``; NaN where there is nothing to see.
        own, other: ``[n]`` reservations of the seat that decides and of the other.
        success: ``[n]`` 1 for a deal.
        rho: ``[n]`` the label; -1 at an impasse, NaN where there is none.
    """

    ids: list[str]
    game: NDArray[np.intp]
    row: NDArray[np.int64]
    turn: NDArray[np.int64]
    seat: NDArray[np.intp]
    starter: NDArray[np.intp]
    seen: Floats
    own: Floats
    other: Floats
    success: Floats
    rho: Floats

    def columns(self, names: tuple[str, ...]) -> Floats:
        """``[n, len(names)]`` some of what is seen."""
        return self.seen[:, [SEEN.index(name) for name in names]]

    @property
    def opening(self) -> NDArray[np.bool_]:
        """``[n]`` whether it is the first decision of its game."""
        return self.turn == 1


def draw(source: Source, games: int, wanted: int, seed: int) -> Sample:
    """About ``wanted`` of the ``games`` games of a data set, all where there are no more: a pure function of the seed.

    Args:
        source: the data set.
        games: how many there are.
        wanted: how many are wanted.
        seed: picks row groups, then games by the digest of their id.
    """
    share = min(1.0, wanted / max(games, 1))
    chosen, covered = _chosen(groups(source), share, seed)
    ids: dict[str, int] = {}
    parts = [part for group in chosen if (part := _of_group(group, share / covered, ids, seed)) is not None]
    columns: Any = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Sample(list(ids), *columns)


def _chosen(every: list[Group], share: float, seed: int) -> tuple[list[Group], float]:
    """Row groups to read, in order, and the share of rows that they hold."""
    total = sum(group.rows for group in every)
    if share >= 1.0 or not total:
        return every, 1.0
    order = np.argsort(rng.uniform(seed, np.arange(len(every)), stream=Stream.PAIRING)[:, 0], kind="stable")
    taken: list[int] = []
    while len(taken) < len(every) and (
        len(taken) < _LEAST_GROUPS or sum(every[k].rows for k in taken) < _SPREAD * share * total
    ):
        taken.append(int(order[len(taken)]))
    return [every[k] for k in sorted(taken)], max(share, sum(every[k].rows for k in taken) / total)


def _of_group(group: Group, share: float, ids: dict[str, int], seed: int) -> tuple[NDArray[np.generic], ...] | None:
    """The fields of `Sample` after its ids, for the games of a row group that the seed picks."""
    places, names = coded(group.read(["trajectory_id"]).column(0))
    number = (hashed(names) >> np.uint64(1)).astype(np.int64)
    picked = (rng.uniform(seed, number, stream=Stream.PAIRING)[:, 0] < share)[places]
    if not picked.any():
        return None
    table = group.read(COLUMNS).filter(pa.array(picked)).combine_chunks()
    game = np.array([ids.setdefault(names[k] or "", len(ids)) for k in places[picked]], dtype=np.intp)
    row = group.first + np.flatnonzero(picked)
    seat, starter = (recoded(table.column(name), SEATS) for name in ("role", "starter"))
    low, high = numbers(table.column("zopa_low")), numbers(table.column("zopa_high"))
    own = numbers(table.column("reservation_price"))
    turn = numbers(table.column("turn"))
    rest = (numbers(table.column(name)) for name in ("success", "rho_train"))
    seen = _seen(table, own, seat)
    return (game, row, turn.astype(np.int64), seat, starter, seen, own, np.where(seat == 0, low, high), *rest)


def _seen(table: pa.Table, own: Floats, seat: NDArray[np.intp]) -> Floats:
    """``[n, len(SEEN)]``."""
    turn, low, high, limit = (numbers(table.column(n)) for n in ("turn", "price_low", "price_high", "max_turns"))
    standing = numbers(table.column("last_offer_price"))
    prices, ages, of = _history(table.column("history_prices"))
    offers = np.full((len(own), HISTORY_LENGTH), np.nan)
    kept = ages < HISTORY_LENGTH
    offers[of[kept], ages[kept]] = prices[kept]
    roles, _, speaker = _history(table.column("history_roles"))
    mine = np.bincount(speaker[roles == seat[speaker]], minlength=len(own))
    digits = (np.round(own % 1, 6), np.round(own % 10, 6))
    talk = (standing - own, np.round(standing % 1, 6), mine, *(offers - own[:, None]).T)
    return np.stack([turn, own, low, high, limit, *digits, *talk], axis=1)


def _history(column: pa.ChunkedArray) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Entries of a list column: value (roles as places in `SEATS`), age from 0 for the newest, and row."""
    lists = column.combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    row = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.intp)
    flat = pc.list_flatten(lists)
    value = numbers(flat) if pa.types.is_floating(flat.type) else recoded(flat, SEATS).astype(np.float64)
    length = np.bincount(row, minlength=len(lists))
    age = np.cumsum(length)[row] - 1 - np.arange(len(row))
    return value, age.astype(np.intp), row


def at_opening(own: Floats, low: Floats, high: Floats, max_turns: Floats) -> Floats:
    """``[n, len(SEEN)]`` what a seat sees that opens a game, each argument ``[n]``."""
    seen = np.full((len(own), len(SEEN)), np.nan)
    digits = (np.round(own % 1, 6), np.round(own % 10, 6))
    for name, values in zip(("turn", *LIMIT, *DIGITS), (1.0, own, low, high, max_turns, *digits), strict=True):
        seen[:, SEEN.index(name)] = values
    seen[:, SEEN.index("own offers")] = 0.0
    return seen
