"""What all scripted strategies share: where they start, how far they may go, and one coordinate for both seats.

A strategy thinks in *concessions*: currency units given up, counted from its selfish start S toward its reservation R.
0 is S, ``reach`` is R, less is better for whoever concedes, below 0 is better than S. For the buyer
``price = S + concession``, for the seller ``price = S - concession``, so no rule below ever asks which seat it plays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from bargain_env import Moves, Seat, SeatGames, SeatView
from bargain_env.core import quantise_array
from bargain_env.errors import InputError
from bargain_env.policy import Bools, Floats

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


@dataclass(frozen=True, slots=True)
class Frame:
    """A `SeatView` in concessions; every array is ``[b]``, in currency units.

    Attributes:
        view: the view.
        start: S, the price that the strategy would like best and still thinks possible.
        limit: R, rounded to the tick in the seat's own favour.
        reach: the distance from S to R.
        width: the assumed width of the ZOPA, at least a tick.
    """

    view: SeatView
    start: Floats
    limit: Floats
    reach: Floats
    width: Floats

    @classmethod
    def of(cls, view: SeatView, assumed_zopa_width: float | None) -> Frame:
        """The frame of ``view``; for the width see `Scripted`."""
        games = view.games
        limit = _rounded(games.reservation, -games.sign, games)
        bound = _rounded(games.price_low if games.seat == Seat.BUYER else games.price_high, games.sign, games)
        reach = np.maximum(games.sign * (limit - bound), 0.0)
        width = reach
        if assumed_zopa_width is not None:
            width = np.full_like(reach, assumed_zopa_width)
            reach = np.minimum(reach, width)
        return cls(view, limit - games.sign * reach, limit, reach, np.maximum(width, games.tick))

    @property
    def elapsed(self) -> Floats:
        """The share of the turns that will have passed, t / T: ``1 / T`` on the first turn, 1 on the last."""
        return self.view.turn / self.view.games.max_turns

    @property
    def zero(self) -> Floats:
        """No concession."""
        return np.zeros(len(self.view))

    @property
    def standing(self) -> Floats:
        """The offer that may be accepted; NaN where there is none."""
        return self.concession(self.view.standing)

    def concession(self, price: Floats) -> Floats:
        """``[b]`` or ``[b, n]`` prices as concessions."""
        start = self.start if price.ndim == 1 else self.start[:, None]
        return self.view.games.sign * (price - start)

    def price(self, concession: Floats) -> Floats:
        """``[b]`` concessions as prices between S and R."""
        return self.start + self.view.games.sign * np.clip(concession, 0.0, self.reach)

    def accepts(self, worst: Floats) -> Bools:
        """Where the standing offer is as good as ``worst`` (a concession) and no worse than R."""
        within = self.view.games.sign * (self.view.standing - self.limit) <= 0
        return within & (self.standing <= worst + TIE * self.view.games.tick)

    def uniform(self, n: int = 1) -> Floats:
        """``[b, n]`` numbers in [0, 1), a pure function of (seed, id, seat, turn)."""
        return self.view.games.uniform(self.view.turn, n)


def _rounded(price: Floats, direction: float, games: SeatGames) -> Floats:
    """``price`` rounded to the tick, upward for ``direction`` 1, downward for -1."""
    nearest = quantise_array(price, games.tick)
    wrong_side = direction * (nearest - price) < 0
    if not wrong_side.any():
        return nearest
    return np.where(wrong_side, quantise_array(nearest + direction * games.tick, games.tick), nearest)


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
    mixed_turns: ClassVar[bool] = True

    assumed_zopa_width: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.assumed_zopa_width is not None:
            require_positive("assumed_zopa_width", self.assumed_zopa_width)

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


def require_positive(name: str, value: float) -> None:
    """Refuse a parameter that is not a positive, finite number.

    Raises:
        InputError: it is not.
    """
    if not 0 < value < np.inf:
        raise InputError(f"{name} {value} must be a positive number")
