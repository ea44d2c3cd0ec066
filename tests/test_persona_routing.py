"""The route command: how well routers tell personas apart, from end to end and figure by figure."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from agents.modelling import Counterpart
from bargain_env.errors import InputError
from experiments import cli, personas
from experiments.persona import routing
from experiments.persona.folder import read_data
from experiments.persona.route_figures import accuracy, handicap_of, held_back, known_of, reliability, routed
from experiments.persona.routing import NOVEL, Group, Scored, left_out


def command(*words):
    return personas.run(cli.parse(personas.Settings, [str(word) for word in words]))


MEMBERS = tuple(Counterpart(f"p{k}", None, family, "paper", "buyer") for k, family in enumerate("aab"))
GROUP = Group("buyer", "paper", MEMBERS)


def scored(logs, label, seen=1, null=-np.inf):
    logs = np.log(np.array(logs, dtype=float))
    return Scored(logs, np.full(len(logs), null), np.full(len(logs), seen), np.array(label))


def test_figures_by_hand():
    found = routed(
        [(GROUP, scored([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]], [0, 1, 2, 2]))], 1.0
    )
    found = replace(found, null=np.array([0.1, 0.8, 0.0, 0.4]))
    assert found.top1.tolist() == [True, False, True, False]
    assert found.family.tolist() == [True, True, True, False]
    assert found.confidence == pytest.approx([0.6, 0.5, 0.6, 0.7])
    strange = [[0.1, 0.1, 0.1], [0.6, 0.2, 0.1]]
    apart = routed([(GROUP, scored(strange, [-1, -1], null=np.log(0.5 / 3)))], 1.0)
    [row] = accuracy(found, {"strangers": apart}, 0.5, 0)
    shown = {name: row[name] for name in ("offers", "games", "top1", "top3", "family", "abstained", "top1_answered")}
    assert shown == pytest.approx(
        {"offers": 1, "games": 4, "top1": 0.5, "top3": 1.0, "family": 0.75, "abstained": 0.25, "top1_answered": 2 / 3}
    )
    assert row["chance_top1"] == pytest.approx(1 / 3)
    assert row["chance_family"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 / 3) / 4)
    assert apart.null == pytest.approx([0.5 / 0.8, 0.5 / 1.4])
    assert (row["strangers"], row["abstained_strangers"]) == (2, 0.5)
    assert row["auroc_strangers"] == pytest.approx((3 + 2) / 8), (
        "of 8 pairs, in so many the stranger is the stranger one"
    )
    error, bins = reliability(found)
    assert [b["queries"] for b in bins] == [1, 2, 1]
    assert error == pytest.approx((abs(0 - 0.5) + 2 * abs(1 - 0.6) + abs(0 - 0.7)) / 4)


def test_a_query_that_is_like_nobody_is_nobody():
    unlike = Scored(np.full((1, 3), NOVEL), np.zeros(1), np.array([1]), np.array([0]))
    found = routed([(GROUP, unlike)], 1.0)
    assert not found.top1[0]
    assert not found.top3[0]
    assert not found.answered(0.0)[0]


def test_as_many_are_known_as_was_asked_for():
    shares = [[x / 3, x / 3, x / 3] for x in np.linspace(0.1, 0.95, 10)]  # who of them it is stays open
    found = routed([(GROUP, scored(shares, [0] * 10, seen=5, null=np.log(0.5)))], 1.0)
    assert found.answered(known_of(found, 0.9, 5)).mean() == pytest.approx(0.9, abs=0.1)
    assert found.answered(known_of(found, 1.0, 5)).all()
    assert found.answered(known_of(found, 0.5, 8)).mean() == pytest.approx(0.5, abs=0.1), "the longest games count"


def test_without_their_family_personas_are_strangers():
    found = left_out(GROUP, scored([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], [1, 2], null=0.0))
    assert routed([(GROUP, found)], 1.0).null == pytest.approx([1 / 1.1, 2 / 2.4]), "as likely as all that are left"
    assert np.exp(found.logs) == pytest.approx(np.array([[0.0, 0.0, 0.1], [0.2, 0.2, 0.0]]))
    assert found.label.tolist() == [-1, -1]
    alone = Group("buyer", "paper", MEMBERS[:2])  # both of one family: nobody else is left
    assert len(left_out(alone, scored([[0.6, 0.4]], [0])).logs) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two personas of each seat, barely trained."""
    folder = tmp_path_factory.mktemp("routing") / "made"
    command("make", "--out", folder, "--personas", 4, "--games", 3, "--scenario", "paper", "--max-turns", 8, "--quiet")
    command("train", folder, "--epochs", 1, "--start", "base", "--pooled-epochs", 0, "--threads", 1, "--quiet")
    return folder


