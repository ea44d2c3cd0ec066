"""The AEC face: PettingZoo's own tests, equality with the engine, what a move pays, the deadline, the guards."""

import subprocess
import sys

import numpy as np
import pytest
from faces import AGENTS, look, same, some_action, warnings_as_errors
from gymnasium.error import InvalidAction
from pettingzoo.test import api_test, render_test, seed_test

from bargain_env import Scenario, Seat, State, actions, bargain_v0, core

FACES = [bargain_v0.env, bargain_v0.raw_env]
# PettingZoo exempts its own environments with a mask from these two by name.
EXEMPT = ("Observation is not a NumPy array", "Observation space for each agent")


@pytest.mark.parametrize(
    "configuration",
    [{}, {"scenario": "no_deal", "max_turns": 3, "n_prices": 2}, {"turn_cost": 0.1, "opponent_weight": -1}],
    ids=str,
)
@pytest.mark.parametrize("make", FACES)
def test_official_conformance(make, configuration):
    with warnings_as_errors(*EXEMPT):
        api_test(make(**configuration), num_cycles=300)
        seed_test(lambda: make(**configuration), num_cycles=200)
    with warnings_as_errors():
        api_test(make(action_mode="box", **configuration), num_cycles=300)
        seed_test(lambda: make(action_mode="box", **configuration), num_cycles=200)


@pytest.mark.parametrize("make", FACES)
def test_official_render_test(make, capsys):
    with warnings_as_errors():
        render_test(lambda render_mode=None: make(render_mode=render_mode))
    assert "prices 200 to 1500" in capsys.readouterr().out


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


@pytest.mark.parametrize("mode", ["grid", "box"])
def test_the_guards_change_nothing_in_a_legal_game(mode):
    raw, guarded = (
        make(action_mode=mode, max_turns=8, turn_cost=0.01) for make in (bargain_v0.raw_env, bargain_v0.env)
    )
    rng = np.random.default_rng(0)
    for seed in (4, *[None] * 9):
        raw.reset(seed=seed)
        guarded.reset(seed=seed)
        for agent in guarded.agent_iter():
            same(look(raw), look(guarded))
            observation, _, terminated, _, info = raw.last()
            same(raw.observe(agent), observation)
            action = some_action(raw.action_space(agent), rng)
            if not terminated and mode == "grid" and not info["action_mask"][action]:
                action = 70
            raw.step(None if terminated else action)
            guarded.step(None if terminated else action)
        assert raw.agents == guarded.agents == []


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
    assert env.terminations == dict.fromkeys(AGENTS, True)
    assert env.truncations == dict.fromkeys(AGENTS, False)
    assert env.rewards == dict.fromkeys(AGENTS, 0.0)


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


def test_text_shows_no_reservation():
    env = bargain_v0.raw_env(render_mode="ansi")
    env.reset(options={"scenario": Scenario(901, 403)})
    for action in (31, 0, 0, 61, 0):
        env.step(action)
        if any(env.terminations.values()):
            break
    assert env.render().splitlines()[1:] == ["  1 buyer  offers 500.0", "  2 seller accepts 500.0", "deal at 500.0"]
    assert "901" not in env.render()


def test_the_package_itself_stays_light():
    code = "import bargain_env, sys; print([m for m in ('matplotlib', 'rich', 'pandas', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
