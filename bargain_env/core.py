"""The rules of one game, pure: ``step(scenario, state, move) -> state``. No randomness, no framework.

Two seats alternate single moves. A move is ACCEPT, which ends the game at the standing offer, or OFFER price, which
replaces the standing offer. ``max_turns`` counts the moves of both seats; after it the game is an impasse, so an offer on
the last turn is dead. A move that the rules do not allow (accepting nothing, accepting one's own offer, a price that is
not finite or lies outside the public range) is a wasted turn: it is counted and changes nothing else.

`bargain_env.batch` holds the same rules for many games at once; a test holds the two equal, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Seat(IntEnum):
    """Who sits where; the integer is what arrays hold."""

    BUYER = 0
    SELLER = 1

    @property
    def label(self) -> str:
        """``buyer`` or ``seller``, as data files spell it."""
        return self.name.lower()

    @property
    def other(self) -> Seat:
        """The opposite seat."""
        return Seat(1 - self)


class MoveKind(IntEnum):
    """What happened on a turn, as `Trajectories.kinds` records it."""

    NONE = 0
    OFFER = 1
    ACCEPT = 2
    INVALID = 3


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that is fixed before the first move. Prices are in currency units.

    Attributes:
        buyer_max: the buyer's reservation: the most it may pay.
        seller_min: the seller's reservation: the least it may take. Above ``buyer_max`` there is no ZOPA.
        price_low: lower end of the public price range.
        price_high: upper end of the public price range.
        max_turns: moves of both seats together.
        starter: who moves first.
        tick: prices are rounded to multiples of this.
        discount: a deal's surplus is multiplied by this for each turn that passed before the accepted offer was made.
        id: names the game; with ``seed`` it determines every random number drawn in it.
        seed: the run seed.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    buyer_max: float
    seller_min: float
    price_low: float = 200.0
    price_high: float = 1500.0
    max_turns: int = 20
    starter: Seat = Seat.BUYER
    tick: float = 0.01
    discount: float = 1.0
    id: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.price_low < self.price_high:
            raise ValueError(f"price_low {self.price_low} must be below price_high {self.price_high}")
        for name in ("buyer_max", "seller_min"):
            value = getattr(self, name)
            if not self.price_low <= value <= self.price_high:
                raise ValueError(f"{name} {value} must lie in the public range [{self.price_low}, {self.price_high}]")
        if self.max_turns < 1:
            raise ValueError(f"max_turns {self.max_turns} must be at least 1")
        if not self.tick > 0:
            raise ValueError(f"tick {self.tick} must be positive")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount {self.discount} must lie in (0, 1]")

    def reservation(self, seat: Seat) -> float:
        """The limit of ``seat``."""
        return self.buyer_max if seat == Seat.BUYER else self.seller_min


class Move(NamedTuple):
    """ACCEPT (``price`` is not read) or OFFER ``price``."""

    accept: bool
    price: float = math.nan


class State(NamedTuple):
    """A game in progress; immutable, so whoever holds one holds that position.

    Attributes:
        turn: the turn about to be played, from 1.
        standing: the latest offer, or None.
        standing_seat: who made it.
        prices: the offer made on each past turn, None where the turn made none.
        kinds: what each past turn was.
        agreement: whether the last move accepted.
    """

    turn: int = 1
    standing: float | None = None
    standing_seat: Seat | None = None
    prices: tuple[float | None, ...] = ()
    kinds: tuple[MoveKind, ...] = ()
    agreement: bool = False


_SEATS = tuple(Seat)
_OFFER, _ACCEPT, _INVALID = MoveKind.OFFER, MoveKind.ACCEPT, MoveKind.INVALID


def mover(scenario: Scenario, state: State) -> Seat:
    """Whose turn it is."""
    return _SEATS[(scenario.starter + state.turn - 1) & 1]


def is_over(scenario: Scenario, state: State) -> bool:
    """True after a deal or after the last turn."""
    return state.agreement or state.turn > scenario.max_turns


def may_accept(scenario: Scenario, state: State) -> bool:
    """True where the seat to move faces an offer of the other seat."""
    return state.standing is not None and state.standing_seat != mover(scenario, state)


def quantise(price: float, tick: float) -> float:
    """``price`` rounded to the nearest multiple of ``tick``, halves to even.

    Where a unit holds a whole number of ticks the multiple is formed by division, which gives the double nearest to the
    decimal (674.64, not 674.6400000000001). `quantise_array` is the same on arrays, bit for bit.
    """
    per_unit = 1.0 / tick
    if per_unit.is_integer():
        return round(price * per_unit) / per_unit
    return round(price / tick) * tick


def quantise_array(price: ArrayLike, tick: ArrayLike) -> NDArray[np.float64]:
    """`quantise` element by element; NaN and infinities pass through, and what overflows becomes infinite."""
    prices, ticks = np.asarray(price, dtype=np.float64), np.asarray(tick, dtype=np.float64)
    if ticks.size > 1 and (ticks == ticks.flat[0]).all():
        ticks = np.asarray(ticks.flat[0])  # the usual case, at a third of the cost
    per_unit = 1.0 / ticks
    whole = per_unit == np.rint(per_unit)
    with np.errstate(over="ignore"):
        if ticks.ndim:
            rounded = np.where(whole, np.rint(prices * per_unit) / per_unit, np.rint(prices / ticks) * ticks)
        else:
            rounded = np.rint(prices * per_unit) / per_unit if whole else np.rint(prices / ticks) * ticks
    return rounded + 0.0  # no negative zero, as in `quantise`


def judge(
    scenario: Scenario, seat: Seat, standing: float | None, standing_seat: Seat | None, move: Move
) -> tuple[MoveKind, float | None]:
    """What ``move`` of ``seat`` amounts to while ``standing`` is on the table: its kind, and the price if it is an offer."""
    accept, price = move
    if accept:
        return (_INVALID if standing is None or standing_seat is seat else _ACCEPT), None
    # The margin of a tick leaves rounding to decide at the ends; it also keeps NaN and overflow out of `quantise`.
    low, high, tick = scenario.price_low, scenario.price_high, scenario.tick
    if low - tick <= price <= high + tick:
        price = quantise(price, tick)
        if low <= price <= high:
            return _OFFER, price
    return _INVALID, None


def step(scenario: Scenario, state: State, move: Move) -> State:
    """The state after ``move``.

    Raises:
        ValueError: the game is over.
    """
    if is_over(scenario, state):
        raise ValueError(f"game {scenario.id} is over; start a new one with State()")
    turn, standing, standing_seat, prices, kinds, _ = state
    seat = mover(scenario, state)
    kind, price = judge(scenario, seat, standing, standing_seat, move)
    if price is not None:
        standing, standing_seat = price, seat
    return State(turn + 1, standing, standing_seat, (*prices, price), (*kinds, kind), kind is _ACCEPT)
