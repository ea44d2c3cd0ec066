"""The goal-conditioned player: what it sees, what it may do, and that no network makes it do more."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_teachers import saved
from test_mixed_turns import mixed_view
from zoo import Erratic, Stuck, same

import agents
import bargain_env as be
from agents.teacher import (
    ACCEPT,
    AT_GOAL,
    CLOCK,
    CONCESSIONS,
    FAR,
    FEATURES,
    MOVES,
    PAST,
    Teacher,
    TeacherNetwork,
    features,
    latest_demand,
    legal,
    moves,
)
from bargain_env import MoveKind, RoutedPolicy, Scenario, Scenarios, Seat, SeatGames, SeatView
from bargain_env.core import quantise_array
from bargain_env.errors import InputError
from hyperlora.prompt import K_HISTORY

BOTH = list(Seat)
NAN, HALF = math.nan, np.array([0.5])
OPPONENTS = ["boulware_hard", "linear_standard", "tit_for_tat", "fair", "micro_coarse", "naive_concession"]
GOAL, SEAT, LIMIT, STANDING, BEST = range(FEATURES - 5, FEATURES)


def view(*prices, seat=Seat.BUYER, limit=900.0, max_turns=20, standing=NAN):
    """One game in which these were offered, oldest first; the last was the other seat's."""
    own = {"buyer_max": limit} if seat == Seat.BUYER else {"seller_min": limit}
    starter = seat if len(prices) % 2 == 0 else seat.other
    game = Scenario(**{"buyer_max": 1500.0, "seller_min": 200.0, "max_turns": max_turns, "starter": starter, **own})
    past = np.array(prices, dtype=float).reshape(1, -1)
    stands = past[0, -1] if prices and math.isnan(standing) else standing
    games = SeatGames.of(Scenarios.of([game]), seat)
    return SeatView(np.arange(1), games, len(prices) + 1, np.array([stands]), past)


def seen(shown, goal=0.3, scale=500.0):
    [row] = features(shown, np.full(len(shown), goal), scale)
    return row


def allowed_in(shown):
    [row] = legal(shown, 500.0)
    return row


def seated(seat, player, rival):
    return (player, rival) if seat == Seat.BUYER else (rival, player)


# ── what it sees ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_features_are_demands_newest_first_then_clock_and_facts():
    expected = np.zeros(FEATURES)
    expected[0:2] = 0.9, 1.0
    expected[PAST : PAST + 2] = 1
    expected[2 * PAST : 2 * PAST + 2] = 0.2, 0.24
    expected[3 * PAST : 3 * PAST + 2] = 1
    expected[4 * PAST + 15] = 1
    expected[4 * PAST + CLOCK], expected[4 * PAST + CLOCK + PAST - 1] = 1.0, -0.4
    expected[-5:] = 0.3, 0, 1 / 3, 0.2, 0.24
    found = seen(view(400, 780, 450, 800))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not np.allclose(seen(view(450, 800, 400, 780)), expected), "their order counts"
    twice = seen(view(400, 780, 450, 800), scale=1000.0)
    np.testing.assert_allclose(twice[: 4 * PAST : 2 * PAST], expected[: 4 * PAST : 2 * PAST] / 2, atol=1e-7)


def test_at_the_start_nothing_is_there():
    found = seen(view())
    assert not found[: 4 * PAST].any()
    assert (found[STANDING], found[BEST]) == (0, -FAR)
    answered = seen(view(900))
    assert (answered[2 * PAST], answered[3 * PAST]) == (0, 1), "an offer of its own limit is there"
    assert (answered[STANDING], answered[BEST]) == (0, 0)


def test_wasted_turns_are_absent_and_what_stands_is_kept():
    """The seller's last turn made no offer, so the one before stands."""
    whole, wasted = seen(view(400, 780, 450, 800)), seen(view(400, 780, 450, NAN, standing=780.0))
    assert (whole[2 * PAST], whole[3 * PAST]) == (pytest.approx(0.2), 1)
    assert (wasted[2 * PAST], wasted[3 * PAST]) == (0, 0)
    assert wasted[2 * PAST + 1] == pytest.approx(0.24)
    assert wasted[STANDING] == pytest.approx(0.24)
    assert wasted[BEST] == pytest.approx(0.24)
    refused = seen(view(400, 950, 450, NAN, standing=950.0))
    assert refused[BEST] == pytest.approx(-0.1), "what was not offered is not the best offer"


def test_far_offers_are_taken_for_far():
    found = seen(view(1400, 200, 1400, 1450), scale=100.0)
    assert found[0] == -FAR
    assert (found[2 * PAST + 1], found[2 * PAST]) == (FAR, -FAR)
    assert found[BEST] == FAR


