"""`experiments.report`: made from the files alone, self-contained, the same bytes, and it holds the figures."""

import json
import re
from html.parser import HTMLParser

import pytest
from tournament_players import Taker, dial

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from experiments import report
from experiments.match import arena, results
from experiments.match.contestants import script
from experiments.reporting import charts, concession, heatmaps, ranking, summary, transcripts


@pytest.fixture(scope="module")
def played():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", {})
        agents.register("easy", Taker)
        agents.register("picky<b>", Taker, defaults={"picky": 1.0})
        players = [dial(), dial("shuffled", shuffled=True), script("easy"), script("picky<b>")]
        grid = (-1.0, 0.0, 0.2, 0.5, 0.8, 1.0)
        plan = arena.Plan(("easy", "picky<b>"), arena.same_grid(grid), 8, tuple(Seat), PRESETS["paper"])
        episodes = arena.run_tournament(players, plan)
    settings = {
        "agents": [p.label for p in players],
        "controls": ["shuffled"],
        "rho": list(grid),
        "games": 8,
        "seed": 0,
    }
    settings |= {"opponents": list(plan.opponents), "seats": ["buyer", "seller"], "scenario": "paper", "max_turns": 20}
    return summary.summarise(episodes, settings), episodes


@pytest.fixture
def folder(played, tmp_path):
    found, episodes = played
    results.write(episodes, tmp_path)
    summary.write(found, tmp_path)
    return tmp_path


