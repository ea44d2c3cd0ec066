"""One decision as a human or a program describes it, and as the `SeatView` that a policy is shown.

Four ways to say it are understood: a `Situation`, a dict of its fields, what the environments of `bargain_env` observe with
what that leaves out, and a `SeatView` itself.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from bargain_env.core import Seat, quantise
from bargain_env.errors import InputError
from bargain_env.observation import HEAD, REMEMBERED, SIDES, SIZE
from bargain_env.policy import SeatGames, SeatView
from bargain_env.settings import seat_of

Offer = tuple[str | Seat, float | None]
_UNSAID = ("max_turns", "price_low", "price_high")
"""What a game's observation leaves out: its clock and its prices are shares."""
_BESIDE = (*_UNSAID, "tick", "id", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A seat about to move. Prices are in currency units.

    Attributes:
        seat: ``buyer`` or ``seller``: who is to move.
        reservation: its limit: the most a buyer may pay, the least a seller may take.
        price_low: lower end of the public price range.
        price_high: upper end.
        max_turns: moves of both seats together.
        offers: ``(seat, price)`` of every offer so far, oldest first; a price of None for a turn that made none.
        turn: the turn about to be played, from 1; by default the one after ``offers``. Give it where turns were wasted and
            are not in ``offers``, or the oldest offers are left out.
        tick: prices are multiples of it.
        id: names the game; read by modes that draw.
        seed: likewise.

    Raises:
        InputError: a value is out of its range, or the offers do not fit the turn; names the field.
    """

    seat: Seat | str
    reservation: float
    price_low: float
    price_high: float
    max_turns: int
    offers: Sequence[Offer] = ()
    turn: int | None = None
    tick: float = 0.01
    id: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seat", self.mover)
        for name in ("reservation", "price_low", "price_high", "tick"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name, least in (("max_turns", 1), ("id", 0), ("seed", 0)):
            object.__setattr__(self, name, _integer(name, getattr(self, name), least))
        if not self.price_low < self.price_high:
            raise InputError(f"price_low {self.price_low:g} must be below price_high {self.price_high:g}")
        if not self.tick > 0:
            raise InputError(f"tick {self.tick:g} must be positive")
        self._check_price("reservation", self.reservation)
        object.__setattr__(self, "offers", tuple(self._offer(i, offer) for i, offer in enumerate(self.offers)))
        turn = self._next_turn() if self.turn is None else _integer("turn", self.turn, 1)
        if turn > self.max_turns:
            raise InputError(f"turn {turn} is after the last one, max_turns {self.max_turns}: the game is over")
        object.__setattr__(self, "turn", turn)
        self.prices()

    @property
    def mover(self) -> Seat:
        """``seat``, whichever way it was given."""
        return seat_of(self.seat)

    def _offer(self, i: int, offer: Any) -> tuple[Seat, float | None]:
        if not isinstance(offer, Sequence) or isinstance(offer, str) or len(offer) != 2:
            raise InputError(f"offers[{i}] is {offer!r}; give (seat, price)")
        try:
            seat = seat_of(offer[0])
        except InputError as error:
            raise InputError(f"offers[{i}]: {error}") from None
        if offer[1] is None:
            return seat, None
        price = _number(f"offers[{i}] price", offer[1])
        self._check_price(f"offers[{i}] price", price)
        return seat, price

    def _check_price(self, name: str, price: float) -> None:
        if not self.price_low <= price <= self.price_high:
            raise InputError(
                f"{name} {price:g} is outside the public range, price_low {self.price_low:g} to price_high "
                f"{self.price_high:g}"
            )

    def _next_turn(self) -> int:
        """The turn after ``offers``, if they alternate up to this seat's move."""
        for i, (seat, _) in enumerate(reversed(self.offers)):
            if seat != (self.mover if i % 2 else self.mover.other):
                raise InputError(
                    f"offers do not alternate up to a move of the {self.mover.label}; give the turn if moves were wasted"
                )
        return len(self.offers) + 1

    def prices(self) -> list[float]:
        """The offer made on each past turn, oldest first; NaN where it made none or nobody says.

        Seats alternate, so an offer was made on a turn of its seat: the latest one that is not taken by a later offer.

        Raises:
            InputError: there are fewer turns than that takes.
        """
        assert self.turn is not None
        past, at = [math.nan] * (self.turn - 1), self.turn - 1
        for seat, price in reversed(self.offers):
            at -= int(seat != (self.mover if (self.turn - at) % 2 == 0 else self.mover.other))
            if at < 1:
                raise InputError(
                    f"offers: {len(self.offers)} do not fit into the {len(past)} turns before turn {self.turn}, on which "
                    "the seats alternate"
                )
            past[at - 1], at = math.nan if price is None else price, at - 1
        return past


def situation_of(observation: Any, k_history: int) -> Situation:
    """``observation`` as a `Situation`.

    Args:
        observation: a `Situation`; a mapping of its fields; or a mapping that holds, as ``observation``, the numbers that an
            environment of `bargain_env` shows a seat and beside them ``max_turns``, ``price_low`` and ``price_high``
            (``tick``, ``id`` and ``seed`` may be there too; ``action_mask`` is not read).
        k_history: offers that a prompt can show.

    Raises:
        InputError: it is none of these; a field is missing, unknown or out of its range; the game is over or the other
            seat's to move; or these numbers do not reach back far enough. The message names the field.
    """
    if isinstance(observation, Situation):
        return observation
    if not isinstance(observation, Mapping):
        bare = isinstance(observation, np.ndarray) or (
            isinstance(observation, Sequence) and not isinstance(observation, str)
        )
        if bare and np.shape(observation) == (SIZE,):
            raise InputError(
                f"an environment's {SIZE} numbers leave out {', '.join(_UNSAID)}; give "
                "{'observation': them, 'max_turns': 20, 'price_low': 200, 'price_high': 1500}"
            )
        raise InputError(
            f"cannot read a {type(observation).__name__} as a situation; give an agents.Situation, a dict of its fields, an "
            "environment's observation in a dict, or a SeatView"
        )
    if "observation" in observation:
        return _of_environment(observation, k_history)
    known = [f.name for f in fields(Situation)]
    required = [f.name for f in fields(Situation) if f.default is MISSING]
    _check_names(observation, known, required)
    return Situation(**observation)


def _check_names(given: Mapping[str, Any], known: Sequence[str], required: Sequence[str]) -> None:
    """Raise `InputError` for a field that there is not, or that is missing."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"a situation has no field {name!r}; {hint}known: {', '.join(known)}")
    missing = [name for name in required if name not in given]
    if missing:
        raise InputError(f"the situation lacks {', '.join(missing)}; given: {', '.join(map(str, given)) or 'nothing'}")


def _of_environment(given: Mapping[str, Any], k_history: int) -> Situation:
    """A `Situation` from the numbers of `bargain_env.observation`.

    They show the last turns only, and prices as shares of the range in float32. That is enough for the same prompt, to the
    last digit, where these turns hold all offers that the prompt shows and where the tick, to which prices are rounded
    back, is well above float32's resolution.
    """
    _check_names(given, ("observation", "action_mask", *_BESIDE), _UNSAID)
    beside = {name: given[name] for name in _BESIDE if name in given}
    low, high = _number("price_low", given["price_low"]), _number("price_high", given["price_high"])
    tick = _number("tick", given.get("tick", 0.01))
    most = _integer("max_turns", given["max_turns"], 1)
    try:
        seen = np.asarray(given["observation"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("observation holds something that is no number") from error
    if seen.shape != (SIZE,) or not np.isfinite(seen).all():
        raise InputError(f"observation must be {SIZE} finite numbers, see bargain_env.observation; got {seen.shape}")
    clock = (seen[1] + 1.0) / 2.0 * most
    turn = round(clock) + 1
    if abs(clock - (turn - 1)) > 1e-3:
        raise InputError(f"observation[1], the clock, stands between two of {most} turns; another max_turns?")
    if seen[2] < 0:
        raise InputError("observation[2] says that this seat is not to move, or the game is over; nothing to decide")
    seat = Seat.BUYER if seen[0] < 0 else Seat.SELLER

    def price(share: float) -> float:
        return quantise(low + (share + 1.0) / 2.0 * (high - low), tick)

    shown = min(turn - 1, REMEMBERED)
    made = seen[SIDES : SIDES + shown] != 0
    if turn - 1 > REMEMBERED and (not made.all() or k_history > REMEMBERED):
        raise InputError(
            f"observation shows the last {REMEMBERED} turns, and earlier offers belong into the prompt of turn {turn}; give "
            "a Situation with all offers"
        )
    offers = [((seat.other, seat)[i % 2], price(seen[HEAD + i]) if made[i] else None) for i in reversed(range(shown))]
    return Situation(seat=seat, reservation=price(seen[3]), offers=offers, turn=turn, **beside)


def view_of(situations: Sequence[Situation]) -> SeatView:
    """Situations of one seat, at least one, as what a policy is shown of them; turns may differ."""
    seat, n = situations[0].mover, len(situations)
    turn = np.array([s.turn for s in situations], dtype=np.int64)
    prices = np.full((n, int(turn.max()) - 1), np.nan)
    for row, situation in zip(prices, situations, strict=True):
        past = situation.prices()
        row[len(row) - len(past) :] = past
    columns: dict[str, Any] = {
        name: np.array([getattr(s, name) for s in situations], dtype=np.float64)
        for name in ("reservation", "price_low", "price_high", "tick")
    }
    columns |= {
        name: np.array([getattr(s, name) for s in situations], dtype=np.int64) for name in ("max_turns", "id", "seed")
    }
    columns |= {"starter": (int(seat) + turn - 1) % 2, "discount": np.ones(n)}
    return SeatView(np.arange(n), SeatGames(seat, columns), turn, acceptable(prices), prices)


def acceptable(prices: np.ndarray) -> np.ndarray:
    """``[b]`` the latest offer if the other seat made it, who moves on every second turn from the last; else NaN."""
    if not prices.shape[1]:
        return np.full(len(prices), np.nan)
    ago = np.argmax(~np.isnan(prices[:, ::-1]), axis=1)
    latest = np.take_along_axis(prices, prices.shape[1] - 1 - ago[:, None], axis=1)[:, 0]
    return np.where(ago % 2 == 0, latest, np.nan)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise InputError(f"{name} {value!r} must be a finite number")
    return float(value)


def _integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} {value!r} must be an integer, at least {least}")
    return int(value)
