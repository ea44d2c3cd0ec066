"""Offering tactics: the formulas of the papers, at their ends and in between, and what mixtures promise."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import Erratic, Script, Stuck, make, offers, one, position

import bargain_env as be
from agents.scripted.charging import ChargingBoul
from agents.scripted.components import Composed
from agents.scripted.micro import Micro
from agents.scripted.mixtures import SingleConcession, Weighted
from agents.scripted.modelling import Counter
from agents.scripted.reactive import AveragedTitForTat, RelativeTitForTat, TitForTat
from agents.scripted.resource import ResourceDependent
from agents.scripted.simple import NearLimit
from agents.scripted.time_dependent import Exponential, Fair, Hardliner, Noisy, Polynomial
from bargain_env import MoveKind, Seat
from bargain_env.errors import InputError


def player(tactic, width=500.0):
    return Composed(offering=tactic, assumed_zopa_width=width)


# ── the clock ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("beta", "half_way"), [(0.2, 0.1281), (1.0, 0.5500), (5.0, 0.8835)])
def test_polynomial_at_its_ends_and_half_way(beta, half_way):
    curve = Polynomial(beta=beta, kappa=0.1).curve(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(curve, [0.1, half_way, 1.0], atol=5e-5)


@pytest.mark.parametrize(("beta", "half_way"), [(0.2, 0.1347), (1.0, 0.3162), (5.0, 0.9306)])
def test_exponential_at_its_ends_and_half_way(beta, half_way):
    curve = Exponential(beta=beta, kappa=0.1).curve(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(curve, [0.1, half_way, 1.0], atol=5e-5)


def test_every_convention_of_beta_is_read():
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(Polynomial.from_genius_e(0.2, k=0.1).curve(t), 0.1 + 0.9 * t**5)
    np.testing.assert_allclose(1 - Polynomial.from_negmas_exponent(4.0).curve(t), 1 - t**4)
    np.testing.assert_allclose(Polynomial.from_seed_exponent(4.0).curve(t), t**4)
    seed = Polynomial.from_seed_exponent(2.0)
    early, late = (position(turn).reach * 0 + seed.clock(position(turn)) for turn in (1, 20))
    assert (early[0], late[0]) == (1 / 20, 0.95), "t / T from the first turn, never all of it"


@pytest.mark.parametrize("tactic", [Polynomial(beta=0.3, kappa=0.1), Exponential(beta=3.0, kappa=0.1)])
@pytest.mark.parametrize("starter", list(Seat))
def test_the_clock_runs_from_the_first_turn_to_the_last(tactic, starter):
    game = one(starter=starter)
    buyer = offers(be.play(game, player(tactic), Stuck(1500.0)), Seat.BUYER)
    seller = offers(be.play(game, Stuck(200.0), player(tactic)), Seat.SELLER)
    first, last = (buyer, seller) if starter == Seat.BUYER else (seller, buyer)
    opened, ended = (400.0, 400.0) if starter == Seat.BUYER else (900.0, 900.0)
    assert abs(first[0] - opened) == 50.0, "the one who starts gives kappa"
    assert abs(last[-1] - ended) == 0.0, "the one who moves last has come to its reservation"
    assert all(abs(b - a) > 0 for a, b in pairwise(first))


@pytest.mark.parametrize(
    ("resource", "patience", "turn", "share"),
    [("time", 1.0, 20, 1.0), ("time", 1.0, 19, math.exp(-1)), ("time", 0.5, 10, math.exp(-5)),
     ("thread", 1.0, 1, 0.0), ("thread", 1.0, 2, math.exp(-1)), ("thread", 6.0, 13, math.exp(-0.5))],
)  # fmt: skip
def test_resources_run_out(resource, patience, turn, share):
    frame = position(turn)
    for kappa in (0.0, 0.3):
        given_up = ResourceDependent(resource=resource, patience=patience, kappa=kappa).target(frame)
        np.testing.assert_allclose(given_up, 500.0 * (kappa + (1 - kappa) * share))


# ── imitation ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Y = [1100.0, 1040.0, 1000.0, 1020.0, 940.0, 930.0, 930.0, 850.0, 700.0, 690.0]
"""What the opponent of these tests offers; a retreat, a stop, leaps."""
ANSWERS = {
    "relative, lag 1": (RelativeTitForTat(lag=1), lambda x, y: x * y[-2] / y[-1], 1),
    "relative, lag 2": (RelativeTitForTat(lag=2), lambda x, y: x * y[-3] / y[-2], 2),
    "averaged over 3": (AveragedTitForTat(window=3), lambda x, y: x * y[-4] / y[-1], 3),
    "absolute, lag 1": (TitForTat(retreats=True), lambda x, y: x + y[-2] - y[-1], 1),
    "absolute, lag 3": (TitForTat(lag=3, retreats=True), lambda x, y: x + y[-4] - y[-3], 3),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize("starter", list(Seat))
def test_imitation_follows_the_paper(name, seat, starter):
    """In prices, whichever seat: of n > 2·lag moves the ones the formula names, brought into [S, R]."""
    tactic, rule, lag = ANSWERS[name]
    received = Y if seat == Seat.BUYER else [1700.0 - y for y in Y]
    low, high = (400.0, 900.0) if seat == Seat.BUYER else (800.0, 1300.0)
    game = one(buyer_max=900.0 if seat == Seat.BUYER else 1400.0, seller_min=300.0 if seat == Seat.BUYER else 800.0,
               starter=starter)  # fmt: skip
    pair = player(tactic), Script(*received)
    result = be.play(game, *(pair if seat == Seat.BUYER else pair[::-1]))
    made = offers(result, seat)
    assert made[0] == (low if seat == Seat.BUYER else high), "opens at S"
    for k, offer in enumerate(made[1:], 1):
        seen = received[: k + (starter != seat)]
        expected = made[k - 1] if len(seen) <= lag else min(max(rule(made[k - 1], seen), low), high)
        assert offer == pytest.approx(expected, abs=0.0051), k
    assert len(set(made)) > 3, "it moved"


def test_averaged_over_one_step_is_relative():
    games = be.sample("hidden", 300, seed=3)
    a, b = (be.play(games, player(tactic, None), Erratic()) for tactic in (AveragedTitForTat(), RelativeTitForTat()))
    assert a.prices.tobytes() == b.prices.tobytes()
    c = be.play(games, player(AveragedTitForTat(window=2), None), Erratic())
    assert a.prices.tobytes() != c.prices.tobytes()


@pytest.mark.parametrize("seat", list(Seat))
def test_random_absolute_concedes_an_integer_on_top(seat):
    frame = position(10, 4000, seat)
    plain = TitForTat(retreats=True).target(frame)
    extra = np.round(TitForTat(extra=4, retreats=True).target(frame) - plain, 6)
    inside = (plain > 0) & (plain < frame.reach - 4)  # not cut off at S or R
    values, counts = np.unique(extra[inside], return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() > 0.15 * inside.sum()


@pytest.mark.parametrize(
    ("name", "tactic"),
    [
        ("tit_for_tat", TitForTat()),
        ("random_absolute_tit_for_tat", TitForTat(extra=10, retreats=True)),
        ("resource_time", ResourceDependent(resource="time", patience=1.0)),
        ("resource_thread", ResourceDependent(resource="thread", patience=5.0)),
        ("boulware_hard", Polynomial(beta=0.25, head_start=1, cap=0.95)),
        (
            "mixture_single",
            SingleConcession(tactics=(Polynomial(beta=0.5), TitForTat(retreats=True)), weights=(0.5, 0.5)),
        ),
    ],
)
def test_registered_members_are_these(name, tactic):
    assert make(name).offering == tactic


def test_prices_of_zero_have_no_multiples():
    game = replace(one(), price_low=np.zeros(1), seller_min=np.zeros(1))
    result = be.play(game, player(RelativeTitForTat()), Script(0.0, 0.0, 950.0, 940.0))
    assert not (result.kinds == MoveKind.INVALID).any()


# ── MiCRO ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_micro_against_itself_meets_in_the_middle():
    game = one(buyer_max=1100.0, seller_min=500.0, price_low=500.0, price_high=1100.0, max_turns=40)
    result = be.play(game, player(Micro(step=50.0), None), player(Micro(step=50.0), None))
    golden = [500.0, 1100.0, 550.0, 1050.0, 600.0, 1000.0, 650.0, 950.0, 700.0, 900.0, 750.0, 850.0, 800.0]
    assert result.prices[0, ~np.isnan(result.prices[0])].tolist() == golden
    assert (result.price[0], result.turns[0]) == (800.0, 14)
    finer = be.play(game, player(Micro(step=25.0), None), player(Micro(step=25.0), None))
    assert (finer.price[0], finer.turns[0]) == (800.0, 26)
    wide = replace(game, price_low=np.array([200.0]), price_high=np.array([1500.0]), buyer_max=np.array([1500.0]),
                   seller_min=np.array([200.0]))  # fmt: skip
    assert be.play(wide, player(Micro(step=50.0), None), player(Micro(step=50.0), None)).price[0] == 850.0


@pytest.mark.parametrize(
    ("width", "climbs"),
    [
        (125.0, [800.0, 850.0, 900.0]),  # S on an odd half tick: two points were rounded into one
        (175.0, [700.0, 750.0, 800.0, 850.0, 900.0]),  # on an even one
        (200.0, [700.0, 750.0, 800.0, 850.0, 900.0]),
    ],
)
def test_no_two_points_of_a_micro_grid_are_rounded_into_one(width, climbs):
    new = Script(*(1500.0 - 50 * k for k in range(10)))
    made = offers(be.play(one(seller_min=200.0, tick=50.0), player(Micro(step=50.0), width), new), Seat.BUYER)
    assert made[: len(climbs)] == climbs
    assert max(made) == 900.0
    mirror = one(buyer_max=1500.0, seller_min=800.0, tick=50.0, starter=Seat.SELLER)
    new = Script(*(200.0 + 50 * k for k in range(10)))
    made = offers(be.play(mirror, new, player(Micro(step=50.0), width)), Seat.SELLER)
    assert made[: len(climbs)] == [1700.0 - price for price in climbs]


# ── mixtures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps(result, seat):
    """Every step from one own offer to the next, as concessions; and how many games have one."""
    own = np.where(result.sides() == seat, result.prices, np.nan)
    found = []
    for row in own:
        row = row[~np.isnan(row)]
        found.append(np.diff(row) if seat == Seat.BUYER else -np.diff(row))
    return np.concatenate(found)


PARTNERS = ["boulware_firm", "tit_for_tat", "micro_coarse", "charging_boul", "noisy_boulware_hard", "split_difference"]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3),
    st.floats(0.1, 8.0),
    st.integers(1, 3),
    st.sampled_from([*PARTNERS, "erratic"]),
    st.sampled_from(list(Seat)),
)
def test_single_concessions_never_retreat(weights, beta, lag, partner, seat):
    tactics = (Polynomial(beta=beta), Exponential(beta=1 / beta), TitForTat(lag=lag, extra=3, retreats=True))
    mixed = SingleConcession(tactics=tactics, weights=tuple(np.array(weights) / sum(weights)))
    pair = player(mixed), Erratic() if partner == "erratic" else make(partner, 500.0)
    result = be.play(be.sample("paper", 40, seed=1), *(pair if seat == Seat.BUYER else pair[::-1]))
    assert (steps(result, seat) >= 0).all()


@pytest.mark.parametrize("tactic", [Polynomial(beta=0.4), Polynomial(beta=3.0, head_start=1, cap=0.9), Exponential()])
def test_single_concessions_of_one_that_follows_the_clock_are_its_own_curve(tactic):
    """Each step is what its curve rose by since its own last turn, two turns ago."""
    alone = offers(be.play(one(), player(tactic), Stuck(1500.0)), Seat.BUYER)
    mixed = player(SingleConcession(tactics=(tactic,), weights=(1.0,)))
    assert len(set(alone)) > 7
    np.testing.assert_allclose(offers(be.play(one(), mixed, Stuck(1500.0)), Seat.BUYER), alone, atol=0.06)


def test_weighted_sums_do_retreat():
    """Negative control, and the reason for single concessions: each tactic by itself never retreats here."""
    tactics, weights = (Polynomial(beta=0.2), TitForTat()), (0.5, 0.5)
    seller = Script(1500.0, 1200.0, 950.0)  # concedes at first, then stays

    def moves(tactic):
        return np.diff(offers(be.play(one(), player(tactic), seller), Seat.BUYER))

    assert all((moves(tactic) >= 0).all() for tactic in tactics)
    assert (moves(SingleConcession(tactics=tactics, weights=weights)) >= 0).all()
    assert (moves(Weighted(tactics=tactics, weights=weights)) < 0).any()


def test_a_mixture_of_one_is_that_one():
    games = be.sample("hidden", 60, seed=2)
    for tactic in (Exponential(beta=0.4), TitForTat(), Micro(step=30.0)):
        alone = be.play(games, player(tactic, None), make("boulware_firm"))
        mixed = be.play(games, player(Weighted(tactics=(tactic,), weights=(1.0,)), None), make("boulware_firm"))
        assert alone.prices.tobytes() == mixed.prices.tobytes()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Polynomial(beta=-1), "beta -1"),
        (lambda: Polynomial(kappa=1.5), "kappa 1.5"),
        (lambda: Polynomial.from_genius_e(0), "e 0"),
        (lambda: Polynomial.from_negmas_exponent(0), "exponent 0"),
        (lambda: Exponential(kappa=0), "kappa 0"),
        (lambda: ResourceDependent(resource="money"), "unknown resource 'money'"),
        (lambda: ResourceDependent(patience=0), "patience 0"),
        (lambda: RelativeTitForTat(lag=0), "lag 0"),
        (lambda: TitForTat(extra=1.5), "extra 1.5"),
        (lambda: AveragedTitForTat(window=0), "window 0"),
        (lambda: RelativeTitForTat(lag=math.nan), "lag nan must be a whole number, 1 or more"),
        (lambda: RelativeTitForTat(lag=math.inf), "lag inf"),
        (lambda: AveragedTitForTat(window="3"), "window '3' must be a whole number"),
        (lambda: TitForTat(extra=-1), "extra -1 must be a whole number, 0 or more"),
        (lambda: ResourceDependent(kappa=math.nan), "kappa nan must be a number from 0 to 1"),
        (lambda: Polynomial(cap=1.5), "cap 1.5 must be a positive number, at most 1"),
        (lambda: Exponential(cap=0.0), "cap 0"),
        (lambda: Polynomial(head_start=-1), "head_start -1"),
        (lambda: Exponential(head_start=0.5), "head_start 0.5"),
        (lambda: Polynomial(beta="1"), "beta '1' must be a positive number"),
        (lambda: Fair(opening=1.2), "opening 1.2 must be a number from 0 to 1"),
        (lambda: Fair(opening=math.nan), "opening nan"),
        (lambda: Noisy(tactic=Polynomial(), noise_max=-1), "noise_max -1 must be a number, 0 or more"),
        (lambda: Noisy(tactic=Polynomial(), noise_scale=math.inf), "noise_scale inf"),
        (lambda: Hardliner(cave_in_margin=-5.0), "cave_in_margin -5.0 must be a number, 0 or more"),
        (lambda: ChargingBoul(floor=1.1), "floor 1.1 must be a number from 0 to 1"),
        (lambda: ChargingBoul(exponent=0.0), "exponent 0.0 must be a positive number"),
        (lambda: ChargingBoul(spread=math.nan), "spread nan"),
        (lambda: NearLimit(margin=-1.0), "margin -1.0"),
        (lambda: NearLimit(jitter=math.inf), "jitter inf"),
        (lambda: Counter(betas=(1.0, 2.0)), r"betas \(1.0, 2.0\) must be 7 numbers"),
        (lambda: Counter(betas=(1.0,) * 6 + (0.0,)), "beta 0.0 must be a positive number"),
        (lambda: Weighted(tactics=(Polynomial(),) * 2, weights=(math.nan, 1.0)), "weight nan"),
        (lambda: Weighted(tactics=(Polynomial(),), weights=(0.5,)), "sum 1"),
        (lambda: Weighted(tactics=(Polynomial(),), weights=(0.5, 0.5)), "2 weights for 1 tactics"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
