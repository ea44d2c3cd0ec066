"""Design of a tournament: configurations, opponents of all kinds, populations; and that pairing holds throughout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from janus_worlds import write_adapter, write_base

import agents
from agents.janus_models import clear_models
from bargain_env import PRESETS, Seat, play, sample
from bargain_env.errors import InputError
from experiments import tournament
from experiments.match import arena, configs, contestants, opponents, results, specs
from experiments.match.arms import JanusOptions
from experiments.match.populations import population
from experiments.reporting import landmarks

# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_commas_between_parentheses_belong_to_a_name():
    assert specs.split("a, b(c=1, d=2),e(0.30),,f", "--x") == ["a", "b(c=1, d=2)", "e(0.30)", "f"]
    with pytest.raises(InputError, match="--x is empty"):
        specs.split(" , ", "--x")


# ── configurations ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_configurations():
    assert configs.parse(["standard=0.2/0.8", "extreme=0/1"]) == {"standard": (0.2, 0.8), "extreme": (0.0, 1.0)}
    assert configs.parse(["standard,neutral", "mine=0.1/-1"]) == {
        "standard": (0.2, 0.8), "neutral": (0.5, 0.5), "mine": (0.1, -1.0),
    }  # fmt: skip
    assert configs.parse(["standard", "standard=0.2/0.8"]) == configs.parse(["standard"])
    assert configs.parse(["standard=0.3/0.8"]) != configs.parse(["standard"]), "a known name may mean something else"
    assert configs.parse([]) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("standrad", "did you mean 'standard'"),
        ("a=0.2", "is not NAME=BUYER/SELLER"),
        ("=0.2/0.8", "is not NAME=BUYER/SELLER"),
        ("a=0.2/1.5", "outside"),
        ("a=x/0.5", "not one number"),
        ("a=0/1,a=1/0", "gives 'a' twice, as 0/1 and as 1/0"),
    ],
)
def test_configurations_that_are_none(given, message):
    with pytest.raises(InputError, match=message) as caught:
        configs.parse([given])
    assert "\n" not in str(caught.value)


def test_the_grid_of_each_seat():
    named = configs.parse(["standard", "flipped", "neutral"])
    default = tuple(round(0.1 * k, 10) for k in range(11))
    assert configs.grids(None, {}) == {Seat.BUYER: default, Seat.SELLER: default}
    assert configs.grids(None, named) == {Seat.BUYER: (0.2, 0.8, 0.5), Seat.SELLER: (0.8, 0.2, 0.5)}
    assert configs.grids("0.5,0.1", named) == {Seat.BUYER: (0.5, 0.1, 0.2, 0.8), Seat.SELLER: (0.5, 0.1, 0.8, 0.2)}
    assert configs.grids("-0.0", {})[Seat.BUYER] == (0.0,)
    assert str(configs.grids("-0.0", {})[Seat.BUYER][0]) == "0.0"


def test_configurations_reach_plan_and_summary(tmp_path):
    settings = tournament.Settings(config=("standard", "mine=0/0.9"), out=tmp_path, opponents="fair")
    players, plan = tournament.prepare(settings)
    assert plan.rho == {Seat.BUYER: (0.2, 0.0), Seat.SELLER: (0.8, 0.9)}
    found = tournament.described(settings, players, plan)
    assert found["configurations"] == {"standard": [0.2, 0.8], "mine": [0.0, 0.9]}
    assert found["arms"] == {"janus-nano": "both"}
    json.dumps(found)
    assert (
        tournament.described(tournament.Settings(), *tournament.prepare(tournament.Settings()))["configurations"] == {}
    )


# ── drawn members ─────────────────────────────────────────────────────────────────────────────────────────────────────


def moves(policy):
    return play(sample("hidden", 6, seed=3), policy, agents.make("linear_standard")).prices


def same(a, b):
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=True))


@pytest.mark.parametrize("family", ["boulware", "charging_boul", "micro", "resource", "mixture", "modelling"])
def test_a_member_is_made_again_from_its_label(family):
    members = agents.sample_strategies(family, 4, seed=7, held_out=True)
    plays = [moves(member) for member in members]
    assert not same(plays[0], plays[1]) or members[0].name == members[1].name
    for member, played in zip(members, plays, strict=True):
        again = agents.make(member.name)
        assert again.name == member.name
        assert same(moves(again), played)
        info = agents.describe(member.name)
        assert (info.name, info.family) == (member.name, family)
        assert info.may_train != agents.is_held_out(member.name)


def test_parameters_outside_the_trained_range_are_held_out():
    assert agents.describe("micro(step=20.0)").split == "train"
    assert agents.describe("micro(step=100.0)").split == "held_out"
    assert agents.describe("micro_fine(step=20.0)").split == "train"
    labels = ("micro(step=20.0)", "micro(step=100.0)", "micro(odd)", "modelling(odd)", "nobody(step=1)")
    assert [agents.is_held_out(label) for label in labels] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mikro(step=1.0)", "unknown strategy"),
        ("micro(step)", "is not written NAME"),
        ("micro(step=__import__('os'))", "is not written NAME"),
        ("micro(stride=1.0)", "does not take these parameters"),
    ],
)
def test_labels_that_are_none(name, message):
    with pytest.raises(InputError, match=message):
        opponents.resolve(name)


def test_populations():
    whole, train, held = (population(f"population:40{split}", 3) for split in ("", "@train", "@held_out"))
    assert [len(set(names)) for names in (whole, train, held)] == [40, 40, 40]
    assert {opponents.split(name) for name in train} == {"train"}
    assert {opponents.split(name) for name in held} == {"held_out"}
    assert {opponents.split(name) for name in whole} == {"train", "held_out"}
    assert len({opponents.about(name)["family"] for name in whole}) > 10
    assert population("population:40", 4) != whole
    assert population("population:40", 3) == whole
    assert population("population:12", 3) == whole[:12], "a larger one holds the smaller"
    for name in whole:
        assert agents.make_for(PRESETS["paper"], name).name == name


@pytest.mark.parametrize("rest", ["0", "x", "", "3@al", "-1", "²", "10001"])
def test_populations_that_are_none(rest):
    with pytest.raises(InputError, match=r"N from 1 to 10000|unknown split"):
        opponents.resolve(f"population:{rest}")


# ── opponents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of a small adapter."""
    folder = tmp_path_factory.mktemp("world")
    clear_models()
    yield write_adapter(folder / "adapter", write_base(folder / "base"))
    clear_models()


