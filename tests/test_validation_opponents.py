"""The third set of opponents: who is in it, that it stays what it is, and that it never trains."""

from __future__ import annotations

from collections import Counter
from zlib import crc32

import numpy as np
import pytest
from made_episodes import table

import agents
from agents.scripted import CATALOGUE
from agents.validation import OPPONENTS
from bargain_env import PRESETS, rng
from bargain_env.errors import InputError
from experiments import collect
from experiments.match import arena, contestants, opponents
from experiments.reporting import summary

SEED = 8128


def evaluable():
    """Strategies that train and can be played, whose family has something to draw."""
    found = [agents.describe(entry.name) for entry in CATALOGUE]
    return [info for info in found if info.split == "train" and info.evaluable and info.ranges]


def drawn(family, n):
    """Names of the Latin hypercube sample of the module's head."""
    spans = agents.describe(agents.list_strategies(family=family)[0]).ranges
    place = crc32(family.encode()) & 0xFFFFFF
    u = rng.uniform(SEED, np.arange(n), turn=place, stream=rng.Stream.PAIRING, n=2 * len(spans))
    order = [np.arange(n), *(np.argsort(u[:, len(spans) + j]) for j in range(1, len(spans)))]
    for k in range(n):
        values = [float(f"{s.at((order[j][k] + u[k, j]) / n):.3g}") for j, s in enumerate(spans.values())]
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(spans, values, strict=True))
        yield f"{family}({shown})"


def test_the_set_is_the_draw_that_its_text_says():
    families = Counter(info.family for info in evaluable())
    assert list(OPPONENTS) == [name for family, n in families.items() for name in drawn(family, n)]


def test_nobody_in_it_is_registered_or_held_out():
    known = {(info.family, *sorted(info.defaults.items())) for info in map(agents.describe, agents.list_strategies())}
    assert ("fair", ("opening", 0.8)) in known
    for name in OPPONENTS:
        info = agents.describe(name)
        assert (info.family, *sorted(info.defaults.items())) not in known
        assert all(span.holds(info.defaults[key]) for key, span in info.ranges.items())
        assert agents.make_for(PRESETS["paper"], name).name == name


def test_it_never_trains(tmp_path):
    like = "boulware(exponent=0.244)"
    assert (agents.describe(like).may_train, agents.is_held_out(like)) == (True, False)
    for name in OPPONENTS:
        assert agents.describe(name).split == "validation"
        assert (agents.describe(name).may_train, agents.is_held_out(name)) == (False, True)
    with pytest.raises(InputError, match=r"held out of training data"):
        collect.run(collect.Settings(episodes=2, strategies=f"fair,{OPPONENTS[0]}", out=tmp_path, quiet=True))


def test_the_group_is_the_same_for_every_seed_and_plugin(monkeypatch):
    registry = dict(agents.registry._REGISTRY)
    monkeypatch.setattr(agents.registry, "_REGISTRY", registry)
    before = opponents.resolve("validation", seed=1)
    assert before == list(OPPONENTS)
    agents.register("mine", agents.describe("fair").factory, family="fair", defaults={"opening": 0.5})
    assert "mine" in opponents.resolve("train")
    assert opponents.resolve("validation", seed=2) == before


def test_tournaments_record_it():
    players = contestants.resolve_agents("script:fair")
    names = tuple(opponents.resolve("validation,fair,fair_reluctant"))
    plan = arena.Plan(names, arena.same_grid([0.5]), 2, tuple(arena.Seat), PRESETS["paper"])
    rows = arena.run_tournament(players, plan).to_pylist()
    splits = {row["opponent"]: row["opponent_split"] for row in rows}
    assert splits == {**dict.fromkeys(OPPONENTS, "validation"), "fair": "train", "fair_reluctant": "held_out"}


def test_figures_stand_apart_by_split():
    names, asked = ("train", "validation", "held_out"), (0.2, 0.8)
    played = np.array([(i, split, rho) for split in names for rho in asked for i in range(4)], dtype=object)
    split, rho = played[:, 1].astype(str), played[:, 2].astype(float)
    games = {
        "agent": np.full(len(rho), "dial"), "agent_seat": np.full(len(rho), "buyer"), "opponent": split,
        "opponent_split": split, "scenario_id": played[:, 0].astype(int), "rho_requested": rho,
        "rho_achieved": np.where(split == "validation", 0.5, rho),
    }  # fmt: skip
    found = summary.summarise(table(games), {"agents": ["dial"], "seed": 0})["calibration_by_split"]
    assert list(found) == ["train", "validation", "held_out"]
    assert [of["dial"]["buyer"]["mae_means"] for of in found.values()] == pytest.approx([0.0, 0.3, 0.0])
