"""What may be chosen of the game at any face, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from . import actions
from .core import Seat, quantise
from .errors import InputError, unknown
from .observation import SIZE
from .scenarios import DEFAULT_PRESET, PRESETS, PRICE_HIGH, PRICE_LOW, Scenarios, sample

ACTION_MODES = ("grid", "box")


@dataclass(frozen=True, slots=True)
class GameSettings:
    """Options that all faces take as keyword arguments.

    Attributes:
        scenario: preset that games are drawn from: ``paper``, ``hidden`` or ``no_deal``.
        max_turns: moves of both seats together, at least 2.
        tick: prices are rounded to multiples of this, in currency units.
        discount: a deal's surplus is multiplied by this for each turn before the accepted offer, in (0, 1].
        action_mode: ``grid`` or ``box``, see `bargain_env.actions`.
        n_prices: prices on the grid, at least 2.
        turn_cost: taken from a seat's reward for each move it makes, in shares of the ZOPA, at least 0.
        opponent_weight: how much of the other seat's surplus is added to one's own, in [-1, 1]: 0 each for itself
            (general-sum), -1 zero-sum, 1 common interest.

    Raises:
        InputError: a value is out of its range; the message names it.
    """

    scenario: str = DEFAULT_PRESET
    max_turns: int = 20
    tick: float = 0.01
    discount: float = 1.0
    action_mode: str = "grid"
    n_prices: int = actions.DEFAULT_PRICES
    turn_cost: float = 0.0
    opponent_weight: float = 0.0

    @classmethod
    def of(cls, options: dict[str, Any]) -> GameSettings:
        """Settings from keyword arguments.

        Raises:
            InputError: there is no such option.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("option", name, known)
        return cls(**options)

    def __post_init__(self) -> None:
        for name in ("max_turns", "n_prices"):
            _require(name, getattr(self, name), int | np.integer, "an integer")
        for name in ("tick", "discount", "turn_cost", "opponent_weight"):
            _require(name, getattr(self, name), int | float | np.number, "a number")
        for name, known in (("scenario", PRESETS), ("action_mode", ACTION_MODES)):
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)
        if self.max_turns < 2:
            raise InputError(f"max_turns {self.max_turns} must be at least 2: an offer and its answer")
        if self.n_prices < 2:
            raise InputError(f"n_prices {self.n_prices} must be at least 2")
        if not 0 < self.discount <= 1:
            raise InputError(f"discount {self.discount} must lie in (0, 1]")
        if not 0 <= self.turn_cost < np.inf:
            raise InputError(f"turn_cost {self.turn_cost} must be 0 or more, in shares of the ZOPA")
        if not -1 <= self.opponent_weight <= 1:
            raise InputError(f"opponent_weight {self.opponent_weight} must lie in [-1, 1]")
        for price in (PRICE_LOW, PRICE_HIGH):
            if not 0 < self.tick <= PRICE_HIGH - PRICE_LOW or quantise(price, self.tick) != price:
                raise InputError(
                    f"tick {self.tick} must be positive and divide both ends of the range, {price} for one"
                )

    def draw(self, seed: Any, ids: NDArray[np.int64]) -> Scenarios:
        """The games ``ids`` of ``seed`` (a scalar, or ``[B]`` like ``ids``)."""
        return sample(
            self.scenario, seed=seed, ids=ids, max_turns=self.max_turns, tick=self.tick, discount=self.discount
        )

    def action_space(self) -> spaces.Space[Any]:
        """A new action space."""
        if self.action_mode == "box":
            return spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
        return spaces.Discrete(1 + self.n_prices)

    def observation_space(self) -> spaces.Space[Any]:
        """A new observation space: with the mask where there is one."""
        box = spaces.Box(-1.0, 1.0, (SIZE,), dtype=np.float32)
        if self.action_mode == "box":
            return box
        return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (1 + self.n_prices,), dtype=np.int8)})


def _require(name: str, value: Any, kind: Any, words: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"{name} {value!r} must be {words}")


def seat_of(name: str | Seat) -> Seat:
    """``buyer`` or ``seller`` as a `Seat`.

    Raises:
        InputError: it is neither.
    """
    if isinstance(name, Seat):
        return name
    labels = {seat.label: seat for seat in Seat}
    if name not in labels:
        raise unknown("seat", str(name), labels)
    return labels[name]


def check_seed(seed: Any) -> int:
    """``seed`` as an int.

    Raises:
        InputError: it is not an integer from 0 to 2**63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed {seed!r} must be an integer from 0 to 2**63 - 1")
    return int(seed)