def test_opponents_of_every_kind(world):
    text = f"fair,janus-nano,janus:{world}@text,base,population:2,micro(step=20.0),script:hardliner,fair"
    names = opponents.resolve(text, rho=(0.3, 1.0), seed=1)
    assert names[:1] + names[-2:] == ["fair", "micro(step=20.0)", "hardliner"]
    drawn = population("population:2", 1)
    agents_ = [f"{who}({rho})" for who in ("janus-nano", f"janus:{world}@text", "base") for rho in ("0.30", "1.00")]
    assert names[1:-2] == [*agents_, *drawn]
    assert [opponents.split(name) for name in agents_] == ["agent"] * 6
    assert opponents.resolve(",".join(names)) == names, "names are specs"
    assert opponents.resolve("base") == ["base(0.50)"]
    spec, rho = opponents.at_rho(f"janus:{world}@text(0.125)")
    assert (spec.arm, spec.adapter, rho) == ("text", str(world), 0.125)
    assert opponents.at_rho("micro(step=20.0)") is opponents.at_rho("fair") is None
    sources = {
        name: opponents.sources(name) for name in (f"janus:{world}@text(0.30)", f"base:{world}", "base(0.30)", "fair")
    }
    assert list(sources.values()) == [[str(world)], [str(world)], [], [""]]


@pytest.mark.parametrize(
    ("text", "rho", "message"),
    [
        ("shuffled", None, "nobody asks an opponent"),
        ("fair", (0.5,), "--opponent-rho is for a Janus"),
        ("janus:/no/such", None, "no checkpoint"),
        ("janus-nan", None, "unknown strategy"),
        (",", None, "--opponents is empty"),
    ],
)
def test_opponents_that_are_none(text, rho, message):
    with pytest.raises(InputError, match=message):
        opponents.resolve(text, rho=rho)


def plan(world, names, **changes):
    chosen = {"rho": arena.same_grid((0.2, 0.8)), "games": 3, "seats": tuple(Seat), "preset": PRESETS["paper"]}
    return arena.Plan(tuple(names), **{**chosen, "janus": JanusOptions(threads=1), **changes})


def played(world, agents_, names, **changes):
    players = contestants.resolve_agents(agents_, JanusOptions(threads=1))
    return arena.run_tournament(players, plan(world, names, **changes))


def column(table, name, **where):
    rows = [r for r in table.to_pylist() if all(r[k] == v for k, v in where.items())]
    return [r[name] for r in sorted(rows, key=lambda r: r["scenario_id"])]


def test_janus_against_janus(world):
    names = opponents.resolve(f"janus:{world},fair", rho=(0.1, 0.9))
    table = played(world, f"janus:{world},script:linear_standard", names)
    assert table.num_rows == 2 * 3 * 3 * (2 + 1)
    assert set(column(table, "opponent_split")) == {"agent", "train"}
    low, high = (column(table, "offers", agent="script:linear_standard", opponent=name) for name in names[:2])
    assert low != high, "an opponent's rho matters"
    mirrored = {}
    for mine, its in ((0.2, 0.8), (0.8, 0.2)):
        there = played(world, f"janus:{world}", [f"janus:{world}({its:.2f})"])
        for seat in ("buyer", "seller"):
            mirrored[mine, seat] = column(there, "offers", rho_requested=mine, agent_seat=seat)
    assert mirrored[0.2, "buyer"] != mirrored[0.8, "buyer"]
    assert mirrored[0.2, "buyer"] == mirrored[0.8, "seller"], "whoever is called the agent"
    assert mirrored[0.8, "buyer"] == mirrored[0.2, "seller"]


