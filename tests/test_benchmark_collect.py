"""`experiments.benchmark collect`: what is compared is the same work, and the reference writes what a log should hold."""

import json

import pytest

from agents import registry
from experiments import benchmark, cli
from experiments.speed import collect
from experiments.speed.stopwatch import Speed


@pytest.fixture
def small(monkeypatch):
    for name, value in (
        ("GAMES", 300),
        ("LOGGED_GAMES", 100),
        ("REFERENCE_GAMES", 4),
        ("SIZES", (100, 200, 400, 10**12)),
    ):
        monkeypatch.setattr(collect, name, value)
    few = ("boulware_conceding", "boulware_firm", "hardliner", "micro_fine")
    monkeypatch.setattr(registry, "_REGISTRY", {name: registry._REGISTRY[name] for name in few})


def test_the_command(small, capsys):
    cli.main(benchmark.Settings, benchmark.run, ["collect", "--seconds", "0.05", "--json"])
    found = {speed["name"]: speed for speed in json.loads(capsys.readouterr().out)["speeds"]}
    reference = found[collect.REFERENCE]["rate"]
    for name, bar in collect.BARS.items():
        assert (found[name]["unit"], found[name]["bar"]) == ("episodes/s", bar)
        assert found[name]["ratio"] == pytest.approx(found[name]["rate"] / reference)
    assert {found[name]["goal"] for name in collect.BARS} == {100_000, 18_000}
    assert found["play alone, paper"]["bar"] is None
    sizes = [name for name in found if name.endswith(" episodes") and name.startswith("Parquet")]
    assert sizes[:2] == ["Parquet, paper, 100 episodes", "Parquet, paper, 200 episodes"]
    assert len(sizes) in (2, 3), "as many as there is time for"
    assert found[sizes[1]]["reference"] == "100 episodes"
    assert all(20 < found[name]["rate"] < 10**5 for name in found if name.startswith("peak memory"))


def test_the_reference_writes_whole_games(small, tmp_path):
    assert collect._one_by_one(tmp_path / "log.jsonl", 0)() == 4
    games = {}
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        step = json.loads(line)
        games.setdefault(step["trajectory_id"], []).append(step)
    assert len(games) == 4
    for steps in games.values():
        assert [step["turn"] for step in steps] == list(range(1, len(steps) + 1))
        assert [step["is_terminal"] for step in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[-1]["action"] == {"type": "ACCEPT", "price": None}
        assert len(steps[-1]["state"]["offer_history"]) == len(steps) - 1
        assert steps[0]["meta"]["episode_outcome"]["price"] == steps[-1]["state"]["last_offer_price"]


def test_what_grows_dear_is_marked():
    assert Speed("more", 79.0, "episodes/s", "fewer", 0.79, bar=collect.FLAT).meets is False
