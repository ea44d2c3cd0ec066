"""The 22 numbers: by hand, against the table of the documentation read literally, and alike wherever they are made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bargain_env as be
from bargain_env import Move, Moves, Scenario, Seat, State, bargain_v0, core
from bargain_env.observation import REMEMBERED, SIZE, observe, observe_view

NAN = float("nan")


def by_the_table(scenario, state, seat):
    """The table of `bargain_env.observation`, line by line."""

    def scaled(price):
        return 2.0 * (price - scenario.price_low) / (scenario.price_high - scenario.price_low) - 1.0

    def side(mover):
        return -1.0 if mover == seat else 1.0

    to_move = not core.is_over(scenario, state) and core.mover(scenario, state) == seat
    past = [(core.mover(scenario, State(turn=k + 1)), price) for k, price in enumerate(state.prices)]
    recent = [*reversed(past), *[(seat, None)] * REMEMBERED][:REMEMBERED]
    row = [
        -1.0 if seat == Seat.BUYER else 1.0,
        2.0 * (state.turn - 1) / scenario.max_turns - 1.0,
        1.0 if to_move else -1.0,
        scaled(scenario.reservation(seat)),
        0.0 if state.standing is None else scaled(state.standing),
        0.0 if state.standing is None else side(state.standing_seat),
        *(0.0 if price is None else scaled(price) for _, price in recent),
        *(0.0 if price is None else side(mover) for mover, price in recent),
    ]
    return np.array(row, dtype=np.float32)


def played(scenario, moves):
    """The states of a game, from its start to its end or to the last of ``moves``."""
    states = [State()]
    for move in moves:
        if not core.is_over(scenario, states[-1]):
            states.append(core.step(scenario, states[-1], move))
    return states


# ── by hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_observation_by_hand():
    scenario = Scenario(850, 400, max_turns=10)
    state = played(scenario, [Move(False, p) for p in (200, 1500, 525, 1175, 850, 1000, 900, 950, 910)])[-1]
    seen = observe(scenario, state, Seat.SELLER)
    assert seen.shape == (SIZE,)
    assert seen[:6] == pytest.approx([1, 0.8, 1, -9 / 13, 2 * 710 / 1300 - 1, 1])
    assert seen[6] == seen[4]
    assert seen[13] == 1.0  # the oldest of eight is 1500; 200 is forgotten
    assert seen[14:].tolist() == [1, -1, 1, -1, 1, -1, 1, -1]
    waits = observe(scenario, state, Seat.BUYER)
    assert waits[:6] == pytest.approx([-1, 0.8, -1, 0, 2 * 710 / 1300 - 1, -1])
    assert waits[14:].tolist() == [-1, 1, -1, 1, -1, 1, -1, 1]
    fresh = observe(scenario, State(), Seat.BUYER)
    assert fresh.tolist() == [-1, -1, 1, 0, *[0] * 18]


def test_a_wasted_turn_is_remembered_as_nothing():
    scenario = Scenario(850, 400, max_turns=10)
    state = played(scenario, [Move(False, 850), Move(False, NAN)])[-1]
    seen = observe(scenario, state, Seat.BUYER)
    assert seen[4:8].tolist() == [0, -1, 0, 0]  # 850 is the middle of the range: it stands, and it is the buyer's own
    assert seen[14:17].tolist() == [0, -1, 0]


@pytest.mark.parametrize("wasted", [1, 2, 3])
def test_nothing_is_a_positive_zero(wasted):
    scenario = Scenario(850, 400, max_turns=10)
    state = played(scenario, [Move(False, NAN)] * wasted)[-1]
    for seat in Seat:
        seen = observe(scenario, state, seat)
        assert seen[4:].tolist() == [0] * 18
        assert not np.signbit(seen[4:]).any()


def test_the_ends_of_the_range_and_of_the_clock():
    scenario = Scenario(1500, 200, max_turns=2)
    first, second, last = played(scenario, [Move(False, 1500), Move(False, 200)])
    assert observe(scenario, first, Seat.BUYER)[[1, 2, 3]].tolist() == [-1, 1, 1]
    assert observe(scenario, second, Seat.SELLER)[[1, 2, 3, 4, 5]].tolist() == [0, 1, -1, 1, 1]
    for seat in Seat:
        assert observe(scenario, last, seat)[[1, 2, 4]].tolist() == [1, -1, -1], "nobody is to move"


# ── alike everywhere ──────────────────────────────────────────────────────────────────────────────────────────────────

PRICES = st.one_of(st.floats(150, 1550), st.sampled_from([NAN, 200.0, 1500.0, 850.0, 850.0, 5000.0, -1.0]))
MOVES = st.builds(Move, accept=st.sampled_from([False] * 6 + [True]), price=PRICES)
GAMES = st.builds(
    Scenario,
    buyer_max=st.floats(200, 1500),
    seller_min=st.floats(200, 1500),
    price_high=st.sampled_from([1500.0, 1775.0]),
    max_turns=st.integers(1, 24),
    starter=st.sampled_from(list(Seat)),
    tick=st.sampled_from([0.01, 0.05, 25.0]),
)
SCRIPTS = st.lists(MOVES, min_size=12, max_size=24)
TABLES = st.lists(st.tuples(GAMES, SCRIPTS), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(GAMES, SCRIPTS)
def test_one_game_is_seen_as_the_table_says(scenario, moves):
    for state in played(scenario, moves):
        for seat in Seat:
            expected = by_the_table(scenario, state, seat)
            assert expected.min() >= -1
            assert expected.max() <= 1
            assert observe(scenario, state, seat).tobytes() == expected.tobytes()


class Spy:
    """Plays given moves, row by row, then nothing, and notes what it is shown."""

    def __init__(self, moves):
        self.name, self.moves, self.seen = "spy", moves, {}

    def reset(self, games):
        pass

    def act(self, view):
        for row, sight in zip(view.rows.tolist(), observe_view(view), strict=True):
            self.seen[row, view.turn] = sight.tobytes()
        now = [(*self.moves[row], *[Move(False)] * 24)[view.turn - 1] for row in view.rows.tolist()]
        return Moves(np.array([m.accept for m in now]), np.array([m.price for m in now]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TABLES)
def test_a_policy_is_shown_the_same(table):
    games, moves = be.Scenarios.of([game for game, _ in table]), [moves for _, moves in table]
    spies = Spy(moves), Spy(moves)
    be.play(games, *spies)
    for row, (scenario, script) in enumerate(table):
        for state in played(scenario, [*script, *[Move(False)] * 24]):
            if not core.is_over(scenario, state):
                seat = core.mover(scenario, state)
                expected = by_the_table(scenario, state, seat)
                assert spies[seat].seen.pop((row, state.turn)) == expected.tobytes()
    assert not spies[0].seen
    assert not spies[1].seen


@settings(max_examples=40, deadline=None, derandomize=True)
@given(GAMES.filter(lambda game: game.max_turns >= 2), st.lists(st.integers(0, 131), min_size=12, max_size=24))
def test_the_faces_show_the_same(scenario, actions):
    aec, parallel = bargain_v0.raw_env(), bargain_v0.parallel_env()
    aec.reset(options={"scenario": scenario})
    observations, _ = parallel.reset(options={"scenario": scenario})
    for action in actions:
        for seat, agent in enumerate(aec.agents):
            expected = by_the_table(scenario, aec.session.state, Seat(seat)).tobytes()
            assert aec.observe(agent)["observation"].tobytes() == expected
            assert observations[agent]["observation"].tobytes() == expected
        assert aec.state()[:SIZE].tobytes() == aec.observe("buyer_0")["observation"].tobytes()
        assert aec.state()[SIZE] == aec.observe("seller_0")["observation"][3]
        if not parallel.agents:
            break
        aec.step(action)
        observations = parallel.step(dict.fromkeys(parallel.agents, action))[0]


def test_what_was_shown_is_not_touched_again():
    env = bargain_v0.raw_env()
    env.reset(seed=0)
    kept = []
    for action in (30, 90, 40, 0):
        kept.append((env.observe("buyer_0")["observation"], env.observe("buyer_0")["observation"].copy(), env.state()))
        env.step(action)
    for seen, copy, state in kept:
        assert seen.tobytes() == copy.tobytes() == state[:SIZE].tobytes()
