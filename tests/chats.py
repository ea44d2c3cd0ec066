"""A chat model that says what it is told to, and a game in any state, for tests of players by prompt."""

from __future__ import annotations

import numpy as np
from chat_server import decide

from agents.text import (
    Reply,
)
from bargain_env import Scenario, Scenarios, Seat, SeatGames, SeatView


class Chat:
    """A model that answers with ``say(prompt)``, and notes what it is asked."""

    def __init__(self, say=decide):
        self.say, self.asked = say, []

    def answer(self, questions):
        self.asked += questions
        return [r if isinstance(r := self.say(q.prompt), Reply) else Reply(r) for q in questions]


def view_of(past, seat=Seat.BUYER, turn=None, **changes):
    """One game in which these offers (None: a wasted turn) were made; the last one stands if the other seat made it."""
    turn = len(past) + 1 if turn is None else turn
    game = {
        "buyer_max": 905.5,
        "seller_min": 420.25,
        "price_low": 200.0,
        "price_high": 1500.0,
        "max_turns": 20,
        **changes,
    }
    games = Scenarios.of([Scenario(**game, starter=seat if turn % 2 else seat.other)])
    prices = np.array([[np.nan if price is None else price for price in past]]).reshape(1, -1)
    standing = prices[:, -1] if past else np.full(1, np.nan)
    return SeatView(np.arange(1), SeatGames.of(games, seat), turn, standing, prices)
