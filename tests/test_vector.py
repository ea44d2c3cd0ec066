"""The vector environment: bit for bit a `SyncVectorEnv` of scalar ones, whatever the mode, the opponent and the company."""

from __future__ import annotations

import numpy as np
import pytest
from faces import Diary, are_same, same, some_actions
from gymnasium.error import Error, InvalidAction, ResetNeeded, UnsupportedMode
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import agents  # noqa: F401  (lets opponents be given by name)
from bargain_env import Scenario, Seat
from bargain_env.errors import InputError
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv

ZOO = ["boulware_hard", "tit_for_tat", "charging_boul", "micro_fine", "noisy_boulware_firm"]
COSTS = {"turn_cost": 0.01, "opponent_weight": -0.5, "discount": 0.97}
# Functions of a configuration, as every scalar environment must have an opponent of its own.
OPPONENTS = {
    "default": dict,
    "one name, on the paper's games": lambda: {"opponent": "boulware_conceding", "scenario": "paper"},
    "views of one turn only": lambda: {"opponent": "charging_boul", "seat": "seller"},
    "mixture, with costs": lambda: {"opponent": ZOO, "seat": "seller", "scenario": "no_deal", **COSTS},
    "memory": lambda: {"opponent": Diary()},
    "memory, with costs": lambda: {"opponent": Diary(), "seat": "seller", "tick": 25.0, **COSTS},
}
every_mode = pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.value)
every_opponent = pytest.mark.parametrize("opponent", OPPONENTS.values(), ids=OPPONENTS)


def pair(n, mode, configure, **more):
    """The vector environment, and n scalar ones."""
    vector = BargainVectorEnv(n, autoreset_mode=mode, **configure(), **more)
    return vector, SyncVectorEnv([lambda: BargainEnv(**configure(), **more)] * n, autoreset_mode=mode)


def walk(vector, scalars, mode, steps, rng, restarts=0.0):
    """Play both alike and compare all they return; sometimes start games in the middle. Returns games ended by slot."""
    n, ended = vector.num_envs, np.zeros(vector.num_envs, dtype=int)
    for _ in range(steps):
        actions = some_actions(vector, rng)
        one, two = vector.step(actions), scalars.step(actions)
        same(one, two)
        assert not one[3].any(), "nothing is ever truncated"
        if vector.render_mode and rng.random() < 0.3:
            same(vector.render(), scalars.render())
        ended += one[2]
        mask = one[2] if mode is AutoresetMode.DISABLED else np.zeros(n, dtype=bool)
        seeds = None
        if rng.random() < restarts:
            mask = mask | (rng.random(n) < 0.5)
            seeds = [int(seed) if seed < 50 else None for seed in rng.integers(100, size=n)]
        if mask.any():
            options = ({"reset_mask": mask.copy()} for _ in range(2))
            same(*(env.reset(seed=seeds, options=next(options)) for env in (vector, scalars)))
    return ended


@every_opponent
@pytest.mark.parametrize("action_mode", ["grid", "box"])
@every_mode
def test_bit_for_bit_as_scalar_environments(mode, action_mode, opponent):
    rng = np.random.default_rng(0)
    vector, scalars = pair(5, mode, opponent, action_mode=action_mode, max_turns=7, render_mode="ansi")
    assert not are_same(vector.reset(seed=4), scalars.reset(seed=5)), "the comparison can fail"
    same(vector.reset(seed=4), scalars.reset(seed=4))
    assert walk(vector, scalars, mode, 25, rng).min() >= 1
    seeds = [7, 0, 7, 2**40, 3]
    same(vector.reset(seed=seeds), scalars.reset(seed=seeds))
    walk(vector, scalars, mode, 12, rng, restarts=0.3)
    same(vector.reset(), scalars.reset())
    walk(vector, scalars, mode, 5, rng)


@every_opponent
@every_mode
def test_many_games_on_end(mode, opponent):
    """More than are drawn at a time for a slot."""
    vector, scalars = pair(3, mode, opponent, max_turns=2, n_prices=3)
    same(vector.reset(seed=[1, 5, 1]), scalars.reset(seed=[1, 5, 1]))
    assert walk(vector, scalars, mode, 90, np.random.default_rng(1), restarts=0.02).min() > 32


