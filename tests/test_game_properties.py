"""What must hold in every game: what is shared out, symmetry of the seats, privacy, replay, and what a wasted turn is."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from faces import AGENTS, Script, advance, are_same, same
from hypothesis import given, settings
from hypothesis import strategies as st

from bargain_env import Move, MoveKind, Preset, Scenario, Seat, State, bargain_v0, core
from bargain_env.errors import InputError
from bargain_env.observation import SIZE
from bargain_env.scenarios import PRESETS
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv

# On 0 … 1024 with ticks of 1/4 every price, its scaled value and its mirror image are exact in binary.
LIMITS = st.integers(0, 4096).map(lambda quarters: quarters / 4)
GAMES = st.builds(
    Scenario,
    buyer_max=LIMITS,
    seller_min=LIMITS,
    price_low=st.just(0.0),
    price_high=st.just(1024.0),
    max_turns=st.integers(2, 12),
    starter=st.sampled_from(list(Seat)),
    tick=st.just(0.25),
    discount=st.sampled_from([1.0, 0.9, 0.5]),
)
GRID = {"n_prices": 65}  # steps of 16
ACTIONS = st.lists(st.one_of(st.just(0), st.integers(0, 65)), min_size=12, max_size=12)
COSTS = st.fixed_dictionaries(
    {"turn_cost": st.sampled_from([0.0, 0.125]), "opponent_weight": st.sampled_from([0.0, -1.0, 1.0, -0.25])}
)
often = settings(max_examples=80, deadline=None, derandomize=True)


def play_aec(scenario, script, make=bargain_v0.raw_env, **options):
    """One game with the given actions; yields the environment before each move and after the last."""
    env = make(**GRID, **options)
    env.reset(seed=0, options={"scenario": scenario})
    for action in script:
        yield env
        env.step(action)
        if any(env.terminations.values()):
            break
    yield env


# ── what is shared out ────────────────────────────────────────────────────────────────────────────────────────────────


@often
@given(GAMES, ACTIONS, COSTS)
def test_surplus_is_shared_out_and_costs_are_taken(scenario, script, costs):
    paid, moves, last = np.zeros(2), np.zeros(2), dict.fromkeys(AGENTS, 0.0)
    for env in play_aec(scenario, script, **costs):
        now = np.array([env.rewards[agent] for agent in AGENTS])
        if env.session.turn > 1:
            mover = 1 - env.session.mover
            moves[mover] += 1
            if not env.session.over:
                charge = -costs["turn_cost"]
                assert now[mover] == charge
                assert now[1 - mover] == costs["opponent_weight"] * charge
        paid += now
        last[env.agent_selection] += env.last()[1]
    while env.agents and env.session.over:  # what learners count by last() is what was paid
        env.step(None)
        if env.agents:
            last[env.agent_selection] += env.last()[1]
    state, weight = env.session.state, costs["opponent_weight"]
    width, worth = scenario.buyer_max - scenario.seller_min, np.zeros(2)
    if state.agreement:
        unit = width if width > 0 else 1024.0
        factor = scenario.discount ** max(len(state.kinds) - 2, 0) / unit
        worth = np.array([scenario.buyer_max - state.standing, state.standing - scenario.seller_min]) * factor
        assert worth.sum() == pytest.approx(width * factor)
    own = worth - costs["turn_cost"] * moves
    assert paid == pytest.approx(own + weight * own[::-1])
    if weight == -1:
        assert paid.sum() == pytest.approx(0, abs=1e-12)
    if env.session.over:
        assert [last[agent] for agent in AGENTS] == pytest.approx(paid)


# ── symmetry ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def mirrored(scenario):
    """Every price p becomes low + high - p, and the seats change places."""
    limits = {"buyer_max": 1024 - scenario.seller_min, "seller_min": 1024 - scenario.buyer_max}
    return replace(scenario, starter=scenario.starter.other, **limits)


MIRROR = np.ones(SIZE, dtype=np.float32)
MIRROR[[0, 3, 4, *range(6, 14)]] = -1  # the seat and all prices; clocks and sides stay


@often
@given(GAMES, ACTIONS, COSTS)
def test_the_game_is_its_own_mirror_image(scenario, script, costs):
    games = play_aec(scenario, script, **costs)
    images = play_aec(mirrored(scenario), [action and 66 - action for action in script], **costs)
    for env, image in zip(games, images, strict=True):
        for agent, other in zip(AGENTS, reversed(AGENTS), strict=True):
            seen, there = env.observe(agent), image.observe(other)
            same(seen["observation"] + 0.0, MIRROR * there["observation"] + 0.0)
            assert (seen["action_mask"][0], *seen["action_mask"][:0:-1]) == (*there["action_mask"],)
            assert env.rewards[agent] == image.rewards[other]
            assert env.terminations[agent] == image.terminations[other]
            assert env.infos[agent]["invalid_moves"] == image.infos[other]["invalid_moves"]
    if scenario.buyer_max + scenario.seller_min != 1024:
        assert scenario != replace(mirrored(scenario), starter=scenario.starter), "the image is another game"


# ── privacy ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def change(scenario, seat, limit):
    return replace(scenario, **{"buyer_max" if seat == Seat.BUYER else "seller_min": limit})


def seen_at_every_face(scenario, script, seat):
    """All that ``seat`` is shown of one game, rewards apart."""
    seen, agent, other = [], AGENTS[seat], Script(512.0, np.nan, 500.0)
    for make in (bargain_v0.raw_env, bargain_v0.env):
        for env in play_aec(scenario, script, make, render_mode="ansi"):
            seen.append([env.observe(agent), env.infos[agent], env.terminations, env.agent_selection, env.render()])
            seen.append(env.last()[0::4] if env.agent_selection == agent else None)
    parallel = bargain_v0.parallel_env(render_mode="ansi", **GRID)
    observations, infos = parallel.reset(options={"scenario": scenario})
    for action in script:
        seen.append([observations[agent], infos[agent], parallel.agents[:], parallel.render()])
        if not parallel.agents:
            break
        observations, _, _, _, infos = parallel.step(dict.fromkeys(AGENTS, action))
    for mode in ({}, {"action_mode": "box"}):
        single = BargainEnv(seat, other, render_mode="ansi", **mode, **GRID)
        seen.append(single.reset(options={"scenario": scenario}))
        for action in script:
            observation, _, *rest = single.step(np.array([action / 33 - 1], np.float32) if mode else action)
            seen.append([observation, rest, single.action_masks(), single.render()])
            if single.session.over:
                break
    return seen


@settings(max_examples=40, deadline=None, derandomize=True)
@given(GAMES, ACTIONS, st.sampled_from(list(Seat)), LIMITS)
def test_the_other_reservation_is_in_nothing_that_a_seat_sees(scenario, script, seat, limit):
    seen = seen_at_every_face(scenario, script, seat)
    same(seen, seen_at_every_face(change(scenario, seat.other, limit), script, seat))
    if limit != scenario.reservation(seat):
        assert not are_same(seen, seen_at_every_face(change(scenario, seat, limit), script, seat)), "it sees its own"


@pytest.mark.parametrize("seat", Seat, ids=lambda seat: seat.label)
def test_nor_in_what_a_vector_environment_shows(seat):
    def shown(limits):
        def draw(_, ids):
            return tuple(np.full(len(ids), limits[k]) for k in Seat)

        with mock.patch.dict(PRESETS, {"mine": Preset("mine", "", None, draw)}):
            env = BargainVectorEnv(4, seat, Script(800.0, np.nan, 820.0), scenario="mine", max_turns=6)
            seen = [env.reset(seed=0)]
            for action in (30, 0, 40, 50, 0, 30, 60):
                observation, _, *rest = env.step(np.full(4, action))
                seen.append((observation, rest))
            return seen

    seen = shown({seat: 900.0, seat.other: 700.0})
    same(seen, shown({seat: 900.0, seat.other: 400.0}))
    assert not are_same(seen, shown({seat: 910.0, seat.other: 700.0})), "it sees its own"


@pytest.mark.parametrize("mode", ["ansi", "human", "rgb_array"])
def test_nor_in_what_is_rendered(mode, capsys):
    def rendered(buyer_max, seller_min, last=0):
        scenario, shown = Scenario(buyer_max, seller_min, price_low=0, price_high=1024, max_turns=6), []
        for env in play_aec(scenario, [0, 20, 50, 30, last], render_mode=mode):
            shown += [env.render(), capsys.readouterr().out]
        return shown

    texts = rendered(901.5, 403.25)
    same(texts, rendered(1000.0, 10.0))
    assert not are_same(texts, rendered(901.5, 403.25, last=40))
    assert not any(number in str(texts) for number in ("901", "403", "498"))


# ── replay ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FACES = [
    bargain_v0.raw_env,
    bargain_v0.env,
    bargain_v0.parallel_env,
    BargainEnv,
    lambda **options: BargainVectorEnv(3, autoreset_mode="SameStep", **options),
]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(FACES), st.sampled_from(["grid", "box"]), st.integers(0, 2**31))
def test_the_same_seed_and_actions_make_the_same_bytes(make, action_mode, seed):
    def run(stranger):
        env = make(action_mode=action_mode, scenario="no_deal", max_turns=6)
        seen = [env.reset(seed=seed)]
        for k in range(20):
            if stranger:  # who plays elsewhere, and draws from the global generator
                advance(stranger, np.random.default_rng(k))
                np.random.random(3)  # noqa: NPY002
            seen.append(advance(env, np.random.default_rng([seed, k])))
        return seen

    elsewhere = BargainEnv()
    elsewhere.reset(seed=1)
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    first = run(None)
    assert np.random.get_state()[1].tobytes() == before, "nothing is drawn from the global generator"  # noqa: NPY002
    same(first, run(elsewhere))


# ── moves that the rules do not allow ─────────────────────────────────────────────────────────────────────────────────


@often
@given(GAMES, ACTIONS)
def test_a_wasted_turn_is_counted_and_changes_nothing_else(scenario, script):
    state, wasted, before = State(), [0, 0], None
    for env, action in zip(play_aec(scenario, script), [*script, None], strict=False):
        assert env.session.state == state
        assert [env.infos[agent]["invalid_moves"] for agent in AGENTS] == wasted
        if before is not None and state.kinds[-1] is MoveKind.INVALID:
            assert (state.standing, state.standing_seat) == before
        if core.is_over(scenario, state) or action is None:
            assert env.session.over == core.is_over(scenario, state)
            break
        seat = core.mover(scenario, state)
        for agent in AGENTS:
            assert env.observation_space(agent).contains(env.observe(agent))
            assert env.observe(agent)["action_mask"].any() == (agent == AGENTS[seat])
        assert env.state_space.contains(env.state())
        legal = env.observe(AGENTS[seat])["action_mask"][action]
        before = (state.standing, state.standing_seat)
        state = core.step(scenario, state, Move(action == 0, 16.0 * (action - 1)))
        wasted[seat] += state.kinds[-1] is MoveKind.INVALID
        assert legal == (state.kinds[-1] is not MoveKind.INVALID), "the mask tells the truth"


@pytest.mark.parametrize("tick", [0.01, 25.0, 0.3, 0.7, 9.0, 60.0])
@pytest.mark.parametrize(
    "make", [bargain_v0.raw_env, bargain_v0.parallel_env, BargainEnv, BargainVectorEnv], ids=lambda make: make.__name__
)
def test_what_the_mask_allows_is_no_wasted_turn(make, tick):
    """A tick that would take grid prices out of the range is refused."""
    try:
        env = make(tick=tick)
        env.reset(seed=0)
    except InputError:
        assert tick not in (0.01, 25.0)
        return
    for action in (1, 2, 130, 131):
        env.reset(seed=0)
        if make is bargain_v0.raw_env:
            env.step(action)
            info = env.infos["buyer_0"]
        elif make is bargain_v0.parallel_env:
            info = env.step(dict.fromkeys(AGENTS, action))[-1]["buyer_0"]
        else:
            info = env.step(np.array([action]) if make is BargainVectorEnv else action)[-1]
        assert np.all(info["invalid_moves"] == 0)