def test_opponents_play_together_as_alone(world):
    names = [*opponents.resolve(f"janus:{world},base:{world}", rho=(0.1, 0.9)), "fair", "micro(step=20.0)"]
    together = played(world, "script:boulware_firm", names)
    alone = [played(world, "script:boulware_firm", [name]) for name in names]
    assert together.equals(results.ordered(alone))
    assert len({str(t["offers"].to_pylist()) for t in alone}) > 4


def test_options_reach_januses_in_either_seat(world):
    assert tournament.prepare(tournament.Settings(guard="none", threads=1))[1].janus == JanusOptions(
        guard="none", threads=1
    )
    names = [f"janus:{world}(0.10)"]
    runs = {
        g: played(world, "script:boulware_firm", names, janus=JanusOptions(guard=g, threads=1)) for g in ("ir", "none")
    }
    assert runs["ir"]["offers"] != runs["none"]["offers"]
    limits = [
        (price <= row["buyer_max"] + 1e-9) if row["agent_seat"] == "seller" else (price >= row["seller_min"] - 1e-9)
        for row in runs["ir"].to_pylist()
        for price, turn in zip(row["offers"], row["offer_turns"], strict=True)
        if (turn % 2 == 1) != (row["starter"] == row["agent_seat"])
    ]
    assert len(limits) > 5
    assert all(limits)


def test_every_kind_meets_the_same_games_with_the_same_luck(world):
    """A stochastic opponent draws alike whoever sits opposite, at whatever ρ and arm: before anyone has answered it."""
    names = ["naive_concession", "micro(step=20.0)", f"janus:{world}(0.30)"]
    table = played(world, f"janus:{world},janus:{world}@text,janus:{world}@gates,base:{world},script:fair", names)
    games = {}
    for row in table.to_pylist():
        key = (row["agent"], row["agent_seat"], row["rho_requested"], row["opponent"])
        games.setdefault(key, []).append(tuple(row[k] for k in ("scenario_id", "starter", "buyer_max", "seller_min")))
    assert len({str(value) for value in games.values()}) == 1
    first = {}
    for row in table.to_pylist():
        if row["opponent"] == "naive_concession" and row["starter"] != row["agent_seat"]:
            first.setdefault((row["agent_seat"], row["scenario_id"]), set()).add(row["offers"][0])
    assert len(first) == 3
    assert all(len(prices) == 1 for prices in first.values())


def test_a_tournament_with_all_of_it(world, tmp_path):
    settings = tournament.Settings(
        agents=f"janus:{world},janus:{world}@text,base:{world}", config=("standard", "neutral"), games=2, seed=5,
        opponents=f"fair,population:2,janus:{world}", opponent_rho="0.2,0.8", scenario="paper", threads=1,
        out=tmp_path / "out", quiet=True,
    )  # fmt: skip
    found = tournament.run(settings)
    assert found["settings"]["opponents"][-2:] == [f"janus:{world}(0.20)", f"janus:{world}(0.80)"]
    assert found["strategies"][f"janus:{world}(0.20)"] == {"family": "agent", "split": "agent", "cheating": False}
    assert found["landmarks"]["scripts"]["rows"] == [], "no Janus thinks for what nobody asked"
    reasons = {r["opponent"]: r["reason"] for r in found["landmarks"]["best_response"]["rows"]}
    assert reasons[f"janus:{world}(0.20)"] == landmarks.USES_PAST
    assert found["settings"]["arms"] == {
        f"janus:{world}": "both",
        f"janus:{world}@text": "text",
        f"base:{world}": "base",
    }
    rows = results.read(tmp_path / "out").to_pylist()
    assert {(r["agent_seat"], r["rho_requested"]) for r in rows} == {
        ("buyer", 0.2), ("buyer", 0.5), ("seller", 0.8), ("seller", 0.5),
    }  # fmt: skip
    assert "protocol" not in found


def test_an_opponent_that_cannot_be_loaded_costs_no_game(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(tournament.landmarks, "landmarks", lambda *_: pytest.fail("too late"))
    empty = f"janus:{tmp_path}/empty"
    with pytest.raises(InputError, match=r"adapter_config\.json is missing"):
        tournament.run(tournament.Settings(agents="script:fair", opponents=empty, out=tmp_path / "out", quiet=True))
    assert not list((tmp_path / "out").glob("*"))


def test_a_base_may_be_that_of_an_opponent(world):
    options = JanusOptions(base="somewhere")
    contestants.check_base(options, "script:fair", f"janus:{world}(0.20)")
    contestants.check_base(options, f"lora:{world}", "fair")
    contestants.check_base(JanusOptions(), "script:fair", "fair")
    with pytest.raises(InputError, match="name one of these"):
        contestants.check_base(options, "janus-nano,base", "fair,janus-nano(0.20)")