@pytest.mark.parametrize("opponent", [OPPONENTS[name] for name in ("views of one turn only", "memory, with costs")])
@every_mode
def test_long_games_beside_short_ones(mode, opponent):
    """Longer than anything that is kept at a time."""
    vector, scalars = pair(3, mode, opponent, max_turns=150)
    same(vector.reset(seed=2), scalars.reset(seed=2))
    rng, ended = np.random.default_rng(1), 0
    for _ in range(100):
        actions = np.where(np.arange(3) < 2, 1 if vector.seat is Seat.BUYER else 131, some_actions(vector, rng))
        one, two = vector.step(actions), scalars.step(actions)
        same(one, two)
        ended += one[2][2:].sum()
        if mode is AutoresetMode.DISABLED and one[2].any():
            options = ({"reset_mask": one[2].copy()} for _ in range(2))
            same(*(env.reset(options=next(options)) for env in (vector, scalars)))
    assert ended > 4


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(list(AutoresetMode)),
    seat=st.sampled_from(["buyer", "seller"]),
    n=st.integers(1, 4),
    max_turns=st.integers(2, 12),
    seed=st.integers(0, 10**6),
)
def test_whatever_the_configuration(mode, seat, n, max_turns, seed):
    configuration = {"seat": seat, "max_turns": max_turns, "tick": (0.01, 25.0)[seed % 2], "render_mode": "ansi"}
    vector, scalars = pair(n, mode, lambda: {"opponent": Diary(), **configuration})
    same(vector.reset(seed=seed), scalars.reset(seed=seed))
    walk(vector, scalars, mode, 20, np.random.default_rng(seed), restarts=0.1)


@pytest.mark.parametrize("opponent", [*OPPONENTS.values()], ids=OPPONENTS)
def test_company_does_not_matter(opponent):
    """Slot i of 40 is slot i of 3, and a game is the same in any slot."""
    seeds = np.random.default_rng(3).permutation(40).tolist()
    large, small, turned = (
        BargainVectorEnv(n, autoreset_mode="SameStep", max_turns=6, **opponent()) for n in (40, 3, 40)
    )
    seen = [large.reset(seed=seeds), small.reset(seed=seeds[:3]), turned.reset(seed=seeds[::-1])]
    rng = np.random.default_rng(0)
    for _ in range(25):
        for part, whole in ((seen[1], rows(seen[0], slice(3))), (seen[2], rows(seen[0], slice(None, None, -1)))):
            same(rows(part, slice(None)), whole)
        actions = some_actions(large, rng)
        seen = [large.step(actions), small.step(actions[:3]), turned.step(actions[::-1])]


def rows(returned, which):
    """The rows ``which`` of what a vector environment returned, its last infos apart."""
    if isinstance(returned, dict):
        return {key: rows(value, which) for key, value in returned.items() if "final" not in key}
    if isinstance(returned, tuple):
        return tuple(rows(value, which) for value in returned)
    return returned[which]


def test_what_was_returned_is_not_touched_again():
    env, again = (BargainVectorEnv(3, autoreset_mode="SameStep", max_turns=4) for _ in range(2))
    kept = [env.reset(seed=0)]
    texts = [repr(kept[0])]
    for k in range(8):
        kept.append(env.step(some_actions(env, np.random.default_rng(k))))
        texts.append(repr(kept[-1]))
    assert [repr(one) for one in kept] == texts
    for k in range(-1, 8):
        one = again.reset(seed=0) if k < 0 else again.step(some_actions(again, np.random.default_rng(k)))
        assert repr(one) == texts[k + 1]
        for array in (*one[0].values(), *one[1:-1], *one[-1].values()):
            if isinstance(array, np.ndarray) and array.dtype != object:
                array[...] = 1  # writing into what was returned changes nothing


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────

GRID, BOX = {}, {"action_mode": "box"}
RAGGED = [[1], [1, 2], [3]]


