"""`experiments.report`: made from the files alone, self-contained, the same bytes, and it holds the figures."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tournament_players import Taker, dial

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from experiments import report
from experiments.match import arena, results
from experiments.match.contestants import script
from experiments.reporting import (
    causes,
    charts,
    concession,
    dial_charts,
    frontier,
    games,
    heatmaps,
    landmarks,
    plots,
    ranking,
    summary,
    transcripts,
)
from experiments.reporting.sections.material import Material


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
    (path,) = report.run(report.Settings(folder, json=True))
    assert json.loads(capsys.readouterr().out) == {"report": str(path), "files": [str(path)]}
    first = path.read_bytes()
    report.run(report.Settings(folder, quiet=True))
    assert path.read_bytes() == first
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["episodes.parquet", "summary.csv", "summary.json", "report.html"]
    )


def test_files_and_memory_give_the_same_page(played, folder):
    found, episodes = played
    page = report.render(found, episodes)
    assert report.render(summary.read(folder), results.read(folder)) == page
    assert report.render(summary.read(folder), folder / results.EPISODES) == page


def test_the_page_is_whole_and_needs_no_network(played):
    page = report.render(*played)
    outside = re.sub(r'const SVG = "http://www.w3.org/2000/svg";', "", page)  # a name, which nobody fetches
    assert not re.findall(r"https?:|//\w+\.\w|<script src|<link|@import|<img", outside)
    assert "default-src 'none'" in page
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
    counted = games.Games.of(episodes, found["settings"]).concessions
    draw = {
        "a": lambda: dial_charts.calibration_chart(found, "dial", ["buyer", "seller"]),
        "b": lambda: frontier.frontier_chart(found, "seller"),
        "c": lambda: heatmaps.heatmap(heatmaps.dial_grids(found, "dial", "rho_achieved")),
        "d": lambda: heatmaps.heatmap(heatmaps.payoff_grids(found)),
        "e": lambda: concession.concession_chart(counted, "dial", "buyer"),
        "f": lambda: dial_charts.agents_chart(found, ["dial", "shuffled"], "buyer"),
        "g": lambda: causes.outcome_chart(found["outcomes"]),
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
    panel = heatmaps.heatmap(heatmaps.payoff_grids(document, seats_together=True)).axes[0]
    labels = ["late", "later", "early", "held *", "stranger"]  # families as they begin, unknown last
    assert [tick.get_text() for tick in panel.get_yticklabels()] == labels
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [*labels, "all opponents"]
    assert [line.get_ydata()[0] for line in panel.lines if line.get_xdata()[0] != line.get_xdata()[1]] == [2, 4]
    many = [f"s{i}" for i in range(40)]
    cells = [{**cell, "agent": f"script:{a}", "opponent": o, "utility": 0.25} for a in many for o in many]
    document |= {"cells": cells, "overall": [{**c, "opponent": None} for c in cells]}
    figure = heatmaps.heatmap(heatmaps.payoff_grids(document, seats_together=True))
    assert {text.get_text() for text in figure.axes[0].texts} == {"25"}
    assert figure.get_figwidth() < 14


def test_the_ranking_names_everybody_once_and_no_cheat(played):
    found, _ = played
    rows = ranking.standings(found)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    known = {"easy": {"family": "taker", "split": "held_out", "cheating": True}}
    left = ranking.standings({**found, "strategies": known})
    assert {row["agent"] for row in rows} - {row["agent"] for row in left} == {"script:easy"}
    part = report.render(*played).split('<h2 id="agents">')[1].split("<h2")[0]
    titles = [ranking.title(row).replace("<", "&lt;").replace(">", "&gt;") for row in rows]
    assert re.findall(r'<td class="name">\d+</td><td class="name">(.*?)</td>', part) == titles
    assert "dial, standard (ρ 0.20 / 0.80)" in part


def test_concessions_are_the_agents_own(played):
    _, episodes = played
    mine = episodes.filter([a == "dial" for a in episodes["agent"].to_pylist()])
    mine = mine.combine_chunks().to_batches()[0]
    row, number, position = concession.own_offers(mine)
    requested = mine["rho_requested"].to_numpy(zero_copy_only=False)[row]
    assert len(position) > 50
    assert abs(position - requested).max() < 1e-4  # the test dial offers its ρ and nothing else
    assert (requested >= 0).all()
    assert number.min() == 1


def test_concession_curves_are_the_medians_however_they_are_cut(played):
    _, episodes = played
    whole, cut = concession.Concessions(), concession.Concessions()
    for counted, size in ((whole, 10**6), (cut, 7)):
        for batch in episodes.combine_chunks().to_batches(max_chunksize=size):
            counted.add(batch)
    mine = episodes.filter((pc.field("agent") == "script:easy") & (pc.field("agent_seat") == "seller"))
    _, number, position = concession.own_offers(mine.combine_chunks().to_batches()[0])
    (curve,) = whole.curves("script:easy", "seller").values()
    assert len(curve)
    for turn, median in enumerate(curve, 1):
        assert abs(median - np.median(position[number == turn])) <= concession.STEP
    assert len({len(c) for c in whole.curves("dial", "buyer").values()}) >= 1
    for agent in ("dial", "script:easy"):
        one, other = whole.curves(agent, "seller"), cut.curves(agent, "seller")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[rho], other[rho]) for rho in one)


def test_the_games_that_are_shown_are_the_best_the_worst_and_one_scenario(played, tmp_path, monkeypatch):
    found, episodes = played
    monkeypatch.setattr(results, "GROUP_ROWS", 50)
    path = results.write(episodes, tmp_path)
    assert pq.ParquetFile(path).num_row_groups > 3
    read = games.Games.of(path, found["settings"])
    assert read.shown == games.Games.of(episodes, found["settings"]).shown
    assert read.cells == len(read.shown) == len(found["cells"])
    rows = {}
    for row in episodes.to_pylist():
        key = tuple(row[k] for k in ("agent", "agent_seat", "rho_requested", "opponent", "opponent_split"))
        rows.setdefault(key, []).append(row)
    for cell, places in read.shown.items():
        utilities = [row["utility"] for row in rows[tuple(cell)]]
        assert places["best"]["utility"] == max(utilities)
        assert places["worst"]["utility"] == min(utilities)
        assert places["random"] in rows[tuple(cell)]
    assert len({places["random"]["scenario_id"] for places in read.shown.values()}) == 1
    seeds = [{**found["settings"], "seed": seed} for seed in range(6)]
    drawn = [next(iter(games.Games.of(episodes, s).shown.values()))["random"]["scenario_id"] for s in seeds]
    assert len(set(drawn)) > 1


def test_where_there_are_many_cells_controls_are_left_out_first(played, monkeypatch):
    found, episodes = played
    monkeypatch.setattr(games, "MOST_CELLS", 20)
    read = games.Games.of(episodes, found["settings"])
    assert (len(read.shown), read.cells) == (20, len(found["cells"]))
    assert {cell.agent for cell in read.shown} == {"dial"}
    assert f"{read.cells - 20} cells have no room" in report.render(found, episodes)


def test_transcripts_tell_the_game(played):
    found, episodes = played
    chosen = games.standing_out(games.Games.of(episodes, found["settings"]), "dial", "buyer", 0)
    assert [name for name, _ in chosen][:3] == ["best deal", "worst deal", "impasse"]
    assert chosen[0][1]["utility"] > chosen[1][1]["utility"]
    assert not chosen[2][1]["agreement"]
    text = transcripts.card(*chosen[0], lambda i: f"replay <{i}>")
    assert text.count("<b>accepts</b>") == 1
    assert f"replay &lt;{chosen[0][1]['episode_id']}&gt;" in text
    assert "invalid move" in transcripts.card(*chosen[2], str)


def test_the_games_of_every_cell_are_data_that_cannot_end_their_element(played):
    page = report.render(*played)
    text = page.split('<script type="application/json" id="cells">')[1].split("</script>")[0]
    assert "<" not in text
    cells = json.loads(text)
    assert {cell["opponent"] for cell in cells} == {"easy", "picky<b>"}
    assert all([game["what"] for game in cell["games"]] == ["best", "worst", "random"] for cell in cells)
    game = cells[0]["games"][0]
    assert game["replay"].startswith("python -m experiments.replay . ")
    assert len(game["offers"]) <= game["turns"]


def test_every_chart_becomes_files_and_a_second_time_the_same(played, folder, tmp_path):
    paths = report.run(report.Settings(folder, plots=True, quiet=True))
    page = paths[0].read_text()
    names = re.findall(r'data-plot="([^"]+)"', page)
    assert len(names) == len(set(names)) > 10
    wanted = {folder / "plots" / f"{name}.{ending}" for name in names for ending in ("png", "svg", "csv")}
    assert set(paths[1:]) == wanted
    some = plots.write(
        [p for p in plots.drawn(report.elements(*played)) if p.name.startswith("heatmap-dial")], tmp_path / "again"
    )
    assert len(some) == 9
    for path in some:
        assert path.read_bytes() == (folder / "plots" / path.name).read_bytes() != b""
    found = played[0]
    rows = list(csv.DictReader((folder / "plots" / "calibration-dial-buyer.csv").open(encoding="utf-8")))
    drawn = [r for r in rows if (r["agent"], r["opponents"]) == ("dial", "all")]
    assert [float(r["achieved"] or "nan") for r in drawn] == pytest.approx(
        [float("nan") if v is None else v for v in found["calibration"]["buyer"]["achieved"]], nan_ok=True
    )


def test_kinds_of_opponents_are_apart_in_charts_and_table(played):
    found, episodes = played
    splits = pa.array(["train" if o == "easy" else "held_out" for o in episodes["opponent"].to_pylist()])
    place = episodes.schema.get_field_index("opponent_split")
    mixed = episodes.set_column(place, results.SCHEMA.field("opponent_split"), splits)
    document = summary.summarise(mixed, found["settings"])
    page = report.render(document, mixed)
    table = page.split('<h2 id="calibration">')[1].split("<h2")[0]
    for kind in ("all", "opponents of training", "held-out opponents"):
        assert f'<td class="name">{kind}</td>' in table
    chart = dial_charts.calibration_chart(document, "dial", ["buyer"])
    names = [text.get_text() for text in chart.axes[0].get_legend().get_texts()]
    assert names == ["opponents of training", "held-out opponents", "control: shuffled"]


def test_what_is_not_a_tournament_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no episodes\.parquet"):
        report.run(report.Settings(tmp_path / "nowhere"))
    (folder / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="not a summary of version"):
        report.run(report.Settings(folder))
    (folder / "episodes.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable Parquet"):
        report.run(report.Settings(folder))


def test_the_verdict_is_on_the_agent_under_test_wherever_it_is_named(played):
    found, episodes = played
    turned = {**found["settings"], "agents": ["shuffled", "dial", "script:easy", "script:picky<b>"]}
    document = summary.summarise(episodes, turned)
    assert document["calibration"] == found["calibration"]
    page = report.render(document, episodes)
    assert "<p>dial: as buyer" in page
    assert "shuffled: as buyer" not in page


def test_a_dial_that_was_asked_for_no_named_configuration_is_ranked_at_what_it_was_asked_for(played):
    found, episodes = played
    some = episodes.filter(pc.is_in(episodes["rho_requested"].fill_null(0.5), pa.array([-1.0, 0.2, 0.5])))
    some = some.filter(pc.invert(pc.equal(some["rho_requested"].fill_null(9.0), 0.5)))
    document = summary.summarise(some, found["settings"])
    names = [(row["agent"], row["configuration"]) for row in document["ranking"]]
    assert ("dial", "ρ 0.20") in names
    assert not any(configuration == "ρ -1.00" for _, configuration in names)
    page = report.render(document, some)
    assert '<td class="name">dial, ρ 0.20</td>' in page


def test_squares_and_files_tell_opponents_apart_by_their_whole_names():
    names = [f"boulware(exponent=0.3418602895018922{i})" for i in range(3)]
    grid = heatmaps.Grid("t", names, ["a", "b"], np.array([[0.5, -10.25], [20.5, np.nan], [-0.001, 1.0]]), np.zeros((3, 2)),
                         starred=frozenset(names[:1]))  # fmt: skip
    assert [row["row"] for row in grid.records()] == [name for name in names for _ in "ab"]
    assert len(grid.label(names[0])) < len(names[0])
    assert grid.label(names[0]).startswith("boulware(")
    assert grid.label(names[0]).endswith(" *")
    texts = [grid.text(i, j, 2) for i in range(3) for j in range(2)]
    assert texts == [".50", "-10.25", "20.50", "–", ".00", "1.00"]


def test_a_label_may_hold_what_typesetting_would_read(played):
    found, _ = played
    renamed = json.loads(json.dumps(found, ensure_ascii=False).replace('"dial"', '"a$\\\\q$c"'))
    assert "a$\\q$c" in renamed["calibration_by_agent"]
    drawn = charts.svg(dial_charts.calibration_chart(renamed, "a$\\q$c", ["buyer"]), "x")
    assert "a$\\q$c as buyer" in drawn


def test_charts_of_agents_with_like_names_have_files_of_their_own(played):
    found, _ = played
    settings = {**found["settings"], "agents": ["run_1/final", "run-1/final", "run.1.final"]}
    material = Material({**found, "settings": settings}, None)
    names = {material.file_name("calibration", agent, "buyer") for agent in settings["agents"]}
    assert len(names) == 3


def test_what_is_of_other_scenarios_is_not_subtracted(played):
    found, _ = played
    rows = [{"opponent": "easy", "agent_seat": seat, "utility": 0.9, "reason": None} for seat in ("buyer", "seller")]
    for count, there in ((8, True), (3, False)):
        marks = {"best_response": {"games": count, "rows": rows}}
        head, _ = landmarks.table({**found, "landmarks": marks, "strategies": {}})
        assert ("as buyer: short by" in head) is there
