"""Players that are told what no seat can know: the other side's limit. Landmarks, not competitors.

They are registered as ``cheating``: no list, ranking or training set has them; they play when they are named. What they
know they take from outside the game: from the preset it was drawn from, whose draws are a pure function of seed and id,
or from the scenarios themselves. A game that is not from there is refused, so none ever plays on a wrong belief.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from bargain_env import Moves, Preset, Scenarios, SeatGames, SeatView, theory
from bargain_env.core import quantise_array
from bargain_env.errors import InputError
from bargain_env.policy import Floats
from bargain_env.theory.grid import TIE, rounded
from bargain_env.theory.known_games import KnownGames

from .ranges import Range
from .registry import StrategyInfo, assumes_width, describe, make, register, register_form
from .scripted.checks import require_between

LIMITS = ("buyer_max", "seller_min")
"""The columns that are not public, by seat."""
BEST_RESPONSE = "best_response:"
"""``best_response:NAME`` is a strategy for every NAME that needs no past."""


class Omniscient(ABC):
    """A policy that knows both limits.

    Args:
        knows: where the games come from: a preset (`agents.make_for` passes it) or the scenarios.

    Raises:
        InputError: it is told neither.
    """

    memoryless = True
    mixed_turns = True
    name = "omniscient"

    def __init__(self, knows: Preset | Scenarios | None = None) -> None:
        if knows is None:
            raise InputError(
                "an omniscient player must be told the games: agents.make_for(preset, name), or make(name, knows=scenarios)"
            )
        self.knows = knows
        self._known = KnownGames(knows) if isinstance(knows, Scenarios) else None

    def reset(self, games: SeatGames) -> None:  # noqa: B027  (empty on purpose: there is no memory)
        """Nothing to forget."""

    @abstractmethod
    def act(self, view: SeatView) -> Moves:
        """Move, knowing everything."""

    def reveal(self, games: SeatGames) -> Scenarios:
        """The games with both limits.

        Raises:
            ValueError: a game is not from where this player knows them from.
        """
        if isinstance(self.knows, Scenarios):
            assert self._known is not None
            return self.knows.take(self._known.rows(games))
        limits = [quantise_array(limit, games.tick) for limit in self.knows.draw(games.seed, games.id)]
        strange = np.flatnonzero(limits[games.seat] != games.reservation)
        if len(strange):
            raise InputError(
                f"game {games.id[strange[0]]} is not what preset {self.knows.name!r} draws for its seed and id; give the "
                "scenarios: make(name, knows=scenarios)"
            )
        public: dict[str, Any] = {f.name: getattr(games, f.name) for f in fields(Scenarios) if f.name not in LIMITS}
        return Scenarios(**public, **dict(zip(LIMITS, limits, strict=True)))  # type: ignore[arg-type]


class ZopaSplit(Omniscient):
    """Offer the price at ρ = ``share`` of the true ZOPA on every turn; accept that or better. Without a ZOPA, its limit.

    Args:
        share: the seller's, in [0, 1].
        knows: see `Omniscient`.
    """

    def __init__(self, share: float = 0.5, knows: Preset | Scenarios | None = None) -> None:
        super().__init__(knows)
        require_between("share", share, 0.0, 1.0)
        self.share = share

    def act(self, view: SeatView) -> Moves:
        """The same offer on every turn."""
        games, own = self.reveal(view.games), view.games
        price = _no_worse(own, quantise_array(games.seller_min + self.share * _zopa(games), games.tick))
        return Moves(own.sign * (view.standing - price) <= TIE * games.tick, price)


class SubgamePerfect(Omniscient):
    """The equilibrium of two sides that know everything (`theory.rubinstein.finite_horizon`), on any turn.

    On a turn with n offers still to be answered, its own included, a proposer asks for the share x(n) that leaves the
    other just what refusing would give it, and accepts ``discount · x(n)`` or more. Offers are rounded to the tick in the
    other's favour, so that two such players settle on the first offer. Without a ZOPA it offers its limit.
    """

    def act(self, view: SeatView) -> Moves:
        """Accept what waiting would give, else propose."""
        games, own = self.reveal(view.games), view.games
        share = theory.finite_horizon(np.maximum(games.max_turns - view.turn, 0), games.discount, games.discount)
        gain = own.sign * share * np.maximum(_zopa(games), 0.0)
        offer = _no_worse(own, rounded(own.reservation - gain, games.tick, own.sign))
        threshold = own.reservation - games.discount * gain
        return Moves(own.sign * (view.standing - threshold) <= TIE * games.tick, offer)


def _zopa(games: Scenarios) -> Floats:
    """``[b]`` its width, negative where there is none."""
    return games.buyer_max - games.seller_min


def _no_worse(own: SeatGames, price: Floats) -> Floats:
    """``price``, or the seat's limit where that is better for it."""
    return np.where(own.sign * (price - own.reservation) > 0, own.reservation, price)


class BestResponder:
    """The best response to one registered strategy (`theory.best_response`), found for each batch when it starts.

    Args:
        opponent: a strategy whose moves depend on the clock and the standing offer alone.
        knows: see `Omniscient`.
        assumed_zopa_width: what the opponent assumes.
    """

    memoryless = False
    name = "best response"

    def __init__(
        self, opponent: str, knows: Preset | Scenarios | None = None, assumed_zopa_width: float | None = None
    ) -> None:
        self._eyes = ZopaSplit(knows=knows)
        info = describe(opponent)
        self.opponent = make(opponent, **({"assumed_zopa_width": assumed_zopa_width} if assumes_width(info) else {}))
        self._uses_history = info.uses_history
        self._plan: theory.BestResponsePolicy | None = None

    def reset(self, games: SeatGames) -> None:
        """Find the best response in these games."""
        found = theory.best_response(
            self.opponent, self._eyes.reveal(games), games.seat, uses_history=self._uses_history
        )
        self._plan = theory.BestResponsePolicy(found)

    def act(self, view: SeatView) -> Moves:
        """As planned."""
        if self._plan is None:
            raise ValueError("reset the best response with its games first")
        return self._plan.act(view)


def _best_response(name: str) -> StrategyInfo:
    info = describe(name.removeprefix(BEST_RESPONSE))
    if info.cheating:
        raise InputError(f"{name}: {info.name} is told both limits itself; name a strategy that is not")
    rival = info.name
    return StrategyInfo(name, partial(BestResponder, rival), **_INFO, description=f"what earns most against {rival}")


_INFO: dict[str, Any] = {"family": "omniscient", "evaluable": False, "split": "held_out", "cheating": True}

register(
    "zopa_split",
    ZopaSplit,
    description="offers the middle of the true ZOPA, accepts it",
    defaults={"share": 0.5},
    ranges={"share": Range(0.0, 1.0)},
    source="this project",
    **_INFO,
)
register(
    "subgame_perfect",
    SubgamePerfect,
    description="plays the equilibrium of two sides that know everything",
    source="Rubinstein 1982, Econometrica 50:97-109; Ståhl 1972 for the deadline",
    **_INFO,
)
register_form(BEST_RESPONSE, _best_response)
