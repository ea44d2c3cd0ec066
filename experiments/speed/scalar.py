"""A reference to be faster than: the game in plain Python, one at a time, as published engines play it.

The same rules and the same two time-dependent strategies as ours (a test holds the prices equal), with what such an engine
does around them: an object that describes each turn to the player, the history as a list, a record of each finished game.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

WIDTH = 500.0
LOW, HIGH = 200.0, 1500.0
CAP = 0.95


@dataclass
class Turn:
    """What a player is shown."""

    turn: int
    max_turns: int
    role: str
    standing: float | None
    history: list[tuple[str, float]]
    reservation: float
    price_range: tuple[float, float]


@dataclass
class Record:
    """A finished game."""

    agreement: bool
    price: float | None
    turns: int
    rho: float
    buyer_utility: float
    seller_utility: float
    history: list[tuple[str, float]]


Player = Callable[[Turn], float | None]
"""The price that it offers, or None to accept."""


def time_dependent(beta: float) -> Player:
    """Concedes ``min(CAP, t / T) ** beta`` of the way from its selfish start to its limit, accepts what is as good."""

    def act(turn: Turn) -> float | None:
        share = min(CAP, turn.turn / turn.max_turns) ** beta
        low, high = turn.price_range
        if turn.role == "buyer":
            start = max(low, turn.reservation - WIDTH)
            offer = min(start + (turn.reservation - start) * share, turn.reservation)
            good = turn.standing is not None and turn.standing <= offer
        else:
            start = min(high, turn.reservation + WIDTH)
            offer = max(start - (start - turn.reservation) * share, turn.reservation)
            good = turn.standing is not None and turn.standing >= offer
        return None if good else round(offer, 2)

    return act


def play(
    buyer_max: float, seller_min: float, starter: str, buyer: Player, seller: Player, max_turns: int = 20
) -> Record:
    """One game."""
    history: list[tuple[str, float]] = []
    standing: float | None = None
    role = starter
    for t in range(1, max_turns + 1):
        player, limit = (buyer, buyer_max) if role == "buyer" else (seller, seller_min)
        price = player(Turn(t, max_turns, role, standing, list(history), limit, (LOW, HIGH)))
        if price is None:
            if standing is None:
                raise ValueError("accepted nothing")
            rho = (standing - seller_min) / (buyer_max - seller_min)
            return Record(True, standing, t, rho, 1.0 - rho, rho, history)
        if LOW <= price <= HIGH:
            history.append((role, price))
            standing = price
        role = "seller" if role == "buyer" else "buyer"
    return Record(False, None, max_turns, -1.0, 0.0, 0.0, history)


def games(n: int, seed: int, buyer: Player, seller: Player) -> list[Record]:
    """``n`` games as the ``paper`` preset draws them; the starter alternates."""
    draw = random.Random(seed)
    records = []
    for i in range(n):
        buyer_max = round(min(max(draw.gauss(900.0, 50.0), 700.0), HIGH), 2)
        records.append(play(buyer_max, buyer_max - WIDTH, "seller" if i % 2 else "buyer", buyer, seller))
    return records
