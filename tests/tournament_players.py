"""Players for the tests of tournaments: cheap, and each with one property to be found again in the results."""

from typing import ClassVar

import numpy as np

from bargain_env import Moves, Seat
from experiments.match.contestants import Contestant


class Dial:
    """Offers ρ of a 500 wide ZOPA, and accepts nothing else, so every deal settles at the ρ that it was given."""

    def __init__(self, rho):
        self.name, self.rho = "dial", rho

    def reset(self, games):
        assert len(self.rho) == len(games)
        self.floor = games.reservation - (500.0 if games.seat == Seat.BUYER else 0.0)

    def act(self, view):
        rho = self.rho[view.rows]
        price = np.where(rho >= 0, self.floor[view.rows] + 500.0 * rho, np.nan)  # -1: waste every turn
        with np.errstate(invalid="ignore"):
            accept = np.abs(view.standing - price) < 0.01
        return Moves(accept, price, guarded=np.full(len(view), view.turn <= 2))


class Taker:
    """Offers its own limit and accepts whatever is not worse than a random threshold; remembers what it drew."""

    seen: ClassVar[list] = []

    def __init__(self, assumed_zopa_width=None, picky=0.0):
        self.name, self.picky, self.width = "taker", picky, assumed_zopa_width

    def reset(self, games):
        assert self.width == 500.0  # scripts know what the preset makes common knowledge
        Taker.seen.append((games.id, games.reservation))

    def act(self, view):
        games = view.games
        draw = games.uniform(view.turn)[:, 0]
        Taker.seen[-1] += ((view.turn, games.id, draw),)
        surplus = games.sign * (games.reservation - view.standing)
        with np.errstate(invalid="ignore"):
            accept = surplus >= 500.0 * self.picky * draw
        return Moves(accept, games.reservation)


class Stone:
    """Wastes every turn."""

    name = "stone"

    def reset(self, games):
        pass

    def act(self, view):
        return Moves(np.zeros(len(view), bool), np.full(len(view), np.nan))


def dial(label="dial", shuffled=False):
    return Contestant(label, takes_rho=True, build=lambda rho, _: Dial(rho), shuffled=shuffled, control=shuffled)
