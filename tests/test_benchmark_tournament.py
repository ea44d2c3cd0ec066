"""`experiments.benchmark tournament`: both sides play the same games, and time inside is told from time around."""

import importlib.util
import sys
import time
from types import SimpleNamespace

import pytest

from agents import registry
from bargain_env import PRESETS, Seat
from experiments import benchmark, cli
from experiments.match import arena, contestants, results
from experiments.speed import tournament

FEW = ("fair", "tit_for_tat", "micro_fine")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tournament, "GAMES", 3)
    monkeypatch.setattr(tournament, "MODEL_GAMES", 2)
    monkeypatch.setattr(tournament, "MODEL_OPPONENTS", FEW[:1])
    monkeypatch.setattr(tournament, "MODEL_RHO", (0.2, 0.8))
    monkeypatch.setattr(registry, "_REGISTRY", {name: registry._REGISTRY[name] for name in FEW})


def test_both_sides_play_the_same_games(monkeypatch):
    players = [contestants.script(name) for name in FEW]
    plan = arena.Plan(FEW, arena.same_grid(()), 3, tuple(Seat), PRESETS["paper"])
    monkeypatch.setattr(arena, "SCRIPT_ROWS", 20)
    seen, kept = [], []
    inner, write = arena._play_block, results.write_pieces

    def watched(*arguments):
        seen[-1].append(inner(*arguments)[0].prices.tobytes())
        return inner(*arguments)

    def noted(pieces, path):
        write(pieces, path)
        kept.append(len(results.read(path.parent)))

    monkeypatch.setattr(arena, "_play_block", watched)
    monkeypatch.setattr(results, "write_pieces", noted)
    for side in (tournament.tournament, tournament.alone):
        seen.append([])
        assert side(players, plan) == 3 * 3 * 3 * 2
    assert len(seen[0]) == 4
    assert len(set(seen[0])) == 4
    assert seen[0] == seen[1]
    assert kept == [54]


def test_time_inside_counts_nested_calls_once():
    class Holder:
        def work(self, deeper):
            time.sleep(0.01)
            if deeper:
                self.work(deeper - 1)

    with tournament.timed(Holder, "work") as spent:
        assert spent() == 0
        began = time.perf_counter()
        Holder().work(3)
        whole = time.perf_counter() - began
    assert 0.04 <= spent() <= whole
    assert "watched" not in Holder.work.__name__
    one = Holder()
    with tournament.timed(one, "work"):
        assert "work" in vars(one)
    assert "work" not in vars(one)


def test_the_command(capsys):
    cli.main(benchmark.Settings, benchmark.run, ["tournament", "--seconds", "0.01", "--json"])
    found = {speed["name"]: speed for speed in cli_json(capsys)["speeds"]}
    disk = found["3 scripts, results on disk"]
    assert (disk["unit"], disk["goal"], disk["bar"]) == ("games/s", 50_000, 0.4)
    assert disk["ratio"] == pytest.approx(disk["rate"] / found["the same games, play alone"]["rate"])
    model, passes = found["janus-nano against 1 scripts"], found["of that, forward passes"]
    assert 0 < passes["ratio"] < model["ratio"] < 1
    assert (model["bar"], passes["bar"]) == (0.9, None)
    told = any("not installed" in name for name in found)
    assert told == (importlib.util.find_spec("negmas") is None)


def cli_json(capsys):
    return benchmark.json.loads(capsys.readouterr().out)


def test_negmas_is_compared_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(tournament.importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(tournament, "negmas_tournament", lambda: lambda: 3.0)
    *_, ours, theirs = tournament.scripts(0.01, 0)
    assert (ours.reference, theirs.name) == (tournament.NEGMAS,) * 2
    assert ours.ratio == pytest.approx(ours.rate / theirs.rate)


def test_negmas_plays():
    pytest.importorskip("negmas")
    assert tournament.negmas_tournament()() >= 4 * 4 * len(tournament.NEGMAS_LIMITS)
    assert "negmas" in sys.modules
