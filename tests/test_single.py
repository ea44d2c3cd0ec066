"""The Gymnasium face: official check, registration, what is paid and how a game ends."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from faces import Diary, Script, episode, same, warnings_as_errors
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

import agents
import bargain_env as be
from bargain_env import Linear, Move, Moves, Scenario, Seat, actions, bargain_v0
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv

ID = "bargain_env:Bargain-v0"
CONFIGURATIONS = {
    "default": {},
    "seller": {"seat": "seller"},
    "seller, by enum": {"seat": Seat.SELLER, "max_turns": 2},
    "box": {"action_mode": "box"},
    "box, seller": {"action_mode": "box", "seat": "seller", "scenario": "no_deal"},
    "coarse": {"n_prices": 2, "tick": 25.0},
    "costs": {"discount": 0.9, "turn_cost": 0.05, "opponent_weight": -1},
    "a name": {"scenario": "paper", "opponent": "boulware_hard"},
    "several": {"opponent": ["tit_for_tat", "fair", Linear()], "seat": "seller"},
    "memory": {"opponent": Diary(), "action_mode": "box"},
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_official_check(configuration, capsys):
    with warnings_as_errors():
        check_env(gym.make(ID, **configuration).unwrapped)
    printed = capsys.readouterr()
    assert "prices 200 to 1500" in printed.out, "the check also tries `human`"
    assert printed.err == ""


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_stable_baselines_check(configuration):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings_as_errors():
        checker.check_env(BargainEnv(**configuration), warn=True)


def test_registered_without_a_time_limit():
    with warnings_as_errors():
        env = gym.make(ID, max_turns=30, seat="seller")
    assert env.spec.max_episode_steps is None
    assert "TimeLimit" not in str(env)
    assert type(env.unwrapped) is BargainEnv
    assert env.unwrapped.seat is Seat.SELLER
    with warnings_as_errors():  # of Gymnasium's passive checker, too
        env.reset(seed=0)
        ends = [env.step(131)[2:4] for _ in range(15)]
    assert ends == [(False, False)] * 14 + [(True, False)]


def test_make_vec_finds_the_vector_environment():
    with warnings_as_errors():
        ours = gym.make_vec(ID, 4, opponent="fair", max_turns=6)
        theirs = gym.make_vec(ID, 4, vectorization_mode="sync", opponent="fair", max_turns=6)
    assert (type(ours), type(theirs)) == (BargainVectorEnv, SyncVectorEnv)
    same(ours.reset(seed=0), theirs.reset(seed=0))
    for action in (5, 60, 0, 5):
        same(ours.step(np.full(4, action)), theirs.step(np.full(4, action)))


# ── how a game ends ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seat", ["buyer", "seller"])
@pytest.mark.parametrize("max_turns", [2, 3, 7, 20])
def test_the_deadline_terminates(seat, max_turns):
    env = BargainEnv(seat, Script(850.0), max_turns=max_turns)
    for game in range(4):
        seed = {"seed": 1} if game == 0 else {}
        rewards, observation, info = episode(env, lambda *_: 40, **seed)
        starts = env.scenario.starter == env.seat
        assert len(rewards) == (max_turns + starts) // 2
        assert set(rewards) == {0.0}
        assert info["agreement"] is False
        assert observation["observation"][[1, 2]].tolist() == [1, -1]
        assert not observation["action_mask"].any()


def test_masks_are_the_same_everywhere():
    env = BargainEnv(opponent=Script(np.nan, 850.0), n_prices=14, max_turns=6)
    observation, info = env.reset(seed=0)
    sums = []
    for action in (3, 4, 0):
        mask = observation["action_mask"]
        same(mask, info["action_mask"])
        same(mask.astype(bool), env.action_masks())
        sums.append(int(mask.sum()))
        observation, _, _, _, info = env.step(action)
    assert sums == [14, 14, 15], "after the wasted turn there is nothing to accept"
    assert info["agreement"]
    same(env.action_masks(), np.zeros(15, dtype=bool))
    box = BargainEnv(action_mode="box")
    observation, info = box.reset(seed=0)
    same(box.action_masks(), np.ones(1, dtype=bool))
    assert info == {"invalid_moves": 0, "agreement": False}
    assert observation.shape == (22,)


# ── what is paid ──────────────────────────────────────────────────────────────────────────────────────────────────────

GAME = Scenario(900, 400, max_turns=8)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.0, 0.3])
@pytest.mark.parametrize("cost", [0.0, 0.05])
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("seat", ["buyer", "seller"])
def test_rewards_by_hand(seat, discount, cost, weight):
    """Buyer 500, seller 800, buyer 600, seller 700, and the buyer accepts: ρ is 0.6, on turn 5, three turns discounted."""
    offers = {"buyer": (500.0, 600.0, None), "seller": (800.0, 700.0)}
    other = "seller" if seat == "buyer" else "buyer"
    env = BargainEnv(seat, Script(*offers[other]), turn_cost=cost, opponent_weight=weight)
    own = {"buyer": 0.4 * discount**3, "seller": 0.6 * discount**3}
    scenario = Scenario(900, 400, max_turns=8, discount=discount)
    mine = iter(0 if price is None else 1 + round((price - 200) / 10) for price in offers[seat])
    rewards, _, _ = episode(env, lambda *_: next(mine), options={"scenario": scenario})
    a_turn_each = -cost - weight * cost
    deal = own[seat] + weight * own[other]
    if seat == "buyer":  # two turns of both seats, then an own one
        assert rewards == pytest.approx([a_turn_each, a_turn_each, deal - cost])
    else:  # the buyer's opening came before the first step, and is paid with it
        assert rewards == pytest.approx([a_turn_each - weight * cost, a_turn_each + deal])


def test_zero_sum_holds_over_a_game_that_the_opponent_opens():
    options = {"scenario": Scenario(900, 400, max_turns=4)}
    env = BargainEnv("seller", Script(500.0, 600.0), turn_cost=0.1, opponent_weight=-1.0)
    rewards, _, _ = episode(env, lambda *_: 131, options=options)
    assert sum(rewards) == pytest.approx(0.0), "two moves each, and no deal"


class Fixed:
    """A learner's plan: a price for each turn, and from turn ``patience`` on whatever stands is accepted."""

    memoryless = True

    def __init__(self, seat, patience):
        self.name, self.sign, self.patience = "fixed", (1 if seat == "buyer" else -1), patience

    def action(self, turn):
        return 0 if turn >= self.patience else 65 + self.sign * (2 * turn - 35)

    def reset(self, games):
        pass

    def act(self, view):
        move = actions.decode(self.action(view.turn), actions.grid(200, 1500))
        return Moves(np.full(len(view), move.accept), np.full(len(view), move.price))


