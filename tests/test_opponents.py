"""Who sits opposite a single learner: what may be given, names, mixtures, memory."""

from __future__ import annotations

import numpy as np
import pytest
from faces import Diary, are_same, episode, same, some_action

import agents
import bargain_env as be
from bargain_env import Linear, Mixture, Seat, opponents
from bargain_env.errors import InputError
from bargain_env.single import BargainEnv


def shown(env, games=6):
    """All that a learner with a mind of its own sees in some games."""
    seen, rng = [], np.random.default_rng(0)
    for game in range(games):
        seen.append(env.reset(seed=0 if game == 0 else None))
        while not env.session.over:
            seen.append(env.step(some_action(env.action_space, rng)))
    return seen


def test_forms_of_opponent():
    default, firm = shown(BargainEnv()), shown(BargainEnv(opponent="boulware_firm"))
    assert not are_same(default, firm)
    same(shown(BargainEnv(opponent=Linear())), default)
    same(shown(BargainEnv(opponent=agents.make("boulware_firm"))), firm)
    same(shown(BargainEnv(opponent=["boulware_firm"])), firm)
    same(shown(BargainEnv(opponent=Mixture([agents.make("boulware_firm")]))), firm)


def test_a_name_is_told_what_everybody_knows():
    named = shown(BargainEnv(scenario="paper", opponent="boulware_hard"))
    same(named, shown(BargainEnv(scenario="paper", opponent=agents.make("boulware_hard", assumed_zopa_width=500.0))))
    assert not are_same(named, shown(BargainEnv(scenario="paper", opponent=agents.make("boulware_hard"))))


def test_each_game_draws_one_of_several():
    names = ["hardliner", "fair", "micro_coarse"]
    envs = [BargainEnv(opponent=opponent) for opponent in (names, *names)]
    mixed, *alone = (
        [episode(env, lambda *_: 20, seed=5 if game == 0 else None)[1]["observation"] for game in range(40)]
        for env in envs
    )
    games = be.SeatGames.of(be.sample("hidden", 40, seed=5), Seat.SELLER)
    drawn = envs[0].opponent.drawn(games)
    assert set(drawn.tolist()) == {0, 1, 2}
    for game, k in enumerate(drawn.tolist()):
        same(mixed[game], alone[k][game])


@pytest.mark.parametrize(
    ("opponent", "message"),
    [
        ("boulware_hrd", "did you mean 'boulware_hard'"),
        (["fair", "nobody"], "nobody"),
        ([], "at least one"),
        ([Diary()], "'diary' keeps memory"),
        (3, "3 is not a policy"),
        (object(), "is not a policy"),
        (agents.make, "is not a policy"),
    ],
)
def test_bad_opponents_are_refused(opponent, message):
    with pytest.raises(InputError, match=message):
        BargainEnv(opponent=opponent)


def test_names_need_the_agents(monkeypatch):
    monkeypatch.setattr(opponents, "_by_name", [])
    with pytest.raises(InputError, match="import agents"):
        BargainEnv(opponent="fair")


def test_an_opponent_with_memory_starts_every_game_anew():
    env = BargainEnv(opponent=Diary(), max_turns=8)
    first = [episode(env, lambda *_: 20, seed=3)[1:] for _ in range(2)]
    same(*first)
    assert not are_same(first[0], episode(env, lambda *_: 20)[1:])
