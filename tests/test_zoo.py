"""The zoo as a whole: who may train, what is drawn, what the handbook says, and that a game knows no company."""

import copy
import math
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_strategies import ORDER
from zoo import make, same

import agents
import bargain_env as be
from agents import Range, StrategyInfo, registry
from agents.scripted.acceptance import AcConst
from agents.scripted.catalogue import CATALOGUE, HELD_OUT, TRAINED
from bargain_env.errors import InputError

HANDBOOK = Path(__file__).parents[1] / "docs" / "strategies.md"
NAMES = [entry.name for entry in CATALOGUE]
FAMILIES = list(dict.fromkeys(agents.describe(name).family for name in NAMES))


# ── who trains ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_published_zoo_trains_and_nobody_else():
    registered = [name for name in agents.list_strategies(split="train") if name in NAMES]
    assert registered == ORDER
    assert len([name for name in registered if agents.describe(name).evaluable]) == 22
    assert [name for name in agents.list_strategies() if name in NAMES][:23] == ORDER


def test_whole_families_and_a_variant_of_four_are_held_out():
    trained, held_out = ({agents.describe(e.name).family for e in part} for part in (TRAINED, HELD_OUT))
    assert held_out - trained >= {
        "exponential",
        "relative_tit_for_tat",
        "random_absolute_tit_for_tat",
        "averaged_tit_for_tat",
        "resource",
        "modelling",
    }
    assert held_out & trained == {"boulware", "micro", "charging_boul", "fair"}


@pytest.mark.parametrize("entry", CATALOGUE, ids=NAMES)
def test_ranges_hold_what_trains_and_not_the_variants(entry):
    """Of a family that trains; a family that is held out may hold all of its own."""
    info = agents.describe(entry.name)
    trains = any(agents.describe(e.name).family == info.family for e in TRAINED)
    for name, span in info.ranges.items():
        assert span.low < span.high
        value = info.defaults.get(name)
        if value is not None:
            inside = span.low <= value <= span.high
            assert inside == (info.split == "train" or not trains), (name, value)


