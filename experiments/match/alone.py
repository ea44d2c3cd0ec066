"""One strategy against a counterpart that never moves: the game in which only its own rule decides what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import agents
from bargain_env import MoveKind, Moves, Policy, Scenario, Scenarios, Seat, SeatGames, SeatView, Trajectories, play
from bargain_env.errors import InputError

MOST_TURNS = 10_000


class Wall:
    """Offers the public bound that suits its own seat best on each of its turns, and accepts nothing.

    As the seller that is ``price_high``, as the buyer ``price_low``.
    """

    memoryless = True
    mixed_turns = True

    def __init__(self) -> None:
        self.name = "wall"

    def reset(self, games: SeatGames) -> None:
        """Nothing to forget."""

    def act(self, view: SeatView) -> Moves:
        """The same offer again."""
        games = view.games
        price = games.price_low if games.seat == Seat.BUYER else games.price_high
        return Moves(np.zeros(len(view), dtype=bool), price)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a strategy did on one of its turns.

    Attributes:
        turn: of both seats together, from 1.
        action: ``OFFER``, ``ACCEPT`` or ``INVALID``, as the log spells it.
        price: the offer; None where it made none.
        conceded: how far that is from the selfish start (0) to the own limit (1); None without an offer.
    """

    turn: int
    action: str
    price: float | None
    conceded: float | None


@dataclass(frozen=True, slots=True)
class Alone:
    """A game against the `Wall`.

    Attributes:
        scenario: the game.
        seat: where the strategy sat.
        start: its selfish start: the public bound on its side or, where nearer, the assumed width away from its limit.
        turns: its own, in order.
    """

    scenario: Scenario
    seat: Seat
    start: float
    turns: list[Turn]

    @property
    def limit(self) -> float:
        """The strategy's reservation."""
        return self.scenario.reservation(self.seat)


def alone(policy: Policy, scenario: Scenario, seat: Seat, assumed_width: float | None = None) -> Alone:
    """Play ``policy`` at ``seat`` of ``scenario`` against the `Wall`.

    Args:
        policy: the strategy.
        scenario: the game.
        seat: where it sits.
        assumed_width: the ZOPA width that it was told to assume; None if none.
    """
    pair = policy, Wall()
    played = play(Scenarios.of([scenario]), *(pair if seat == Seat.BUYER else pair[::-1]))
    bound, sign = (scenario.price_low, 1.0) if seat == Seat.BUYER else (scenario.price_high, -1.0)
    limit = scenario.reservation(seat)
    reach = max(sign * (limit - bound), 0.0)
    if assumed_width is not None:
        reach = min(reach, assumed_width)
    return Alone(scenario, seat, limit - sign * reach, _own_turns(played, seat, limit, sign, reach))


def build(name: str, scenario: Scenario, assumed_width: float | None = None) -> Policy:
    """The strategy ``name`` for that game, told the width if one is given, and the game itself if it is one that cheats.

    Raises:
        InputError: unknown strategy, or one that assumes no width.
    """
    told: dict[str, Any] = {} if assumed_width is None else {"assumed_zopa_width": assumed_width}
    if agents.describe(name).cheating:
        told["knows"] = Scenarios.of([scenario])
    return agents.make(name, **told)


def _own_turns(played: Trajectories, seat: Seat, limit: float, sign: float, reach: float) -> list[Turn]:
    turns = []
    for column in np.flatnonzero((played.sides()[0] == seat) & (played.kinds[0] != MoveKind.NONE)).tolist():
        kind, price = MoveKind(played.kinds[0, column]), float(played.prices[0, column])
        offered = kind is MoveKind.OFFER
        share = 1.0 - sign * (limit - price) / reach if offered and reach > 0 else None
        turns.append(Turn(column + 1, kind.name, price if offered else None, share))
    return turns


def check_turns(max_turns: int) -> None:
    """Refuse a length that nobody could read.

    Raises:
        InputError: it is below 1 or above `MOST_TURNS`.
    """
    if not 1 <= max_turns <= MOST_TURNS:
        raise InputError(f"--max-turns {max_turns} must be from 1 to {MOST_TURNS}")
