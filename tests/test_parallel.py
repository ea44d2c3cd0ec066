"""The parallel face, and what both PettingZoo faces share: official tests, names, the same game move by move."""

from __future__ import annotations

import numpy as np
import pettingzoo
import pytest
from faces import AGENTS, advance, same, some_action, warnings_as_errors
from pettingzoo.test import parallel_api_test, parallel_seed_test, render_test
from pettingzoo.test.state_test import state_test, test_parallel_env, test_state_space
from pettingzoo.utils import parallel_to_aec, turn_based_aec_to_parallel

from bargain_env import Scenario, bargain_v0

# PettingZoo's functions are called test_…; they are not tests of this module.
test_state_space.__test__ = test_parallel_env.__test__ = False

CONFIGURATIONS = [
    {},
    {"action_mode": "box"},
    {"scenario": "no_deal", "max_turns": 2, "n_prices": 2},
    {"scenario": "paper", "max_turns": 7, "turn_cost": 0.02, "opponent_weight": -0.5, "discount": 0.9},
]
configured = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: ", ".join(map(str, c.values())))


@configured
def test_official_conformance(configuration):
    with warnings_as_errors():
        parallel_api_test(bargain_v0.parallel_env(**configuration), num_cycles=300)
        parallel_seed_test(lambda: bargain_v0.parallel_env(**configuration), num_cycles=100)


@configured
def test_official_state_test(configuration):
    with warnings_as_errors():
        for make in (bargain_v0.raw_env, bargain_v0.env):
            state_test(make(**configuration), bargain_v0.parallel_env(**configuration), num_cycles=30)


def test_official_render_test():
    def make(render_mode=None):
        return parallel_to_aec(bargain_v0.parallel_env(max_turns=3, render_mode=render_mode))

    with warnings_as_errors():
        render_test(make)


def test_render_modes(capsys):
    shown = {}
    for mode in (None, "ansi", "human", "rgb_array"):
        env = bargain_v0.parallel_env(max_turns=2, render_mode=mode)
        env.reset(seed=0)
        env.step(dict.fromkeys(AGENTS, 31))
        env.step(dict.fromkeys(AGENTS, 0))
        shown[mode] = env.render()
    assert shown[None] is None
    assert shown["human"] is None
    assert capsys.readouterr().out.splitlines()[: len(shown["ansi"].splitlines())] == shown["ansi"].splitlines()
    assert shown["ansi"].endswith("deal at 500.0")
    assert shown["rgb_array"].dtype == np.uint8
    assert shown["rgb_array"].shape[2] == 3


# ── one game at both faces ────────────────────────────────────────────────────────────────────────────────────────────


@configured
def test_same_game_as_the_aec_face(configuration):
    """Also illegal moves, several games on end, and an action of the seat that waits, which nobody reads."""
    aec, parallel = bargain_v0.raw_env(**configuration), bargain_v0.parallel_env(**configuration)
    rng = np.random.default_rng(0)
    deals = wasted = 0
    for seed in [8, *[None] * 20]:
        aec.reset(seed=seed)
        observations, infos = parallel.reset(seed=seed)
        rewards, over = dict.fromkeys(AGENTS, 0.0), dict.fromkeys(AGENTS, False)
        while True:
            mover = aec.agent_selection
            assert aec.scenario == parallel.scenario
            same(aec.state(), parallel.state())
            same([aec.rewards, aec.terminations], [rewards, over])
            for agent in AGENTS:
                check_same_sight(aec, observations, infos, agent)
            if not parallel.agents:
                break
            actions = {agent: some_action(aec.action_space(agent), rng) for agent in AGENTS}
            aec.step(actions[mover])
            observations, rewards, over, truncations, infos = parallel.step(actions)
            assert truncations == dict.fromkeys(AGENTS, False)
        deals += infos["buyer_0"]["agreement"]
        wasted += sum(infos[agent]["invalid_moves"] for agent in AGENTS)
    assert deals
    assert wasted or configuration.get("action_mode") == "box"


def check_same_sight(aec, observations, infos, agent):
    """The same observation and info, but for the mask of a seat that is not to move and for ``active_agent``."""
    seen, info = aec.observe(agent), dict(aec.infos[agent])
    to_move = agent == aec.agent_selection and not aec.terminations[agent]
    assert infos[agent]["active_agent"] is (not aec.terminations[agent] and agent == aec.agent_selection)
    rest = {k: v for k, v in infos[agent].items() if k != "active_agent"}
    if isinstance(seen, dict):
        same(seen["observation"], observations[agent]["observation"])
        same(observations[agent]["action_mask"], rest.pop("action_mask"))
        mask = info.pop("action_mask")
        if to_move:
            same(mask, observations[agent]["action_mask"])
        else:
            assert (mask.sum(), observations[agent]["action_mask"].tolist()) == (0, [1, *[0] * (len(mask) - 1)])
    else:
        same(seen, observations[agent])
    same(info, rest)


