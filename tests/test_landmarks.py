"""Landmarks of a tournament: nobody is above the best response, theory gives its closed forms, the page shows both."""

import json

import pytest
from tournament_players import Taker

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from experiments import report, tournament
from experiments.match import arena
from experiments.reporting import landmarks, summary

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
    short = arena.Plan(("naive_concession",), (), 2, (Seat.BUYER,), PRESETS["paper"], max_turns=1)
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
    old = {k: v for k, v in found.items() if k != "landmarks"}  # folders of earlier versions
    (folder / "summary.json").write_text(json.dumps(old))
    report.run(report.Settings(folder, quiet=True))
    assert "best anybody" not in (folder / "report.html").read_text()
    summary.write(found, folder)


def test_controls_do_not_count_as_reached(played):
    found, _ = played
    first = landmarks.table(found)[1][0][2]
    best = first.partition("(")[2].rstrip(")")
    without = {**found, "settings": {**found["settings"], "controls": [f"script:{best}"]}}
    assert landmarks.table(without)[1][0][2] != first


def test_a_strategy_that_does_not_say_it_is_memoryless_gets_a_reason(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {})
    agents.register("easy", Taker)
    plan = arena.Plan(("easy",), (), 300, tuple(Seat), PRESETS["paper"])
    found = landmarks.landmarks(plan)["best_response"]
    assert found["games"] == landmarks.GAMES < 300
    assert all(r["utility"] is None and "may keep a memory" in r["reason"] for r in found["rows"])
