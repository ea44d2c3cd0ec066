"""Who plays in a collection: pairs, populations, Januses at a ρ of their own, learned policies; and who does not."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

import agents
import bargain_env as be
from bargain_env.errors import InputError
from experiments import collect
from experiments.corpus import cast, parts, teachers

DRAWN = re.compile(r"janus-nano\(target=(0\.\d{1,4}|1\.0)\)")


def collected(out, **options):
    usual = {"episodes": 40, "scenario": "paper", "seed": 2, "out": out, "quiet": True}
    collect.run(collect.Settings(**{**usual, **options}))
    table = pq.read_table(out / "episodes")
    return list(zip(table["buyer_strategy"].to_pylist(), table["seller_strategy"].to_pylist(), strict=True))


def test_named_pairs_are_drawn_evenly(tmp_path):
    pairs = [("fair", "hardliner"), ("hardliner", "fair"), ("tit_for_tat", "micro(step=12.5)")]
    found = Counter(collected(tmp_path, episodes=900, strategies=",".join(map(":".join, pairs))))
    assert set(found) == set(pairs), "and no other"
    assert min(found.values()) > 240
    assert json.loads((tmp_path / "manifest.json").read_text())["settings"]["pairs"] == [list(pair) for pair in pairs]


def test_without_pairs_everybody_meets_everybody(tmp_path):
    found = Counter(collected(tmp_path, episodes=400, strategies="fair,hardliner"))
    assert len(found) == 4
    assert min(found.values()) > 70


def test_a_group_in_a_pair_stands_for_its_members():
    train = agents.list_strategies(split="train")
    drawn = cast.population("population:5@train", 3)
    found = cast.resolve("train:fair,population:5@train:hardliner,fair:fair", 3)
    pairs = [(found.names[b], found.names[s]) for b, s in found.pairs]
    assert pairs == [*((name, "fair") for name in train), *((name, "hardliner") for name in drawn)]
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("fair:hardliner", ("fair", "hardliner")),
        ("janus-nano@0.3:fair", ("janus-nano@0.3", "fair")),
        ("learned:runs/a.zip:fair", ("learned:runs/a.zip", "fair")),
        ("fair:janus:runs/a", ("fair", "janus:runs/a")),
        ("janus:runs/a@0.5:learned:b.zip", ("janus:runs/a@0.5", "learned:b.zip")),
        ("population:9@train:fair", ("population:9@train", "fair")),
        ("micro(step=12.5):train", ("micro(step=12.5)", "train")),
        ("fiar:hardliner", ("fiar", "hardliner")),
        ("fair", None),
        ("learned:runs/a.zip", None),
        ("janus:runs/fair", None),
        ("population:9@train", None),
        ("text:http://localhost:80/v1#model", None),
    ],
)
def test_where_a_pair_is_parted(text, pair):
    assert cast._parted(text) == pair


def test_janus_is_asked_for_another_rho_in_each_game(tmp_path):
    found = np.array(collected(tmp_path / "a", episodes=20, strategies="janus-nano,fair"))
    labels = found[found != "fair"].tolist()
    assert 8 < len(labels) < 32
    assert all(DRAWN.fullmatch(label) for label in labels)
    asked = teachers.asked_rho(np.array(labels, dtype=object))
    assert len(set(asked.tolist())) == len(labels), "the seats of a game too"
    assert asked.min() < 0.25 < 0.75 < asked.max()
    settings = json.loads((tmp_path / "a" / "manifest.json").read_text())["settings"]
    assert settings["strategies"] == ["janus-nano", "fair"]
    assert set(settings["players_sha256"]) == {"janus-nano"}


def test_janus_plays_what_its_name_says(tmp_path):
    """Game by game, the recorded names give the recorded prices; at another ρ they do not."""
    found = collected(tmp_path, episodes=12, strategies="janus-nano:linear_standard")
    table = pq.read_table(tmp_path / "episodes")
    games = be.sample("paper", ids=table["scenario_id"].to_numpy(), seed=2)
    asked = teachers.asked_rho(np.array([buyer for buyer, _ in found], dtype=object))
    results = []
    for rho in (asked, 1 - asked):
        janus = cast.janus_spec_of("janus-nano").policy(rho, cast.OPTIONS, "paper")
        results.append(be.play(games, janus, agents.make_for(be.PRESETS["paper"], "linear_standard")))
    recorded = [np.nan if price is None else price for price in table["price"].to_pylist()]
    assert not np.array_equal(results[1].price, recorded, equal_nan=True)
    np.testing.assert_array_equal(results[0].price, recorded)


@pytest.mark.parametrize("spec", ["janus-nano@0.3", "janus-nano(0.30)", "janus-nano(target=0.3)"])
def test_janus_at_a_rho(spec):
    assert cast.resolve(spec, 0).names == ("janus-nano(target=0.3)",)
    games = be.sample("paper", 5, seed=0)
    assert set(cast.resolve(spec, 0).draw(games).ravel()) == {"janus-nano(target=0.3)"}
    assert cast.resolve("janus-nano@text@0.3", 0).names == ("janus-nano@text(target=0.3)",)
    assert teachers.asked_rho(np.array(["janus-nano@text(target=0.3)", "janus-nano"], dtype=object)).tolist()[0] == 0.3


def test_batches_of_a_model_are_cut_within_each_part(tmp_path, monkeypatch):
    """Whatever is asked for, whoever plays: games 0 to 7, 8 to 9, then 10 to 17, and so on."""
    monkeypatch.setattr(parts, "MODEL_GAMES", 8)
    monkeypatch.setattr("experiments.corpus.records.PART_GAMES", 10)
    seen, usual = [], parts.Games.play

    def noted(self, ids):
        seen.append(ids.tolist())
        return usual(self, ids)

    monkeypatch.setattr(parts.Games, "play", noted)
    collected(tmp_path / "a", episodes=24, strategies="janus-nano@0.5:fair")
    assert [(ids[0], len(ids)) for ids in seen] == [(0, 8), (8, 2), (10, 8), (18, 2), (20, 4)]
    seen.clear()
    collected(tmp_path / "b", episodes=24, strategies="linear_standard:fair")
    assert [(ids[0], len(ids)) for ids in seen] == [(0, 24)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fair:hardliner,tit_for_tat", "names pairs and 'tit_for_tat', which is none"),
        ("fair:hardlinr", "did you mean 'hardliner'"),
        ("fiar:hardliner", "did you mean 'fair'"),
        ("janus-nano@1.3", r"rho 1.3 must lie in \[0, 1\]"),
        ("base", "follows no rho"),
        ("shuffled:fair", "follows no rho|unknown strategy"),
        ("janus:nowhere", "no checkpoint at 'nowhere'"),
        ("learned:nowhere.zip", "nowhere.zip"),
        ("fair:population:3@held_out", "are held out of training data"),
        ("teacher(target=0.3)", "unknown strategy"),
    ],
)
def test_who_does_not_play(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        collect.run(collect.Settings(4, strategies=text, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
