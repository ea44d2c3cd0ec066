"""What the tests of the faces share: comparison bit for bit, an opponent with memory, and one way to drive any face."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from pettingzoo import AECEnv, ParallelEnv

from bargain_env import Moves

AGENTS = ("buyer_0", "seller_0")


def same(one, two, path="") -> None:
    """Fail, and say where, unless both hold the same values in the same types, dtypes and shapes."""
    assert type(one) is type(two), f"{path}: {type(one)} and {type(two)}"
    if isinstance(one, dict):
        assert one.keys() == two.keys(), f"{path}: {sorted(one)} and {sorted(two)}"
        for key in one:
            same(one[key], two[key], f"{path}/{key}")
    elif isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        assert len(one) == len(two), f"{path}: {len(one)} and {len(two)} entries"
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            same(a, b, f"{path}[{i}]")
    elif isinstance(one, np.ndarray | np.generic):
        assert (one.dtype, one.shape) == (two.dtype, two.shape), path
        assert one.tobytes() == two.tobytes(), f"{path}: {one} and {two}"
    else:
        assert repr(one) == repr(two), path  # repr: NaN is NaN, 0.0 is not -0.0


def are_same(one, two) -> bool:
    try:
        same(one, two)
    except AssertionError:
        return False
    return True


@contextmanager
def warnings_as_errors(*allowed: str):
    """Every warning is an error but those whose message starts with one of ``allowed``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for message in allowed:
            warnings.filterwarnings("ignore", message=message)
        yield


class Diary:
    """An opponent with memory: what it does depends on how often it was asked, and on all it was offered, in this game.

    It also accepts where nothing stands and offers nothing at all, now and then; in some games it opens with that.
    """

    def __init__(self, name="diary"):
        self.name = name

    def reset(self, games):
        self.heard = [[] for _ in range(len(games))]

    def act(self, view):
        low, high = view.games.price_low, view.games.price_high
        for row, standing in zip(view.rows.tolist(), view.standing.tolist(), strict=True):
            self.heard[row].append(standing)
        asked = np.array([len(self.heard[row]) for row in view.rows.tolist()])
        total = np.array([np.nansum(self.heard[row]) for row in view.rows.tolist()])
        price = low + (high - low) * ((0.37 * asked + total / 977.0) % 1.0)
        return Moves((asked + view.games.id) % 5 == 4, np.where((asked + view.games.id) % 7 == 2, np.nan, price))


class Script:
    """Plays given moves, one for each of its turns, then repeats the last: a price, None to accept, NaN for nothing."""

    memoryless = True

    def __init__(self, *moves):
        self.name, self.moves = "script", moves

    def reset(self, games):
        pass

    def act(self, view):
        move = self.moves[min((view.turn - 1) // 2, len(self.moves) - 1)]
        n = len(view)
        return Moves(np.full(n, move is None), np.full(n, np.nan if move is None else move))


def some_action(space, rng):
    """An action of ``space``, legal or not; ACCEPT more often than the grid has it."""
    if isinstance(space, spaces.Discrete):
        return int(rng.integers(space.n)) if rng.random() < 0.75 else 0
    return rng.uniform(-1, 1, space.shape).astype(np.float32)


def some_actions(env, rng):
    """The same for a vector environment."""
    actions = [some_action(env.single_action_space, rng) for _ in range(env.num_envs)]
    return np.array(actions)


def advance(env, rng):
    """One random move, or the next game where one has ended; returns all that anybody can see afterwards."""
    if isinstance(env, AECEnv):
        if not env.agents:
            env.reset()
        elif env.terminations[env.agent_selection]:
            env.step(None)
        else:
            env.step(some_action(env.action_space(env.agent_selection), rng))
        return look(env)
    if isinstance(env, ParallelEnv):
        if not env.agents:
            return env.reset()
        return env.step({agent: some_action(env.action_space(agent), rng) for agent in env.agents})
    if isinstance(env, VectorEnv):
        return env.step(some_actions(env, rng))
    if env.session.over:
        return env.reset()
    return env.step(some_action(env.action_space, rng))


def look(env):
    """All that an AEC environment shows of the position it is in."""
    seats = {
        agent: [
            env.observe(agent),
            env.infos[agent],
            env.rewards[agent],
            env._cumulative_rewards[agent],
            env.terminations[agent],
            env.truncations[agent],
        ]
        for agent in env.agents
    }
    return [seats, env.agent_selection, env.state(), env.last() if env.agents else None]


def episode(env, choose, **reset):
    """One game of a Gymnasium environment; returns the rewards, the last observation and the last info."""
    observation, info = env.reset(**reset)
    rewards, terminated = [], False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(choose(observation, info))
        assert truncated is False, "nothing is ever truncated"
        assert type(reward) is float
        rewards.append(reward)
    return rewards, observation, info
