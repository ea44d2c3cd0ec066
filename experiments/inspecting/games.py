"""One pass over the table of episodes: what is counted of games, and digests of their scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import agents
from experiments.corpus.splits import base_name

from .digests import Digests, digest
from .source import Source, coded, numbers

Counts = NDArray[np.int64]

COLUMNS = (
    *("scenario_id", "seed", "starter", "buyer_max", "seller_min", "price_low", "price_high", "max_turns"),
    *("buyer_strategy", "seller_strategy", "agreement", "rho", "turns", "split"),
)
SEATS = ("buyer", "seller")
WIDTHS = 26
"""Classes of ZOPA width, each that part of the public range."""
UNKNOWN = "unknown"


@dataclass(slots=True)
class Games:
    """Counts over all games; digests take 17 bytes a game.

    Attributes:
        splits: ``(games, deals)`` by split.
        starters: games by who moved first; an unknown starter counts as None.
        unlabelled: deals without a ρ.
        turns: ``{turns: [impasses, deals]}``.
        ranges: games by ``(price_low, price_high, max_turns)``.
        widths: ``[1 + WIDTHS + 1, 2]`` impasses and deals by class of width: no ZOPA, the classes, wider than the range.
        extent: least and greatest width; sums of width, and of its square.
        pairs: ``{(buyer, seller): [impasses, deals]}``, names without their parameters.
        held_out: games by ``(split, strategy)`` of strategies that never train.
        outside: games with a limit outside the public range.
        scenarios, limits: digests, of games whose seed and scenario id are known (0 elsewhere), and of limits alone.
        split_of: ``[games]`` place of each game's split in `split_names`.
    """

    splits: dict[str, list[int]] = field(default_factory=dict)
    starters: Counter[str | None] = field(default_factory=Counter)
    unlabelled: int = 0
    turns: dict[int, list[int]] = field(default_factory=dict)
    ranges: Counter[tuple[float, float, int]] = field(default_factory=Counter)
    widths: Counts = field(default_factory=lambda: np.zeros((WIDTHS + 2, 2), dtype=np.int64))
    extent: list[float] = field(default_factory=lambda: [np.inf, -np.inf, 0.0, 0.0])
    pairs: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    held_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    outside: int = 0
    split_names: list[str] = field(default_factory=list)
    scenarios: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    limits: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    split_of: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.split_of)

    @property
    def impasses(self) -> int:
        """Games without a deal."""
        return len(self) - sum(deals for _, deals in self.splits.values())


def tally(source: Source) -> Games:
    """Count all games of a data set; strategies that its manifest holds out never train either."""
    apart = frozenset((source.manifest or {}).get("settings", {}).get("holdout", ()))
    found = Games()
    parts: dict[str, list[NDArray[np.generic]]] = {"scenarios": [], "limits": [], "split_of": []}
    for batch in source.batches("episodes", COLUMNS):
        if batch.num_rows:
            for name, values in _add(found, batch, apart).items():
                parts[name].append(values)
    for name, arrays in parts.items():
        if arrays:
            setattr(found, name, np.concatenate(arrays))
    return found


def _add(found: Games, batch: pa.RecordBatch, apart: frozenset[str]) -> dict[str, NDArray[np.generic]]:
    """Count a batch; returns its digests and splits."""
    buyer_max, seller_min, low, high = (
        numbers(batch.column(name)) for name in ("buyer_max", "seller_min", "price_low", "price_high")
    )
    max_turns, turns = (numbers(batch.column(name)) for name in ("max_turns", "turns"))
    deal = numbers(batch.column("agreement")) > 0
    starter, starters = coded(batch.column("starter"))
    found.starters.update({starters[k]: int(n) for k, n in _counted(starter)})
    found.unlabelled += int((deal & np.isnan(numbers(batch.column("rho")))).sum())
    for value, ended, n in _counted_pairs(turns, deal):
        found.turns.setdefault(int(value), [0, 0])[ended] += n
    rows, often = np.unique(np.stack([low, high, max_turns], axis=1), axis=0, return_counts=True)
    found.ranges.update({(a, b, int(c)): k for (a, b, c), k in zip(rows.tolist(), often.tolist(), strict=True)})
    _add_widths(found, buyer_max - seller_min, high - low, deal)
    beyond = (np.minimum(buyer_max, seller_min) < low) | (np.maximum(buyer_max, seller_min) > high)
    found.outside += int(beyond.sum())
    split = _add_splits(found, batch, deal)
    _add_strategies(found, batch, deal, split, apart)
    limits = digest([buyer_max, seller_min, low, high, max_turns])
    seed, number = numbers(batch.column("seed")), numbers(batch.column("scenario_id"))
    own = digest([seed, number, buyer_max, seller_min, low, high, max_turns])
    scenarios = np.where(np.isnan(seed) | np.isnan(number), np.uint64(0), own)
    return {"scenarios": scenarios, "limits": limits, "split_of": split}


def _add_widths(found: Games, width: NDArray[np.float64], span: NDArray[np.float64], deal: NDArray[np.bool_]) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.ceil(np.round(width / span * WIDTHS, 6))  # class k holds widths in ((k - 1), k] parts of the range
    place = np.where(width <= 0, 0, np.clip(np.nan_to_num(share, nan=WIDTHS + 1), 1, WIDTHS + 1)).astype(np.intp)
    np.add.at(found.widths, (place, deal.astype(np.intp)), 1)
    e = found.extent
    found.extent = [min(e[0], width.min()), max(e[1], width.max()), e[2] + width.sum(), e[3] + (width**2).sum()]


def _add_splits(found: Games, batch: pa.RecordBatch, deal: NDArray[np.bool_]) -> NDArray[np.uint8]:
    places, names = coded(batch.column("split"))
    for name, (games, deals) in zip(names, _outcomes(places, deal, len(names)), strict=True):
        if games:
            known = found.splits.setdefault(name or "", [0, 0])
            known[0] += games
            known[1] += deals
            if (name or "") not in found.split_names:
                found.split_names.append(name or "")
    lookup = [found.split_names.index(name or "") if (name or "") in found.split_names else 0 for name in names]
    return np.array(lookup, dtype=np.uint8)[places]


def _add_strategies(
    found: Games, batch: pa.RecordBatch, deal: NDArray[np.bool_], split: NDArray[np.uint8], apart: frozenset[str]
) -> None:
    seats = [coded(batch.column(f"{seat}_strategy")) for seat in SEATS]
    for places, names in seats:
        for name, rows in (
            (name, places == k)
            for k, name in enumerate(names)
            if name and (_held_out(name) or apart & {name, base_name(name)})
        ):
            for place, n in _counted(split[rows]):
                found.held_out[found.split_names[place], name] += n
    stems = [[_stem(name) for name in names] for _, names in seats]
    short = [sorted(set(names)) for names in stems]
    buyer, seller = (
        np.array([order.index(name) for name in names], dtype=np.intp)[seat_places]
        for order, names, (seat_places, _) in zip(short, stems, seats, strict=True)
    )
    flat = buyer * len(short[1]) + seller
    for k, (games, deals) in enumerate(_outcomes(flat, deal, len(short[0]) * len(short[1]))):
        if games:
            counts = found.pairs.setdefault((short[0][k // len(short[1])], short[1][k % len(short[1])]), [0, 0])
            counts[0] += games - deals
            counts[1] += deals


@lru_cache(maxsize=1 << 16)
def _held_out(name: str) -> bool:
    return agents.is_held_out(name)


def _stem(name: str | None) -> str:
    """A strategy without its parameters: there may be one set of them for every game."""
    return base_name(name) if name else UNKNOWN


def _counted(places: NDArray[np.integer]) -> Iterable[tuple[int, int]]:
    values, n = np.unique(places, return_counts=True)
    return zip(values.tolist(), n.tolist(), strict=True)


def _counted_pairs(values: NDArray[np.float64], flags: NDArray[np.bool_]) -> Iterable[tuple[int, int, int]]:
    for flag in (0, 1):
        for value, n in _counted(values[flags == bool(flag)].astype(np.int64)):
            yield value, flag, n


def _outcomes(places: NDArray[np.integer], deal: NDArray[np.bool_], size: int) -> Iterable[tuple[int, int]]:
    """Games and deals at each of ``size`` places."""
    games, deals = np.bincount(places, minlength=size), np.bincount(places[deal], minlength=size)
    return zip(games.tolist(), deals.tolist(), strict=True)