def test_the_null_hypothesis_is_handicapped_until_the_share_is_answered():
    """It is ahead of the best persona by 1, 2, 3 and 4 nats after two offers; behind it in a fifth game."""
    best = np.array([-1.0, -2.0, -3.0, -4.0, -9.0])
    group = Group("buyer", "paper", tuple(Counterpart(n, None, n, "paper", "buyer") for n in "ab"))
    scored = Scored(
        np.stack([best, best - 1.0], axis=1),
        np.array([0.0, 0.0, 0.0, 0.0, -20.0]),
        np.full(5, 2),
        np.zeros(5, dtype=int),
    )
    parts = [(group, scored)]
    for answered, handicap in ((0.2, 0.0), (0.5, 1.0), (0.75, 1.5), (1.0, 2.0)):
        assert handicap_of(parts, answered, 2) == handicap == handicap_of(parts, answered, 5)
        assert routed(held_back(parts, handicap), 1.0).answered(0.0).mean() >= answered
    assert handicap_of([(group, replace(scored, seen=np.full(5, 3)))], 1.0, 2) == 4.0 / 3, (
        "the next count that there is"
    )
    without = Scored(scored.logs, np.full(5, -np.inf), scored.seen, scored.label)
    assert handicap_of([(group, without)], 1.0, 2) == 0.0


def test_routes_from_end_to_end(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(routing.agents, "list_strategies", few(routing.agents.list_strategies))
    words = ["route", trained, "--games", 1, "--threads", 1, "--at-offers", 2]
    command(*words, "--out", tmp_path)
    said = capsys.readouterr().out
    assert "keyword: not measured; offers hold no words" in said
    assert f"modelling:{trained}?known=" in said.replace("\n", "")
    results, cast = json.loads((tmp_path / "router_results.json").read_text()), read_data(trained).personas
    assert results["without_rivals"] == 0
    assert [g["personas"] for g in results["groups"]] == [2, 2]
    assert not results["methods"]["keyword"]["measured"]
    for method in ("likelihood", "embedding"):
        rows = results["methods"][method]["by_offers"]
        assert [row["offers"] for row in rows] == [1, 2, 3][: len(rows)]
        assert rows[0]["games"] == 4
        assert rows[0]["strangers"] == 4
        assert rows[0]["left_out"] == sum(any(p.seat == q.seat and p.family != q.family for q in cast) for p in cast)
        assert all(row["chance_top1"] == 0.5 and row["top3"] in (0.0, 0.25, 0.5, 0.75, 1.0) for row in rows)
    assert (tmp_path / "router_calibration.png").stat().st_size > 1000
    drawn = list(csv.DictReader((tmp_path / "router_calibration.csv").open()))
    total = sum(row["games"] for row in results["methods"]["likelihood"]["by_offers"])
    assert sum(int(row["queries"]) for row in drawn if row["method"] == "likelihood") == total
    before = (tmp_path / "router_results.json").read_bytes()
    command(*words, "--out", tmp_path, "--quiet")
    assert (tmp_path / "router_results.json").read_bytes() == before


def few(listed):
    """Two of the held-out strategies; the others as they are."""
    return lambda **how: listed(**how)[:2] if how.get("split") == "held_out" else listed(**how)


def test_what_cannot_be_routed_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"experiments\.personas make"):
        command("route", tmp_path)
    with pytest.raises(InputError, match="--answered 0"):
        command("route", trained, "--answered", 0)
    command("make", "--out", tmp_path / "new", "--personas", 2, "--games", 3, "--quiet")
    with pytest.raises(InputError, match=r"experiments\.personas train"):
        command("route", tmp_path / "new")
