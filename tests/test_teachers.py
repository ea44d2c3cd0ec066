"""Target-seeking teachers: what they aim at, what they take, what they reach, and that a game knows no company."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_mixed_turns import mixed_view
from test_strategies import ORDER, mirrored
from zoo import Erratic, Script, Stuck, awkward, offers, one, position, same

import agents
import bargain_env as be
from agents.scripted.teaching import AcNear, SeekTarget
from agents.scripted.time_dependent import Polynomial
from bargain_env import MoveKind, Seat, rng
from bargain_env.policy import act_in_parts

FAMILY = "target_seeking"
TARGETS = [k / 10 for k in range(1, 10)]
BOTH = (Seat.BUYER, Seat.SELLER)


def teacher(target, width=500.0, **params):
    return agents.make(FAMILY, target=target, assumed_zopa_width=width, **params)


def seated(seat, player, rival):
    return (player, rival) if seat == Seat.BUYER else (rival, player)


def members(n, seed=0, width=500.0):
    return agents.sample_strategies(FAMILY, n, seed, assumed_zopa_width=width)


# ── what they aim at ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seat", "width", "price"),
    [
        (Seat.BUYER, 500.0, 900.0 - 0.7 * 500.0),
        (Seat.SELLER, 500.0, 400.0 + 0.3 * 500.0),
        (Seat.BUYER, None, 900.0 - 0.7 * 700.0),  # the public range is 200 to 1500
        (Seat.SELLER, None, 400.0 + 0.3 * 1100.0),
    ],
)
def test_the_target_is_a_place_between_the_limit_and_the_selfish_start(seat, width, price):
    stuck = Stuck(1500.0 if seat == Seat.BUYER else 200.0)
    result = be.play(one(), *seated(seat, teacher(0.3, width, opening=0.0), stuck))
    assert offers(result, seat) == [pytest.approx(price)] * 10


def test_it_opens_on_the_selfish_side_or_the_generous_one_and_moves_to_the_target():
    for target, generous, first in ((0.6, 0.7, 650.0), (0.6, 0.5, 750.0), (0.05, 0.7, 400.0), (0.98, 0.7, 900.0)):
        player = teacher(target, opening=0.1, generous=generous)
        made = np.array(offers(be.play(one(), player, Stuck(1500.0)), Seat.BUYER))
        away = np.abs(made - (400.0 + 500.0 * target))
        assert made[0] == first
        assert (np.diff(away) <= 0).all()
        assert away[-1] <= 0.1 * 500.0 / 19 + 0.01, "one turn is left for the other seat"
        assert (np.sign(np.diff(made)) == (-1 if first > made[-1] else 1))[away[1:] < away[0]].all()


def test_the_shape_is_faratins():
    goal, turns = 0.5, np.arange(0, 20, 2) / 19
    for beta in (0.4, 1.0, 2.5):
        made = offers(be.play(one(), teacher(goal, opening=0.2, beta=beta), Stuck(1500.0)), Seat.BUYER)
        np.testing.assert_allclose(made, 650.0 - 100.0 * (1.0 - turns ** (1 / beta)), atol=0.0051)


@pytest.mark.parametrize("width", [500.0, None])
def test_the_seats_are_mirror_images_at_opposite_targets(width, monkeypatch):
    luck = rng.uniform
    monkeypatch.setattr(rng, "uniform", lambda *where, seat=0, **rest: luck(*where, **rest))
    drawn = members(40, seed=5, width=width)
    params = [agents.describe(member.name).defaults for member in drawn]
    turned = [agents.make(FAMILY, assumed_zopa_width=width, **{**p, "target": 1 - p["target"]}) for p in params]
    games = be.sample("hidden", 400, seed=6, tick=1 / 64)
    rivals = ["linear_standard", "boulware_hard", "fair", "tit_for_tat", "charging_boul"]

    def rival():
        return be.RoutedPolicy([agents.make(name, assumed_zopa_width=width) for name in rivals], games.id % 5)

    here = be.play(games, be.RoutedPolicy(drawn, games.id % 40), rival())
    there = be.play(mirrored(games), rival(), be.RoutedPolicy(turned, games.id % 40))
    unturned = be.play(mirrored(games), rival(), be.RoutedPolicy(members(40, 5, width), games.id % 40))
    assert (here.kinds != unturned.kinds).any()
    np.testing.assert_array_equal(here.kinds, there.kinds)
    np.testing.assert_allclose(here.prices, 1700.0 - there.prices, rtol=0, atol=1 / 64)
    assert 0.05 < here.agreement.mean() < 1


# ── what they take ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seat", BOTH)
def test_it_takes_what_is_near_on_either_side(seat):
    condition = AcNear(target_rho=0.4, tolerance=0.1, widening=0.0, late=0.2, last=0.0)
    tactic = SeekTarget(target_rho=0.4, opening=0.0, generous=1.0, tactic=Polynomial())
    frame = position(turn=9 if seat == Seat.BUYER else 10, n=400, seat=seat)
    taken = frame.accepts(condition.worst(frame, tactic.propose(frame)))
    low = frame.view.games.reservation - (500.0 if seat == Seat.BUYER else 0.0)
    rho = (frame.view.standing - low) / 500.0
    assert 0.1 < taken.mean() < 0.3
    np.testing.assert_array_equal(taken, np.abs(rho - 0.4) <= 0.1)


def test_the_tolerance_grows_late_and_ends_at_the_last():
    condition = AcNear(target_rho=0.4, tolerance=0.05, widening=0.1, late=0.2, last=0.12)
    slack = {turn: condition.slack(position(turn=turn, n=1)).item() for turn in range(1, 21)}
    assert [slack[turn] for turn in range(1, 17)] == pytest.approx([0.05] * 16)
    assert [slack[turn] for turn in (17, 18, 19, 20)] == pytest.approx([0.075, 0.1, 0.125, 0.15])
    firm = replace(condition, last=0.3)
    assert [firm.slack(position(turn=turn, n=1)).item() for turn in (18, 19, 20)] == pytest.approx([0.1, 0.3, 0.3])


def test_a_gift_is_refused_and_answered_with_what_was_asked():
    seller = Script(500.0, 500.0, 860.0)  # asks for .2, then .92 of the ZOPA
    result = be.play(one(), teacher(0.9, opening=0.0), seller)
    assert offers(result, Seat.BUYER)[:3] == [850.0] * 3
    assert (result.price[0], result.turns[0]) == (860.0, 7)
    assert be.play(one(), teacher(0.2), seller).price[0] == 500.0
    given = be.play(one(), teacher(0.9, last=0.0, widening=0.0), Stuck(500.0))
    assert not given.agreement[0], "not even at the end"


def test_without_a_standing_offer_it_offers():
    result = be.play(one(), teacher(0.5), Script(math.nan))
    assert len(offers(result, Seat.BUYER)) == 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("width", [500.0, 333.333, None])
def test_no_reservation_is_crossed(width):
    """Wasted turns, odd ticks, limits off the tick or at a bound, one-turn games."""
    n = 300
    games = awkward(n)
    for seat, limit in ((Seat.BUYER, games.buyer_max), (Seat.SELLER, games.seller_min)):
        sign = 1 if seat == Seat.BUYER else -1
        result = be.play(games, *seated(seat, be.RoutedPolicy(members(60, 7, width), games.id % 60), Erratic()))
        own = sign * (result.prices - limit[:, None])[result.sides() == seat]
        assert (own < 0).any()
        assert not (own > 0).any()
        assert not (result.count(MoveKind.INVALID, seat)[games.id % 10 < 8] > 0).any()
        accepted = result.agreement & ((games.starter + result.turns - 1) % 2 == seat)
        assert accepted.any()
        assert not (sign * (result.price - limit) > 0)[accepted].any()


# ── what they reach ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seat", BOTH)
@pytest.mark.parametrize("target", TARGETS)
def test_against_who_concedes_everything_it_settles_within_its_tolerance(seat, target):
    games = be.sample("paper", 40, seed=11)
    rival = agents.make("linear_standard", cap=1.0, assumed_zopa_width=500.0)
    result = be.play(games, *seated(seat, teacher(target, tolerance=0.05, opening=0.05), rival))
    assert result.agreement.all()
    assert np.abs(result.rho - target).max() <= 0.05 + 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_two_of_one_mind_agree_there(target):
    games = be.sample("paper", 40, seed=12)
    result = be.play(games, teacher(target), teacher(target))
    assert result.agreement.all()
    assert np.abs(result.rho - target).max() <= 0.05 + 1e-4


def test_two_of_far_targets_fail_or_end_at_the_last_tolerance():
    games = be.sample("paper", 40, seed=13)

    def ended(buyer, seller, **params):
        return be.play(games, teacher(buyer, **params), teacher(seller, **params))

    assert not ended(0.1, 0.9, last=0.0).agreement.any()
    assert not ended(0.9, 0.1, last=0.0).agreement.any(), "a gift is no agreement either"
    late = ended(0.3, 0.7, last=0.5)
    assert late.agreement.all()
    assert set(late.turns.tolist()) == {19}, "who moves on turn 19 has its last word there"
    assert np.abs(late.rho - np.where(games.starter == Seat.BUYER, 0.7, 0.3)).max() <= 0.05 + 1e-4


@pytest.mark.parametrize(("seat", "target"), [(Seat.BUYER, 0.8), (Seat.SELLER, 0.2)])
def test_requests_against_ones_own_interest_are_met(seat, target):
    """Whoever sits opposite, of those that train; an opponent that opens at its limit is refused."""
    n = len(ORDER)
    games = be.sample("paper", 8 * n, seed=14)
    pool = [agents.make(name, assumed_zopa_width=500.0) for name in ORDER]
    rival = be.RoutedPolicy(pool, np.arange(8 * n) % n)
    result = be.play(games, *seated(seat, teacher(target), rival))
    assert result.agreement.mean() > 0.85
    assert np.nanmedian(result.rho) == pytest.approx(target, abs=0.06)
    assert np.mean(np.abs(result.rho - target)[result.agreement] <= 0.15) > 0.9
    greedy = be.play(games, *seated(seat, agents.make("linear_standard", assumed_zopa_width=500.0), rival))
    assert abs(np.nanmedian(greedy.rho) - target) > 0.2, "nobody else goes there"


# ── a game knows no company ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_game_does_not_depend_on_its_batch():
    n = 60
    games = be.sample("hidden", n, seed=15)
    games = replace(games, max_turns=5 + games.id % 17)
    players, rivals = members(n, 1), members(n, 2)

    def played(rows):
        seats = ([side[row] for row in rows] for side in (players, rivals))
        return be.play(games.take(rows), *(be.RoutedPolicy(side, np.arange(len(rows))) for side in seats))

    whole, order = played(np.arange(n)), np.random.default_rng(0).permutation(n)
    assert same(played(order), whole.take(order))
    for row in range(0, n, 7):
        alone, length = played(np.array([row])), games.max_turns[row]
        assert alone.prices.tobytes() == whole.prices[[row], :length].tobytes()
    shared = be.play(games, players[0], rivals[0])
    rows = np.array([5, 3])
    assert same(be.play(games.take(rows), players[0], rivals[0]), cut(shared.take(rows), games, rows))


def cut(result, games, rows):
    """``result`` cut to the longest of its games, as a batch of them alone would be."""
    most = games.max_turns[rows].max()
    return replace(result, prices=np.ascontiguousarray(result.prices[:, :most]), kinds=result.kinds[:, :most])


@pytest.mark.parametrize("seat", BOTH)
def test_mixed_turns_are_played_as_single_ones(seat):
    view, _ = mixed_view(seat)
    for player in members(8, 4, None):
        together, apart = player.act(view), act_in_parts(view.turn, lambda t, at, p=player: p.act(view.on_turn(t, at)))
        assert len(set(together.price.tolist())) > 1
        assert together.price.tobytes() == apart.price.tobytes()
        assert (together.accept == apart.accept).all()