def test_same_game_as_pettingzoos_converter():
    """But for what its own issues complain of: ``active_agent`` at reset, waiting masks of zeros, 4 values after the end."""
    ours, theirs = bargain_v0.parallel_env(max_turns=6), turn_based_aec_to_parallel(bargain_v0.raw_env(max_turns=6))
    rng = np.random.default_rng(1)
    for seed in range(20):
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        while ours.agents:
            actions = {agent: some_action(ours.action_space(agent), rng) for agent in AGENTS}
            mine, his = ours.step(actions), theirs.step(actions)
            same(mine[1:4], his[1:4])
            for agent in ours.agents:
                same(mine[0][agent]["observation"], his[0][agent]["observation"])
                for key in ("invalid_moves", "agreement"):
                    same(mine[4][agent][key], his[4][agent][key])
        assert not theirs.agents


@configured
def test_masks_can_always_be_sampled_from(configuration):
    env, rng = bargain_v0.parallel_env(**configuration), np.random.default_rng(2)
    for seed in range(5):
        observations, infos = env.reset(seed=seed)
        while True:
            active = AGENTS[env.session.mover] if env.agents else None
            assert [infos[agent]["active_agent"] for agent in AGENTS] == [agent == active for agent in AGENTS]
            for agent in AGENTS:
                if "action_mask" in infos[agent]:
                    mask = observations[agent]["action_mask"]
                    same(mask, infos[agent]["action_mask"])
                    assert mask is not infos[agent]["action_mask"]
                    assert mask.sum() == 1 if agent != active else mask.sum() >= env.session.settings.n_prices
                assert env.observation_space(agent).contains(observations[agent])
            if not env.agents:
                break
            actions = {agent: some_action(env.action_space(agent), rng) for agent in AGENTS}
            observations, _, _, _, infos = env.step(actions)


def test_nothing_is_left_after_the_end():
    env = bargain_v0.parallel_env(max_turns=2)
    env.reset(seed=0)
    for k in range(2):
        assert env.agents == list(AGENTS)
        _, _, terminations, truncations, _ = env.step(dict.fromkeys(AGENTS, 60))
        assert terminations == dict.fromkeys(AGENTS, k == 1), "both seats, on the same step"
        assert truncations == dict.fromkeys(AGENTS, False)
    assert env.agents == []
    before = env.get_state()
    for actions in ({}, dict.fromkeys(AGENTS, 60), None):
        assert env.step(actions) == ({}, {}, {}, {}, {})
    same(env.get_state(), before)
    env.reset()
    assert env.agents == list(AGENTS)
    assert env.scenario.id == 1


def test_reset_counts_games_and_takes_a_scenario():
    env, other = bargain_v0.parallel_env(), bargain_v0.raw_env()
    ids = []
    for seed in (5, None, None, 5):
        env.reset(seed=seed)
        other.reset(seed=seed)
        assert env.scenario == other.scenario
        ids.append(env.scenario.id)
    assert ids == [0, 1, 2, 0]
    mine = Scenario(900, 400, starter=1, max_turns=3)
    _, infos = env.reset(options={"scenario": mine})
    assert env.scenario == mine
    assert [infos[agent]["active_agent"] for agent in AGENTS] == [False, True]


def test_what_was_returned_is_not_touched_again():
    env, rng = bargain_v0.parallel_env(max_turns=9), np.random.default_rng(0)
    kept = [env.reset(seed=0)]
    copies = [repr(kept[0])]
    while env.agents:
        kept.append(advance(env, rng))
        copies.append(repr(kept[-1]))
    assert [repr(one) for one in kept] == copies
    for one in kept:
        for agent in AGENTS:
            one[0][agent]["observation"][:] = 7
            one[0][agent]["action_mask"][:] = 7
            one[-1][agent]["action_mask"][:] = 7
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    again = [repr(advance(env, rng)) for _ in copies[1:]]
    assert again == copies[1:], "writing into what was returned changes nothing"


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(pettingzoo, "register"), reason="PettingZoo before 1.27 has no registry")
@pytest.mark.parametrize(
    ("kind", "made"), [("aec", bargain_v0.GuardedBargainAEC), ("parallel", bargain_v0.BargainParallel)]
)
@pytest.mark.parametrize("name", ["bargain/bargain-v0", "bargain/bargain_v0"])
def test_registered(kind, made, name):
    with warnings_as_errors():
        env = pettingzoo.make(kind, name, max_turns=4, action_mode="box")
    assert type(env.unwrapped) is made
    env.reset(seed=0)
    assert env.unwrapped.scenario.max_turns == 4
    assert env.action_space("buyer_0").shape == (1,)


def test_the_faces_agree_on_their_spaces():
    for configuration in CONFIGURATIONS:
        faces = [make(**configuration) for make in (bargain_v0.raw_env, bargain_v0.env, bargain_v0.parallel_env)]
        for env in faces:
            assert env.possible_agents == list(AGENTS)
            assert env.state_space == faces[0].state_space
            for agent in AGENTS:
                assert env.observation_space(agent) is env.observation_space(agent)
                assert env.observation_space(agent) == faces[0].observation_space(agent)
                assert env.action_space(agent) == faces[0].action_space(agent)
    assert not faces[0].metadata["is_parallelizable"], "two seats that take turns do not act at once"