def test_it_remembers_what_a_prompt_shows():
    assert 2 * PAST == K_HISTORY
    mine, theirs = np.linspace(400, 500, 12), np.linspace(880, 800, 12)

    def shown(turn, own, other):
        pairs = np.stack([mine, theirs], axis=1)
        pairs[turn] = own, other
        return seen(view(*pairs.ravel(), max_turns=40))

    before = shown(-PAST - 1, 410, 870)
    assert before[3 * PAST : 4 * PAST].all()
    assert before[PAST : 2 * PAST].all()
    assert (shown(-PAST - 1, 420, 700) == before).all()
    better = shown(-PAST, 470, 700)
    assert better[BEST] == better[3 * PAST - 1] == pytest.approx(0.4)


def test_the_clock_of_long_games_keeps_who_has_the_last_turn():
    for left in range(46):
        clock = seen(view(max_turns=left + 1))[4 * PAST : 4 * PAST + CLOCK]
        [slot] = np.flatnonzero(clock)
        assert clock[slot] == 1
        assert slot == left if left < CLOCK else (slot >= CLOCK - 2 and slot % 2 == left % 2)


def test_the_seats_are_mirror_images():
    prices = [400.0, 780.0, 450.0, NAN, 500.0, 760.0]
    buyer = seen(view(*prices, limit=900.0))
    seller = seen(view(*(1700 - price for price in prices), seat=Seat.SELLER, limit=800.0))
    unturned = seen(view(*prices, seat=Seat.SELLER, limit=800.0))
    others = np.delete(np.arange(FEATURES), [SEAT, LIMIT])
    assert not np.allclose(buyer[others], unturned[others])
    np.testing.assert_allclose(buyer[others], seller[others], atol=1e-6)
    assert (buyer[SEAT], seller[SEAT]) == (0, 1)
    assert (buyer[LIMIT], seller[LIMIT]) == (pytest.approx(1 / 3), 0)


@pytest.mark.parametrize("seat", BOTH)
def test_rows_of_mixed_turns_get_what_they_would_get_alone(seat, tmp_path):
    shown, histories = mixed_view(seat, max_turns=30)
    goal = np.linspace(0, 1, len(shown))
    teacher = Teacher(saved(tmp_path / "t", 9), goal)
    teacher.reset(shown.games)
    together, allowed, played = features(shown, goal, 500.0), legal(shown, 500.0), teacher.act(shown)
    assert len(set(shown.turn.tolist())) > 5
    assert len(set(played.price.tolist())) > 5
    assert 0 < played.accept.sum() < len(shown)
    for row in range(len(shown)):
        at = np.array([row])
        alone = SeatView(at, shown.games.take(at), int(shown.turn[row]), shown.standing[at], histories[row][None])
        assert features(alone, goal[at], 500.0).tobytes() == together[row].tobytes()
        assert (legal(alone, 500.0)[0] == allowed[row]).all()
        single = teacher.act(alone)
        assert (single.accept[0], single.price.tobytes()) == (played.accept[row], played.price[row].tobytes())


# ── what it may do ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_starts_from_a_demand_of_one_and_goes_on_from_its_latest():
    assert latest_demand(view(), 500.0) == [1.0]
    assert latest_demand(view(400, 780, 600, 800), 500.0) == pytest.approx([0.6])
    assert latest_demand(view(200, 780, 300, 800), 500.0) == [1.0], "more than the scale is the scale"
    assert latest_demand(view(400, 780, 950, 800), 500.0) == [0.0], "worse than its limit is its limit"


@pytest.mark.parametrize(("seat", "limit", "own", "other"), [(0, 900.0, 600.0, 800.0), (1, 400.0, 700.0, 500.0)])
def test_moves_concede_from_the_latest_offer(seat, limit, own, other):
    seat = Seat(seat)
    sign = 1 if seat == Seat.BUYER else -1
    shown = view(own, other, seat=seat, limit=limit)
    chosen = np.arange(MOVES)
    played = [moves(shown, np.array([k]), HALF, 500.0) for k in chosen]
    assert [bool(p.accept[0]) for p in played] == [True] + [False] * (MOVES - 1)
    assert math.isnan(played[ACCEPT].price[0])
    expected = limit - sign * 500 * np.maximum(0.6 - CONCESSIONS, 0)
    assert [p.price[0] for p in played[1:AT_GOAL]] == pytest.approx(expected.tolist())
    assert len(set(expected)) > 10