@pytest.fixture
def apart(monkeypatch):
    """A registry whose changes are forgotten."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


def factory(name):
    return agents.describe(name).factory


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: agents.register("x", factory("fair"), family="exponential"), "family 'exponential' is held out"),
        (lambda: agents.register("x", factory("fair"), family="omniscient"), "family 'omniscient' is held out"),
        (lambda: agents.register("x", factory("exponential_even")), "is built as 'exponential_boulware'"),
        (
            lambda: agents.register("x", factory("exponential_even"), family="fair"),
            "is built as 'exponential_boulware'",
        ),
        (
            lambda: agents.register("x", partial(factory("combi_max_window"), since=0.9)),
            "is built as 'combi_max_window'",
        ),
        (lambda: agents.register("x", factory("zopa_split")), "is built as 'zopa_split'"),
        (lambda: agents.register("x", factory("fair"), split="test"), "split 'test' must be one of train, held_out"),
        (lambda: agents.register("x", factory("fair"), split=None), "split None must be one of"),
    ],
)
def test_what_is_held_out_cannot_be_registered_to_train(register, message):
    with pytest.raises(InputError, match=message):
        register()
    assert "x" not in agents.list_strategies()


@pytest.mark.usefixtures("apart")
def test_what_may_be_registered():
    for k, (name, info) in enumerate(
        [
            ("fair", {"family": "fair"}),  # a family with a held-out variant, which trains itself
            ("fair", {}),
            ("exponential_even", {"family": "exponential", "split": "held_out"}),
            ("exponential_even", {"split": "held_out"}),
        ]
    ):
        assert agents.register(f"x{k}", factory(name), **info).may_train == (name == "fair")


@pytest.mark.usefixtures("apart")
def test_who_names_no_family_shares_none():
    agents.register("kept", lambda **_: make("fair"), split="held_out")
    assert agents.register("own", lambda **_: make("fair")).may_train


def test_what_is_known_of_a_strategy_cannot_be_changed():
    for name in ("boulware_hard", "charging_boul_stubborn", "zopa_split"):
        info = agents.describe(name)
        with pytest.raises(TypeError):
            info.defaults["exponent"] = 8.0
        with pytest.raises(TypeError):
            info.ranges["exponent"] = Range(0.2, 8.0)
        with pytest.raises(AttributeError):
            info.split = "train"
    assert make("boulware_hard").offering.beta == 0.25
    given = {"exponent": 1.0}
    info = StrategyInfo("mine", factory("boulware_hard"), "mine", defaults=given)
    given["exponent"] = 9.0
    assert info.defaults["exponent"] == 1.0


def test_what_is_known_of_a_strategy_can_be_copied_and_sent():
    for info in (agents.describe("boulware_immovable"), agents.describe("exponential_even")):
        assert copy.deepcopy(info) == copy.copy(info) == replace(info) == info
        assert replace(info, split="train") != info
    cheat = agents.describe("zopa_split")  # its factory is a class, which can be pickled
    assert pickle.loads(pickle.dumps(cheat)) == cheat
    with pytest.raises(TypeError):
        copy.deepcopy(cheat).defaults["share"] = 0.1


def test_labels_of_what_never_trains_are_known():
    for name in [*NAMES, *agents.list_strategies(cheating=True)]:
        assert agents.is_held_out(name) == (name not in ORDER)
    drawn = {
        family: agents.sample_strategies(family, 1, held_out=True)[0].name.partition("(")[0] + "("
        for family in FAMILIES
    }
    for family, label in drawn.items():
        assert agents.is_held_out(label) == (not agents.list_strategies(family=family, split="train"))
    assert agents.is_held_out("best_response:fair")
    for label in ("", "mixture", "nobody", "nobody(exponent=2)", "learned:/no/such.zip", "janus"):
        assert not agents.is_held_out(label)


# ── random members ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_members_are_drawn_within_their_ranges(family):
    held_out = not agents.list_strategies(family=family, split="train")
    if held_out:
        with pytest.raises(InputError, match="held out of training data"):
            agents.sample_strategies(family, 1)
    members = agents.sample_strategies(family, 40, seed=1, held_out=held_out)
    spans = {k: v for name in agents.list_strategies(family=family) for k, v in agents.describe(name).ranges.items()}
    seen = {name: [] for name in spans}
    for member in members:
        _, _, inside = member.name.partition("(")
        for pair in filter(None, inside.rstrip(")").split(", ")):
            name, value = pair.split("=")
            seen[name].append(float(value))
    for name, values in seen.items():
        span = spans[name]
        assert min(values) >= span.low * 0.999
        assert max(values) <= span.high * 1.001
        assert len(set(values)) == (span.high - span.low + 1 if span.whole else len(values)) or len(set(values)) > 15
    again = agents.sample_strategies(family, 10, seed=1, held_out=held_out)
    assert [m.name for m in again] == [m.name for m in members[:10]], "the k-th does not depend on how many"
    games = be.sample("paper", 30)
    rival = make("boulware_firm", 500.0)
    assert same(be.play(games, again[3], rival), be.play(games, members[3], rival))
    if spans:
        other = agents.sample_strategies(family, 10, seed=2, held_out=held_out)
        assert [m.name for m in other] != [m.name for m in again]


def test_a_parameter_may_be_fixed():
    members = agents.sample_strategies("charging_boul", 5, floor=0.55, assumed_zopa_width=500.0)
    assert all(m.offering.floor == 0.55 and m.assumed_zopa_width == 500.0 for m in members)
    assert len({m.offering.exponent for m in members}) == 5
    assert all(m.name == f"charging_boul(floor=0.55, exponent={m.offering.exponent!r})" for m in members)
    with pytest.raises(InputError, match="unknown family 'bulware'; did you mean 'boulware'"):
        agents.sample_strategies("bulware", 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda **s: agents.sample_strategies("boulware", 1, exponent=8.0, **s),
            "8.0 .* outside what trains, 0.2 to 4",
        ),
        (lambda **s: agents.sample_strategies("boulware", 1, exponent=math.inf, **s), "exponent inf"),
        (
            lambda **s: agents.sample_strategies("micro", 1, step=100.0, **s),
            "step 100.0 .* 10 to 50; pass held_out=True",
        ),
        (lambda **s: agents.sample_strategies("boulware", 1, cap=1.0, **s), "cap 1.0 .* draws exponent from 0.2 to 4"),
        (lambda **s: agents.sample_strategies("charging_boul", 1, floor=0.7, **s), "floor 0.7 .* outside what trains"),
        (lambda **s: agents.sample_strategies("tit_for_tat", 1, retreats=True, extra=10, **s), "retreats True"),
        (lambda **s: agents.sample_strategies("fair", 1, opening=0.1, **s), "opening 0.1"),
        (lambda **s: agents.sample_strategies("random_zopa", 1, acceptance=0.9, **s), "acceptance 0.9"),
    ],
)
def test_members_that_do_not_train_are_not_drawn_by_the_way(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "held_out=True" in str(caught.value)
    if "inf" not in message:
        assert len(call(held_out=True)) == 1


def test_parameters_that_train_may_be_fixed():
    for family, fixed in {
        "boulware": {"exponent": 4.0},
        "random_zopa": {"acceptance": 0.2},
        "micro": {"step": 50},
        "fair": {"acceptance": AcConst(0.4), "assumed_zopa_width": 300.0},
    }.items():
        assert len(agents.sample_strategies(family, 3, **fixed)) == 3


@pytest.mark.usefixtures("apart")
def test_a_parameter_without_a_range_may_be_that_of_a_member():
    agents.register("capped", factory("boulware_hard"), family="capped", defaults={"exponent": 2.0, "cap": 0.8})
    agents.register("capless", factory("boulware_hard"), family="capped", defaults={"exponent": 2.0, "cap": 1.0},
                    split="held_out")  # fmt: skip
    assert agents.sample_strategies("capped", 1, cap=0.8)[0].offering.cap == 0.8
    with pytest.raises(InputError, match=r"cap 1\.0 is that of no member of 'capped' that trains"):
        agents.sample_strategies("capped", 1, cap=1.0)
    assert agents.sample_strategies("capped", 1, cap=1.0, held_out=True)[0].offering.cap == 1.0


@pytest.mark.parametrize("n", [-1, 1.5, "3", True, None])
def test_so_many_members_cannot_be_drawn(n):
    with pytest.raises(InputError, match="must be a whole number of members, 0 or more"):
        agents.sample_strategies("boulware", n)
    assert agents.sample_strategies("boulware", 0) == []
    assert len(agents.sample_strategies("boulware", np.int64(2))) == 2


@pytest.mark.parametrize("family", ["boulware", "charging_boul", "micro", "resource", "random_absolute_tit_for_tat"])
def test_a_member_can_be_made_again_from_its_name(family):
    games = be.sample("paper", 30, seed=2)
    for member in agents.sample_strategies(family, 6, seed=4, held_out=True, assumed_zopa_width=500.0):
        name, _, inside = member.name.rstrip(")").partition("(")
        given = {
            k: float(v) if "." in v else int(v) for k, _, v in (pair.partition("=") for pair in inside.split(", "))
        }
        known = agents.list_strategies(family=family)
        again = agents.make(name if name in known else known[0], assumed_zopa_width=500.0, **given)
        rival = make("boulware_firm", 500.0)
        assert same(be.play(games, again, rival), be.play(games, member, rival))


@pytest.mark.parametrize("name", NAMES)
def test_every_factory_says_its_rule(name):
    rule = agents.describe(name).factory.__doc__
    assert len(rule) > 80
    assert "accept" in rule
    assert "Attributes" not in rule


def test_ranges():
    assert [Range(1, 3, whole=True).at(u) for u in (0.0, 0.4, 0.99)] == [1, 2, 3]
    assert Range(0.1, 10.0, log=True).at(0.5) == pytest.approx(1.0)
    assert Range(2.0, 4.0).at(0.25) == 2.5
    assert [Range(1, 3, whole=True).holds(value) for value in (1, 3, 2.0, 2.5, 0, 4)] == [True] * 3 + [False] * 3
    for value in (math.nan, math.inf, "2", None, True):
        assert not Range(0.0, 3.0).holds(value)


# ── one game, any company ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_game_is_the_same_alone_and_among_ten_thousand():
    n = 10_000
    games = be.sample("hidden", n, seed=13)
    games = replace(games, max_turns=5 + games.id // 2 % 17)
    pair = np.random.default_rng(0).integers(len(NAMES), size=(n, 2))

    def played(rows):
        seats = [be.RoutedPolicy([make(name, 500.0) for name in NAMES], pair[rows, k]) for k in (0, 1)]
        return be.play(games.take(rows), *seats)

    whole = played(np.arange(n))
    order = np.random.default_rng(1).permutation(n)
    assert same(played(order), whole.take(order))
    for name in range(len(NAMES)):
        row = np.flatnonzero((pair == name).any(axis=1))[:2]
        for one in row:
            alone, length = played(row[row == one]), games.max_turns[one]
            assert alone.prices.tobytes() == whole.prices[[one], :length].tobytes(), NAMES[name]


def test_a_full_house_of_modellers_is_the_same_in_parts():
    games = be.sample("paper", 1500, seed=14)
    for name in ("modelling_best_reply", "modelling_counter"):
        whole = be.play(games, make(name, 500.0), make("noisy_boulware_firm", 500.0))
        for rows in (np.arange(3), np.arange(700, 1500)):
            part = be.play(games.take(rows), make(name, 500.0), make("noisy_boulware_firm", 500.0))
            assert same(part, whole.take(rows))


def test_a_pickled_player_plays_the_same():
    games = be.sample("paper", 10, seed=15)
    for name in NAMES:
        player = make(name, 500.0)
        results = [
            be.play(games, p, make("linear_standard", 500.0)) for p in (player, pickle.loads(pickle.dumps(player)))
        ]
        assert same(*results), name


# ── the handbook ──────────────────────────────────────────────────────────────────────────────────────────────────────


def strategies_table():
    """The lines of the handbook that list strategies."""
    yes = {True: "yes", False: ""}
    for name in [*NAMES, *agents.list_strategies(cheating=True)]:
        info = agents.describe(name)
        given = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in info.defaults.items())
        split = "cheats" if info.cheating else info.split.replace("_", " ")
        yield (
            f"| `{name}` | {info.family} | {given} | {info.description} | {yes[info.stochastic]} "
            f"| {yes[info.uses_history]} | {split} |"
        )


def families_table():
    """The lines of the handbook that list families."""
    for family in FAMILIES:
        infos = [agents.describe(name) for name in agents.list_strategies(family=family)]
        spans = {k: v for info in infos for k, v in info.ranges.items()}
        shown = ", ".join(f"{k} {v.low:g}–{v.high:g}{' (log)' if v.log else ''}" for k, v in spans.items())
        yield f"| {family} | {shown} | {'; '.join(dict.fromkeys(info.source for info in infos))} |"


def test_the_handbooks_example_runs(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    code = HANDBOOK.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    made = {}
    exec(code, made)
    games = be.sample("paper", 20)
    assert be.play(games, made["player"], agents.make("mine", assumed_zopa_width=500.0)).agreement.any()


@pytest.mark.parametrize("table", [strategies_table, families_table])
def test_the_handbook_lists_everybody(table):
    text, lines = HANDBOOK.read_text(encoding="utf-8"), "\n".join(table())
    assert lines in text, f"docs/strategies.md should hold:\n{lines}"
