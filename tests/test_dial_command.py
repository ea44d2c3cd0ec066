"""The table of a dial's targets: figures of players whose answers are known, verdicts, and the command."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_episodes import table as made
from tournament_players import Dial, Taker

import agents
from bargain_env import PRESETS, Moves, Seat
from bargain_env.errors import InputError
from experiments import dial, tournament
from experiments.match import arena, contestants
from experiments.match.contestants import Contestant
from experiments.reporting import targets
from experiments.reporting.summary import clean
from experiments.reporting.targets import Row
from experiments.reporting.virtual_best import virtual_best

GRID = tuple(round(0.1 * k, 10) for k in range(11))


class Shaky(Dial):
    """A dial that settles .1 too high as buyer, and takes its first offer back by .08 where the game's id is odd."""

    def act(self, view):
        rho = self.rho[view.rows] + (0.1 if view.games.seat == Seat.BUYER else 0.0)
        sign = -1.0 if view.games.seat == Seat.BUYER else 1.0
        price = (
            self.floor[view.rows] + 500.0 * rho + sign * np.where((view.games.id % 2 == 1) & (view.turn > 2), 40.0, 0.0)
        )
        return Moves(np.zeros(len(view), bool), price, guarded=np.zeros(len(view), bool))


class Late:
    """Accepts from its third turn on, whatever it is."""

    def __init__(self, assumed_zopa_width=None):
        self.name = "late"

    def reset(self, games):
        self.turns = 0

    def act(self, view):
        return Moves(
            ~np.isnan(view.standing) & (view.turn > 4),
            np.full(len(view), 200.0 if view.games.seat == Seat.BUYER else 1500.0),
        )


@pytest.fixture
def zoo(monkeypatch):
    monkeypatch.setattr(agents.registry, "_REGISTRY", dict(agents.registry._REGISTRY))
    monkeypatch.setattr(Taker, "seen", [])
    agents.register("easy", Taker, family="taker")
    agents.register("late", Late, family="late")


def rows_of(tmp_path, player, opponent, within=(0.1, 0.9), scripts=()):
    plan = arena.Plan((opponent,), arena.same_grid(GRID), 8, tuple(Seat), PRESETS["paper"])
    whole = arena.run_tournament([player, *map(contestants.script, scripts)], plan)
    path = tmp_path / "episodes.parquet"
    pq.write_table(whole, path)
    columns = targets.with_zopa(path)
    found = [*targets.rows(columns, path, "dial", within), targets.outside(columns, "dial")]
    return {(row.measure, row.seat): row for row in found}


def player(kind):
    return Contestant("dial", takes_rho=True, build=lambda rho, _: kind(rho))


def test_a_dial_that_does_what_it_says(zoo, tmp_path):
    found = rows_of(tmp_path, player(Dial), "easy", scripts=["easy", "fair_slow", "hardliner"])
    values = {key: row.value for key, row in found.items()}
    assert list(dict.fromkeys(measure for measure, _ in found)) == list(targets.MEASURES)
    for seat in ("buyer", "seller"):
        assert values["mae_means", seat] == pytest.approx(0.0, abs=1e-4)
        assert values["spearman", seat] == pytest.approx(1.0)
        assert values["agreement", seat] == 1.0
    assert values["standard", "both"] == pytest.approx(0.8, abs=1e-4)
    assert values["neutral", "both"] == values["extreme", "both"] == 1.0
    assert values["outside", "both"] == 0.0
    best = found["gain", "both"]
    assert best.note.startswith("ρ 0.00/1.00: 1.000; hardliner: ")
    assert best.value == pytest.approx(1.0 - float(best.note.rpartition(" ")[2]), abs=1e-3)
    assert best.low <= best.value <= best.high
    assert found["mae_means", "buyer"].n == 9 * 8


def test_a_dial_that_does_not(zoo, tmp_path, monkeypatch):
    found = rows_of(tmp_path, player(Shaky), "late")
    values = {key: row.value for key, row in found.items()}
    assert values["extreme", "both"] == values["steady", "both"] == 0.5, "every second game turns back"
    monkeypatch.setattr(targets, "RETREAT", 0.09)
    slack = {key: row.value for key, row in rows_of(tmp_path, player(Shaky), "late").items()}
    assert (slack["extreme", "both"], slack["steady", "both"]) == (0.5, 1.0)
    assert values["mae_means", "buyer"] == pytest.approx(0.1 - 0.04, abs=1e-3)
    assert values["mae_means", "seller"] == pytest.approx(0.04, abs=1e-3)
    assert values["mae", "buyer"] == pytest.approx((0.1 + 0.02) / 2, abs=1e-3)
    assert values["neutral", "both"] == pytest.approx(0.75), "all of the seller's, every second of the buyer's"
    assert values["outside", "both"] == pytest.approx(1 / 22), "a buyer that is asked for 1"
    assert ("gain", "both") not in found