def test_accepting_is_legal_where_it_suits_the_limit():
    assert allowed_in(view(400, 800))[ACCEPT]
    assert allowed_in(view(400, 900))[ACCEPT], "its limit suits"
    assert not allowed_in(view(400, 900.01))[ACCEPT]
    assert not allowed_in(view())[ACCEPT], "nothing stands"
    seller = {"seat": Seat.SELLER, "limit": 400.0}
    assert allowed_in(view(900, 400, **seller))[ACCEPT]
    assert not allowed_in(view(900, 399.99, **seller))[ACCEPT]


def test_concessions_are_legal_down_to_the_limit():
    allowed = allowed_in(view(600, 800))[1:AT_GOAL]
    assert (allowed == (CONCESSIONS <= 0.6)).all()
    assert allowed_in(view())[1:AT_GOAL].all()
    at_limit = allowed_in(view(900, 800))[1:AT_GOAL]
    assert at_limit.tolist() == [True] + [False] * (len(CONCESSIONS) - 1), "it repeats its limit"
    rest = allowed_in(view(896.7, 800))[1:AT_GOAL]  # a demand of .0066
    assert rest[1]
    assert not rest[2:].any()
    assert moves(view(896.7, 800), np.array([2]), HALF, 500.0).price == [900.0]


@pytest.mark.parametrize(("seat", "limit", "own", "goal"), [(0, 900.0, 500.0, 0.7), (1, 400.0, 800.0, 0.3)])
def test_its_goal_is_an_opening(seat, limit, own, goal):
    """The goal leaves it .3: an offer of 750 as buyer, of 550 as seller, be it the first to move or the second."""
    seat = Seat(seat)
    for shown in (view(seat=seat, limit=limit), view(700, seat=seat, limit=limit)):
        assert allowed_in(shown)[AT_GOAL]
        played = moves(shown, np.array([AT_GOAL]), np.array([goal]), 500.0)
        assert (played.accept[0], played.price[0]) == (False, 750.0 if seat == Seat.BUYER else 550.0)
    assert not allowed_in(view(own, 700, seat=seat, limit=limit))[AT_GOAL]
    assert allowed_in(view(NAN, 700, seat=seat, limit=limit))[AT_GOAL], "a wasted turn was no opening"


# ── no network makes it do more ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Files of random networks."""
    path = tmp_path_factory.mktemp("strangers")
    return {
        name: [saved(path / f"{name}-{k}", 10 * k, name) for k in range(8)]
        for name in ("paper", "hidden")
    }  # fmt: skip


