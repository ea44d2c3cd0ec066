"""What all scripted strategies share: where they start, how far they may go, and one coordinate for both seats.

A strategy thinks in *concessions*: currency units given up, counted from its selfish start S toward its reservation R.
0 is S, ``reach`` is R, less is better for whoever concedes, below 0 is better than S. For the buyer
``price = S + concession``, for the seller ``price = S - concession``, so no rule below ever asks which seat it plays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bargain_env import Moves, Seat, SeatGames, SeatView
from bargain_env.core import quantise_array
from bargain_env.policy import Bools, Floats, Rows

from .checks import require_positive

Number = TypeVar("Number", np.float64, np.int64)

TIE = 1e-6
"""Two prices closer than this share of a tick are the same price: offers are rounded decimals, targets are not."""


class Decision(NamedTuple):
    """What a strategy wants of a turn, in concessions; both are ``[b]``.

    Attributes:
        offer: what it offers unless it accepts; brought into ``[0, reach]``, that is, between S and R.
        worst: the worst standing offer that it accepts, ``-inf`` for none; beyond ``reach`` it counts as ``reach``.
    """

    offer: Floats
    worst: Floats


@dataclass(eq=False)
class Frame:
    """A `SeatView` in concessions; every array is ``[b]``, in currency units, and not to be written to.

    Histories have a row a turn, ``[n, b]``, so that reading them is a few passes over long rows.

    Attributes:
        view: the view.
        start: S, the price that the strategy would like best and still thinks possible.
        limit: R, rounded to the tick in the seat's own favour.
        reach: the distance from S to R.
        width: the assumed width of the ZOPA, at least a tick.
        tick: of the games, a scalar where all have the same.
        assumes: whether a width was assumed, so that S is not just the public bound.
    """

    view: SeatView
    start: Floats
    limit: Floats
    reach: Floats
    width: Floats
    tick: Floats
    assumes: bool

    @classmethod
    def of(cls, view: SeatView, assumed_zopa_width: float | None) -> Frame:
        """The frame of ``view``; for the width see `Scripted`."""
        games = view.games
        tick, buys = common(games.tick), games.seat == Seat.BUYER
        limit = _rounded(games.reservation, -games.sign, tick)
        bound = _rounded(games.price_low if buys else games.price_high, games.sign, tick)
        reach = np.maximum(limit - bound if buys else bound - limit, 0.0)
        width, assumes = reach, assumed_zopa_width is not None
        if assumes:
            width = np.full_like(reach, assumed_zopa_width)
            reach = np.minimum(reach, width)
        start = limit - reach if buys else limit + reach
        return cls(view, start, limit, reach, np.maximum(width, tick), tick, assumes)

    def blocks(self, size: int) -> Iterator[Frame]:
        """The frame in pieces of ``size`` games, for rules that need much memory a game."""
        if len(self.view) <= size:
            yield self
            return
        for first in range(0, len(self.view), size):
            at = np.arange(first, min(first + size, len(self.view)))
            start, limit, reach, width = (x[at] for x in (self.start, self.limit, self.reach, self.width))
            tick = self.tick[at] if self.tick.ndim else self.tick
            yield Frame(self.view.take(at), start, limit, reach, width, tick, self.assumes)

    @property
    def buys(self) -> bool:
        """Whether the seat is the buyer's."""
        return self.view.games.seat == Seat.BUYER

    @property
    def elapsed(self) -> Floats:
        """The share of the turns that will have passed, t / T: ``1 / T`` on the first turn, 1 on the last."""
        return self.view.turn / self.view.games.max_turns

    @property
    def zero(self) -> Floats:
        """No concession."""
        return np.zeros(len(self.view))

    @cached_property
    def opening(self) -> Floats:
        """An offer of S as it will be on the table: not quite 0 where an assumed width takes S off the tick."""
        return self.concession(quantise_array(self.start, self.tick)) if self.assumes else self.zero

    @cached_property
    def standing(self) -> Floats:
        """The offer that may be accepted; NaN where there is none."""
        return self.concession(self.view.standing)

    @cached_property
    def made(self) -> Floats:
        """``[n, b]`` own offers, oldest first; NaN where a turn was wasted and before the game."""
        return self.concession(np.ascontiguousarray(self.view.own_offers.T))

    @cached_property
    def received(self) -> Floats:
        """``[n, b]`` the other seat's offers, likewise; the last was made on the turn before this one."""
        return self.concession(np.ascontiguousarray(self.view.opponent_offers.T))

    @cached_property
    def luck(self) -> Floats:
        """``[b, 2]`` numbers in [0, 1): the first is for what is offered, the second for what is accepted."""
        return self.view.games.uniform(self.view.turn, 2)

    def luck_of(self, rows: Rows) -> Floats:
        """The first column of `luck`, of some rows only."""
        turn = self.view.turn[rows] if isinstance(self.view.turn, np.ndarray) else self.view.turn
        return self.view.games.take(rows).uniform(turn)[:, 0]

    def concession(self, price: Floats) -> Floats:
        """``[b]`` or ``[n, b]`` prices as concessions."""
        return price - self.start if self.buys else self.start - price

    def price(self, concession: Floats) -> Floats:
        """``[b]`` concessions as prices between S and R."""
        within = self.within(concession)
        return self.start + within if self.buys else self.start - within

    def within(self, concession: Floats) -> Floats:
        """Concessions brought into ``[0, reach]``."""
        return np.minimum(np.maximum(concession, 0.0), self.reach)

    def as_made(self, concession: Floats) -> Floats:
        """Concessions as they will be on the table: brought into ``[0, reach]``, the price rounded to the tick."""
        return self.concession(quantise_array(self.price(concession), self.tick))

    def accepts(self, worst: Floats) -> Bools:
        """Where the standing offer is as good as ``worst`` (a concession) and no worse than R."""
        standing = self.view.standing
        rational = standing <= self.limit if self.buys else standing >= self.limit
        return rational & (self.standing <= worst + TIE * self.tick)


