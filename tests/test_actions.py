"""Two ways to spell a move: each pair of functions undoes the other, and says what it cannot spell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bargain_env import Move, Seat, State, actions, bargain_v0, core
from bargain_env.core import quantise

LOW, HIGH = 200.0, 1500.0
NAN = float("nan")


# ── grid ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_actions_round_trip():
    prices = actions.grid(200, 1500)
    assert np.diff(prices) == pytest.approx(10)
    for action in range(132):
        assert actions.encode(actions.decode(action, prices), prices) == action
    assert actions.encode(Move(False, 206.0), prices) == 2
    assert actions.encode(Move(False, 205.0), prices) == 1, "a tie takes the lower"
    for price in (199.0, 1501.0, NAN):
        with pytest.raises(ValueError, match="public range"):
            actions.encode(Move(False, price), prices)
    for action in (-1, 132):
        with pytest.raises(ValueError, match=r"outside Discrete\(132\)"):
            actions.decode(action, prices)


RANGES = st.tuples(st.floats(-1e4, 1e4), st.floats(0.5, 1e4)).map(lambda ends: (ends[0], ends[0] + ends[1]))


@settings(deadline=None, derandomize=True)
@given(RANGES, st.integers(2, 300), st.data())
def test_grid_round_trip_anywhere(ends, n_prices, data):
    prices = actions.grid(*ends, n_prices)
    assert prices.shape == (n_prices,)
    assert (prices[0], prices[-1]) == ends, "both ends can be offered, exactly"
    assert (np.diff(prices) > 0).all()
    action = data.draw(st.integers(0, n_prices))
    move = actions.decode(action, prices)
    assert actions.encode(move, prices) == action
    between = Move(False, data.draw(st.floats(*ends)))
    nearest = actions.decode(actions.encode(between, prices), prices).price
    assert abs(nearest - between.price) == np.abs(prices - between.price).min()


@pytest.mark.parametrize(
    ("n_prices", "tick"), [(2, 0.01), (14, 0.01), (131, 0.01), (131, 10.0), (77, 0.05), (27, 50.0), (5, 25.0)]
)
def test_environments_play_what_decode_says(n_prices, tick):
    env, prices = bargain_v0.raw_env(n_prices=n_prices, tick=tick), actions.grid(LOW, HIGH, n_prices)
    for action in range(n_prices + 1):
        env.reset(seed=0)
        move = actions.decode(action, prices)
        expected = core.step(env.scenario, State(), move)
        env.step(action)
        assert env.session.state == expected
        assert move.accept or expected.prices == (quantise(move.price, tick),)


def test_grid_prices_are_whole_ticks():
    """What a learner offers on the default grid is what stands, to the last bit."""
    for price in actions.grid(LOW, HIGH).tolist():
        for tick in (0.01, 0.05, 1.0, 5.0, 10.0):
            assert quantise(price, tick) == price


@pytest.mark.parametrize("n_prices", [-1, 0, 1])
def test_a_grid_needs_two_prices(n_prices):
    with pytest.raises(ValueError, match=f"n_prices {n_prices}"):
        actions.grid(LOW, HIGH, n_prices)


@pytest.mark.parametrize(
    ("to_move", "may_accept", "accept", "offers"),
    [(True, True, 1, 14), (True, False, 0, 14), (False, True, 0, 0), (False, False, 0, 0)],
)
def test_action_mask(to_move, may_accept, accept, offers):
    mask = actions.action_mask(to_move, may_accept, 14)
    assert (mask.dtype, mask.shape) == (np.int8, (15,))
    assert (mask[actions.ACCEPT], mask[1:].sum()) == (accept, offers)
    assert actions.action_mask(to_move, may_accept, 14) is not mask


# ── box ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

SEATS = st.sampled_from(list(Seat))
PRICES = st.floats(LOW, HIGH)
STANDING = st.one_of(st.just(NAN), PRICES)


def crosses(price, standing, seat):
    """As good for the other seat as what it offered itself."""
    return price >= standing if seat == Seat.BUYER else price <= standing  # never, if nothing stands


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEATS, STANDING, st.floats(-1, 1, width=32))
def test_every_box_action_is_some_move(seat, standing, value):
    accept, price = actions.decode_box(value, LOW, HIGH, seat, standing)
    assert LOW <= price <= HIGH
    assert accept == crosses(price, standing, seat)
    again = actions.encode_box(accept, price, LOW, HIGH, seat, standing)
    assert again.dtype == np.float32
    if accept:
        assert again == (1 if seat == Seat.BUYER else -1)
    else:
        assert abs(again - value) <= 1e-7, "a rounding of float32"
    assert actions.decode_box(again, LOW, HIGH, seat, standing)[0] == accept


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEATS, STANDING, PRICES, st.booleans())
def test_every_move_has_a_box_action_or_is_refused(seat, standing, price, accept):
    if accept and np.isnan(standing):
        expected = "no standing offer"
    elif not accept and crosses(price, standing, seat):
        expected = "crosses the standing offer"
    else:
        value = actions.encode_box(accept, price, LOW, HIGH, seat, standing)
        assert -1 <= value <= 1
        again, near = actions.decode_box(value, LOW, HIGH, seat, standing)
        assert near == pytest.approx(price, abs=1e-7 * (HIGH - LOW)) or accept
        # An offer within a rounding of float32 of the standing one may fall on it.
        assert again == accept or abs(price - standing) <= 1e-7 * (HIGH - LOW)
        return
    with pytest.raises(ValueError, match=expected):
        actions.encode_box(accept, price, LOW, HIGH, seat, standing)


@pytest.mark.parametrize("price", [199.0, 1500.5, NAN, np.inf])
def test_offers_outside_the_range_have_no_box_action(price):
    with pytest.raises(ValueError, match="outside the public range"):
        actions.encode_box(False, price, LOW, HIGH, Seat.BUYER, NAN)
    assert actions.encode_box(True, price, LOW, HIGH, Seat.BUYER, 700.0) == 1, "the price of an acceptance is not read"


@pytest.mark.parametrize(
    ("seat", "value", "accepts"),
    [
        (Seat.BUYER, 0.0, True),
        (Seat.BUYER, -0.001, False),
        (Seat.BUYER, 1.0, True),
        (Seat.SELLER, 0.0, True),
        (Seat.SELLER, 0.001, False),
        (Seat.SELLER, -1.0, True),
    ],
)
def test_meeting_the_standing_offer_accepts_it(seat, value, accepts):
    assert actions.decode_box(value, LOW, HIGH, seat, 850.0)[0] == accepts
    assert not actions.decode_box(value, LOW, HIGH, seat, NAN)[0]


@settings(deadline=None, derandomize=True)
@given(SEATS, st.lists(st.tuples(st.floats(-1, 1, width=32), RANGES, st.floats(0, 1)), min_size=1, max_size=8))
def test_box_actions_of_many_games_are_those_of_each(seat, table):
    values = np.array([value for value, _, _ in table])
    low, high = (np.array([ends[k] for _, ends, _ in table]) for k in (0, 1))
    standing = np.array([NAN if share > 0.8 else ends[0] + share * (ends[1] - ends[0]) for _, ends, share in table])
    accept, price = actions.decode_box(values, low, high, seat, standing)
    for row in range(len(table)):
        alone = actions.decode_box(values[row], low[row], high[row], seat, standing[row])
        assert (alone[0], alone[1].tobytes()) == (accept[row], price[row].tobytes())


@settings(deadline=None, derandomize=True)
@given(st.integers(-4096, 4096), st.one_of(st.none(), st.integers(0, 1024)))
def test_box_seats_are_mirror_images(step, standing):
    """On a range where every number is exact."""
    value, stands = step / 4096, NAN if standing is None else float(standing)
    buyer = actions.decode_box(value, 0, 1024, Seat.BUYER, stands)
    seller = actions.decode_box(-value, 0, 1024, Seat.SELLER, 1024 - stands)
    assert buyer[0] == seller[0]
    assert buyer[1] == 1024 - seller[1]