def routed_rivals(name, ids):
    preset = be.PRESETS[name]
    return RoutedPolicy([*(agents.make_for(preset, rival) for rival in OPPONENTS), Erratic()], ids // 8 % 7)


def routed_teachers(files, n):
    """One of 8 for each game, with one of 56 goals."""
    k = np.arange(n) % 56
    return RoutedPolicy([Teacher(files[i % 8], (i % 11) / 10) for i in range(56)], k)


def checked(result, seat, limit):
    """Assert what must hold in every game, and that it was put to the test; ``limit`` ``[B]`` of the teacher's seat."""
    sign = 1 if seat == Seat.BUYER else -1
    mine, games = result.sides() == seat, result.scenarios
    assert not result.count(MoveKind.INVALID, seat).any()
    own = np.where(mine, result.prices, NAN)
    worse = sign * (own - limit[:, None])
    assert not (worse > 0).any(), "worse than its limit"
    asked = result.prices[~np.isnan(result.prices) & mine]
    tick = np.broadcast_to(games.tick[:, None], own.shape)[~np.isnan(own)]
    assert (quantise_array(asked, tick) == asked).all()
    assert asked.min() >= games.price_low[0]
    assert asked.max() <= games.price_high[0]
    order = np.argsort(~mine, axis=1, kind="stable")[:, : mine.shape[1] // 2]  # its turns, in order
    steps = sign * np.diff(np.take_along_axis(own, order, axis=1), axis=1)
    assert not (steps < 0).any(), "taken back"
    last = result.sides()[np.arange(len(result)), result.turns - 1]
    accepted = result.agreement & (last == seat)
    assert not (sign * (result.price - limit) > 0)[accepted].any()
    theirs = np.where(mine, NAN, result.prices)
    assert (accepted.sum() > 20, (steps > 0).sum() > 100, (steps == 0).sum() > 100) == (True, True, True)
    assert (sign * (theirs - limit[:, None]) > 0).sum() > 30, "it was offered what does not suit it"
    return worse


@pytest.mark.parametrize("tick", [0.01, 0.25, 1.0])
@pytest.mark.parametrize("scenario", ["paper", "hidden"])
def test_nothing_is_crossed_and_nothing_taken_back(strangers, scenario, tick):
    n = 560
    for seat in BOTH:
        games = be.sample(scenario, n, seed=3, tick=tick)
        player = routed_teachers(strangers[scenario], n)
        result = be.play(games, *seated(seat, player, routed_rivals(scenario, games.id)))
        worse = checked(result, seat, games.buyer_max if seat == Seat.BUYER else games.seller_min)
        assert (worse == 0).any(), "it goes to its limit"


def test_limits_between_ticks_are_not_crossed(strangers):
    """The nearest tick of such a limit may be beyond it."""
    n = 560
    games = be.sample("hidden", n, seed=4, tick=0.25)
    games = replace(games, buyer_max=games.buyer_max + 0.2, seller_min=games.seller_min - 0.2)
    for seat in BOTH:
        limit = games.buyer_max if seat == Seat.BUYER else games.seller_min
        sign = 1 if seat == Seat.BUYER else -1
        assert (sign * (quantise_array(limit, 0.25) - limit) > 0).all()
        player = routed_teachers(strangers["hidden"], n)
        result = be.play(games, *seated(seat, player, routed_rivals("hidden", games.id)))
        worse = checked(result, seat, limit)
        assert np.nanmax(worse) == pytest.approx(-0.2), "it goes to the last tick before its limit"


def test_a_game_does_not_depend_on_its_batch(tmp_path):
    n, file = 60, saved(tmp_path / "t", 3)
    games = replace(be.sample("paper", n, seed=5), max_turns=5 + np.arange(n) % 25)
    goal = np.linspace(0, 1, n)

    def played(rows, goals=goal):
        rival = RoutedPolicy([agents.make(name, assumed_zopa_width=500.0) for name in OPPONENTS], rows % 6)
        return be.play(games.take(rows), Teacher(file, goals[rows]), rival)

    whole, order = played(np.arange(n)), np.random.default_rng(0).permutation(n)
    assert not same(played(np.arange(n), goal[::-1]), whole), "goals are heard"
    assert not same(played(order), whole)
    assert same(played(order), whole.take(order))
    for row in range(0, n, 7):
        alone, length = played(np.array([row])), games.max_turns[row]
        assert alone.prices.tobytes() == whole.prices[[row], :length].tobytes()


def test_one_instance_plays_batch_after_batch(tmp_path):
    teacher = Teacher(saved(tmp_path / "t", 3), 0.4)
    few, many = (be.play(be.sample("paper", n, seed=5), teacher, Stuck(700.0)) for n in (10, 30))
    assert same(few, many.take(np.arange(10)))


# ── its network and its goal ──────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_those_of_layers_with_a_rectifier_between():
    first = np.zeros((2, FEATURES))
    first[0, 0], first[1, 0] = 1.0, -1.0
    last = np.zeros((MOVES, 2))
    last[3] = 2.0, 5.0
    net = TeacherNetwork(((first, np.array([0.0, 0.25])), (last, np.ones(MOVES))), 500.0, "paper")
    given = np.zeros((2, FEATURES), dtype=np.float32)
    given[:, 0] = 0.5, -0.5
    assert net(given)[:, 3].tolist() == [2 * 0.5 + 1, 5 * 0.75 + 1]
    assert net(given)[:, 2].tolist() == [1, 1]


def test_the_best_legal_move_is_played(tmp_path):
    """A network that likes accepting best, then giving all."""
    score = np.zeros(MOVES)
    score[ACCEPT], score[AT_GOAL - 1] = 2.0, 1.0
    TeacherNetwork(((np.zeros((MOVES, FEATURES)), score),), 500.0, "paper").save(tmp_path / "t")
    teacher = Teacher(tmp_path / "t")
    for shown, accepts, price in ((view(400, 800), True, NAN), (view(400, 950), False, 900.0)):
        teacher.reset(shown.games)
        played = teacher.act(shown)
        assert played.accept[0] == accepts
        np.testing.assert_equal(played.price[0], price)


@pytest.mark.parametrize("goal", [-0.01, 1.01, NAN, [0.2, 1.2], [NAN, 0.5]])
def test_goals_outside_the_range(tmp_path, goal):
    file = saved(tmp_path / "t")
    Teacher(file, [0.0, 1.0])
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        Teacher(file, goal)


def test_as_many_goals_as_games(tmp_path):
    games = be.sample("paper", 3)
    file = saved(tmp_path / "t")
    be.play(games, Teacher(file, [0.2, 0.3, 0.4]), Stuck(700.0))
    with pytest.raises(ValueError, match="2 goals for 3 games"):
        be.play(games, Teacher(file, [0.2, 0.3]), Stuck(700.0))