@pytest.mark.parametrize(
    ("configuration", "actions", "message"),
    [
        (GRID, np.array([1, 2]), r"3 integers.*\(2,\)"),
        (GRID, np.array([[1], [2], [3]]), r"3 integers.*\(3, 1\)"),
        (GRID, np.array([1.0, 2.0, 3.0]), "integers, not float64"),
        (GRID, np.array([True, False, True]), "integers, not bool"),
        (GRID, np.array([1, 2, 132]), r"action 132 of game 2 is not in Discrete\(132\)"),
        (GRID, np.array([1, -1, 2]), "action -1 of game 1"),
        (GRID, [1, None, 2], "integers, not object"),
        (GRID, None, "3 integers"),
        (GRID, 7, "3 integers"),
        (GRID, RAGGED, "3"),
        (BOX, np.zeros(3), r"shape \(3, 1\)"),
        (BOX, np.zeros((3, 2)), r"shape \(3, 1\)"),
        (BOX, np.zeros((3, 1), dtype=complex), "not complex128"),
        (BOX, np.array([[0.0], [np.nan], [0.0]]), "action nan of game 1"),
        (BOX, np.array([[0.0], [0.0], [1.01]]), r"action 1.01 of game 2 is not in \[-1, 1\]"),
        (BOX, np.full((3, 1), -np.inf), "action -inf of game 0"),
        (BOX, None, r"shape \(3, 1\)"),
        (BOX, RAGGED, "3"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(configuration, actions, message):
    env, undisturbed = (BargainVectorEnv(3, **configuration) for _ in range(2))
    for one in (env, undisturbed):
        one.reset(seed=0)
    with pytest.raises(InvalidAction, match=message):
        env.step(actions)
    good = some_actions(env, np.random.default_rng(0))
    same(env.step(good), undisturbed.step(good))


def test_steps_need_a_game():
    env = BargainVectorEnv(2, autoreset_mode=AutoresetMode.DISABLED, max_turns=2)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(np.array([1, 1]))
    env.reset(seed=0)
    assert env.step(np.array([1, 1]))[2].all()
    with pytest.raises(ResetNeeded, match="game 0 is over"):
        env.step(np.array([1, 1]))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match="game 1 is over"):
        env.step(np.array([1, 1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2]}, "2 seeds for 3 games"),
        ({"seed": [1, 2, -3]}, "-3"),
        ({"seed": [1, 2, "x"]}, "x"),
        ({"seed": [1, 2, 1.5]}, "1.5"),
        ({"seed": 1.5}, "1.5"),
        ({"options": {"scenario": Scenario(900, 400)}}, "scenario"),
        *(
            ({"options": {"reset_mask": mask}}, "reset_mask")
            for mask in ([True] * 3, np.ones(3), np.ones(2, bool), np.zeros(3, bool), np.ones((3, 1), bool), True)
        ),
    ],
)
def test_bad_resets_are_refused(arguments, message):
    env = BargainVectorEnv(3)
    env.reset(seed=0)
    with pytest.raises((ValueError, Error), match=message):
        env.reset(**arguments)
    part = {"reset_mask": np.array([True, False, True])}
    with pytest.raises(InputError, match="first reset must start all"):
        BargainVectorEnv(3).reset(options=part)
    env.reset(options=part)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"num_envs": 0}, "num_envs 0"),
        ({"autoreset_mode": "next"}, "NextStep, SameStep, Disabled"),
        ({"render_mode": "human"}, "human"),
        ({"max_turn": 3}, "did you mean 'max_turns'"),
        ({"seat": "byer"}, "did you mean 'buyer'"),
        ({"opponent": "tit_for_tit"}, "did you mean 'tit_for_tat'"),
    ],
)
def test_bad_configuration_is_refused(configuration, message):
    with pytest.raises((InputError, UnsupportedMode), match=message):
        BargainVectorEnv(**configuration)


def test_a_slot_without_a_seed_draws_its_own():
    env = BargainVectorEnv(4)
    seen, _ = env.reset(seed=[None, 3, None, 3])
    limits = seen["observation"][:, 3]
    assert limits[1] == limits[3]
    assert len(set(limits.tolist())) == 3
