"""Sparring partners: a temper for every game, the same on all its turns, and what follows from it."""

import numpy as np
import pytest
from test_mixed_turns import mixed_view
from zoo import Erratic, Script, Stuck

import agents
import bargain_env as be
from agents.scripted import Frame
from agents.scripted.sparring import Temper
from bargain_env import MoveKind, Seat
from bargain_env.policy import act_in_parts
from experiments.match import opponents

BOTH = (Seat.BUYER, Seat.SELLER)
N = 400


def seated(seat, player, rival):
    return (player, rival) if seat == Seat.BUYER else (rival, player)


def sparring(width=500.0):
    return agents.make("sparring", assumed_zopa_width=width)


class Noting:
    """Plays as another does, and keeps the tempers that it was shown to have."""

    name = "noting"

    def __init__(self, player):
        self.player, self.seen = player, []

    def reset(self, games):
        self.player.reset(games)

    def act(self, view):
        self.seen.append((view.rows.copy(), np.stack(Temper.of(Frame.of(view, 500.0)), axis=1)))
        return self.player.act(view)


def given(result, seat):
    """``[B, 10]`` own offers as shares of the ZOPA that they give to the other side; NaN after the end."""
    games = result.scenarios
    mine = result.sides() == seat
    limit = games.buyer_max if seat == Seat.BUYER else games.seller_min
    away = np.abs(result.prices - limit[:, None])
    return [1.0 - away[row, mine[row] & ~np.isnan(result.prices[row])] / 500.0 for row in range(len(result))]


@pytest.mark.parametrize("seat", BOTH)
def test_a_game_has_one_temper_and_games_differ(seat):
    games = be.sample("paper", N, seed=3)
    player = Noting(sparring())
    be.play(games, *seated(seat, player, Stuck(1500.0 if seat == Seat.BUYER else 200.0)))
    first = np.full((N, 6), np.nan)
    for rows, tempers in player.seen:
        known = ~np.isnan(first[rows, 0])
        np.testing.assert_array_equal(first[rows][known], tempers[known])
        first[rows] = tempers
    assert len(np.unique(first[:, 1])) == N
    opening, floor, beta, grudge, slack, yields = first.T
    assert (floor >= opening).all()
    assert (opening.min(), opening.max()) == (pytest.approx(0.0, abs=0.01), pytest.approx(0.4, abs=0.01))
    assert (floor.min(), floor.max()) == (pytest.approx(0.25, abs=0.05), pytest.approx(1.0, abs=0.01))
    assert np.median(beta) == pytest.approx(1.0, abs=0.4)
    assert (grudge == 0).mean() == pytest.approx(0.5, abs=0.08)
    assert (slack == 0).mean() == pytest.approx(0.25, abs=0.08)
    assert yields.mean() == pytest.approx(0.25, abs=0.08)


def test_the_two_seats_of_a_game_and_two_seeds_have_their_own_tempers():
    views = [be.SeatGames.of(be.sample("paper", 5, seed=seed), seat) for seed in (3, 4) for seat in BOTH]
    drawn = [games.uniform(0, 6) for games in views]
    assert len({array.tobytes() for array in drawn}) == 4


@pytest.mark.parametrize("seat", BOTH)
@pytest.mark.parametrize("width", [500.0, None])
def test_it_never_takes_an_offer_back_nor_goes_beyond_its_limit(seat, width):
    games = be.sample("paper", N, seed=5)
    result = be.play(games, *seated(seat, sparring(width), Erratic()))
    for gifts in given(result, seat):
        assert (np.diff(gifts) >= -1e-9).all()
        assert (gifts <= 1.0 + 1e-9).all()
    deals = result.agreement
    assert deals.any()
    assert (result.utilities[deals, int(seat)] >= -1e-9).all()


@pytest.mark.parametrize("seat", BOTH)
def test_it_opens_and_ends_where_its_temper_says(seat):
    games = be.sample("paper", N, seed=6)
    stuck = 1500.0 if seat == Seat.BUYER else 200.0
    walks = be.sample("paper", N, seed=6)
    away = np.arange(10) * 4.0  # a little more than who stands still, and never a price to accept
    steps = stuck - away if seat == Seat.BUYER else stuck + away
    moved, still = (be.play(g, *seated(seat, sparring(), rival))
                    for g, rival in ((walks, Script(*steps)), (games, Stuck(stuck))))  # fmt: skip
    tempers = Noting(sparring())
    be.play(games, *seated(seat, tempers, Stuck(stuck)))
    known = np.full((N, 6), np.nan)
    for rows, values in tempers.seen:
        known[rows] = values
    last = np.array([gifts[-1] for gifts in given(moved, seat)])
    ends_late = moved.scenarios.starter != seat  # its last offer is on turn T, where its clock is 1
    np.testing.assert_allclose(last[ends_late], known[ends_late, 1], atol=1e-4)
    minds = known[:, 3] > 0.3
    stood = np.array([gifts[-1] for gifts in given(still, seat)])
    rises = known[:, 1] - known[:, 0] > 0.2
    assert (stood < last + 1e-4).all()  # a tick is 2e-5
    assert (last - stood)[minds & rises].mean() > 0.1
    np.testing.assert_allclose(stood[known[:, 3] == 0], last[known[:, 3] == 0], atol=1e-4)


@pytest.mark.parametrize("seat", BOTH)
def test_on_its_last_turn_it_takes_anything_only_if_it_yields(seat):
    games = be.sample("paper", N, seed=7)
    edge = games.buyer_max - 1.0 if seat == Seat.BUYER else games.seller_min + 1.0

    class AtItsEdge(Stuck):
        def act(self, view):
            return be.Moves(np.zeros(len(view), bool), edge[view.rows])

    player = Noting(sparring())
    result = be.play(games, *seated(seat, player, AtItsEdge(0.0)))
    known = np.full((N, 6), np.nan)
    for rows, values in player.seen:
        known[rows] = values
    yields, goes_far = known[:, 5] > 0, known[:, 1] + known[:, 4] > 0.998
    assert result.agreement[yields].all()
    assert not result.agreement[~yields & ~goes_far].any()
    assert 0.1 < result.agreement.mean() < 0.9
    at = (result.kinds == MoveKind.ACCEPT).argmax(axis=1) + 1
    assert (at[yields & ~goes_far] >= 19).all()


@pytest.mark.parametrize("seat", BOTH)
def test_a_game_does_not_depend_on_its_batch_nor_a_row_on_its_view(seat):
    games = be.sample("hidden", 60, seed=8)
    whole = be.play(games, *seated(seat, sparring(None), agents.make("tit_for_tat")))
    for row in (0, 17, 59):
        alone = be.play(games.take(np.array([row])), *seated(seat, sparring(None), agents.make("tit_for_tat")))
        np.testing.assert_array_equal(alone.prices[0], whole.prices[row])
    view, _ = mixed_view(seat)
    player = sparring()
    player.reset(view.games)
    together = player.act(view)
    apart = act_in_parts(view.turn, lambda turn, at: player.act(view.on_turn(turn, at)))
    np.testing.assert_array_equal(together.price, apart.price)
    np.testing.assert_array_equal(together.accept, apart.accept)


def test_no_pool_has_it_and_it_may_train():
    info = agents.describe("sparring")
    assert (info.may_train, info.evaluable, info.teaching) == (True, False, True)
    for group in ("all", "train", "held_out", "validation", "population:40@train"):
        assert not any(name.startswith("sparring") for name in opponents.resolve(group))
