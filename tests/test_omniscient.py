"""Players that cheat: kept out of everything, exact where they play, and never on a wrong belief."""

from dataclasses import replace

import numpy as np
import pytest
from zoo import make, one

import agents
import bargain_env as be
from bargain_env import PRESETS, Scenarios, Seat, theory
from bargain_env.errors import InputError
from experiments import collect, tournament
from experiments.match import opponents
from experiments.match.contestants import resolve_agents

CHEATS = ["zopa_split", "subgame_perfect"]


def seats(name, games, rival="zopa_split"):
    return agents.make(name, knows=games), agents.make(rival, knows=games)


def test_they_are_in_no_list():
    assert agents.list_strategies(cheating=True) == CHEATS
    lists = [
        agents.list_strategies(),
        agents.list_strategies(evaluable=True),
        agents.list_strategies(split="held_out"),
        opponents.resolve("all,train,held_out"),
        [c.label.removeprefix("script:") for c in resolve_agents("scripts")],
    ]
    for found in lists:
        assert len(found) > 10
        assert not set(found) & set(CHEATS)
    assert opponents.resolve("zopa_split,best_response:fair") == ["zopa_split", "best_response:fair"], "but by name"
    with pytest.raises(InputError, match="unknown family 'omniscient'"):
        opponents.resolve("family:omniscient")


@pytest.mark.parametrize("name", [*CHEATS, "best_response:boulware_hard"])
def test_they_never_train(name, tmp_path):
    assert agents.describe(name).cheating
    with pytest.raises(InputError, match="held out of training data"):
        collect.run(collect.Settings(episodes=2, strategies=f"fair,{name}", out=tmp_path / "x", quiet=True))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_split_deals_at_its_share(preset, share):
    games = be.sample(preset, 300, seed=7)
    both = (agents.make_for(PRESETS[preset], "zopa_split", share=share) for _ in range(2))
    result = be.play(games, *both)
    np.testing.assert_array_equal(result.agreement, games.has_zopa)
    np.testing.assert_allclose(result.rho[games.has_zopa], share, atol=1e-4)
    assert (result.turns[games.has_zopa] == 2).all()


@pytest.mark.parametrize("name", CHEATS)
def test_even_they_take_no_loss(name):
    games = be.sample("no_deal", 400, seed=8)
    games = replace(games, buyer_max=np.where(games.id % 9 == 0, games.seller_min + 0.004, games.buyer_max))
    for rival in ("naive_concession", "tit_for_tat"):
        for seat in Seat:
            pair = agents.make(name, knows=games), make(rival)
            result = be.play(games, *(pair if seat == Seat.BUYER else pair[::-1]))
            own = result.prices[result.sides() == seat]
            limit = np.broadcast_to((games.buyer_max, games.seller_min)[seat][:, None], result.prices.shape)
            worse = (own - limit[result.sides() == seat]) * (1 if seat == Seat.BUYER else -1)
            assert not (worse > 0).any()
            assert (result.utilities[:, seat] >= 0).all()


@pytest.mark.parametrize("discount", [1.0, 0.95, 0.6])
@pytest.mark.parametrize("max_turns", [2, 3, 8, 19, 20])
def test_two_perfect_players_reach_the_equilibrium(discount, max_turns):
    games = be.sample("hidden", 60, seed=9, discount=discount, max_turns=max_turns)
    result = be.play(games, *seats("subgame_perfect", games, "subgame_perfect"))
    share = theory.finite_horizon(max_turns - 1, discount, discount)
    expected = np.where(games.starter == Seat.SELLER, share, 1 - share)
    width = games.buyer_max - games.seller_min
    assert (np.abs(result.rho - expected) * width <= 0.011).all(), "within a tick"
    assert (result.turns == 2).all()
    solved = theory.solve(games, np.round(np.linspace(games.seller_min, games.buyer_max, 4001, axis=1), 2))
    assert np.abs(result.price - solved.price).max() < max_turns * width.max() / 4000 + 0.02


