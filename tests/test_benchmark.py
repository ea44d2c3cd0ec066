"""`experiments.benchmark strategies`: the reference plays our game, nobody is asked for rows it does not play."""

import json

import numpy as np
import pytest

import agents
import bargain_env as be
from agents import registry
from bargain_env import PRESETS, RoutedPolicy
from experiments import benchmark, cli
from experiments.speed import scalar, strategies
from experiments.speed.stopwatch import Speed


def test_the_reference_plays_the_same_games():
    games = be.sample("paper", 60, seed=4)
    names, betas = strategies.REFERENCE_PAIR.keys(), strategies.REFERENCE_PAIR.values()
    ours = be.play(games, *(agents.make_for(PRESETS["paper"], name) for name in names))
    players = [scalar.time_dependent(beta) for beta in betas]
    for row, starter in enumerate(games.starter.tolist()):
        limits = float(games.buyer_max[row]), float(games.seller_min[row])
        theirs = scalar.play(*limits, ("buyer", "seller")[starter], *players)
        made = ours.prices[row][~np.isnan(ours.prices[row])]
        np.testing.assert_allclose([price for _, price in theirs.history], made, atol=0.01)  # halves of cents
        assert (theirs.agreement, theirs.turns) == (ours.agreement[row], ours.turns[row])
        assert theirs.rho == pytest.approx(ours.rho[row], abs=2e-5)
        assert (theirs.buyer_utility, theirs.seller_utility) == pytest.approx(tuple(ours.utilities[row]), abs=2e-5)
    drawn = scalar.games(10, 0, *players)
    assert {record.history[0][0] for record in drawn} == {"buyer", "seller"}


def test_a_reference_game_may_fail():
    record = scalar.play(900.0, 400.0, "buyer", lambda _: 300.0, lambda _: 5000.0, max_turns=4)
    assert (record.agreement, record.price, record.turns, record.rho) == (False, None, 4, -1.0)
    assert record.history == [("buyer", 300.0)] * 2


def test_every_row_is_counted_once(monkeypatch):
    monkeypatch.setattr(strategies, "BATCH", 400)
    names = agents.list_strategies()
    found = strategies.timed(names, "paper", 0)
    assert set(found) <= {*names, ""}
    assert len(found) > 20
    assert min(found.values()) > 0


def test_who_asks_everybody_about_everything_is_found_out(monkeypatch):
    class Wasteful(RoutedPolicy):
        def act(self, view):
            for policy in self._policies[:2]:
                policy.act(view)
            return super().act(view)

    monkeypatch.setattr(strategies, "BATCH", 64)
    monkeypatch.setattr(strategies, "RoutedPolicy", Wasteful)
    with pytest.raises(RuntimeError, match="does not play"):
        strategies.timed(["boulware_hard", "linear_standard", "hardliner"], "paper", 0)


def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(strategies, "BATCH", 256)
    monkeypatch.setattr(strategies, "REFERENCE_GAMES", 5)
    few = ("boulware_conceding", "boulware_firm", "hardliner", "micro_fine")
    monkeypatch.setattr(registry, "_REGISTRY", {name: registry._REGISTRY[name] for name in few})
    arguments = ["strategies", "--seconds", "0.01", "--json", "--check", "--out", str(tmp_path)]
    cli.main(benchmark.Settings, benchmark.run, arguments)
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "benchmark.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]
    by_name = {speed["name"]: speed for speed in found["speeds"]}
    for preset in strategies.MEASURED:
        speed = by_name[f"4 strategies, {preset}"]
        assert (speed["unit"], speed["goal"], speed["bar"]) == ("episodes/s", 100_000, None)
        assert speed["ratio"] == pytest.approx(speed["rate"] / by_name[strategies.REFERENCE]["rate"])
    assert {"all but the strategies", *few} <= set(by_name)


def test_a_goal_is_shown_and_not_held(capsys):
    missed = Speed("slow", 10.0, "episodes/s", "reference", 0.5, goal=1e5)
    assert missed.meets is None
    table = benchmark._table([missed])
    cli.console().print(table)
    assert "100 k" in capsys.readouterr().out
