"""The PettingZoo face: its own conformance tests, equality with the engine, privacy, deadline and rewards."""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pettingzoo
import pytest
from gymnasium.error import InvalidAction, UnsupportedMode
from pettingzoo.test import api_test, render_test, seed_test

from bargain_env import Move, Scenario, Seat, State, actions, bargain_v0, core
from bargain_env.errors import InputError
from bargain_env.observation import SIZE, observe

FACES = [bargain_v0.env, bargain_v0.raw_env]


def play_random(env, rng, moves=100):
    """Legal random moves until the game ends or ``moves`` are played; returns what was seen."""
    seen = []
    for agent in env.agent_iter():
        obs, reward, terminated, truncated, _ = env.last()
        seen.append((agent, obs["observation"].tobytes(), obs["action_mask"].tobytes(), reward, terminated))
        assert not truncated
        if len(seen) > moves:
            break
        env.step(None if terminated else int(rng.choice(np.flatnonzero(obs["action_mask"]))))
    return seen


@pytest.mark.parametrize("make", FACES)
def test_official_conformance(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PettingZoo exempts its own environments with a mask from these two by name.
        warnings.filterwarnings("ignore", message="Observation is not a NumPy array|Observation space for each agent")
        api_test(make(), num_cycles=500)
        seed_test(make, num_cycles=200)
    render_test(lambda render_mode=None: make(render_mode=render_mode))


@pytest.mark.parametrize("make", FACES)
def test_copies_go_on_alike(make):
    env = make()
    env.reset(seed=4)
    for action in (40, 90, 50):
        env.step(action)
    twins = [env, copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    runs = [play_random(twin, np.random.default_rng(0)) for twin in twins]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) > 2


@pytest.mark.parametrize("seed", range(5))
def test_same_game_as_the_core(seed):
    env, rng = bargain_v0.raw_env(n_prices=14, max_turns=7), np.random.default_rng(seed)
    env.reset(seed=seed)
    scenario, state = env.scenario, State()
    prices = actions.grid(200, 1500, 14)
    while not core.is_over(scenario, state):
        assert env.agent_selection == ("buyer_0", "seller_0")[core.mover(scenario, state)]
        action = int(rng.integers(15))
        env.step(action)
        state = core.step(scenario, state, actions.decode(action, prices))
        assert env.session.state == state
    assert all(env.terminations.values())


def test_seed_and_reset_count_games():
    env, other = bargain_v0.raw_env(), bargain_v0.raw_env()
    env.reset(seed=9)
    games = [env.scenario]
    for _ in range(3):
        env.reset()
        games.append(env.scenario)
    assert [g.id for g in games] == [0, 1, 2, 3]
    assert [g.starter for g in games] == [0, 1, 0, 1]
    other.reset(seed=9)
    assert other.scenario == games[0]
    other.reset(seed=10)
    assert other.scenario.buyer_max != games[0].buyer_max
    other.reset(options=None)
    mine = Scenario(900, 400, starter=Seat.SELLER, max_turns=5)
    other.reset(options={"scenario": mine})
    assert other.scenario == mine
    assert other.agent_selection == "seller_0"


def test_the_other_reservation_is_in_nothing_that_a_seat_sees():
    shown = []
    for seller_min in (400, 700):
        env = bargain_v0.raw_env()
        env.reset(options={"scenario": Scenario(900, seller_min)})
        seen = []
        for action in (31, 81, 41, 71):
            env.step(action)
            seen.append((env.observe("buyer_0")["observation"].tobytes(), str(env.infos["buyer_0"])))
        shown.append((seen, env.observe("seller_0")["observation"][3]))
    assert shown[0][0] == shown[1][0]
    assert shown[0][1] != shown[1][1]


def test_deal_pays_the_utilities_on_the_last_move_only():
    env = bargain_v0.raw_env()
    env.reset(options={"scenario": Scenario(900, 400)})
    for action in (1 + 30, 1 + 60, 1 + 40):  # 500, 800, 600
        env.step(action)
        assert set(env.rewards.values()) == {0.0}
    env.step(actions.ACCEPT)
    assert env.rewards == {"buyer_0": pytest.approx(0.6), "seller_0": pytest.approx(0.4)}
    assert env.terminations == {"buyer_0": True, "seller_0": True}
    assert [env.last()[1], env.agent_selection] == [pytest.approx(0.6), "buyer_0"]


@pytest.mark.parametrize("make", FACES)
def test_deadline_terminates_both_and_pays_nothing(make):
    env = make(max_turns=6)
    env.reset(seed=1)
    for _ in range(6):
        assert not any(env.terminations.values())
        env.step(60)
    assert env.terminations == {"buyer_0": True, "seller_0": True}
    assert env.truncations == {"buyer_0": False, "seller_0": False}
    assert env.rewards == {"buyer_0": 0.0, "seller_0": 0.0}


def test_illegal_accept_is_a_counted_wasted_turn_in_raw_and_the_end_in_env():
    raw, guarded = bargain_v0.raw_env(), bargain_v0.env()
    for env in (raw, guarded):
        env.reset(seed=0)
        assert env.last()[0]["action_mask"][0] == 0
        env.step(actions.ACCEPT)
    assert raw.agent_selection == "seller_0"
    assert [raw.infos[a]["invalid_moves"] for a in raw.agents] == [1, 0]
    assert raw.observe("seller_0")["action_mask"][0] == 0
    assert guarded.rewards["buyer_0"] == -1
    assert all(guarded.terminations.values())
    with pytest.raises(InvalidAction, match=r"not in Discrete\(132\)"):
        raw.step(500)


def test_masks():
    env = bargain_v0.raw_env()
    env.reset(seed=0)
    assert env.observe("buyer_0")["action_mask"].sum() == 131
    assert env.observe("seller_0")["action_mask"].sum() == 0
    env.step(5)
    assert env.observe("seller_0")["action_mask"].sum() == 132
    assert (env.infos["seller_0"]["action_mask"] == env.observe("seller_0")["action_mask"]).all()


def test_actions_round_trip():
    prices = actions.grid(200, 1500)
    assert np.diff(prices) == pytest.approx(10)
    for action in range(132):
        assert actions.encode(actions.decode(action, prices), prices) == action
    assert actions.encode(Move(False, 206.0), prices) == 2
    assert actions.encode(Move(False, 205.0), prices) == 1
    for price in (199.0, 1501.0, float("nan")):
        with pytest.raises(ValueError, match="public range"):
            actions.encode(Move(False, price), prices)


def test_observation_by_hand():
    scenario, state = Scenario(850, 400, max_turns=10), State()
    for price in (200, 1500, 525, 1175, 850, 1000, 900, 950, 910):
        state = core.step(scenario, state, Move(False, price))
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
    scenario, state = Scenario(850, 400, max_turns=10), State()
    for move in (Move(False, 850), Move(False, np.nan)):
        state = core.step(scenario, state, move)
    seen = observe(scenario, state, Seat.BUYER)
    assert seen[4:8].tolist() == [0, -1, 0, 0]  # 850 is the middle of the range: it stands, and it is the buyer's own
    assert seen[14:17].tolist() == [0, -1, 0]


def test_text_shows_no_reservation():
    env = bargain_v0.raw_env(render_mode="ansi")
    env.reset(options={"scenario": Scenario(901, 403)})
    for action in (31, 0, 0, 61, 0):
        env.step(action)
        if any(env.terminations.values()):
            break
    assert env.render().splitlines()[1:] == ["  1 buyer  offers 500.0", "  2 seller accepts 500.0", "deal at 500.0"]
    assert "901" not in env.render()


def test_bad_configuration_is_refused_at_once():
    for bad in ({"scenario": "nope"}, {"max_turns": 0}, {"n_prices": 1}, {"render_mode": "rgb"}):
        with pytest.raises((InputError, UnsupportedMode), match=next(iter(bad))):
            bargain_v0.raw_env(**bad)


@pytest.mark.skipif(not hasattr(pettingzoo, "register"), reason="PettingZoo before 1.27 has no registry")
def test_registered():
    env = pettingzoo.make("aec", "bargain/bargain-v0", max_turns=4)
    env.reset(seed=0)
    assert env.unwrapped.scenario.max_turns == 4


def test_the_package_itself_stays_light():
    code = "import bargain_env, sys; print([m for m in ('matplotlib', 'rich', 'pandas', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
