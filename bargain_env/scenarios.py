"""Where games come from: batches of scenarios and the presets that sample them.

`Scenarios` is a struct of arrays, one row a game; `Scenario` (in `core`) is one row. A preset is a pure function of
(seed, ids): scenario 7 of seed 0 is the same game however many others are sampled with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import rng
from .core import Scenario, Seat, quantise_array
from .errors import unknown
from .rng import Stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scenarios:
    """B games, column by column; the columns are the attributes of `Scenario`, each ``[B]``."""

    buyer_max: Floats
    seller_min: Floats
    price_low: Floats
    price_high: Floats
    max_turns: Ints
    starter: Ints
    tick: Floats
    discount: Floats
    id: Ints
    seed: Ints

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, row: int) -> Scenario:
        """Row ``row`` as a `Scenario`."""
        values = {f.name: getattr(self, f.name)[row].item() for f in fields(self)}
        return Scenario(**{**values, "starter": Seat(values["starter"])})

    def rows(self) -> list[tuple[Any, ...]]:
        """The arguments of `Scenario` for every row; in bulk, at a fraction of what `__getitem__` costs for each."""
        columns = [getattr(self, f.name).tolist() for f in fields(self)]
        columns[STARTER] = [Seat(value) for value in columns[STARTER]]
        return list(zip(*columns, strict=True))

    def take(self, rows: NDArray[np.intp]) -> Scenarios:
        """The given rows, in that order; a row may repeat."""
        return Scenarios(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def has_zopa(self) -> NDArray[np.bool_]:
        """``[B]`` whether some price suits both seats with something to share."""
        return self.buyer_max > self.seller_min

    @classmethod
    def of(cls, games: Iterable[Scenario]) -> Scenarios:
        """Columns of a list of scenarios."""
        rows = list(games)
        columns: dict[str, Any] = {f.name: np.array([getattr(s, f.name) for s in rows]) for f in fields(cls)}
        integers = ("max_turns", "starter", "id", "seed")
        return cls(**{k: v.astype(np.int64 if k in integers else np.float64) for k, v in columns.items()})


DRAWN = ("buyer_max", "seller_min", "starter", "id", "seed")
"""The columns in which games of one preset and one set of options differ."""
STARTER = [f.name for f in fields(Scenarios)].index("starter")


@dataclass(frozen=True, slots=True)
class Preset:
    """A named distribution of games.

    Attributes:
        name: what the command line calls it.
        description: one line.
        known_width: the ZOPA width that everybody may assume, or None where it is nobody's to know. Scripted strategies
            take it as ``assumed_zopa_width``.
        draw: ``(seed, ids) -> (buyer_max, seller_min)``, unrounded, both ``[B]``; ``seed`` a scalar or ``[B]``.
    """

    name: str
    description: str
    known_width: float | None
    draw: Callable[[ArrayLike, Ints], tuple[Floats, Floats]]


PRICE_LOW, PRICE_HIGH = 200.0, 1500.0
PAPER_WIDTH = 500.0
NO_DEAL_SHARE = 0.3


def _paper(seed: ArrayLike, ids: Ints) -> tuple[Floats, Floats]:
    buyer_max = np.clip(900.0 + 50.0 * rng.normal(seed, ids, stream=Stream.SCENARIO), 700.0, PRICE_HIGH)
    return buyer_max, np.round(buyer_max, 2) - PAPER_WIDTH


def _hidden(seed: ArrayLike, ids: Ints) -> tuple[Floats, Floats]:
    u = rng.uniform(seed, ids, stream=Stream.SCENARIO, n=2)
    buyer_max = 800.0 + 600.0 * u[:, 0]
    return buyer_max, buyer_max - (60.0 + 540.0 * u[:, 1])


def _no_deal(seed: ArrayLike, ids: Ints) -> tuple[Floats, Floats]:
    buyer_max, seller_min = _hidden(seed, ids)
    u = rng.uniform(seed, ids, stream=Stream.SCENARIO, turn=1, n=2)
    return buyer_max, np.where(u[:, 0] < NO_DEAL_SHARE, buyer_max + 10.0 + 90.0 * u[:, 1], seller_min)


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset("paper", "BuyerMax ~ N(900, 50) in [700, 1500], ZOPA always 500 wide", PAPER_WIDTH, _paper),
        Preset("hidden", "BuyerMax ~ U(800, 1400), ZOPA width ~ U(60, 600), independent", None, _hidden),
        Preset("no_deal", "hidden, but in 30 % of games the seller's limit is above the buyer's", None, _no_deal),
    )
}
DEFAULT_PRESET = "hidden"


def preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        InputError: there is none; the message lists them and suggests the nearest.
    """
    if name not in PRESETS:
        raise unknown("scenario preset", name, PRESETS)
    return PRESETS[name]


def sample(
    name: str = DEFAULT_PRESET,
    n: int = 1,
    *,
    seed: ArrayLike = 0,
    first_id: int = 0,
    ids: Ints | None = None,
    max_turns: int = 20,
    tick: float = 0.01,
    discount: float = 1.0,
) -> Scenarios:
    """``n`` games of a preset with ids ``first_id, first_id + 1, …``; even ids start with the buyer, odd with the seller.

    Reservations are rounded to the tick, so that a seat can offer its own limit exactly.

    Args:
        name: the preset.
        n: how many games.
        seed: the run seed, or ``[B]`` with ``ids``.
        first_id: the first id.
        ids: ``[B]`` the ids themselves, in place of ``n`` and ``first_id``.
        max_turns: see `Scenario`.
        tick: see `Scenario`.
        discount: see `Scenario`.

    Raises:
        ValueError: unknown preset, or a setting outside its range.
    """
    if n < 1:
        raise ValueError(f"n {n} must be at least 1")
    ids = np.arange(first_id, first_id + n, dtype=np.int64) if ids is None else ids
    n = len(ids)
    buyer_max, seller_min = preset(name).draw(seed, ids)
    Scenario(PRICE_HIGH, PRICE_LOW, max_turns=max_turns, tick=tick, discount=discount)  # refuse bad settings early
    return Scenarios(
        buyer_max=quantise_array(buyer_max, tick),
        seller_min=quantise_array(seller_min, tick),
        price_low=np.full(n, PRICE_LOW),
        price_high=np.full(n, PRICE_HIGH),
        max_turns=np.full(n, max_turns, dtype=np.int64),
        starter=ids % 2,
        tick=np.full(n, tick),
        discount=np.full(n, discount),
        id=np.array(ids),
        seed=np.broadcast_to(np.asarray(seed, dtype=np.int64), (n,)).copy(),
    )
