"""Copies in the middle of a game: clone, deepcopy, pickle and get_state/set_state, at every face and every turn."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from faces import Diary, advance, are_same, look, same
from gymnasium.vector import AutoresetMode

import agents  # noqa: F401  (lets opponents be given by name)
from bargain_env import bargain_v0
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv

GAME = {"max_turns": 5, "scenario": "no_deal", "turn_cost": 0.01}
FACES = {
    "AEC raw": lambda: bargain_v0.raw_env(**GAME),
    "AEC raw, box": lambda: bargain_v0.raw_env(action_mode="box", **GAME),
    "AEC env": lambda: bargain_v0.env(**GAME),
    "AEC env, box": lambda: bargain_v0.env(action_mode="box", **GAME),
    "parallel": lambda: bargain_v0.parallel_env(**GAME),
    "parallel, box": lambda: bargain_v0.parallel_env(action_mode="box", **GAME),
    "single": lambda: BargainEnv(**GAME),
    "single, opponent with memory": lambda: BargainEnv("seller", Diary(), action_mode="box", **GAME),
    "single, mixture": lambda: BargainEnv(opponent=["tit_for_tat", "noisy_boulware_hard"], **GAME),
    **{
        f"vector, {mode.value}": lambda mode=mode: BargainVectorEnv(3, autoreset_mode=mode, **GAME)
        for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    },
    "vector, opponent with memory": lambda: BargainVectorEnv(3, "seller", Diary(), action_mode="box", **GAME),
}
STEPS = 16  # more than two games of 5 turns at any face


def restored(env, make):
    """The position of ``env`` in another environment, which is somewhere in another game."""
    other = make()
    other.reset(seed=99)
    for k in range(2):
        advance(other, np.random.default_rng(k))
    other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    return other


def restored_in_new(env, make):
    other = make()
    other.set_state(env.get_state())
    return other


WAYS = {
    "clone": lambda env, _: env.clone(),
    "deepcopy": lambda env, _: copy.deepcopy(env),
    "pickle": lambda env, _: pickle.loads(pickle.dumps(env)),
    "state": restored,
    "state in a new one": restored_in_new,
}


def ways(env):
    return [way for name, way in WAYS.items() if "state" not in name or hasattr(env, "set_state")]


def walk(env, first, last):
    """What steps ``first`` to ``last`` show; the same random actions for the same steps."""
    return [copy.deepcopy(advance(env, np.random.default_rng([10, k]))) for k in range(first, last)]


@pytest.mark.parametrize("face", FACES)
def test_a_copy_goes_on_alike_and_does_not_disturb(face):
    make = FACES[face]
    undisturbed, env = make(), make()
    for fresh in (undisturbed, env):
        fresh.reset(seed=3)
    expected = walk(undisturbed, 0, STEPS)
    assert not are_same(expected[0], expected[1]), "something happens"
    if face in ("AEC raw", "parallel", "single", "single, mixture"):
        assert "'invalid_moves': 1" in repr(expected), "turns are wasted, too"
    for k in range(STEPS):
        for way in ways(env):
            twin = way(env, make)
            assert twin is not env
            same(walk(twin, k, STEPS), expected[k:])
        same(walk(env, k, k + 1), expected[k : k + 1])


@pytest.mark.parametrize("make", FACES.values(), ids=FACES)
def test_a_copy_can_be_made_before_the_first_game(make):
    env = make()
    for way in ways(env):
        twin = way(env, make)
        twin.reset(seed=3)
        again = make()
        again.reset(seed=3)
        same(walk(twin, 0, 4), walk(again, 0, 4))


@pytest.mark.parametrize("make", [make for name, make in FACES.items() if "vector" not in name])
def test_one_environment_returns_to_where_it_was(make):
    env = make()
    env.reset(seed=3)
    states, seen = [], []
    for k in range(STEPS):
        states.append(env.get_state())
        seen.append(walk(env, k, k + 1))
    for k in np.random.default_rng(0).permutation(STEPS).tolist():
        env.set_state(states[k])
        same(walk(env, k, k + 1), seen[k])
    env.set_state(states[0])
    same(walk(env, 0, STEPS), [step for one in seen for step in one])


@pytest.mark.parametrize("make", [bargain_v0.raw_env, bargain_v0.env])
def test_a_copy_made_inside_the_loop_has_a_loop_of_its_own(make):
    env = make(**GAME)
    env.reset(seed=3)
    for agent in env.agent_iter():
        before, twin = copy.deepcopy(look(env)), env.clone()
        for other in twin.agent_iter():
            twin.step(None if twin.terminations[other] else 40)
        assert not twin.agents
        same(look(env), before)
        env.step(None if env.terminations[agent] else 50)


def test_states_are_plain_values():
    for make in FACES.values():
        env = make()
        if not hasattr(env, "get_state"):
            continue
        env.reset(seed=3)
        states = [env.get_state(), env.get_state()]
        same(*(pickle.dumps(state) for state in states))
        advance(env, np.random.default_rng(0))
        assert pickle.dumps(env.get_state()) != pickle.dumps(states[0])


def test_what_was_printed_belongs_to_the_position(capsys):
    env = bargain_v0.raw_env(render_mode="human", **GAME)
    env.reset(seed=0)
    start = env.get_state()
    env.step(30)
    env.step(90)
    env.set_state(start)
    capsys.readouterr()
    env.step(50)
    assert "690" in capsys.readouterr().out, "a turn that is played after going back is printed"


def test_every_line_is_printed_once(capsys):
    env = bargain_v0.raw_env(render_mode="human", **GAME)
    env.reset(seed=0)
    for action in (30, 90, 50, 0):
        env.render()
        env.step(action)
        env.render()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["game", "1", "2", "3", "4", "deal"]