class Balance(HTMLParser):
    """Notes elements that are closed out of turn."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_command_makes_it_from_the_files(folder, capsys):
    path = report.run(report.Settings(folder, json=True))
    assert json.loads(capsys.readouterr().out) == {"report": str(path)}
    first = path.read_bytes()
    report.run(report.Settings(folder, quiet=True))
    assert path.read_bytes() == first
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["episodes.parquet", "summary.csv", "summary.json", "report.html"]
    )


def test_files_and_memory_give_the_same_page(played, folder):
    found, episodes = played
    assert report.render(summary.read(folder), results.read(folder)) == report.render(found, episodes)


def test_the_page_is_whole_and_needs_no_network(played):
    page = report.render(*played)
    assert not re.findall(r"https?:|//\w+\.\w|<script|<link|@import|<img", page)
    assert "picky<b>" not in page
    assert "picky&lt;b&gt;" in page
    balance = Balance()
    balance.feed(page)
    assert (balance.wrong, balance.open) == ([], [])
    identifiers = re.findall(r' id="([^"]+)"', page)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page))
    assert used
    assert used <= set(identifiers)


def test_the_page_holds_the_figures(played):
    found, episodes = played
    page = report.render(found, episodes)
    assert f"{episodes.num_rows:,} games" in page
    for seat in ("buyer", "seller"):
        for name in ("spearman", "mae", "slope"):
            assert f"{found['calibration'][seat][name]:.3f}" in page
    for row in found["overall"]:
        assert f"{row['utility']:.3f} [{row['utility_low']:.3f}, {row['utility_high']:.3f}]" in page
    for name in ("standard", "extreme", "flipped", "neutral"):
        assert f"utility, {name} (ρ" in page
    assert "defined for deals only" in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("agents_shown", [["dial"], ["script:easy"], ["script:easy", "script:picky<b>"]], ids=str)
@pytest.mark.parametrize("seats", [["buyer"], ["buyer", "seller"]], ids=str)
def test_any_subset_of_players_and_seats_makes_a_page(played, agents_shown, seats):
    found, episodes = played
    kept = [a in agents_shown and s in seats for a, s in zip(episodes["agent"].to_pylist(),
            episodes["agent_seat"].to_pylist(), strict=True)]  # fmt: skip
    part = episodes.filter(kept)
    settings = {**found["settings"], "agents": agents_shown, "controls": [], "seats": seats}
    page = report.render(summary.summarise(part, settings), part)
    assert ("Does the dial" in page) == (agents_shown == ["dial"])


def test_one_game_only_has_no_intervals_but_a_page(played):
    found, episodes = played
    one = episodes.slice(0, 1)
    page = report.render(summary.summarise(one, {**found["settings"], "agents": ["dial"], "seats": ["buyer"]}), one)
    assert "<h1>" in page


def test_charts_follow_the_page_into_the_dark(played):
    found, episodes = played
    draw = {
        "a": lambda: charts.calibration_chart(found),
        "b": lambda: charts.tradeoff_chart(found),
        "c": lambda: heatmaps.dial_heatmap(found, "dial", "rho_achieved"),
        "d": lambda: heatmaps.payoff_heatmap(found),
        "e": lambda: concession.concession_chart(episodes, "dial"),
    }
    for name, figure in draw.items():
        drawn = charts.svg(figure(), name)
        assert charts.INK not in drawn
        assert "var(--ink)" in drawn
        assert "<image" not in drawn  # vector all through
        assert drawn == charts.svg(figure(), name)


def test_payoffs_stand_by_family_and_fit_many(played):
    found, _ = played
    names = ["late", "early", "later", "held"]
    known = {
        n: {"family": f, "split": s, "cheating": False}
        for n, f, s in zip(names, "abab", ["train"] * 3 + ["held_out"], strict=True)
    }
    cell = next(c for c in found["cells"] if c["rho_requested"] is None)
    shown = ["held", "later", "early", "late", "stranger"]
    cells = [{**cell, "agent": f"script:{a}", "opponent": o} for a in shown for o in shown]
    document = {**found, "strategies": known, "cells": cells, "overall": [{**c, "opponent": None} for c in cells]}
    panel = heatmaps.payoff_heatmap(document, seats_together=True).axes[0]
    labels = ["late", "later", "early", "held *", "stranger"]  # families as they begin, unknown last
    assert [tick.get_text() for tick in panel.get_yticklabels()] == labels
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [*labels, "all opponents"]
    assert [line.get_ydata()[0] for line in panel.lines if line.get_xdata()[0] != line.get_xdata()[1]] == [2, 4]
    many = [f"s{i}" for i in range(40)]
    cells = [{**cell, "agent": f"script:{a}", "opponent": o, "utility": 0.25} for a in many for o in many]
    figure = heatmaps.payoff_heatmap(
        {**document, "cells": cells, "overall": [{**c, "opponent": None} for c in cells]}, seats_together=True
    )
    assert {text.get_text() for text in figure.axes[0].texts} == {"25"}
    assert figure.get_figwidth() < 14


def test_the_ranking_names_everybody_once_and_no_cheat(played):
    found, _ = played
    rows = ranking.standings(found)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    known = {"easy": {"family": "taker", "split": "held_out", "cheating": True}}
    left = ranking.standings({**found, "strategies": known})
    assert {row["agent"] for row in rows} - {row["agent"] for row in left} == {"script:easy"}
    page = report.render(*played)
    part = page.split("<h2>Ranked")[1].split("<h2>")[0]
    titles = [ranking.title(row).replace("<", "&lt;").replace(">", "&gt;") for row in rows]
    assert re.findall(r'<td class="name">\d+</td><td class="name">(.*?)</td>', part) == titles
    assert "dial, standard (ρ 0.20 / 0.80)" in part


def test_concessions_are_the_agents_own(played):
    _, episodes = played
    mine = episodes.filter([a == "dial" for a in episodes["agent"].to_pylist()])
    row, number, position = concession.own_offers(mine)
    requested = mine["rho_requested"].to_numpy()[row]
    assert len(position) > 50
    assert abs(position - requested).max() < 1e-4  # the test dial offers its ρ and nothing else
    assert (requested >= 0).all()
    assert number.min() == 1


def test_transcripts_tell_the_game(played):
    _, episodes = played
    chosen = transcripts.choose(episodes, "dial", "buyer")
    assert [name for name, _ in chosen] == ["best deal", "median deal", "worst deal", "impasse"]
    utilities = [game["utility"] for _, game in chosen[:3]]
    assert utilities == sorted(utilities, reverse=True)
    text = transcripts.card(*chosen[0])
    assert text.count("<b>accepts</b>") == 1
    assert "invalid move" in transcripts.card(*chosen[3])


def test_what_is_not_a_tournament_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no episodes\.parquet"):
        report.run(report.Settings(tmp_path / "nowhere"))
    (folder / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="not a summary of version"):
        report.run(report.Settings(folder))
    (folder / "episodes.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable Parquet"):
        report.run(report.Settings(folder))