def common(values: NDArray[Number]) -> NDArray[Number]:
    """The one value of an array whose values are equal, as a scalar, which is cheaper; else the array."""
    return np.asarray(values.flat[0]) if values.size and (values == values.flat[0]).all() else values


def _rounded(price: Floats, direction: float, tick: Floats) -> Floats:
    """``price`` rounded to the tick, upward for ``direction`` 1, downward for -1."""
    nearest = quantise_array(price, tick)
    wrong_side = nearest < price if direction > 0 else nearest > price
    if not wrong_side.any():
        return nearest
    return np.where(wrong_side, quantise_array(nearest + direction * tick, tick), nearest)


@dataclass(kw_only=True, eq=False)
class Scripted(ABC):
    """A scripted `Policy`: a rule from the current `Frame` to a `Decision`.

    It keeps no memory: whatever it needs of the past is in the view, so nothing can leak from one game, seat or player
    to another (in the published code ChargingBoul's memory did).

    Attributes:
        assumed_zopa_width: None: what the seat can know, that is, S is the public bound on its side and the assumed
            width the distance from R to it. A number W: S is W away from R, within the public range; 500 is the
            published behaviour, which with the ``paper`` preset makes S the opponent's exact reservation.
        name: set by `agents.make`.
    """

    memoryless: ClassVar[bool] = True

    assumed_zopa_width: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.assumed_zopa_width is not None:
            require_positive("assumed_zopa_width", self.assumed_zopa_width)

    @property
    def mixed_turns(self) -> bool:
        """See `bargain_env.Policy`."""
        return True

    @abstractmethod
    def decide(self, frame: Frame) -> Decision:
        """The rule."""

    def reset(self, games: SeatGames) -> None:  # noqa: B027  (empty on purpose: there is no memory)
        """Nothing to forget."""

    def act(self, view: SeatView) -> Moves:
        """Accept the standing offer if it is good enough, else offer."""
        frame = Frame.of(view, self.assumed_zopa_width)
        offer, worst = self.decide(frame)
        return Moves(accept=frame.accepts(worst), price=frame.price(offer))