def test_the_measures_of_made_up_games(tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    asked = np.repeat(GRID, 2 * n)
    seat = np.tile(np.repeat(["buyer", "seller"], n), len(GRID))
    got = 0.5 + 0.6 * (asked - 0.5) + rng.normal(0, 0.01, len(asked))
    got[rng.random(len(asked)) < 0.1] = np.nan
    games = {
        "agent": np.full(len(asked), "dial"), "agent_seat": seat, "opponent": np.full(len(asked), "a"),
        "scenario_id": np.tile(np.arange(n), 2 * len(GRID)), "rho_requested": asked, "rho_achieved": got,
    }  # fmt: skip
    path = tmp_path / "episodes.parquet"
    pq.write_table(made(games), path)
    columns = targets.with_zopa(path)
    found = {(r.measure, r.seat): r for r in targets.rows(columns, path, "dial", (0.2, 0.8))}
    inside = (asked >= 0.2) & (asked <= 0.8)
    errors = [0.4 * abs(rho - 0.5) for rho in GRID if 0.2 <= rho <= 0.8]
    for one in ("buyer", "seller"):
        assert found["mae_means", one].value == pytest.approx(np.mean(errors), abs=2e-3)
        rate = (~np.isnan(got[inside & (seat == one)])).mean()
        assert found["agreement", one].value == pytest.approx(rate)
        assert found["agreement", one].low < rate < found["agreement", one].high
    without = made(games | {"width": np.where(games["scenario_id"] < 100, -50.0, 500.0)})
    pq.write_table(without, path)
    assert len(columns.scenarios) == 200
    assert len(targets.with_zopa(path).scenarios) == 100, "only where there is something to settle"


def test_the_best_player_against_each_opponent(tmp_path):
    earned = {("dial", 0.0, "a"): 0.9, ("dial", 1.0, "a"): 0.2, ("dial", 0.0, "b"): 0.1, ("dial", 1.0, "b"): 0.3,
              ("script:x", None, "a"): 0.5, ("script:x", None, "b"): 0.4}  # fmt: skip
    n = 20
    agent, asked, opponent = zip(*(key for key in earned for _ in range(n)), strict=True)
    games = {"agent": np.array(agent), "rho_requested": np.array(asked, dtype=float), "opponent": np.array(opponent),
             "agent_seat": np.full(len(agent), "seller"), "scenario_id": np.tile(np.arange(n), len(earned)),
             "rho_achieved": np.repeat(list(earned.values()), n)}  # fmt: skip
    path = tmp_path / "episodes.parquet"
    pq.write_table(made(games), path)
    found = virtual_best(targets.with_zopa(path))
    assert found["value"] == pytest.approx((0.9 + 0.4) / 2), "the dial at 0 against a, the script against b"
    assert found["low"] <= found["value"] <= found["high"]
    assert found["players"] == 3
    pq.write_table(made(games | {"width": np.full(len(agent), -50.0)}), path)
    assert virtual_best(targets.with_zopa(path))["players"] == 0, "nobody plays where there is nothing to settle"


@pytest.mark.parametrize(
    ("row", "target", "met", "clear"),
    [
        (Row("mae_means", "buyer", 0.04, 0.03, 0.045, 9), 0.05, True, True),
        (Row("mae_means", "buyer", 0.04, 0.03, 0.06, 9), 0.05, True, False),
        (Row("mae_means", "buyer", 0.06, 0.04, 0.07, 9), 0.05, False, False),
        (Row("spearman", "buyer", 0.99, 0.97, 1.0, 9), 0.99, True, False),
        (Row("agreement", "seller", 0.98, 0.975, 0.99, 9), 0.97, True, True),
        (Row("agreement", "seller", 0.9, 0.8, 0.95, 9), 0.97, False, False),
        (Row("agreement", "seller", float("nan"), float("nan"), float("nan"), 0), 0.97, False, False),
        (Row("mae", "seller", 0.1, 0.0, 0.2, 9), None, None, None),
    ],
)
def test_verdicts(row, target, met, clear):
    (found,) = targets.verdicts([row], {} if target is None else {row.measure: target})
    assert (found["met"], found["clear"], found["target"]) == (met, clear, target)


def test_what_is_shown():
    def cell(value, low, high, measure="mae_means", target=0.05):
        (row,) = targets.verdicts([Row(measure, "buyer", value, low, high, 9)], {measure: target})
        return dial._cells(clean(row))

    assert cell(0.04, 0.03, 0.045) == ("0.040 [0.030, 0.045]", "≤ 0.05 met")
    assert cell(0.04, 0.03, 0.06)[1] == "≤ 0.05 met (?)"
    assert cell(0.06, 0.055, 0.07)[1] == "≤ 0.05 missed"
    assert cell(0.06, 0.04, 0.07)[1] == "≤ 0.05 missed (?)"
    assert cell(0.9, 0.8, 0.95, "agreement", 0.97)[1] == "≥ 0.97 missed"
    assert cell(0.9, 0.8, 0.98, "agreement", 0.97)[1] == "≥ 0.97 missed (?)"
    assert cell(0.1, 0.05, 0.2, "mae", None) == ("0.100 [0.050, 0.200]", "")
    assert cell(float("nan"), float("nan"), float("nan"))[1] == "≤ 0.05 missed (?)"
    assert dial._cells(None) == ("–", "–")


def test_the_command(tmp_path, monkeypatch, capsys):
    pool = dial.Pool("small", "paper", "fair,fair_reluctant", (0.2, 0.8), {"mae_means": 0.5, "standard": 0.99})
    monkeypatch.setattr(dial, "POOLS", (pool,))
    monkeypatch.setattr(dial, "GRID", "0,0.2,0.5,0.8,1")
    settings = dial.Settings(out=tmp_path, games=2, unguarded_games=1, threads=1)
    found = dial.run(settings)
    shown = capsys.readouterr().out
    assert "≤ 0.5 met" in shown
    assert "≥ 0.99 missed" in shown
    assert json.loads((tmp_path / "dial.json").read_text()) == found
    (rows,) = [p["agents"]["janus-nano"] for p in found["pools"]]
    assert list(dict.fromkeys(r["measure"] for r in rows)) == list(targets.MEASURES)
    text = (tmp_path / "dial.md").read_text()
    assert text.count("\n| ") == 2 + 15 + 4
    assert "- small, best ρ pair minus best script: ρ " in text
    bound = found["pools"][0]["ceilings"]
    assert (bound["opponents"], bound["of"], bound["rho"]) == (["fair", "fair_reluctant"], 2, [0.0, 0.2, 0.5, 0.8, 1.0])
    assert bound["buyer"]["mae"] == pytest.approx([0.5, 0.3, 0.0, 0.0, 0.0], abs=1e-4), "never less than half"
    assert bound["seller"]["mae"] == pytest.approx(bound["buyer"]["mae"][::-1], abs=1e-4)
    assert bound["seller"]["settled"][-1] == pytest.approx(0.5, abs=1e-4)
    assert "| small, 2 of 2 opponents | buyer | 0.500 | 0.300 | 0.000 | 0.000 | 0.000 | 1.000 | 1.000 |" in text
    assert "small, 2 of 2 opponents" in shown
    virtual = found["pools"][0]["virtual_best"]
    assert "Virtual best, " in shown
    assert f"small {virtual['value']:.3f} [{virtual['low']:.3f}, {virtual['high']:.3f}]." in text
    assert virtual["value"] == pytest.approx(0.5, abs=1e-2), "neither opponent gives more than half"
    assert virtual["players"] > 5
    chosen = {
        p.name: json.loads((p / "summary.json").read_text())["settings"] for p in tmp_path.iterdir() if p.is_dir()
    }
    assert {name: (s["guard"], s["games"]) for name, s in chosen.items()} == {
        "small": ("monotone", 2), "small-unguarded": ("none", 1),
    }  # fmt: skip
    monkeypatch.setattr(tournament, "run", None)
    assert dial.run(settings) == found, "nothing is played twice"


def test_who_has_no_dial_is_refused(tmp_path):
    with pytest.raises(InputError, match="'script:fair' has no dial"):
        dial.run(dial.Settings(agents="janus-nano,script:fair", out=tmp_path))


def test_pools_are_those_of_the_issue():
    assert [(p.scenario, p.opponents) for p in dial.POOLS] == [
        ("paper", "train"), ("paper", "held_out"), ("hidden", "held_out"),
    ]  # fmt: skip
    assert all(set(p.targets) <= set(targets.MEASURES) for p in dial.POOLS)
