"""Misuse of the scalar faces: the error classes of Gymnasium and of PettingZoo's guards, a message that helps, no change."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from faces import AGENTS, are_same, same
from gymnasium.error import InvalidAction, ResetNeeded, UnsupportedMode
from pettingzoo.utils import wrappers

from bargain_env import Scenario, bargain_v0
from bargain_env.errors import InputError
from bargain_env.single import BargainEnv

MAKE = {
    "raw_env": bargain_v0.raw_env,
    "env": bargain_v0.env,
    "parallel_env": bargain_v0.parallel_env,
    "BargainEnv": BargainEnv,
}
REFUSAL = {"raw_env": InvalidAction, "env": AssertionError, "parallel_env": InvalidAction, "BargainEnv": InvalidAction}
every_face = pytest.mark.parametrize("face", MAKE)

NOT_IN_GRID = [
    *(None, -1, 132, 10**30, 3.0, np.float32(3), np.nan, np.inf, 3 + 0j, "3", b"3", object(), {}, [3], (3,), slice(3)),
    *(np.int64(132), np.array([3]), np.array([1, 2]), np.array(3.0), np.array("3"), np.bool_(True), np.ma.masked),
]
NOT_IN_BOX = [
    *(None, 0.5, 0, "a", ["a"], [None], {}, [], [0.1, 0.2], [[0.1]], [[1], [1, 2]], [True], object()),
    *(np.float32(0.5), np.array(0.5), np.zeros(2), np.zeros((1, 1)), np.zeros(0), np.array([0.5], dtype=object)),
    *(np.array([value]) for value in (np.nan, np.inf, -np.inf, 1.0000001, -1.5, 1j, True, "a")),
]


def step(env, action):
    """``action`` for the seat to move; the parallel face takes it in a dict."""
    if hasattr(env, "agents") and not hasattr(env, "agent_selection"):
        return env.step(dict.fromkeys(AGENTS, action))
    return env.step(action)


@every_face
@pytest.mark.parametrize(("mode", "actions"), [("grid", NOT_IN_GRID), ("box", NOT_IN_BOX)], ids=["grid", "box"])
def test_actions_outside_the_space_are_refused_and_change_nothing(face, mode, actions):
    env = MAKE[face](action_mode=mode)
    env.reset(options={"scenario": Scenario(900, 400)})
    before = env.get_state()
    named = r"Discrete\(132\)" if mode == "grid" else r"Box\(-1"
    for action in actions:
        with pytest.raises(REFUSAL[face], match=named):
            step(env, action)
        same(env.get_state()["session"], before["session"])
    step(env, 41 if mode == "grid" else np.array([0.1], dtype=np.float32))
    assert not are_same(env.get_state()["session"], before["session"]), "it goes on"


@every_face
@pytest.mark.parametrize(
    ("mode", "actions"),
    [
        ("grid", [41, np.int64(41), np.uint8(41), np.array(41)]),
        ("box", [np.array([0.5], dtype) for dtype in (np.float16, np.float32, np.float64)] + [[0.5]]),
        ("box", [np.array([1], dtype) for dtype in (np.int64, np.uint8)] + [np.array([1.0])]),
    ],
    ids=["integers", "floats", "ends"],
)
def test_equal_actions_of_any_numeric_type_are_the_same(face, mode, actions):
    states = []
    for action in actions:
        env = MAKE[face](action_mode=mode)
        env.reset(seed=0)
        step(env, action)
        states.append(env.get_state()["session"])
    for state in states[1:]:
        same(state, states[0])


def test_parallel_steps_need_the_action_of_the_seat_to_move():
    env = bargain_v0.parallel_env()
    env.reset(seed=0)
    for actions in ({}, {"seller_0": 3}, {"buyer": 3}, None, 3, [3, 3]):
        with pytest.raises(InvalidAction, match="buyer_0 is to move"):
            env.step(actions)
    env.step({"buyer_0": 3})
    with pytest.raises(InvalidAction, match="seller_0 is to move"):
        env.step({"buyer_0": 3})


# ── before the first game ─────────────────────────────────────────────────────────────────────────────────────────────

# PettingZoo's attributes are missing, its guarded calls assert, all else asks for a reset.
ATTRIBUTES = ("agents", "rewards", "terminations", "truncations", "infos", "agent_selection")
BEFORE = [
    *(("raw_env", name, ResetNeeded) for name in ("step", "observe", "state", "render", "scenario")),
    *(("raw_env", name, AttributeError) for name in (*ATTRIBUTES, "last")),
    *(("env", name, AssertionError) for name in ("step", "observe", "state", "render", "agent_iter")),
    *(("env", name, AttributeError) for name in (*ATTRIBUTES, "last")),
    *(("parallel_env", name, ResetNeeded) for name in ("step", "state", "render", "scenario")),
    *(("BargainEnv", name, ResetNeeded) for name in ("step", "render", "action_masks", "scenario")),
]
ARGUMENTS = {"step": (dict.fromkeys(AGENTS, 3),), "observe": ("buyer_0",)}


@pytest.mark.parametrize(("face", "name", "error"), BEFORE)
def test_nothing_is_there_before_the_first_game(face, name, error):
    env = MAKE[face](render_mode="ansi")
    missing = face == "raw_env" and error is AttributeError  # as in any raw environment
    with pytest.raises(error, match=None if missing else "reset"):
        next(iter(getattr(env, name)(*ARGUMENTS.get(name, ()))))


@every_face
def test_a_position_before_the_first_game_can_be_restored(face):
    env = MAKE[face]()
    state = env.get_state()
    env.reset(seed=0)
    env.set_state(state)
    with pytest.raises((ResetNeeded, AssertionError, AttributeError), match="reset"):
        step(env, 3)


# ── after the end ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_the_end_gymnasium_asks_for_a_reset():
    env = gym.make("bargain_env:Bargain-v0", max_turns=2).unwrapped
    env.reset(seed=0)
    assert env.step(3)[2]
    for action in (3, 0, None):
        with pytest.raises(ResetNeeded, match="over"):
            env.step(action)
    env.reset()
    env.step(3)


@pytest.mark.parametrize("make", [bargain_v0.raw_env, bargain_v0.env])
def test_after_the_end_pettingzoo_takes_none_only(make):
    env = make(max_turns=2)
    env.reset(seed=0)
    for _ in range(2):
        env.step(3)
    for left in (["buyer_0", "seller_0"], ["seller_0"]):
        assert env.agents == left
        with pytest.raises((ValueError, AssertionError), match=r"None|Discrete"):
            env.step(3)
        env.step(None)
    assert env.agents == []
    for gone in (env.rewards, env.terminations, env.truncations, env.infos, env._cumulative_rewards):
        assert gone == {}
    if make is bargain_v0.env:
        env.step(None)  # a logged warning, as in PettingZoo's wrapper
    env.reset()
    assert env.agents == list(AGENTS)


def test_the_loop_must_step():
    env = bargain_v0.env()
    env.reset(seed=0)
    with pytest.raises(AssertionError, match=r"step\(\) or reset\(\)"):
        list(env.agent_iter(5))
    env.reset(seed=0)
    assert [env.step(40) for _ in env.agent_iter(5)] == [None] * 5


# ── the guards are PettingZoo's ───────────────────────────────────────────────────────────────────────────────────────


def wrapped():
    env = wrappers.TerminateIllegalWrapper(bargain_v0.raw_env(max_turns=6), illegal_reward=-1)
    return wrappers.OrderEnforcingWrapper(wrappers.AssertOutOfBoundsWrapper(env))


@pytest.mark.parametrize("zero", [0, np.int64(0), np.array(0), np.uint8(0)], ids=repr)
@pytest.mark.parametrize("games", [1, 2], ids=["buyer starts", "seller starts"])
def test_an_illegal_move_ends_the_game_as_with_the_wrappers(games, zero):
    """But it terminates and does not also truncate."""
    ours, theirs = bargain_v0.env(max_turns=6), wrapped()
    for env in (ours, theirs):
        for game in range(games):
            env.reset(seed=3 if game == 0 else None)
        env.step(zero)
    assert ours.rewards == theirs.rewards
    assert sorted(ours.rewards.values()) == [-1, 0]
    assert ours.agent_selection == theirs.agent_selection
    assert ours.terminations == theirs.terminations == dict.fromkeys(AGENTS, True)
    assert ours.truncations == dict.fromkeys(AGENTS, False)
    for _ in AGENTS:
        assert ours.last()[1] == theirs.last()[1]
        ours.step(None)
        theirs.step(None)
    assert ours.agents == theirs.agents == []


@pytest.mark.parametrize("action", NOT_IN_GRID, ids=lambda action: repr(action).partition(" at 0x")[0])
def test_the_same_actions_are_refused_as_by_the_wrappers(action):
    ours, theirs = bargain_v0.env(max_turns=6), wrapped()
    for env in (ours, theirs):
        env.reset(seed=3)
        with pytest.raises(AssertionError, match="action"):
            env.step(action)


# ── options and resets ────────────────────────────────────────────────────────────────────────────────────────────────

BAD_OPTIONS = [
    ({"max_turn": 3}, "did you mean 'max_turns'"),
    ({"scenario": "papr"}, "did you mean 'paper'"),
    ({"action_mode": "boxx"}, "did you mean 'box'"),
    ({"max_turns": 1}, "max_turns 1"),
    ({"n_prices": 1}, "n_prices 1"),
    *(({"tick": tick}, f"tick {tick}") for tick in (0.0, -1.0, np.nan, np.inf, 5000.0)),
    *(({"discount": discount}, f"discount {discount}") for discount in (0.0, 1.1, np.nan)),
    *(({"turn_cost": cost}, f"turn_cost {cost}") for cost in (-0.1, np.nan, np.inf)),
    *(({"opponent_weight": weight}, f"opponent_weight {weight}") for weight in (-1.1, 2, np.nan)),
    # of the wrong type
    *(({"max_turns": turns}, "max_turns") for turns in (2.5, np.nan, "9", None)),
    *(({"n_prices": prices}, "n_prices") for prices in (2.5, "7", None)),
    *(({name: "1"}, name) for name in ("tick", "discount", "turn_cost", "opponent_weight")),
    ({"scenario": None}, "scenario"),
    ({"action_mode": None}, "action_mode"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=str)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises((InputError, TypeError), match=message):
        bargain_v0.raw_env(**options)


@every_face
@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS[:4], ids=str)
def test_bad_options_are_refused_at_every_face(face, options, message):
    with pytest.raises(InputError, match=message):
        MAKE[face](**options)


@every_face
def test_bad_render_modes_are_refused_at_once(face):
    with pytest.raises(UnsupportedMode, match="render_mode 'rgb' is not one of human, ansi, rgb_array"):
        MAKE[face](render_mode="rgb")


@every_face
@pytest.mark.parametrize(
    ("scenario", "message"), [(3, "not int"), ("paper", "not str"), (Scenario(900, 400, max_turns=1), "max_turns 1")]
)
def test_bad_scenarios_are_refused(face, scenario, message):
    env = MAKE[face]()
    with pytest.raises(InputError, match=message):
        env.reset(options={"scenario": scenario})
    for unknown in ({"options": 1}, {}, None, {"scenario": None}):
        env.reset(seed=0, options=unknown)  # PettingZoo's own tests pass such options


@every_face
@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_bad_seeds_are_refused(face, seed):
    with pytest.raises((InputError, gym.error.Error), match=r"[Ss]eed"):
        MAKE[face]().reset(seed=seed)