@pytest.mark.parametrize("seat", ["buyer", "seller"])
@pytest.mark.parametrize("name", ["boulware_firm", "micro_fine", "tit_for_tat", "noisy_boulware_conceding"])
def test_pays_the_utilities_of_play(seat, name):
    env, plan = BargainEnv(seat, name, max_turns=16, discount=0.98), Fixed(seat, patience=11)
    returns = []
    for game in range(12):
        turn = iter(range(1 + (game % 2 != env.seat), 17, 2))
        rewards, _, _ = episode(env, lambda *_, turn=turn: plan.action(next(turn)), seed=3 if game == 0 else None)
        returns.append(sum(rewards))
    games = be.sample("hidden", 12, seed=3, max_turns=16, discount=0.98)
    both = {seat: plan, "seller" if seat == "buyer" else "buyer": agents.make(name)}
    played = be.play(games, both["buyer"], both["seller"])
    assert returns == played.utilities[:, env.seat].tolist()
    assert played.agreement.any()


def test_what_the_learner_gains_the_aec_seat_gains():
    """The opponent's moves, copied into the AEC environment, make the same game there."""
    costs = {"turn_cost": 0.02, "opponent_weight": -0.7, "max_turns": 9}
    env, aec = BargainEnv(opponent=Script(1200.0, 1000.0, 900.0, 850.0), **costs), bargain_v0.raw_env(**costs)
    for mine in ((30, 40, 50, 0), (30, 0, 40, 0), (10, 20, 30, 40, 50), (131,)):
        plan = iter(mine)
        rewards, _, _ = episode(env, lambda *_, plan=plan: next(plan, 20), options={"scenario": GAME})
        aec.reset(options={"scenario": GAME})
        total = 0.0
        for kind, price in zip(env.session.state.kinds, env.session.state.prices, strict=True):
            aec.step(actions.encode(Move(price is None, price or 0.0), actions.grid(200, 1500)))
            assert aec.session.state.kinds[-1] == kind
            total += aec.rewards["buyer_0"]
        assert all(aec.terminations.values())
        assert sum(rewards) == pytest.approx(total)


# ── box: crossing is accepting ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seat", "standing", "value", "deal"),
    [
        ("buyer", 768.0, 0.5, True),  # exactly the standing price
        ("buyer", 768.0, 0.25, False),
        ("buyer", 768.0, 1.0, True),
        ("seller", 256.0, -0.5, True),
        ("seller", 256.0, -0.25, False),
        ("seller", 256.0, -1.0, True),
        ("buyer", np.nan, 1.0, False),  # nothing stands
    ],
)
def test_crossing_accepts_at_the_standing_price(seat, standing, value, deal):
    starter = Seat.SELLER if seat == "buyer" else Seat.BUYER
    scenario = Scenario(896, 128, price_low=0, price_high=1024, max_turns=6, starter=starter)
    env = BargainEnv(seat, Script(standing), action_mode="box")
    env.reset(options={"scenario": scenario})
    _, reward, terminated, _, info = env.step(np.array([value], dtype=np.float32))
    assert (terminated, info["agreement"], info["invalid_moves"]) == (deal, deal, 0)
    own = (896 - standing) / 768 if seat == "buyer" else (standing - 128) / 768
    assert reward == (own if deal else 0.0)
    if not deal:
        assert env.session.state.prices[1] == 512 + 512 * value
