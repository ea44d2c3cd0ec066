"""Target-seeking teachers in the registry: they train, they are drawn, and no list or pool has them by the way."""

import math
from pathlib import Path

import numpy as np
import pytest
from test_strategies import ORDER
from zoo import same

import agents
import bargain_env as be
from agents.scripted import CATALOGUE
from agents.validation import OPPONENTS
from bargain_env import PRESETS
from bargain_env.errors import InputError
from experiments.match import opponents

FAMILY = "target_seeking"


def members(n, seed=0):
    return agents.sample_strategies(FAMILY, n, seed, assumed_zopa_width=500.0)


def test_no_list_has_them():
    info = agents.describe(FAMILY)
    assert (info.may_train, info.evaluable, info.split, info.stochastic, info.uses_history) == (
        True, False, "train", False, False,
    )  # fmt: skip
    assert agents.list_strategies(teaching=True) == [FAMILY, "sparring"]
    listed = {name for value in (None, True, False) for name in agents.list_strategies(evaluable=value)}
    assert not listed & {FAMILY, "sparring"}
    assert agents.list_strategies(split="train") == ORDER


def test_the_pools_are_what_they_were():
    zoo = [entry.name for entry in CATALOGUE if entry.name != "random_zopa"]
    assert len(zoo) == 39
    assert opponents.resolve("train") == [name for name in ORDER if name != "random_zopa"]
    assert opponents.resolve("held_out") == zoo[22:]
    assert opponents.resolve("all") == opponents.resolve("scripts") == zoo
    assert opponents.resolve("validation") == list(OPPONENTS)
    drawn = opponents.resolve("population:60")
    assert not any(name.startswith(FAMILY) for name in [*drawn, *OPPONENTS])
    with pytest.raises(InputError, match="unknown family 'target_seeking'"):
        opponents.resolve(f"family:{FAMILY}")


def test_who_is_named_plays():
    label = members(1)[0].name
    assert opponents.resolve(f"fair,{label}") == ["fair", label]
    assert (agents.describe(label).may_train, agents.is_held_out(label)) == (True, False)
    assert agents.is_held_out(f"{FAMILY}(opening=0.9)"), "outside the range that trains"


def test_members_cover_the_targets_and_can_be_made_again():
    drawn = members(200, seed=3)
    targets = np.array([member.offering.target_rho for member in drawn])
    assert np.histogram(targets, bins=10, range=(0, 1))[0].min() >= 9
    games, rival = be.sample("paper", 30), agents.make("micro_coarse", assumed_zopa_width=500.0)
    played = [be.play(games, member, rival) for member in drawn[:6]]
    assert len({result.prices.tobytes() for result in played}) == 6
    for member, result in zip(drawn, played, strict=False):
        assert same(be.play(games, agents.make_for(PRESETS["paper"], member.name), rival), result)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"target": 1.1}, "1.1 must be a number from 0 to 1"),
        ({"target": math.nan}, "nan must be"),
        ({"opening": -0.1}, "opening -0.1"),
        ({"generous": 2.0}, "generous 2.0"),
        ({"beta": 0.0}, "beta 0.0"),
        ({"tolerance": -1.0}, "tolerance -1.0"),
        ({"widening": 1.5}, "widening 1.5"),
        ({"late": 0.0}, "late 0.0"),
        ({"last": "1"}, "last '1'"),
    ],
)
def test_mistakes_are_named(params, message):
    with pytest.raises(InputError, match=message):
        agents.make(FAMILY, **params)


def test_the_handbook_has_their_ranges():
    text = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text(encoding="utf-8")
    section = text.partition("## Teachers")[2].partition("\n## ")[0]
    for name, span in agents.describe(FAMILY).ranges.items():
        assert f"| {name} | {span.low:g}–{span.high:g}{' (log)' if span.log else ''} |" in section
