"""``--protocol paper``: what it fixes, and its figures by hand beside the published ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from tournament_players import Dial, dial

import agents
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from experiments import tournament
from experiments.match import arena, configs, contestants, opponents, protocol, results
from experiments.match.contestants import script, unasked
from experiments.reporting import published, summary


class Steady(Dial):
    """A dial that may be given one ρ for all games."""

    def reset(self, games):
        self.rho = np.broadcast_to(self.rho, len(games))
        super().reset(games)


def settings(tmp_path, **changes):
    return tournament.Settings(**{"protocol": "paper", "out": tmp_path / "out", "quiet": True, **changes})


def test_what_it_plays(tmp_path):
    players, plan = tournament.prepare(settings(tmp_path))
    assert [(p.label, p.takes_rho) for p in players] == [("janus-nano", True), ("base", False)]
    assert (plan.games * len(plan.seats), plan.max_turns, plan.preset.name) == (50, 20, "paper")
    assert plan.rho == {Seat.BUYER: (0.2, 0.0, 0.8, 0.5), Seat.SELLER: (0.8, 1.0, 0.2, 0.5)}
    starters = plan.scenarios(0, plan.games).starter
    assert np.bincount(starters).tolist() == [13, 12]
    assert sum(plan.rows(p) for p in players) == 5 * 22 * 50
    found = tournament.described(settings(tmp_path), players, plan)
    assert found["protocol"] == "paper"
    assert found["configurations"] == {name: list(pair) for name, pair in configs.KNOWN.items()}
    assert tournament.prepare(settings(tmp_path, games=3))[1].games == 3


def test_its_opponents_are_ours():
    known = agents.list_strategies(split="train", evaluable=True)
    assert sorted(protocol.OPPONENTS) == sorted(known)
    assert len(protocol.OPPONENTS) == 22
    assert opponents.resolve(protocol.FIXED["opponents"]) == list(protocol.OPPONENTS)
    assert set(protocol.PUBLISHED) == {"base", *configs.KNOWN}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": "0.5"}, "fixes --rho; leave it out"),
        ({"config": ("standard",)}, "fixes --config"),
        ({"opponents": "fair"}, "fixes --opponents"),
        ({"opponent_rho": "0.5"}, "fixes --opponent-rho"),
        ({"scenario": "hidden"}, "fixes --scenario"),
        ({"seats": "buyer"}, "fixes --seats"),
        ({"max_turns": 10}, "fixes --max-turns"),
        ({"agents": "script:fair"}, "needs a Janus in --agents"),
        ({"agents": "base"}, "needs a Janus in --agents"),
    ],
)
def test_what_it_fixes(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        tournament.prepare(settings(tmp_path, **changes))


def test_every_adapter_brings_its_base(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    given = f"janus:{tmp_path}/a,janus:{tmp_path}/a@text,lora:{tmp_path}/b,base,script:fair"
    labels = [p.label for p in tournament.prepare(settings(tmp_path, agents=given))[0]]
    assert labels == [*given.split(","), f"base:{tmp_path}/a", f"base:{tmp_path}/b"]


def test_the_same_settings_may_be_said_again(tmp_path):
    plans = [tournament.prepare(settings(tmp_path, **more))[1] for more in ({}, {"scenario": "paper", "seats": "both"})]
    assert plans[0] == plans[1]


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def played():
    """A dial at the four configurations, and one that is not asked, against two scripts of which one is hard to please."""
    rho = configs.grids(None, configs.parse(list(configs.KNOWN)))
    plan = arena.Plan(("boulware_hard", "tit_for_tat"), rho, 12, tuple(Seat), PRESETS["paper"])
    base = contestants.Contestant("base", takes_rho=True, build=lambda rho, _: Steady(rho), arm="base", control=True)
    players = [dial(), unasked(base, 0.5), script("fair")]
    told = {
        "agents": ["dial", "base", "script:fair"], "arms": {"dial": "both", "base": "base"}, "protocol": "paper", "seed": 0,
        "configurations": dict(configs.KNOWN), "games": 12, "opponents": list(plan.opponents), "guard": "ir",
        "decode": "mean", "seats": ["buyer", "seller"],
    }  # fmt: skip
    return arena.run_tournament(players, plan), told


def test_figures_by_hand(played):
    table, told = played
    found = published.figures(table, told)
    assert (found["name"], found["games"]) == ("paper", 24)
    named = [(row["agent"], row["configuration"]) for row in found["rows"]]
    assert named == [*(("dial", name) for name in configs.KNOWN), ("base", "base")]
    rates = []
    for row in found["rows"]:
        pair = configs.KNOWN.get(row["configuration"], (None, None))
        rho = {"buyer": pair[0], "seller": pair[1]}
        games = [
            g for g in table.to_pylist() if g["agent"] == row["agent"] and g["rho_requested"] == rho[g["agent_seat"]]
        ]
        deals = [g for g in games if g["agreement"]]
        rates.append(len(deals) / len(games))
        assert row["n"] == len(games) == 2 * 2 * 12
        assert row["utility"] == pytest.approx(np.mean([g["utility"] for g in games]))
        assert row["agreement_rate"] == pytest.approx(rates[-1])
        assert row["turns"] == pytest.approx(np.mean([g["turns"] for g in games]))
        if deals:
            assert row["utility_deals"] == pytest.approx(np.mean([g["utility"] for g in deals]))
        for name in ("utility", "agreement_rate"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert any(0 < rate < 1 for rate in rates), "impasses make the two definitions differ"
    both = [(row["utility"], row["utility_deals"]) for row in found["rows"] if row["agreement_rate"] < 1]
    assert all(deals != charged for charged, deals in both)


def test_published_figures(played):
    rows = {row["configuration"]: row["published"] for row in published.figures(*played)["rows"]}
    assert rows["flipped"] == pytest.approx({"utility_deals": -0.043, "agreement_rate": 0.97, "turns": 7.6})
    assert rows["base"] == pytest.approx({"utility_deals": 0.21, "agreement_rate": 0.847, "turns": 6.9})
    text = {name: (f.utility, f.agreement, f.turns) for name, f in protocol.PUBLISHED.items()}
    assert text == {
        "base": (21.0, 84.7, 6.9), "standard": (55.3, 90.3, 14.8), "extreme": (44.7, 96.3, 12.4),
        "flipped": (-4.3, 97.0, 7.6), "neutral": (46.3, 98.8, 8.0),
    }  # fmt: skip


def test_no_protocol_no_figures(played):
    table, told = played
    assert published.figures(table, {**told, "protocol": None}) == {}
    assert published.table({"settings": told}) == (published.HEAD, [])


def test_the_table(played):
    table, told = played
    found = summary.clean({"settings": told, "protocol": published.figures(table, told)})
    head, rows = published.table(found)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[:2] for row in rows][-1] == ["base", "base"]
    assert [row[3] for row in rows] == ["55.3", "44.7", "-4.3", "46.3", "21.0"]
    assert [row[-1] for row in rows] == ["14.8", "12.4", "7.6", "8.0", "6.9"]
    console = Console(file=io.StringIO(), width=160)
    console.print(published.shown(found))
    said = console.file.getvalue()
    assert "24 games a matchup, 2 opponents, guard ir, decoding mean" in said
    assert all(text in said for row in rows for text in row)


def test_nothing_agreed(played):
    table, told = played
    none = table.filter(np.zeros(table.num_rows, dtype=bool))
    rows = summary.clean(published.figures(none, told))["rows"]
    assert {(row["n"], row["utility"], row["turns"]) for row in rows} == {(0, None, None)}
    published.table({"settings": told, "protocol": {"rows": rows}})


def test_a_small_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(agents, "JanusAgent", lambda adapter, rho, **options: Steady(rho), raising=False)
    monkeypatch.setattr(tournament.opponents, "load", lambda *_: None)
    monkeypatch.setattr(protocol, "FIXED", {**protocol.FIXED, "opponents": "fair,tit_for_tat"})
    found = tournament.run(settings(tmp_path, games=2, quiet=False))
    assert [row["configuration"] for row in found["protocol"]["rows"]] == [*configs.KNOWN, "base"]
    out = capsys.readouterr().out
    assert "protocol paper: 4 games a matchup, 2 opponents" in out
    assert "-4.3" in out
    table = results.read(tmp_path / "out")
    assert published.figures(table, found["settings"])["rows"][0]["n"] == 8
    assert {r["rho_requested"] for r in table.to_pylist() if r["agent"] == "base"} == {None}
