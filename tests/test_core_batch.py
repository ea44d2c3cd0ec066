"""The rules: core and batch are equal bit for bit, the corner cases, outcomes, and what the presets promise."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bargain_env as be
from bargain_env import Move, MoveKind, Moves, Scenario, Scenarios, Seat, State
from bargain_env.batch import BatchState
from bargain_env.core import is_over, mover, quantise, quantise_array, step

OFFER, ACCEPT, INVALID = MoveKind.OFFER, MoveKind.ACCEPT, MoveKind.INVALID
GAME = Scenario(900.0, 400.0)


def run(scenario: Scenario, moves: list[Move]) -> State:
    state = State()
    for move in moves:
        state = step(scenario, state, move)
    return state


def run_batch(games: list[Scenario], moves: list[list[Move]]) -> BatchState:
    """`moves[i][k]` is played on turn k + 1 of game i."""
    state = BatchState.start(Scenarios.of(games))
    while state.live.any():
        now = [moves[i][min(state.turn[i], len(moves[i])) - 1] for i in range(len(games))]
        state.move(state.live, np.array([m.accept for m in now], bool), np.array([m.price for m in now], float))
    return state


def assert_same(alone: State, state: BatchState, row: int) -> None:
    n = len(alone.kinds)
    kinds, offers = state.kinds[:, row], state.prices[:, row]
    assert kinds.tolist() == [*alone.kinds, *[0] * (len(kinds) - n)]
    prices = np.array([math.nan if p is None else p for p in alone.prices])
    assert offers[:n].tobytes() == prices.tobytes(), "bit for bit"
    assert np.isnan(offers[n:]).all()
    assert state.agreement[row] == alone.agreement
    standing = math.nan if alone.standing is None else alone.standing
    assert state.standing[row].tobytes() == np.float64(standing).tobytes()
    assert state.standing_seat[row] == (-1 if alone.standing_seat is None else alone.standing_seat)


PRICES = st.one_of(
    st.floats(0.0, 1.0).map(lambda u: 150.0 + 1400.0 * u),
    st.sampled_from(
        [math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 200.0, 1500.0, 199.996, 1500.004, 199.994, 450.125, -0.001]
    ),
)
MOVES = st.builds(Move, accept=st.sampled_from([False, False, False, True]), price=PRICES)
GAMES = st.builds(
    Scenario,
    buyer_max=st.just(900.0),
    seller_min=st.just(400.0),
    price_low=st.sampled_from([200.0, 0.0]),
    max_turns=st.integers(1, 8),
    starter=st.sampled_from(list(Seat)),
    tick=st.sampled_from([0.01, 0.05, 0.3, 1.0, 25.0]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(GAMES, st.lists(MOVES, min_size=8, max_size=8)), min_size=1, max_size=6))
def test_batch_equals_core_bit_for_bit(table):
    games, moves = [g for g, _ in table], [m for _, m in table]
    state = run_batch(games, moves)
    for row, (game, script) in enumerate(table):
        alone = State()
        while not is_over(game, alone):
            alone = step(game, alone, script[alone.turn - 1])
        assert_same(alone, state, row)


CORNERS = [
    ("accept nothing", [Move(True)], [INVALID], None),
    ("accept own", [Move(False, 500), Move(False, math.nan), Move(True)], [OFFER, INVALID, INVALID], None),
    ("standing outlives waste", [Move(False, 500), Move(False, 1501), Move(True), Move(True)], [1, 3, 3, 2], 500.0),
    ("deal outside the ZOPA", [Move(False, 950), Move(True)], [OFFER, ACCEPT], 950.0),
    ("latest offer counts", [Move(False, 500), Move(False, 800), Move(True)], [OFFER, OFFER, ACCEPT], 800.0),
    ("price of an acceptance is not read", [Move(False, 500), Move(True, 1.0)], [OFFER, ACCEPT], 500.0),
    ("rounded into the range", [Move(False, 199.996), Move(True)], [OFFER, ACCEPT], 200.0),
    ("a foolish number", [Move(False, 1e308), Move(False, -math.inf)], [INVALID, INVALID], None),
]


@pytest.mark.parametrize(("moves", "kinds", "deal"), [row[1:] for row in CORNERS], ids=[row[0] for row in CORNERS])
def test_corner_cases(moves, kinds, deal):
    game = replace(GAME, max_turns=len(moves))
    alone, state = run(game, moves), run_batch([game], [moves])
    assert list(alone.kinds) == kinds
    assert (alone.standing if alone.agreement else None) == deal
    assert_same(alone, state, 0)


def test_an_offer_on_the_last_turn_is_dead():
    game = replace(GAME, max_turns=3)
    moves = [Move(False, 500), Move(False, 800), Move(False, 600)]
    alone = run(game, moves)
    assert is_over(game, alone)
    assert not alone.agreement
    assert alone.prices[-1] == 600.0, "it was made"
    with pytest.raises(ValueError, match="is over"):
        step(game, alone, Move(True))
    state = run_batch([game], [moves])
    assert not state.live.any()
    assert_same(alone, state, 0)


def test_starter_and_turn_decide_the_mover():
    game = replace(GAME, starter=Seat.SELLER)
    assert [mover(game, State(turn=t)) for t in (1, 2, 3)] == [Seat.SELLER, Seat.BUYER, Seat.SELLER]


@given(st.floats(-1e6, 1e6), st.sampled_from([0.01, 0.05, 0.25, 0.3, 1.0, 7.0]))
def test_quantise_is_the_same_on_arrays(price, tick):
    assert quantise(price, tick) == quantise_array(price, tick).item()
    assert abs(quantise(price, tick) - price) <= tick / 2 * (1 + 1e-6)
    assert quantise(quantise(price, tick), tick) == quantise(price, tick)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price_low": 1500.0}, "must be below"),
        ({"buyer_max": 1500.01}, "buyer_max"),
        ({"seller_min": 199.0}, "seller_min"),
        ({"buyer_max": math.nan}, "buyer_max"),
        ({"max_turns": 0}, "max_turns"),
        ({"tick": 0.0}, "tick"),
        ({"tick": math.nan}, "tick"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.1}, "discount"),
    ],
)
def test_bad_scenarios_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(GAME, **change)


# ── play ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Erratic:
    """Offers anywhere, sometimes outside the range or nothing, accepts now and then whatever stands."""

    name = "erratic"

    def reset(self, games):
        self.games = games

    def act(self, view):
        u = view.games.uniform(view.turn, 3)
        price = np.where(u[:, 1] < 0.1, np.nan, 150.0 + 1400.0 * u[:, 0])
        return Moves(accept=u[:, 2] < 0.15, price=price)


def varied(n: int) -> Scenarios:
    games = be.sample("no_deal", n, seed=4)
    return replace(games, max_turns=1 + games.id % 9, tick=np.where(games.id % 2, 0.01, 0.25))


def test_play_follows_the_core_rules():
    games = varied(60)
    result = be.play(games, Erratic(), Erratic())
    for row in range(60):
        game, state = games[row], State()
        while not is_over(game, state):
            k = state.turn - 1
            kind, price = MoveKind(result.kinds[row, k]), result.prices[row, k]
            state = step(game, state, Move(kind == ACCEPT, price))
            assert state.kinds[k] == kind
        assert result.turns[row] == len(state.kinds)
        assert result.agreement[row] == state.agreement
        expected = state.standing if state.agreement else math.nan
        np.testing.assert_equal(result.price[row], expected)
    invalid = sum(result.count(INVALID, seat) for seat in Seat)
    assert (invalid == (result.kinds == INVALID).sum(axis=1)).all()
    assert invalid.sum() > 10, "the case was exercised"


def test_play_does_not_depend_on_company_or_order():
    games = varied(60)
    whole = be.play(games, Erratic(), Erratic())
    order = np.random.default_rng(1).permutation(60)
    for rows in (order, np.array([7]), np.arange(20, 33)):
        part = be.play(games.take(rows), Erratic(), Erratic())
        width = part.prices.shape[1]
        assert part.prices.tobytes() == whole.prices[rows, :width].tobytes()
        assert (part.kinds == whole.kinds[rows, :width]).all()


def test_routing_does_not_change_a_game():
    games = varied(40)
    plain = be.play(games, Erratic(), Erratic())
    routed = be.RoutedPolicy([Erratic(), Erratic(), Erratic()], games.id % 3)
    assert be.play(games, Erratic(), routed).prices.tobytes() == plain.prices.tobytes()


def test_one_object_cannot_hold_both_seats():
    policy = Erratic()
    with pytest.raises(ValueError, match="both seats"):
        be.play(varied(2), policy, policy)


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_settlement():
    rho = be.settlement([650.0, 400.0, 900.0, 1000.0, np.nan, 500.0], [900.0] * 5 + [400.0], [400.0] * 5 + [450.0])
    np.testing.assert_allclose(rho, [0.5, 0.0, 1.0, 1.2, np.nan, np.nan])


@pytest.mark.parametrize(
    ("price", "buyer_max", "seller_min", "discount", "turns", "expected"),
    [
        (650.0, 900.0, 400.0, 1.0, 9, (0.5, 0.5)),
        (900.0, 900.0, 400.0, 1.0, 2, (0.0, 1.0)),
        (1000.0, 900.0, 400.0, 1.0, 2, (-0.2, 1.2)),
        (math.nan, 900.0, 400.0, 0.5, 20, (0.0, 0.0)),
        (500.0, 400.0, 450.0, 1.0, 2, (-100 / 1300, 50 / 1300)),
        (650.0, 900.0, 400.0, 0.9, 2, (0.5, 0.5)),
        (650.0, 900.0, 400.0, 0.9, 5, (0.5 * 0.9**3, 0.5 * 0.9**3)),
    ],
    ids=["middle", "edge", "foolish", "impasse", "no ZOPA", "first period", "discounted"],
)
def test_utilities(price, buyer_max, seller_min, discount, turns, expected):
    got = be.utilities([price], [buyer_max], [seller_min], scale=[1300.0], discount=discount, turns=[turns])
    np.testing.assert_allclose(got, [expected], atol=1e-15)


# ── presets ───────────────────────────────────────────────────────────────────────────────────────────────────────────

MANY = 4000


@pytest.mark.parametrize("name", be.PRESETS)
def test_sampling_is_a_pure_function_of_seed_and_id(name):
    whole, part = be.sample(name, 100, seed=3), be.sample(name, 10, seed=3, first_id=50)
    for field in fields(Scenarios):
        assert getattr(part, field.name).tobytes() == getattr(whole, field.name)[50:60].tobytes(), field.name
    assert (be.sample(name, 100, seed=4).buyer_max != whole.buyer_max).all()


@pytest.mark.parametrize("name", be.PRESETS)
def test_presets_give_legal_balanced_games(name):
    games = be.sample(name, 400, seed=1)
    assert [games[row].id for row in range(400)] == list(range(400)), "every row passes the checks of Scenario"
    assert games.starter.mean() == 0.5
    for limit in (games.buyer_max, games.seller_min):
        assert (quantise_array(limit, games.tick) == limit).all()


def test_paper_preset():
    games = be.sample("paper", MANY)
    np.testing.assert_allclose(games.buyer_max - games.seller_min, 500.0)
    assert games.buyer_max.min() >= 700.0
    assert games.buyer_max.mean() == pytest.approx(900.0, abs=3)
    assert games.buyer_max.std() == pytest.approx(50.0, abs=3)


def test_hidden_preset_hides_the_width():
    games = be.sample("hidden", MANY)
    width = games.buyer_max - games.seller_min
    assert 800 <= games.buyer_max.min() < 810
    assert 1390 < games.buyer_max.max() <= 1400
    assert 59.98 <= width.min() < 70
    assert 590 < width.max() <= 600.02
    assert abs(np.corrcoef(games.buyer_max, width)[0, 1]) < 0.05
    assert np.corrcoef(games.buyer_max, games.seller_min)[0, 1] < 0.8, "one limit does not give the other away"


def test_no_deal_preset():
    games, hidden = be.sample("no_deal", MANY), be.sample("hidden", MANY)
    assert np.mean(~games.has_zopa) == pytest.approx(0.3, abs=0.025)
    gap = (games.seller_min - games.buyer_max)[~games.has_zopa]
    assert gap.min() >= 9.98
    assert gap.max() <= 100.02
    assert (games.buyer_max == hidden.buyer_max).all()
    assert (games.seller_min == hidden.seller_min)[games.has_zopa].all()


@pytest.mark.parametrize("bad", [{"name": "papre"}, {"n": 0}, {"max_turns": 0}, {"tick": -1.0}, {"discount": 2.0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        be.sample(**{"name": "paper", "n": 2, **bad})
