"""Landmarks of a tournament: nobody is above the best response, theory gives its closed forms, the page shows both."""

import json

import pytest
from tournament_players import Taker

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from experiments import report, tournament
from experiments.match import arena
from experiments.reporting import landmarks, ranking, summary

SCRIPTS = "linear_standard,boulware_hard,hardliner,naive_concession,random_zopa,micro_coarse"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landmarks")
    names = ",".join(f"script:{name}" for name in SCRIPTS.split(","))
    asked = tournament.Settings(agents=names, opponents=SCRIPTS, games=6, scenario="no_deal", out=folder, quiet=True)
    return tournament.run(asked), folder


def test_nobody_is_above_the_best_response(played):
    found, _ = played
    best = {(r["opponent"], r["agent_seat"]): r for r in found["landmarks"]["best_response"]["rows"]}
    assert len(best) == 12
    gaps = [best[c["opponent"], c["agent_seat"]]["utility"] - c["utility"] for c in found["cells"]
            if c["opponent"] != "micro_coarse"]  # fmt: skip
    assert min(gaps) > -2e-6  # rounded figures
    assert max(gaps) > 0.3
    for seat in ("buyer", "seller"):
        row = best["micro_coarse", seat]
        assert row["utility"] is None
        assert "sequence" in row["reason"]


def test_theory_is_as_computed(played):
    found, _ = played
    assert found["landmarks"]["cooperative"] == dict.fromkeys(("nash", "kalai_smorodinsky", "egalitarian"), 0.5)
    perfect = {"periods": 19, "discount": 1.0, "buyer_starts": 0.0, "seller_starts": 1.0}
    assert found["landmarks"]["subgame_perfect"] == perfect
    short = arena.Plan(("naive_concession",), arena.same_grid(()), 2, (Seat.BUYER,), PRESETS["paper"], max_turns=1)
    nothing = landmarks.landmarks(short)
    assert nothing["subgame_perfect"]["buyer_starts"] is None
    assert nothing["best_response"]["rows"][0]["utility"] == 0  # nobody can answer in one turn


def test_file_and_page_hold_them(played):
    found, folder = played
    assert json.loads((folder / "summary.json").read_text())["landmarks"] == found["landmarks"]
    page = (folder / "report.html").read_text()
    head, rows = landmarks.table(found)
    assert len(rows) == 5
    assert all(f">{cell}</td>" in page for row in rows for cell in row)
    assert all(f">{title}</th>" in page for title in head)
    assert "No figure for micro_coarse" in page
    report.run(report.Settings(folder, quiet=True))  # from the files alone
    assert (folder / "report.html").read_text() == page
    old = {k: v for k, v in found.items() if k not in ("landmarks", "strategies", "ranking")}  # of earlier versions
    (folder / "summary.json").write_text(json.dumps(old))
    report.run(report.Settings(folder, quiet=True))
    assert "best anybody" not in (folder / "report.html").read_text()
    assert "<h2>Ranked" not in (folder / "report.html").read_text()
    summary.write(found, folder)


def test_scripts_that_were_no_agents_are_landmarks_as_if_they_had_been(tmp_path, monkeypatch):
    monkeypatch.setattr(landmarks, "GAMES", 4)  # fewer than are played
    asked = {"opponents": "hardliner,micro_coarse", "scenario": "paper", "seed": 5, "quiet": True}
    few = tournament.run(tournament.Settings(agents="script:fair", games=6, out=tmp_path / "few", **asked))
    whole = tournament.run(tournament.Settings(agents="scripts", games=4, out=tmp_path / "whole", **asked))
    scripts = few["landmarks"]["scripts"]
    assert scripts["games"] == 4
    assert [r for r in whole["ranking"] if r["agent"] != "script:fair"] == scripts["rows"]
    assert whole["landmarks"]["scripts"]["rows"] == []
    assert len(scripts["rows"]) == len(agents.list_strategies(evaluable=True)) - 1
    page = (tmp_path / "few/report.html").read_text()
    best = max([*scripts["rows"], *few["ranking"]], key=lambda row: row["utility"])["agent"].removeprefix("script:")
    assert f"utility, {best}, the best script" in page
    assert f">{scripts['rows'][0]['agent'].removeprefix('script:')} †<" in page
    assert ">fair<" in page
    assert "in its first 4 scenarios" in page


def test_who_knows_both_limits_is_neither_ranked_nor_counted_as_reached(tmp_path):
    asked = tournament.Settings(
        agents="script:zopa_split,script:hardliner,script:best_response:linear_standard",
        opponents="linear_standard,zopa_split",
        scenario="paper",
        games=4,
        out=tmp_path,
        quiet=True,
    )
    found = tournament.run(asked)
    assert {c["agent"] for c in found["cells"]} >= {"script:zopa_split", "script:best_response:linear_standard"}
    ranked = {row["agent"] for row in ranking.standings(found)}
    assert "script:hardliner" in ranked
    assert not ranked & {"script:zopa_split", "script:best_response:linear_standard"}
    assert all("hardliner" in row[2] for row in landmarks.table(found)[1])


def test_controls_do_not_count_as_reached(played):
    found, _ = played
    first = landmarks.table(found)[1][0][2]
    best = first.partition("(")[2].rstrip(")")
    without = {**found, "settings": {**found["settings"], "controls": [f"script:{best}"]}}
    assert landmarks.table(without)[1][0][2] != first


def test_a_strategy_that_does_not_say_it_is_memoryless_gets_a_reason(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {})
    agents.register("easy", Taker)
    plan = arena.Plan(("easy",), arena.same_grid(()), 300, tuple(Seat), PRESETS["paper"])
    found = landmarks.landmarks(plan)["best_response"]
    assert found["games"] == landmarks.GAMES < 300
    assert all(r["utility"] is None and "may keep a memory" in r["reason"] for r in found["rows"])
