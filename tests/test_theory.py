"""`bargain_env.theory`: oracle figures, closed forms against induction and play, best responses against brute force."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agents
from bargain_env import (
    Moves,
    RoutedPolicy,
    Scenario,
    Scenarios,
    Seat,
    SeatGames,
    SeatView,
    play,
    preset,
    sample,
    theory,
)
from bargain_env.errors import InputError
from bargain_env.policy import act_on_any_turns
from bargain_env.theory import grid, history_free, questions

# ── cooperative ───────────────────────────────────────────────────────────────────────────────────────────────────────

SOLUTIONS = (theory.nash, theory.kalai_smorodinsky, theory.egalitarian)
EXPONENT = st.floats(0.05, 3.0)


@pytest.mark.parametrize(
    ("exponent", "nash", "ks"), [(0.3, 961.54, 918.88), (0.6, 875.00, 852.61), (1.0, 800.0, 800.0)]
)
def test_cooperative_oracles(exponent, nash, ks):
    assert theory.nash(1100, 500, buyer_exponent=exponent) == pytest.approx(nash, abs=0.005)
    assert theory.kalai_smorodinsky(1100, 500, buyer_exponent=exponent) == pytest.approx(ks, abs=0.005)


@settings(max_examples=60, deadline=None)
@given(EXPONENT, EXPONENT, st.floats(0.02, 0.98), st.floats(1.0, 900.0))
def test_cooperative_solutions_solve_their_problem(b, s, weight, width):
    low, high = 300.0, 300.0 + width
    crra = {"buyer_exponent": b, "seller_exponent": s}

    def gains(price, unit=width):
        return ((high - price) / unit) ** b, ((price - low) / unit) ** s

    price = theory.nash(high, low, weight, **crra)
    others = np.linspace(low, high, 401)[1:-1]
    product = [gains(p)[1] ** weight * gains(p)[0] ** (1 - weight) for p in (price, *others)]
    assert product[0] >= max(product) * (1 - 1e-12)
    buyer, seller = gains(theory.kalai_smorodinsky(high, low, **crra))
    assert buyer == pytest.approx(seller, rel=1e-6, abs=1e-6)  # both ideals are 1
    buyer, seller = gains(theory.egalitarian(high, low, unit=1.0, **crra), unit=1.0)
    assert buyer == pytest.approx(seller, rel=1e-4, abs=1e-6)
    assert theory.egalitarian(high, low, **crra) == theory.kalai_smorodinsky(high, low, **crra)


@settings(max_examples=40, deadline=None)
@given(EXPONENT, EXPONENT, st.floats(0.1, 10.0))
def test_cooperative_symmetries(b, s, scale):
    for solution in SOLUTIONS:
        price = solution(900, 400, buyer_exponent=b, seller_exponent=s)
        assert 400 <= price <= 900
        assert solution(900, 400, buyer_exponent=s, seller_exponent=b) == pytest.approx(1300 - price)  # seats exchanged
        moved = solution(900 * scale + 7, 400 * scale + 7, buyer_exponent=b, seller_exponent=s)
        assert moved == pytest.approx(price * scale + 7)  # another currency


def test_weight_is_rho_and_units_matter_to_the_egalitarian_only():
    assert theory.nash(900, 400, [0, 0.2, 1]).tolist() == [400, 500, 900]
    averse = theory.egalitarian(900, 400, buyer_exponent=0.5, unit=1.0)
    assert abs(averse - theory.kalai_smorodinsky(900, 400, buyer_exponent=0.5)) > 50
    assert isinstance(averse, float)
    assert all(np.isnan(f([900.0, 400.0, 300.0], 400.0)).tolist() == [False, True, True] for f in SOLUTIONS)


# ── alternating offers ────────────────────────────────────────────────────────────────────────────────────────────────

DISCOUNT = st.floats(0.01, 1.0)


@pytest.mark.parametrize(
    ("periods", "d", "share"), [(20, 0.95, 0.328982), (19, 1, 1), (20, 1, 0), (1, 0.3, 1), (0, 0.5, 0)]
)
def test_finite_horizon_oracles(periods, d, share):
    assert theory.finite_horizon(periods, d, d) == pytest.approx(share, abs=5e-7)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), DISCOUNT, DISCOUNT)
def test_finite_horizon_is_backward_induction(periods, d1, d2):
    share = 1.0  # of the last proposer
    for left in range(2, periods + 1):
        first_is_on_move = (periods - left) % 2 == 0
        share = (
            1 - (d2 if first_is_on_move else d1) * share
        )  # what the other would get by refusing, discounted, is left to it
    assert theory.finite_horizon(periods, d1, d2) == pytest.approx(share, abs=1e-12)


def test_horizons_meet():
    assert theory.infinite_horizon(0.95, 0.95) == pytest.approx(1 / 1.95)
    assert theory.infinite_horizon(0.9, 0.5) == pytest.approx(theory.finite_horizon(400, 0.9, 0.5))
    assert theory.finite_horizon(20, 0.95, 0.95) != pytest.approx(theory.infinite_horizon(0.95, 0.95), abs=0.1)
    short = 1e-7
    share = theory.infinite_horizon(np.exp(-1.0 * short), np.exp(-3.0 * short))
    assert share == pytest.approx(theory.continuous_time(1.0, 3.0), abs=1e-6)
    assert share == pytest.approx(0.75, abs=1e-6)
    almost = 1 - 1e-13  # (1 - qⁿ) / (1 - q) loses all its digits if written down as it stands
    assert theory.finite_horizon([20, 21], almost, almost) == pytest.approx([0, 1], abs=1e-11)
    assert theory.finite_horizon([4, 5], 0.5, 0.5).shape == (2,)


REFUSED = {
    "weight": (lambda: theory.nash(2, 1, 1.5), "weight 1.5"),
    "weight_nan": (lambda: theory.nash(2, 1, math.nan), "weight nan"),
    "exponent": (lambda: theory.kalai_smorodinsky(2, 1, buyer_exponent=0), "buyer_exponent 0"),
    "unit": (lambda: theory.egalitarian(2, 1, unit=-1), "unit -1"),
    "patience": (lambda: theory.infinite_horizon(1, 1), "every split is an equilibrium"),
    "discount": (lambda: theory.finite_horizon(3, 0.5, 1.1), "responder_discount 1.1"),
    "no_discount": (lambda: theory.infinite_horizon(0, 0.5), "proposer_discount 0"),
    "periods": (lambda: theory.finite_horizon(2.5, 0.5, 0.5), "periods 2.5"),
    "rates": (lambda: theory.continuous_time(0, 0), "not both 0"),
    "grid_shape": (lambda: theory.solve(Scenario(900, 400), []), "shape"),
    "grid_range": (lambda: theory.solve(Scenario(900, 400), [100.0, 500.0]), "public range"),
    "grid_nan": (lambda: theory.solve(Scenario(900, 400), [math.nan, 500.0]), "public range"),
    "seat_discount": (lambda: theory.solve(Scenario(900, 400), [500.0], buyer_discount=0.0), "buyer_discount 0.0"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ── equilibrium on a grid ─────────────────────────────────────────────────────────────────────────────────────────────

STEP = 0.5
PRICES = np.arange(300.0, 1000.0 + STEP, STEP)


def both_starters(*turns, **fixed):
    return Scenarios.of(
        Scenario(900, 400, max_turns=t, starter=s, id=2 * t + s, **fixed) for t in turns for s in Seat
    )  # fmt: skip


@pytest.mark.parametrize("discount", [1.0, 0.95, 0.5])
def test_equilibrium_play_gives_the_closed_form(discount):
    games = both_starters(2, 3, 4, 7, 8, 21, discount=discount)
    solved = theory.solve(games, PRICES)
    played = play(games, theory.EquilibriumPolicy(solved), theory.EquilibriumPolicy(solved))
    share = theory.finite_horizon(games.max_turns - 1, discount, discount)
    closed = np.where(games.starter == Seat.SELLER, share, 1 - share)
    ticks = np.abs(played.rho - closed) * 500 / STEP
    assert (ticks <= np.minimum(games.max_turns - 1, 1 / (1 - discount + 1e-9))).all()
    assert (played.turns == 2).all()  # accepted at once
    assert played.price.tolist() == solved.price.tolist()
    if discount == 1.0:  # the last proposer takes everything
        last = (games.starter + games.max_turns) % 2
        assert played.rho.tolist() == last.tolist()
    else:  # and the next horizon is not met by accident
        assert (np.abs(played.rho - np.roll(closed, 2)) * 500 / STEP > 20).sum() > 6


@pytest.mark.parametrize(("buyer", "seller"), [(0.9, 0.7), (0.6, 0.95), (1.0, 0.8)])
def test_equilibrium_with_two_discounts(buyer, seller):
    games = both_starters(5, 6, 20)
    solved = theory.solve(games, PRICES, buyer_discount=buyer, seller_discount=seller)
    first, second = (np.where(games.starter == Seat.BUYER, *pair) for pair in ((buyer, seller), (seller, buyer)))
    share = theory.finite_horizon(games.max_turns - 1, first, second)
    price = np.where(games.starter == Seat.SELLER, 400 + 500 * share, 900 - 500 * share)
    assert np.abs(solved.price - price).max() <= 5 * STEP
    played = play(games, theory.EquilibriumPolicy(solved), theory.EquilibriumPolicy(solved))
    assert played.price.tolist() == solved.price.tolist()


def test_indifferent_responders_accept_and_nobody_deals_at_a_loss():
    alone = theory.solve(Scenario(900, 400, max_turns=2), [399.99, 400.0, 400.01, 900.0])
    assert alone.price.tolist() == [400.0]
    assert alone.thresholds[0].tolist()[1] == 400.0
    stuck = theory.solve(Scenarios.of([Scenario(400, 900), Scenario(900, 400, id=1)]), [[300, 1000], [950, 1000]])
    assert np.isnan(stuck.price).all()
    played = play(stuck.scenarios, theory.EquilibriumPolicy(stuck), theory.EquilibriumPolicy(stuck))
    assert not played.agreement.any()
    assert np.isnan(theory.solve(Scenario(900, 400, max_turns=1), PRICES).price).all()  # nobody can answer
    coarse = theory.solve(Scenario(900, 400, max_turns=3, discount=0.9), [500.0, 890.0])
    assert coarse.price.tolist() == [890.0]  # 500 leaves the seller less than .9 · 490, which it gets by refusing


@pytest.mark.parametrize("seat", list(Seat))
def test_no_deviation_from_equilibrium_pays(seat):
    games = both_starters(2, 5, 6, discount=0.8)
    hasty = {f"{seat.other.label}_discount": 0.4}
    solved, wrong = theory.solve(games, PRICES), theory.solve(games, PRICES, **hasty)
    played = play(games, theory.EquilibriumPolicy(solved), theory.EquilibriumPolicy(solved)).utilities[:, seat]
    best = theory.best_response(theory.EquilibriumPolicy(solved), games, seat, PRICES, uses_history=False)
    np.testing.assert_allclose(best.values, played, atol=1e-9)
    # Who believes itself less patient than it is can be had for more.
    soft = theory.best_response(theory.EquilibriumPolicy(wrong), games, seat, PRICES, uses_history=False)
    assert (soft.values >= played - 1e-9).all()
    assert (soft.values > played + 0.05).sum() >= 3


def test_policies_take_mixed_turns_and_know_their_games():
    games = both_starters(6, 7, discount=0.5)
    policy = theory.EquilibriumPolicy(theory.solve(games, PRICES))
    shown = SeatGames.of(games.take(np.array([3, 0, 1, 3])), Seat.BUYER)
    turns, standing = np.array([2, 3, 4, 6]), np.array([500.0, 880.0, np.nan, 905.0])
    view = SeatView(np.arange(4), shown, turns, standing, np.full((4, 5), np.nan))
    twin = SimpleNamespace(act=policy.act)  # says nothing of mixed turns, so it is asked turn by turn
    together, apart = act_on_any_turns(policy, view), act_on_any_turns(twin, view)
    assert together.accept.tolist() == apart.accept.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(together.price, apart.price)
    with pytest.raises(ValueError, match="game 99 is not one"):
        policy.reset(SeatGames.of(Scenarios.of([Scenario(900, 400, id=99)]), Seat.BUYER))
    with pytest.raises(ValueError, match="not one that this policy"):
        policy.reset(SeatGames.of(both_starters(6, 7, seed=1), Seat.BUYER))
    with pytest.raises(ValueError, match="differ in buyer_max"):
        theory.EquilibriumPolicy(theory.solve(Scenarios.of([Scenario(900, 400), Scenario(800, 400)]), PRICES))


# ── best responses ────────────────────────────────────────────────────────────────────────────────────────────────────

PAPER = preset("paper")


class Sequence:
    """Offers ``offers[row, turn - 1]`` and accepts on turn ``accept[row]``."""

    name = "sequence"

    def __init__(self, offers, accept):
        self.offers, self.accept = offers, accept

    def reset(self, games):
        assert len(games) == len(self.offers)

    def act(self, view):
        return Moves(self.accept[view.rows] == view.turn, self.offers[view.rows, view.turn - 1])


def seated(games, seat, one, other):
    return play(games, one, other) if seat == Seat.BUYER else play(games, other, one)


def brute_force(opponent, games, seat, prices):
    """Everything that a seat can do in one game, played: sequences of offers times the turn on which it accepts."""
    best = []
    for i in range(len(games)):
        own = np.arange(1 if games.starter[i] == seat else 2, games.max_turns[i] + 1, 2)
        sequences = np.array(list(itertools.product(prices[i], repeat=len(own)))).reshape(
            len(prices[i]) ** len(own), len(own)
        )
        accept = np.tile([0, *own], len(sequences))
        offers = np.full((len(accept), games.max_turns[i]), np.nan)
        offers[:, own - 1] = np.repeat(sequences, len(own) + 1, axis=0)
        many = games.take(np.full(len(accept), i))
        best.append(seated(many, seat, Sequence(offers, accept), opponent).utilities[:, seat].max())
    return np.array(best)


def small_games():
    """Both starters, different deadlines; the last has no ZOPA."""
    drawn = [sample("paper", 2, seed=4, first_id=i, max_turns=t, discount=d) for i, t, d in ((0, 4, 0.9), (2, 5, 1.0))]
    games = [
        *(part[k] for part in drawn for k in range(2)),
        Scenario(500, 700, max_turns=4, id=9),
        Scenario(700, 500, id=8, max_turns=1),
    ]
    return Scenarios.of(games)


GAMES = small_games()
GRID = np.clip(
    GAMES.seller_min[:, None] + (GAMES.buyer_max - GAMES.seller_min)[:, None] * [-0.1, 0, 0.06, 0.4, 0.9], 200, 1500
)


@pytest.mark.parametrize("name", agents.list_strategies())
@pytest.mark.parametrize("seat", list(Seat))
def test_nothing_beats_the_best_response(name, seat):
    opponent = agents.make_for(PAPER, name)
    prices = grid.checked(np.column_stack([GRID, grid.between_limits(GAMES, seat)[:, 0]]), GAMES)
    forced = brute_force(opponent, GAMES, seat, prices)
    ways = (True,) if agents.describe(name).uses_history else (True, False)
    for uses_history in ways:
        found = theory.best_response(opponent, GAMES, seat, prices, uses_history=uses_history)
        np.testing.assert_allclose(found.values, forced, atol=1e-12)
        played = seated(GAMES, seat, theory.BestResponsePolicy(found), agents.make_for(PAPER, name))
        assert played.utilities[:, seat].tobytes() == found.values.tobytes()
        np.testing.assert_array_equal(played.price, found.price)
        np.testing.assert_array_equal(played.rho, found.rho)
        if uses_history:
            after = np.arange(1, found.plan.offers.shape[1] + 1) > played.turns[:, None]
            assert np.isnan(found.plan.offers[after]).all()
    assert (forced[-2:] >= 0).all()
    assert forced[-1] == 0  # one turn: nobody can answer


def test_the_brute_force_can_find_more():
    """Negative control: a plan that lacks a price is beaten by the sequences that have it."""
    opponent = agents.make_for(PAPER, "naive_concession")
    games, prices = GAMES.take(np.arange(4)), GRID[:4]
    full = brute_force(opponent, games, Seat.BUYER, prices)
    poor = theory.best_response(opponent, games, Seat.BUYER, prices[:, 3:], uses_history=False)
    assert (full > poor.values + 0.04).sum() >= 3


@pytest.mark.parametrize("seat", list(Seat))
def test_the_default_grid_is_exact_to_the_tick(seat):
    games = sample("hidden", 3, seed=1, max_turns=6, tick=1.0, discount=0.97)
    every = np.arange(200.0, 1501.0)
    for name in agents.list_strategies():
        if not agents.describe(name).uses_history:
            opponent = agents.make(name)
            sharp = theory.best_response(opponent, games, seat, uses_history=False)
            exact = theory.best_response(opponent, games, seat, every, uses_history=False)
            assert sharp.values.tolist() == exact.values.tolist(), name
    opponent = agents.make("linear_standard")
    exact = theory.best_response(opponent, games, seat, every, uses_history=False)
    dull = theory.best_response(opponent, games, seat, grid.between_limits(games, seat)[:, ::8], uses_history=False)
    assert (dull.values < exact.values).any(), "a coarse grid is worse"


def test_published_strategies_give_what_their_formula_says():
    games = sample("paper", 8)
    for name, left in (
        ("boulware_conceding", 0.95**0.5),
        ("linear_standard", 0.95),
        ("boulware_hard", 0.95**4),
        ("fair", 0.5),
    ):
        for seat in Seat:
            found = theory.best_response(agents.make_for(PAPER, name), games, seat, uses_history=False)
            assert found.values == pytest.approx(left, abs=2e-5), name


def test_of_equal_plans_it_takes_the_quickest():
    games = sample("paper", 4)
    found = theory.best_response(agents.make_for(PAPER, "naive_concession"), games, Seat.BUYER, uses_history=False)
    played = play(games, theory.BestResponsePolicy(found), agents.make_for(PAPER, "naive_concession"))
    assert played.turns.tolist() == [2, 3, 2, 3]  # on its first turn, though no later turn would cost it anything


def test_the_default_grid_holds_both_limits_on_the_tick():
    games = Scenarios.of([Scenario(900.4, 400.6, tick=1.0), Scenario(899.6, 400.4, price_low=400.2, tick=1.0, id=1)])
    for seat, bounds in ((Seat.BUYER, (200, 401)), (Seat.SELLER, (1500, 1500))):
        prices = grid.between_limits(games, seat)
        assert prices[:, 0].tolist() == list(bounds)
        assert prices[:, 1:].min(axis=1).tolist() == [401, 401]
        assert prices[:, 1:].max(axis=1).tolist() == [900, 899]
        assert (prices == np.rint(prices)).all()


def test_size_of_blocks_and_turn_by_turn_questions_change_nothing(monkeypatch):
    games = sample("paper", 9, max_turns=7)
    opponent = agents.make_for(PAPER, "noisy_boulware_firm")
    whole = theory.best_response(opponent, games, Seat.SELLER, uses_history=False)
    monkeypatch.setattr(history_free, "QUESTIONS", 1)
    monkeypatch.setattr(type(opponent), "mixed_turns", False)
    pieces = theory.best_response(opponent, games, Seat.SELLER, uses_history=False)
    for mine, other in ((whole.values, pieces.values), (whole.plan.offers, pieces.plan.offers)):
        np.testing.assert_array_equal(mine, other)


class Waster:
    """Wastes its turns, or offers what the rules refuse, and takes anything on its last turn."""

    name, memoryless = "waster", True

    def reset(self, games):
        pass

    def act(self, view):
        last = view.turn >= view.games.max_turns - 1
        return Moves(
            last + np.zeros(len(view), dtype=bool), np.where(view.turn % 4 < 2, np.nan, 1e6) + np.zeros(len(view))
        )


class Counter(Waster):
    """Counts its own moves, so asking changes it."""

    memoryless = False


class Impatient(Waster):
    """Takes the price that was offered first, if it comes again."""

    name = "impatient"

    def act(self, view):
        seen = view.opponent_offers
        again = (seen.shape[1] > 1) & (seen[:, :1] == view.standing[:, None]).all(axis=1)
        return Moves(again, np.full(len(view), np.nan))


@pytest.mark.parametrize("uses_history", [True, False])
@pytest.mark.parametrize("seat", list(Seat))
def test_wasted_turns_are_understood(seat, uses_history):
    games = both_starters(2, 4, 5)
    found = theory.best_response(Waster(), games, seat, [300, 500, 900], uses_history=uses_history)
    prices = np.tile([300.0, 500, 900], (len(games), 1))
    np.testing.assert_allclose(found.values, brute_force(Waster(), games, seat, prices))


def test_best_response_refuses():
    games = both_starters(6)
    for opponent in (Counter(), RoutedPolicy([Waster()], np.zeros(2, dtype=int))):
        with pytest.raises(InputError, match="may keep a memory"):
            theory.best_response(opponent, games, Seat.BUYER, uses_history=False)
    for turns, needed in ((8, "1,417,324"), (20000, "about 1e15315")):
        with pytest.raises(InputError, match=f"34 prices in 2 games needs {needed} nodes.*; give a coarser grid"):
            theory.best_response(Waster(), both_starters(turns), Seat.BUYER, uses_history=True)
    with pytest.raises(InputError, match="every price is beyond the buyer's limit 900"):
        theory.best_response(Waster(), games, Seat.BUYER, [950.0], uses_history=False)
    with pytest.raises(ValueError, match="public range"):
        theory.best_response(Waster(), games, Seat.BUYER, [950.0, 1e5], uses_history=False)
    with pytest.raises(InputError, match="uses_history=True"):
        theory.best_response(Impatient(), games, Seat.SELLER, uses_history=False)
    found = theory.best_response(Impatient(), games, Seat.SELLER, [500.0, 900.0], uses_history=True)
    assert (found.values == 1).all()
    with pytest.raises(ValueError, match="found for the seller"):
        theory.BestResponsePolicy(found).reset(SeatGames.of(games, Seat.BUYER))


def test_nodes_are_counted(monkeypatch):
    asked = []
    tree = theory.best_response.__globals__["offer_tree"]
    monkeypatch.setattr(tree, "ask", lambda *a: asked.append(len(a[1])) or questions.ask(*a))
    games = both_starters(5, 6)
    needed = tree.count_nodes(games, Seat.BUYER, 3)
    assert needed == (3 + 9) + (3 + 9) + (3 + 9 + 27) + (3 + 9)
    theory.best_response(
        agents.make("hardliner"), games, Seat.BUYER, [201, 202, 203], uses_history=True, max_nodes=needed
    )
    assert sum(asked) == needed + 2  # nothing is accepted early; two openings
    with pytest.raises(InputError):
        theory.best_response(agents.make("hardliner"), games, Seat.BUYER, [201, 202], uses_history=True, max_nodes=20)
