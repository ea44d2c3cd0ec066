"""Simple players, and games in any state, to try strategies on."""

import math
from dataclasses import replace

import numpy as np

import agents
import bargain_env as be
from agents.scripted import Frame
from bargain_env import Moves, Scenario, Scenarios, Seat, SeatGames, SeatView


def make(name, width=None):
    return agents.make(name, assumed_zopa_width=width)


class Stuck:
    """Offers one price for ever, accepts nothing."""

    def __init__(self, price):
        self.name, self.price = "stuck", price

    def reset(self, games):
        pass

    def act(self, view):
        return Moves(np.zeros(len(view), bool), np.full(len(view), self.price))


class Script:
    """Plays the given offers in turn, then repeats the last; NaN wastes the turn."""

    def __init__(self, *prices):
        self.name, self.prices = "script", prices

    def reset(self, games):
        pass

    def act(self, view):
        k = min((view.turn - 1) // 2, len(self.prices) - 1)
        return Moves(np.zeros(len(view), bool), np.full(len(view), self.prices[k]))


class Erratic:
    """Offers anywhere, wastes turns, accepts whatever stands now and then: nobody's idea of a partner."""

    name = "erratic"

    def reset(self, games):
        pass

    def act(self, view):
        u = view.games.uniform(view.turn, 3)
        price = np.where(u[:, 1] < 0.2, np.nan, 150.0 + 1400.0 * u[:, 0])
        return Moves(accept=u[:, 2] < 0.05, price=price)


def awkward(n):
    """``n`` games with odd ticks, limits between two of them or at a bound of the range, and 1 to 21 turns."""
    games = be.sample("no_deal", n, seed=3)
    return replace(
        games,
        buyer_max=np.where(games.id % 10 == 9, 200.0, games.buyer_max + 0.004),
        seller_min=np.where(games.id % 10 == 8, 1500.0, games.seller_min + 0.004),
        max_turns=1 + games.id % 21,
        tick=np.choose(games.id % 3, [0.01, 0.25, 7.0]),
    )


def one(**change):
    return Scenarios.of([Scenario(**{"buyer_max": 900.0, "seller_min": 400.0, **change})])


def offers(result, seat):
    row = result.prices[0, result.sides()[0] == seat]
    return row[~np.isnan(row)].tolist()


def same(a, b):
    return a.prices.tobytes() == b.prices.tobytes() and (a.kinds == b.kinds).all()


def position(turn=9, n=200, seat=Seat.BUYER, width=500.0, seed=0, wasted=False, **changes):
    """The frame of n games on ``turn``, with histories of anybody's offers within the ZOPA and around it.

    ``wasted``: the opponent made no offer on its last turn, so the one before stands; ``changes``: columns of the games.
    """
    rng = np.random.default_rng(seed)
    games = replace(be.sample("paper", n, seed=seed), **changes)
    low, high = games.seller_min - 100, games.buyer_max + 100
    prices = np.round(low[:, None] + (high - low)[:, None] * rng.random((n, turn - 1)), 2)
    if wasted:
        prices[:, -1] = math.nan
    standing = prices[:, -3 if wasted else -1] if turn > 1 else np.full(n, math.nan)
    view = SeatView(np.arange(n), SeatGames.of(games, seat), turn, standing, prices)
    return Frame.of(view, width)
