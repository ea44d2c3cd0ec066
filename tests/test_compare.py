"""Two tournaments compared: what is paired with what, known effects found again, and a page that says so."""

from __future__ import annotations

import io
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_episodes import crossed, dial_games, joined, table
from rich.console import Console
from test_report import Balance

from bargain_env.errors import InputError
from experiments import tournament
from experiments.match import results
from experiments.reporting import charts, compare_page, matched, statistics, summary
from experiments.reporting.columns import Columns
from experiments.reporting.compare import compare, title, verdict
from experiments.reporting.differences import differences

N = 30


LUCK = np.random.default_rng(7).normal(0.0, 0.1, (2, 500))
"""What a scenario does to everybody, by seat."""


def settle(shift=0.0, fail=0.0):
    """A dial that settles ``shift`` from where it was asked to, give or take what the scenario does to everybody; of its
    games with opponent ``a`` a share ``fail`` has no deal.
    """

    def settled(games):
        rho = 0.2 + 0.5 * games["rho_requested"] + shift
        rho += LUCK[(games["agent_seat"] == "seller").astype(int), games["scenario_id"]]
        return np.where((games["opponent"] == "a") & (games["scenario_id"] < fail * N), np.nan, rho)

    return settled


def folder(path, games, **settings):
    """A tournament folder that holds these games."""
    path.mkdir(parents=True)
    pq.write_table(table(games), path / "episodes.parquet")
    agents = list(dict.fromkeys(games["agent"].tolist()))
    about = {"agents": agents, "controls": [], "seed": 0, "max_turns": 20, **settings}
    summary.write({"schema_version": results.SCHEMA_VERSION, "settings": about, "cells": [{}]}, path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A dial, and the same with deals 0.1 dearer and fewer."""
    root = tmp_path_factory.mktemp("pair")
    one = folder(root / "plain", dial_games(settle(), rho=(0.0, 0.2, 0.5, 0.8)))
    return one, folder(root / "dear", dial_games(settle(0.1, 0.5), rho=(0.0, 0.2, 0.5, 0.8)), max_turns=10)


def where(found, **wanted):
    return [row for row in found["rows"] if all(row[name] == value for name, value in wanted.items())]


def width(row, name="utility"):
    return row[f"{name}_high"] - row[f"{name}_low"]


# ── known answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_and_itself_do_not_differ(pair):
    assert {row["utility_difference"] for row in compare(*pair)["rows"]} != {0.0}
    found = compare(pair[0], pair[0])
    assert found["paired"]
    for row in found["rows"]:
        for name in ("utility", "agreement_rate", "rho_achieved"):
            known = {row[f"{name}_{part}"] for part in ("difference", "low", "high")}
            assert known == ({None} if row["configuration"] and name == "rho_achieved" else {0.0})
        assert (row["p"], row["p_holm"], row["clear"]) == (1.0, 1.0, False)
    assert [set(row["difference"].values()) for row in found["calibration"]] == [{0.0}, {0.0}]
    assert (found["settings"], found["versions"]) == ([], [])
    assert verdict(found) == f"All {len(found['rows'])} mean utilities are the same in both."


def test_rows_by_hand(pair):
    found = compare(*pair)
    tables = [results.read(path).to_pylist() for path in pair]
    single = where(found, configuration=None)
    assert len(single) == 2 * 4
    for row in single:
        for side, games in zip(("one", "two"), tables, strict=True):
            mine = [g for g in games if all(g[k] == row[k] for k in ("agent_seat", "rho_requested"))]
            deals = [g["rho_achieved"] for g in mine if g["agreement"]]
            assert row[f"n_{side}"] == len(mine) == 2 * N
            assert row[f"utility_{side}"] == pytest.approx(sum(g["utility"] for g in mine) / len(mine), abs=1e-6)
            assert row[f"agreement_rate_{side}"] == pytest.approx(len(deals) / len(mine), abs=1e-6)
            assert row[f"rho_achieved_{side}"] == pytest.approx(sum(deals) / len(deals), abs=1e-6)
        for name in ("utility", "agreement_rate", "rho_achieved"):
            gap = row[f"{name}_two"] - row[f"{name}_one"]
            assert row[f"{name}_difference"] == pytest.approx(gap, abs=2e-6)
            assert row[f"{name}_low"] <= row[f"{name}_difference"] <= row[f"{name}_high"]
        assert row["agreement_rate_difference"] == -0.25
    named = found["rows"][: -len(single)]
    assert [row["configuration"] for row in named] == ["standard", "flipped", "neutral"]
    for row, (buyer, seller) in zip(named, ((0.2, 0.8), (0.8, 0.2), (0.5, 0.5)), strict=True):
        [a], [b] = (where(found, configuration=None, agent_seat=s, rho_requested=r)
                    for s, r in (("buyer", buyer), ("seller", seller)))  # fmt: skip
        assert row["utility_difference"] == pytest.approx(
            (a["utility_difference"] + b["utility_difference"]) / 2, abs=2e-6
        )
        assert (row["n_one"], row["agent_seat"], row["rho_achieved_one"]) == (4 * N, "both", None)


def test_an_effect_is_found_and_pairs_find_it_better(tmp_path, pair):
    dear = dial_games(settle(0.1), rho=(0.0, 0.2, 0.5, 0.8))
    paired = compare(pair[0], folder(tmp_path / "dear", dear))
    elsewhere = compare(pair[0], folder(tmp_path / "elsewhere", dear | {"width": np.full(len(dear["agent"]), 400.0)}))
    assert (paired["paired"], elsewhere["paired"]) == (True, False)
    assert elsewhere["scenarios"] == {"one": N, "two": N, "shared": 0, "compared": [N, N]}
    for row, apart in zip(paired["rows"], elsewhere["rows"], strict=True):
        sign = {"buyer": -1, "seller": 1, "both": 0}[row["agent_seat"]]
        assert row["utility_difference"] == pytest.approx(0.1 * sign, abs=2e-6)
        assert row["clear"] == bool(sign)
        assert row["utility_low"] - 1e-6 <= 0.1 * sign <= row["utility_high"] + 1e-6
        assert apart["utility_difference"] == pytest.approx(row["utility_difference"], abs=2e-6)
        assert width(row) < 0.1 * width(apart)
        assert apart["p"] > row["p"] or not sign
    for row in paired["calibration"]:
        assert row["difference"]["slope"] == pytest.approx(0.0, abs=2e-6)
        assert row["difference"]["mae"] == pytest.approx(row["two"]["mae"] - row["one"]["mae"], abs=2e-6) != 0
    assert "8 of 11 mean utilities differ clearly: 4 higher and 4 lower in dear" in verdict(paired)


def test_the_other_way_round_is_the_same_with_another_sign(pair):
    there, back = compare(*pair), compare(*pair[::-1])
    assert there["names"] == back["names"][::-1] == ["plain", "dear"]
    for row, other in zip(there["rows"], back["rows"], strict=True):
        assert row["utility_difference"] == -other["utility_difference"]
        assert (row["utility_low"], row["p_holm"]) == pytest.approx((-other["utility_high"], other["p_holm"]), abs=2e-6)


def test_one_family_of_tests(pair):
    rows = compare(*pair)["rows"]
    ranked = sorted(rows, key=lambda row: row["p"])
    holm = np.maximum.accumulate([(len(rows) - i) * row["p"] for i, row in enumerate(ranked)])
    assert any(row["p_holm"] > row["p"] > 0 for row in rows)
    assert [row["p_holm"] for row in ranked] == pytest.approx(np.minimum(holm, 1.0).tolist(), abs=2e-5)
    assert [row["clear"] for row in ranked] == [bool(value < 0.05) for value in holm]


def test_configurations_are_those_of_one_meaning(tmp_path):
    games, grids = dial_games(settle()), ({"a": [0.0, 0.5], "b": [1.0, 1.0]}, {"b": [1.0, 0.5], "a": [0.0, 0.5]})
    one, two = (folder(tmp_path / str(i), games, configurations=named) for i, named in enumerate(grids))
    for sides, names in (((one, one), ["a", "b"]), ((two, two), ["b", "a"]), ((one, two), ["a"])):
        assert [row["configuration"] for row in compare(*sides)["rows"] if row["configuration"]] == names


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_cover_and_tests_are_calibrated(paired):
    random = np.random.default_rng(0)
    sides = []
    for effect in (0.0, 0.05):
        shared = np.random.default_rng(5).normal(0.4, 0.2, (300, 20)) if paired else random.normal(0.4, 0.2, (300, 20))
        utility = shared + effect + random.normal(0.0, 0.1, (300, 20))
        settled = np.ones((300, 20), dtype=bool)
        cells = Columns.of(table(crossed(agent=["x"], agent_seat=["buyer"], opponent=[f"{i:03d}" for i in range(300)],
                                         scenario_id=range(20), rho_achieved=[0.5]))).cells  # fmt: skip
        sides.append(Columns(cells, np.arange(20), utility, utility, utility, settled, {}))
    groups = [(np.array([i]), np.array([i])) for i in range(300)]
    rows = differences((sides[0], sides[1]), groups, paired=paired)
    held = np.mean([row["utility_low"] <= 0.05 <= row["utility_high"] for row in rows])
    assert 0.91 <= held <= 0.985
    null = differences((sides[0], Columns(sides[0].cells, np.arange(20), sides[1].utility - 0.05, *([sides[1].rho] * 2),
                                          sides[1].agreement, {})), groups, paired=paired)  # fmt: skip
    false, true = (np.mean([row["p"] < 0.05 for row in some]) for some in (null, rows))
    assert 0.02 <= false <= 0.09
    assert true > (0.25 if paired else false)


def test_rates_near_one_have_honest_intervals_where_samples_are_independent(tmp_path, pair):
    always = folder(tmp_path / "always", dial_games(settle(), scenarios=20) | {"width": np.full(400, 450.0)})
    [row, *_] = where(compare(pair[0], always), configuration=None)
    assert (row["agreement_rate_one"], row["agreement_rate_two"]) == (1.0, 1.0)
    low, high = statistics.rate_intervals(np.full((20, 1), 2.0), np.full((20, 1), 2.0))
    assert row["agreement_rate_high"] > 0.05
    assert row["agreement_rate_low"] == pytest.approx(low[0] - high[0], abs=1e-6)


# ── what is compared with what ────────────────────────────────────────────────────────────────────────────────────────


def test_only_opponents_scenarios_and_requests_of_both_count(tmp_path, pair):
    wild = dial_games(lambda games: np.where(games["opponent"] == "c", 9.0, settle()(games)), opponents=("a", "b", "c"),
                      rho=(0.0, 0.2, 0.6), scenarios=N - 10)  # fmt: skip
    also = folder(tmp_path / "wild", wild, rho=[0.0, 0.2, 0.6])
    found = compare(pair[0], also)
    assert found["paired"]
    assert found["scenarios"] == {"one": N, "two": N - 10, "shared": N - 10, "compared": [N - 10, N - 10]}
    assert found["opponents"] == ["a", "b"]
    assert found["only"] == {
        "agents": {"one": [], "two": []},
        "rho": {"one": [0.5, 0.8], "two": [0.6]},
        "opponents": {"one": [], "two": ["c"]},
        "seats": {"one": [], "two": []},
    }
    assert {(row["utility_difference"], row["opponents"], row["n_one"]) for row in found["rows"]} == {
        (0.0, 2, 2 * (N - 10))
    }
    assert [row["one"]["rho"] for row in found["calibration"]] == [[0.0, 0.2]] * 2
    assert [row["name"] for row in found["settings"]] == ["rho"]


def test_scenarios_are_paired_by_their_limits_not_by_their_number(tmp_path, pair):
    games = dial_games(settle(), rho=(0.0, 0.2, 0.5, 0.8))
    changes = {
        "starter": {"starter": np.where(games["scenario_id"] == 3, "seller", "buyer")},
        "width": {"width": np.where(games["scenario_id"] == 3, 500.01, 500.0)},
    }
    for name, change in changes.items():
        found = compare(pair[0], folder(tmp_path / name, games | change))
        assert (found["paired"], found["scenarios"]["shared"]) == (False, N - 1), name
        assert found["scenarios"]["compared"] == [N, N]
        assert found["settings"] == [], "the seed is the same"
    assert compare(pair[0], folder(tmp_path / "same", games))["paired"]
    later = {**games, "scenario_id": games["scenario_id"] + 7 * N}  # limits repeat every 7 scenarios
    found = compare(pair[0], folder(tmp_path / "later", later))
    assert (found["paired"], found["scenarios"]["shared"]) == (False, 0)


def test_games_of_one_scenario_that_are_not_the_same_are_refused(tmp_path, pair):
    games = dial_games(settle())
    torn = np.where((games["scenario_id"] == 3) & (games["opponent"] == "b"), 400.0, 500.0)
    with pytest.raises(InputError, match="games of scenario 3 differ in limits or starter"):
        compare(pair[0], folder(tmp_path / "torn", games | {"width": torn}))


def test_the_first_agents_are_compared_where_labels_differ(tmp_path, pair):
    parts = [dial_games(settle(0.1), agent=name) for name in ("control", "new", "other")]
    found = compare(pair[0], folder(tmp_path / "new", joined(*parts), controls=["control"]))
    assert found["agents"] == [["dial", "new"]]
    assert found["only"]["agents"] == {"one": ["dial"], "two": ["control", "new", "other"]}
    assert {(row["agent_one"], row["agent_two"]) for row in found["rows"]} == {("dial", "new")}
    assert title(found["rows"][0]) == "dial / new, neutral"
    assert "the first agents under test are compared: dial of plain with new of new" in compare_page.compare_page(found)
    both = compare(folder(tmp_path / "b", joined(*parts[:2])), tmp_path / "new")
    assert both["agents"] == [["control", "control"], ["new", "new"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"opponents": ("c", "d", "e", "f", "g")},
            "no opponent in common: plain has a, b; x has c, d, e and 2 more; play one",
        ),
        ({"rho": (0.3, 0.4)}, "plain and x have no seat and rho in common in which dial could be compared; play one"),
        ({"rho": (0.3, 0.4), "agent": "y"}, "in which dial and y could be compared"),
    ],
)
def test_nothing_in_common(tmp_path, pair, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        compare(pair[0], folder(tmp_path / "x", dial_games(settle(), **changes)))
    assert "\n" not in str(caught.value)


def test_what_is_no_tournament_is_refused(tmp_path, pair):
    with pytest.raises(InputError, match=r"no summary\.json"):
        compare(pair[0], tmp_path)
    shutil.copytree(pair[0], tmp_path / "x")
    (tmp_path / "x" / "episodes.parquet").unlink()
    with pytest.raises(InputError, match=r"no episodes\.parquet"):
        compare(tmp_path / "x", pair[0])
    (tmp_path / "x" / "episodes.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable"):
        compare(tmp_path / "x", pair[0])
    pq.write_table(pa.table({"scenario_id": [1]}), tmp_path / "x" / "episodes.parquet")
    with pytest.raises(InputError, match="not readable"):
        compare(tmp_path / "x", pair[0])


def test_more_scenarios_than_are_resampled(tmp_path, monkeypatch):
    from experiments.reporting import columns

    monkeypatch.setattr(columns, "POOLS", 12)
    one, two = (folder(tmp_path / name, dial_games(settle(shift))) for name, shift in (("one", 0.0), ("two", 0.1)))
    found = compare(one, two)
    assert {abs(row["utility_difference"]) for row in where(found, configuration=None)} == {0.1}
    monkeypatch.setattr(columns, "POOLS", 1000)
    assert compare(one, two)["rows"][0]["utility_one"] == found["rows"][0]["utility_one"]


def test_real_tournaments(tmp_path):
    def play(name, **changes):
        chosen = {"agents": "script:fair,script:linear_standard", "opponents": "boulware_firm,noisy_boulware_firm"}
        settings = tournament.Settings(**{**chosen, "games": 8, "out": tmp_path / name, "quiet": True, **changes})
        players, plan = tournament.prepared(settings)
        settings.out.mkdir()
        results.write(tournament.arena.run_tournament(players, plan), settings.out)
        about = {"schema_version": results.SCHEMA_VERSION, "cells": [{}], "versions": {"numpy": name}}
        summary.write(about | {"settings": tournament.described(settings, players, plan)}, settings.out)
        return settings.out

    one, short, seeded = play("one"), play("short", max_turns=6, games=5), play("seeded", seed=1)
    found = compare(one, short)
    assert (found["paired"], found["scenarios"]["shared"]) == (True, 5)
    assert [row["name"] for row in found["settings"]] == ["games", "max_turns"]
    assert found["versions"] == [{"name": "numpy", "one": "one", "two": "short"}]
    assert found["calibration"] == []
    assert not compare(one, seeded)["paired"]
    assert "Does the dial" not in compare_page.compare_page(found)


# ── what people read ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_whole_the_same_twice_and_needs_no_network(tmp_path, pair):
    odd = dial_games(settle(0.05), agent="new<b>&")
    found = compare(pair[0], folder(tmp_path / "odd <i>", odd))
    page = compare_page.compare_page(found)
    assert page == compare_page.compare_page(json.loads(json.dumps(found, allow_nan=False)))
    assert page == compare_page.compare_page(compare(pair[0], tmp_path / "odd <i>"))
    assert not re.findall(r"https?:|//\w+\.\w|<script|<link|@import|<img", page)
    assert "new<b>" not in page
    assert "new&lt;b&gt;&amp;" in page
    assert "odd <i>" not in page
    balance = Balance()
    balance.feed(page)
    assert (balance.wrong, balance.open) == ([], [])
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page)) <= set(identifiers)
    assert "Paired: both played the same 30 scenarios" in page
    for row in found["rows"]:
        assert f"{row['utility_difference']:+.3f}" in page
    assert charts.INK not in page.split("</style>", 1)[1]


def test_the_document_is_a_function_of_what_the_folders_hold(tmp_path, pair):
    for path in pair:
        shutil.copytree(path, tmp_path / "moved" / path.name)
    assert compare(*(tmp_path / "moved" / path.name for path in pair)) == compare(*pair)
    assert matched.names_of(tmp_path / "a" / "x", tmp_path / "b" / "x") == [
        str(tmp_path / "a" / "x"),
        str(tmp_path / "b" / "x"),
    ]


def test_the_chart_tells_the_two_apart(pair):
    found = compare(*pair)
    figure = compare_page.overlay_chart(found, found["calibration"])
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["as buyer", "as seller"]
    for axes, row in zip(figure.axes[:2], found["calibration"], strict=True):
        handles, labels = axes.get_legend_handles_labels()
        assert labels == ["plain", "dear"]
        lines = [handle.lines[0] for handle in handles]
        assert [line.get_linestyle() for line in lines] == ["-", "--"]
        assert lines[0].get_color() != lines[1].get_color()
        for line, side in zip(lines, ("one", "two"), strict=True):
            assert line.get_ydata().tolist() == row[side]["achieved"]


def test_the_page_says_what_differs_in_the_settings(pair):
    page = compare_page.compare_page(compare(*pair))
    part = page.split("What differs in what was asked for")[1]
    assert re.search(r"max_turns</td><td [^>]*>20</td><td [^>]*>10<", part)
    assert "all settings of plain" in part
    assert "Nothing: all settings are the same" in compare_page.compare_page(compare(pair[0], pair[0]))


def test_the_table_for_a_terminal(pair):
    found = compare(*pair)
    console = Console(file=io.StringIO(), width=120)
    console.print(compare_page.compare_table(found))
    text = console.file.getvalue()
    lines = text.splitlines()
    assert len(lines) == 1 + len(found["rows"])
    for line, row in zip(lines[1:], found["rows"], strict=True):
        assert f"{row['utility_one']:.3f}" in line
        assert f"[{row['utility_low']:+.3f}, {row['utility_high']:+.3f}]" in line