@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize(("max_turns", "discount"), [(20, 1.0), (19, 1.0), (12, 0.9), (7, 0.6)])
def test_nobody_gets_more_of_a_perfect_player_than_the_equilibrium_gives(max_turns, discount, seat):
    """So whenever two settle without delay costing anything, the perfect player has at least its own value."""
    games = be.sample("paper", 200, seed=10, max_turns=max_turns, discount=discount)
    first = theory.finite_horizon(max_turns - 1, discount, discount)
    value = np.where(games.starter == seat, first, 1 - first)  # the perfect player's
    slack = 2 * games.tick / (games.buyer_max - games.seller_min)
    most, perfect = [], agents.make("subgame_perfect", knows=games)
    rivals = ["boulware_hard", "boulware_very_conceding", "naive_concession", "fair", "charging_boul", "micro_giant"]
    for rival in [*(make(name, 500.0) for name in rivals), agents.make("subgame_perfect", knows=games)]:
        result = be.play(games, *((perfect, rival) if seat == Seat.BUYER else (rival, perfect)))
        theirs, own = result.utilities[:, seat.other], result.utilities[:, seat]
        assert (theirs <= 1 - value + slack).all()
        assert (own >= 0).all()
        if discount == 1.0:
            assert (own >= value - slack)[result.agreement].all()
        most.append(theirs - (1 - value))
    assert (np.max(most, axis=0) > -slack).all(), "and the bound is reached"
    answers_last = (games.starter == seat) == (max_turns % 2 == 1)
    pair = perfect, make("hardliner", 500.0)
    stubborn = be.play(games, *(pair if seat == Seat.BUYER else pair[::-1]))
    assert stubborn.agreement[answers_last].all(), "who answers the last offer takes what it gets"


@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize("rival", ["boulware_firm", "fair", "naive_concession"])
def test_best_response_earns_what_theory_promises(rival, seat):
    games, preset = be.sample("paper", 20, seed=11), PRESETS["paper"]
    pair = agents.make_for(preset, f"best_response:{rival}"), agents.make_for(preset, rival)
    result = be.play(games, *(pair if seat == Seat.BUYER else pair[::-1]))
    found = theory.best_response(agents.make_for(preset, rival), games, seat, uses_history=False)
    assert result.utilities[:, seat].tobytes() == found.values.tobytes()
    firm = make("boulware_hard", 500.0), agents.make_for(preset, rival)
    ordinary = be.play(games, *(firm if seat == Seat.BUYER else firm[::-1]))
    assert (result.utilities[:, seat] >= ordinary.utilities[:, seat] - 1e-9).all()


def test_what_it_knows_must_be_of_these_games():
    games = be.sample("paper", 5, seed=1)
    for stranger in (replace(games, buyer_max=games.buyer_max + 1), be.sample("hidden", 5, seed=1)):
        for knows in (PRESETS["paper"], games):
            player = agents.make("zopa_split", knows=knows)
            with pytest.raises(ValueError, match="game 0 is not"):
                be.play(stranger, player, make("fair"))
    with pytest.raises(InputError, match="must be told the games"):
        agents.make("subgame_perfect")
    with pytest.raises(InputError, match="share 2"):
        agents.make("zopa_split", share=2, knows=games)
    with pytest.raises(InputError, match="unknown strategy 'nobody'"):
        agents.describe("best_response:nobody")
    for cheat in ("best_response:fair", "zopa_split"):
        with pytest.raises(InputError, match=f"{cheat} is told both limits itself; name a strategy that is not"):
            agents.describe(f"best_response:{cheat}")
    with pytest.raises(InputError, match="give a coarser grid"):
        be.play(games, agents.make("best_response:micro_fine", knows=games), make("micro_fine"))


def test_they_are_in_no_ranking_of_a_summary(tmp_path):
    asked = {"opponents": "fair", "scenario": "paper", "games": 3, "quiet": True}
    names = "script:zopa_split,script:fair,script:best_response:linear_standard"
    found = tournament.run(tournament.Settings(agents=names, out=tmp_path / "a", **asked))
    assert {row["agent"] for row in found["overall"]} == set(names.split(","))
    assert [row["agent"] for row in found["ranking"]] == ["script:fair"]
    alone = tournament.run(tournament.Settings(agents="script:zopa_split", out=tmp_path / "b", **asked))
    assert alone["ranking"] == []


def test_presets_and_scenarios_tell_the_same():
    games = be.sample("no_deal", 200, seed=12)
    by_preset = be.play(games, agents.make_for(PRESETS["no_deal"], "zopa_split"), make("boulware_firm"))
    by_games = be.play(games, agents.make("zopa_split", knows=games), make("boulware_firm"))
    assert by_preset.prices.tobytes() == by_games.prices.tobytes()
    assert isinstance(agents.make("zopa_split", knows=one()).knows, Scenarios)
