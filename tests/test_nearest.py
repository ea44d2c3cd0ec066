"""The settlement nearest to a request: known answers, brute force on small games, and who cannot be asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import agents
from bargain_env import PRESETS, Moves, Scenarios, Seat, play, sample
from bargain_env.errors import InputError
from bargain_env.theory.nearest import nearest
from experiments.reporting.ceilings import ceilings


class Fixed:
    """Offers a list of prices in turn and accepts nothing, or whatever is at least as good as its next one."""

    memoryless = True

    def __init__(self, prices, stubborn=False):
        self.name, self.prices, self.stubborn = "fixed", np.array(prices), stubborn

    def reset(self, games):
        pass

    def act(self, view):
        price = self.prices[(np.broadcast_to(view.turn, len(view)) - 1) // 2]
        with np.errstate(invalid="ignore"):
            better = view.games.sign * (price - view.standing) >= 0
        return Moves(better & (not self.stubborn), price)


def one_game(starter, turns=4):
    games = sample("paper", 2, seed=1, max_turns=turns)
    row = games[int(starter)]
    assert row.starter == starter
    return Scenarios.of([row])


@pytest.mark.parametrize("starter", list(Seat))
@pytest.mark.parametrize("rho", [0.0, 0.33, 0.5, 0.8, 1.0])
def test_nobody_gets_nearer_in_small_games(starter, rho):
    games = one_game(starter)
    low, width = games.seller_min[0], 500.0
    opponent = Fixed([low + 0.9 * width, low + 0.6 * width])
    grid = low + width * np.linspace(0, 1, 11)
    best = 1.0
    for plan in itertools.product(grid, repeat=2):
        for accepts in (1, 2, 3, 4, 5):

            class Plan:
                name = "plan"

                def reset(self, games):
                    pass

                def act(self, view, plan=plan, accepts=accepts):
                    standing = ~np.isnan(view.standing)
                    return Moves(standing & (view.turn >= accepts), np.full(len(view), plan[(view.turn - 1) // 2]))

            got = play(games, Plan(), opponent).rho[0]
            best = min(best, 1.0 if np.isnan(got) else abs(got - rho))
    found = nearest(opponent, games, Seat.BUYER, rho)[0]
    assert abs(found - rho) <= best + 1e-9
    assert abs(found - rho) == pytest.approx(best, abs=0.05), "as near as prices .1 apart come"


def test_known_answers():
    games = sample("paper", 8, seed=0)
    for name, buyer in (("fair", 0.5), ("hardliner", 0.01)):
        opponent = agents.make_for(PRESETS["paper"], name)
        assert nearest(opponent, games, Seat.BUYER, 0.0) == pytest.approx(buyer, abs=1e-3)
        assert nearest(opponent, games, Seat.SELLER, 1.0) == pytest.approx(1 - buyer, abs=1e-3)
        assert nearest(opponent, games, Seat.BUYER, 0.77) == pytest.approx(0.77, abs=1e-4)


def test_an_impasse_only_where_there_is_nothing_else():
    games = one_game(Seat.SELLER)
    low = games.seller_min[0]
    assert nearest(Fixed([low + 500.0] * 2, stubborn=True), games, Seat.BUYER, 0.0)[0] == pytest.approx(1.0)
    assert np.isnan(nearest(Fixed([np.nan] * 2, stubborn=True), games, Seat.BUYER, 0.0)[0])
    assert np.isnan(nearest(Fixed([low + 501.0] * 2, stubborn=True), games, Seat.BUYER, 0.9)[0]), "beyond its own limit"
    assert nearest(Fixed([low - 1.0] * 2, stubborn=True), games, Seat.BUYER, 0.1)[0] < 0, "beyond the opponent's"


def test_who_cannot_be_asked():
    games = sample("paper", 4, seed=0)

    class Grudge(Fixed):
        def act(self, view):
            moves = super().act(view)
            return Moves(~np.isnan(view.standing) & np.isnan(view.prices[:, :-1]).all(axis=1), moves.price)

    with pytest.raises(InputError, match="uses the past"):
        nearest(Grudge([1500.0] * 10), games, Seat.BUYER, 0.2)

    class Keeper(Fixed):
        memoryless = False

    with pytest.raises(InputError, match="may keep a memory"):
        nearest(Keeper([900.0] * 10), games, Seat.BUYER, 0.2)
    nothing = sample("no_deal", 40, seed=0)
    assert not nothing.has_zopa.all()
    with pytest.raises(InputError, match="without a ZOPA"):
        nearest(Fixed([900.0] * 10), nothing, Seat.BUYER, 0.2)


def test_ceilings_of_a_pool():
    found = ceilings(["fair", "tit_for_tat", "hardliner"], "paper", [0.0, 0.5], 4)
    assert (found["opponents"], found["of"], found["games"]) == (["fair", "hardliner"], 3, 4)
    assert found["buyer"]["mae"] == pytest.approx([(0.5 + 0.01) / 2, 0.0], abs=1e-3)
    assert found["buyer"]["agreement"] == [1.0, 1.0]
    assert found["buyer"]["near"] == [0.5, 1.0], "hardliner comes to .01, fair to .5"
    hidden = ceilings(["fair_reluctant"], "hidden", [0.5], 16)["seller"]
    assert hidden["near"][0] <= hidden["agreement"][0]
    assert 0 < hidden["agreement"][0] < 1, "some sellers cannot wait long enough for it"
    assert ceilings(["tit_for_tat"], "paper", [0.5], 4)["buyer"] == {
        "mae": [], "settled": [], "agreement": [], "near": [],
    }  # fmt: skip
    assert 0 < ceilings(["fair"], "no_deal", [0.5], 16)["games"] < 16
