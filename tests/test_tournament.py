"""`experiments.tournament`: pairing, the two files, figures recomputed by hand, controls, refusals."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tournament_players import Dial, Stone, Taker, dial

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from bargain_env.files import locked
from experiments import cli, plugins, tournament
from experiments.match import arena, contestants, opponents, results
from experiments.match.configs import KNOWN
from experiments.match.contestants import script
from experiments.reporting import summary

ROOT = Path(__file__).resolve().parents[1]
RHO = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """Two test opponents, and no others, in the registry."""
    monkeypatch.setattr(registry, "_REGISTRY", {})
    agents.register("easy", Taker, family="taker")
    agents.register("picky", Taker, family="taker", defaults={"picky": 1.0}, split="held_out", stochastic=True)
    agents.register("hidden_one", Taker, family="other", evaluable=False)
    Taker.seen = []


def plan(**changes):
    base = {"opponents": ("easy", "picky"), "rho": RHO, "games": 12, "seats": tuple(Seat), "preset": PRESETS["paper"]}
    chosen = {**base, **changes}
    return arena.Plan(**{**chosen, "rho": arena.same_grid(chosen["rho"])})


def rows(table, **where):
    return [r for r in table.to_pylist() if all(r[k] == v for k, v in where.items())]


SETTINGS = {"agents": ["dial", "shuffled"], "controls": ["shuffled"], "opponents": ["easy", "picky"], "seed": 0}


def test_schema_order_and_counts():
    table = arena.run_tournament([dial(), script("easy")], plan())
    assert table.schema.equals(results.SCHEMA, check_metadata=True)
    ids = table["episode_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert len(ids) == 2 * 2 * 12 * (len(RHO) + 1)
    assert ids[0] == "dial|buyer|0.00|easy|000000000"
    assert set(table["opponent_split"].to_pylist()) == {"train", "held_out"}
    assert {r["rho_requested"] for r in rows(table, agent="script:easy")} == {None}
    table.validate(full=True)


def test_everybody_meets_the_same_scenarios_and_both_starters():
    table = arena.run_tournament([dial(), script("picky")], plan())
    cells = {}
    for r in table.to_pylist():
        key = (r["agent"], r["agent_seat"], r["rho_requested"], r["opponent"])
        cells.setdefault(key, []).append((r["scenario_id"], r["starter"], r["buyer_max"], r["seller_min"]))
    reference, *others = cells.values()
    assert others
    assert all(cell == reference for cell in others)
    assert [c[0] for c in reference] == list(range(12))
    assert {c[1] for c in reference} == {"buyer", "seller"}


def test_opponents_have_the_same_luck_at_every_rho_and_against_everybody():
    arena.run_tournament([dial(), script("easy")], plan(seats=(Seat.BUYER,), opponents=("picky",)))
    drawn = {}
    for _, _, *turns in Taker.seen:
        for turn, ids, draws in turns:
            for i, draw in zip(ids.tolist(), draws.tolist(), strict=True):
                drawn.setdefault((turn, i), set()).add(draw)
    shared = [v for (turn, _), v in drawn.items() if turn % 2 == 0]
    assert len(shared) > 6
    assert all(len(v) <= 2 for v in shared)  # one number for the opponent, one for a script in the other seat


def test_block_size_changes_nothing_for_scripts(monkeypatch):
    whole = arena.run_tournament([dial(), dial("shuffled", shuffled=True)], plan())
    monkeypatch.setattr(arena, "BLOCK_ROWS", 7)
    blocks = []
    pieces = arena.run_tournament([dial(), dial("shuffled", shuffled=True)], plan(), blocks.append)
    assert len(blocks) == 2 * 2 * 12
    assert pieces.equals(whole)


def test_the_columns_say_what_happened():
    table = arena.run_tournament([dial()], plan(rho=(-1.0, 0.25), opponents=("easy",)))
    for r in rows(table, rho_requested=0.25, agreement=True):
        assert r["rho_achieved"] == pytest.approx(0.25, abs=1e-4)
        assert r["price"] == r["offers"][-1]
        mine = r["rho_achieved"] if r["agent_seat"] == "seller" else 1 - r["rho_achieved"]
        assert (r["utility"], r["utility"] + r["opponent_utility"]) == pytest.approx((mine, 1.0))
        assert len(r["offers"]) == r["turns"] - 1 == len(r["offer_turns"])
        assert (r["outcome"], r["guard_moves"]) == ("deal", 1 if r["turns"] > 1 else 0)
    impasses = rows(table, rho_requested=-1.0, agreement=False)
    assert impasses
    for r in impasses:
        assert (r["price"], r["rho_achieved"], r["utility"], r["opponent_utility"]) == (None, None, 0.0, 0.0)
        assert (r["outcome"], r["turns"], r["invalid_moves"]) == ("deadline", 20, 10)
        first = 2 if r["starter"] == r["agent_seat"] else 1
        assert r["offer_turns"] == list(range(first, 21, 2))


def test_no_zopa_has_no_rho(monkeypatch):
    monkeypatch.setattr(Taker, "reset", lambda self, games: Taker.seen.append((games.id,)))
    table = arena.run_tournament([script("easy")], plan(preset=PRESETS["no_deal"], games=40))
    without = [r for r in table.to_pylist() if r["buyer_max"] <= r["seller_min"]]
    assert without
    assert all(r["rho_achieved"] is None for r in without)


def test_summary_by_hand():
    table = arena.run_tournament([dial(), dial("shuffled", shuffled=True)], plan())
    found = summary.summarise(table, SETTINGS)
    assert len(found["cells"]) == 2 * 2 * 2 * len(RHO)
    assert len(found["overall"]) == 2 * 2 * len(RHO)
    keys = ("agent", "agent_seat", "rho_requested", "opponent")
    for kind, by in (("cells", keys), ("overall", keys[:3])):
        for cell in found[kind]:
            games = rows(table, **{k: cell[k] for k in by})
            utility, deals = [g["utility"] for g in games], [g for g in games if g["agreement"]]
            achieved = [g["rho_achieved"] for g in deals]
            moves = sum((g["turns"] + (g["starter"] == g["agent_seat"])) // 2 for g in games)
            expected = {
                "n": len(games),
                "agreements": len(deals),
                "agreement_rate": len(deals) / len(games),
                "utility": sum(utility) / len(games),  # impasses are in the denominator
                "utility_deals": np.mean([g["utility"] for g in deals]) if deals else None,
                "opponent_utility": np.mean([g["opponent_utility"] for g in games]),
                "rho_achieved": np.mean(achieved) if deals else None,
                "rho_achieved_sd": np.std(achieved, ddof=1) if len(deals) > 1 else None,
                "turns": np.mean([g["turns"] for g in games]),
                "guard_rate": sum(g["guard_moves"] for g in games) / moves,
                "fallback_rate": sum(g["fallback_moves"] for g in games) / moves,
                "invalid_rate": 0.0,
            }
            assert {k: cell[k] for k in expected} == pytest.approx(expected, abs=2e-6)
            assert cell["utility_low"] <= cell["utility"] <= cell["utility_high"]
            assert cell["agreement_rate_low"] <= cell["agreement_rate"] <= cell["agreement_rate_high"]


def test_impasses_are_charged():
    table = arena.run_tournament([dial()], plan(rho=(0.05,), opponents=("picky",), games=30))
    cell = next(c for c in summary.summarise(table, {"agents": ["dial"]})["cells"] if c["agent_seat"] == "buyer")
    assert 0 < cell["agreement_rate"] < 1  # ρ = .05 leaves a picky seller little
    assert cell["utility"] == pytest.approx(cell["agreement_rate"] * cell["utility_deals"], abs=1e-5)


def test_calibration_finds_the_dial_and_not_its_shuffled_twin():
    many = plan(games=60, rho=(-1.0, *RHO), opponents=("easy",))
    table = arena.run_tournament([dial(), dial("shuffled", shuffled=True)], many)
    found = summary.summarise(table, SETTINGS)
    for seat in ("buyer", "seller"):
        true, control = (found["calibration_by_agent"][a][seat] for a in ("dial", "shuffled"))
        assert found["calibration"][seat] == true
        assert true["rho"] == [-1.0, *RHO]
        assert true["mae"] < 1e-4
        assert (true["spearman"], true["slope"], true["intercept"]) == pytest.approx((1, 1, 0), abs=1e-4)
        assert abs(control["spearman_games"]) < 0.15
        assert abs(control["slope"]) < 0.15
        assert control["mae"] > 0.2
        requested = [r["rho_requested"] for r in rows(table, agent="dial", agent_seat=seat)]
        achieved = sorted(r["rho_achieved"] or 0 for r in rows(table, agent="dial", agent_seat=seat))
        shuffled = sorted(r["rho_achieved"] or 0 for r in rows(table, agent="shuffled", agent_seat=seat))
        assert len(requested) == 360
        np.testing.assert_allclose(achieved, shuffled, atol=1e-4)  # the same ρ were played, at other requests


def test_configurations_and_contrasts():
    table = arena.run_tournament([dial(), script("easy")], plan(rho=(0.2, 0.5, 0.8)))
    found = summary.summarise(table, {**SETTINGS, "agents": ["dial", "script:easy"]})
    named = found["configurations"]["dial"]
    assert set(named) == {"standard", "flipped", "neutral"}  # the grid lacks 0 and 1
    at = {(r["agent_seat"], r["rho_requested"]): r for r in found["overall"] if r["agent"] == "dial"}
    assert named["standard"]["buyer"]["utility"] == at["buyer", 0.2]["utility"]
    assert named["standard"]["seller"]["utility"] == at["seller", 0.8]["utility"]
    both = (at["buyer", 0.2]["utility"] + at["seller", 0.8]["utility"]) / 2
    assert named["standard"]["both"]["utility"] == pytest.approx(both, abs=1e-6)
    first = found["contrasts"][0]
    means = [np.mean([r["utility"] for r in rows(table, agent=a, agent_seat="buyer")]) for a in ("dial", "script:easy")]
    assert first["utility_difference"] == pytest.approx(means[0] - means[1], abs=1e-6)
    assert first["low"] <= first["utility_difference"] <= first["high"]


def command(out, **changes):
    base = {"agents": "scripts", "scenario": "paper", "games": 6, "out": out, "quiet": True}
    return tournament.Settings(**{**base, **changes})


def test_command_writes_the_same_bytes_twice(tmp_path, capsys):
    names = ["episodes.parquet", "report.html", "summary.csv", "summary.json"]
    for name in ("a", "b"):
        tournament.run(command(tmp_path / name))
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert capsys.readouterr().out == ""
    document = json.loads((tmp_path / "a/summary.json").read_text())
    assert {"schema_version", "settings", "cells", "overall", "calibration"} <= set(document)
    assert document["calibration"] == {"buyer": {}, "seller": {}}
    with (tmp_path / "a/summary.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert len(flat) == len(document["cells"])
    assert list(flat[0]) == list(document["cells"][0])
    tournament.run(command(tmp_path / "c", seed=1))
    assert not pq.read_table(tmp_path / "c/episodes.parquet").equals(pq.read_table(tmp_path / "a/episodes.parquet"))


def test_janus_specs_reach_the_agent(tmp_path, monkeypatch):
    built = []

    def fake(adapter, rho, **options):
        built.append((adapter, options))
        return Dial(rho)

    monkeypatch.setattr(agents, "JanusAgent", fake, raising=False)
    found = contestants.resolve_agents(f"janus-nano,base,shuffled,janus:{tmp_path},janus-nano")
    assert [c.label for c in found] == ["janus-nano", "base", "shuffled", f"janus:{tmp_path}"]
    assert [c.control for c in found] == [False, True, True, False]
    table = arena.run_tournament(found, plan(games=1))
    assert {a for a, _ in built} == {"janus-nano", str(tmp_path)}
    assert built[0][1] == {"decode": "median", "guard": "monotone", "batch_size": 256, "scenario": "paper"}
    assert any(options.get("base_only") for _, options in built)
    shuffled = table.filter(pc.field("agent") == "shuffled")
    assert set(shuffled["rho_requested"].to_pylist()) == set(RHO)


def test_scripts_share_a_batch_and_nothing_else(monkeypatch):
    team = [script("easy"), script("picky"), script("hidden_one")]
    apart = [arena.run_tournament([member], plan()) for member in team]
    blocks = []
    together = arena.run_tournament(team, plan(), blocks.append)
    assert together.equals(results.ordered(apart))
    assert [set(b["agent_seat"].to_pylist()) for b in blocks] == [{"buyer"}, {"seller"}]
    assert [set(b["agent"].to_pylist()) for b in blocks] == [{c.label for c in team}] * 2
    monkeypatch.setattr(arena, "SCRIPT_ROWS", 7)
    assert arena.run_tournament([team[0], dial(), *team[1:]], plan(rho=(0.5,)), blocks.append).num_rows == 4 * 48
    assert arena.run_tournament(team, plan()).equals(together)


def test_the_ranking_by_hand():
    players = [dial(), dial("shuffled", shuffled=True), script("easy"), script("picky")]
    table = arena.run_tournament(players, plan(rho=(0.2, 0.5, 0.8)))
    ranking = summary.summarise(table, {**SETTINGS, "agents": [p.label for p in players]})["ranking"]
    entries = {(r["agent"], r["configuration"]): r for r in ranking}
    dials = {("dial", name) for name in ("standard", "flipped", "neutral")}  # no 0 and 1, no control
    assert set(entries) == dials | {("script:easy", None), ("script:picky", None)}
    assert [r["utility"] for r in ranking] == sorted((r["utility"] for r in ranking), reverse=True)
    for (agent, name), row in entries.items():
        buyer, seller = KNOWN.get(name, (None, None))
        rho = {"buyer": buyer, "seller": seller}
        games = [g for g in rows(table, agent=agent) if g["rho_requested"] == rho[g["agent_seat"]]]
        assert row["n"] == len(games) == 48
        assert row["utility"] == pytest.approx(np.mean([g["utility"] for g in games]), abs=2e-6)
        assert row["agreement_rate"] == pytest.approx(np.mean([g["agreement"] for g in games]), abs=2e-6)
        assert row["utility_low"] <= row["utility"] <= row["utility_high"]
        for seat, figures in row["seats"].items():
            mine = [g["utility"] for g in games if g["agent_seat"] == seat]
            assert (figures["utility"], figures["rho_requested"]) == (pytest.approx(np.mean(mine), abs=2e-6), rho[seat])
    one_seat = arena.run_tournament([dial(), script("easy")], plan(rho=(0.2,), seats=(Seat.BUYER,)))
    found = summary.summarise(one_seat, {**SETTINGS, "agents": ["dial", "script:easy"]})["ranking"]
    assert {(r["agent"], r["configuration"], tuple(r["seats"])) for r in found} == {
        ("dial", "standard", ("buyer",)),
        ("script:easy", None, ("buyer",)),
    }


def test_opponent_groups():
    assert opponents.resolve("all") == opponents.resolve("scripts") == ["easy", "picky"]
    assert [c.label for c in contestants.resolve_agents("scripts")] == ["script:easy", "script:picky"]
    assert opponents.resolve("held_out,train,easy") == ["picky", "easy"]
    assert opponents.resolve("family:taker") == ["easy", "picky"]
    assert opponents.resolve("hidden_one") == ["hidden_one"]


def test_json_and_plugin(tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text("import agents\nagents.register('mine', agents.describe('easy').factory)\n")
    tournament.run(command(tmp_path / "out", agents="script:mine", opponents="mine", plugin=plugin, json=True))
    printed = json.loads(capsys.readouterr().out)
    assert [row["agent"] for row in printed["overall"]] == ["script:mine", "script:mine"]
    assert all(Path(f).is_file() for f in printed["files"])


@pytest.mark.parametrize("changes", [{"opponents": "picky", "agents": "script:stone"}, {"max_turns": 1}])
def test_a_tournament_without_a_deal(tmp_path, changes):
    agents.register("stone", Stone, family="stone")
    found = tournament.run(command(tmp_path, **changes))
    assert {cell["agreement_rate"] for cell in found["cells"]} == {0.0}
    assert {(cell["rho_achieved"], cell["rho_achieved_low"], cell["rho_achieved_high"]) for cell in found["cells"]} == {
        (None, None, None)
    }
    assert {(row["utility"], row["utility_low"]) for row in found["ranking"]} == {(0.0, 0.0)}
    page = (tmp_path / "report.html").read_text()
    assert "0.0 %" in page
    assert "nan" not in page.lower().replace("finance", "")


def test_progress_in_plain_lines(tmp_path, capsys):
    tournament.run(command(tmp_path, agents="script:easy,script:picky", quiet=False))
    out = capsys.readouterr().out
    assert "48 of 48 games" in out
    assert "\x1b" not in out
    assert out.rstrip().splitlines()[-2].startswith(f"wrote {tmp_path}/episodes.parquet")


BAD = {
    "agent": ({"agents": "janus_nano"}, "did you mean 'janus-nano'"),
    "agent_is_script": ({"agents": "easy"}, "did you mean 'script:easy'"),
    "script": ({"agents": "script:eazy"}, "did you mean 'easy'"),
    "checkpoint": ({"agents": "janus:/no/such"}, "no checkpoint at '/no/such'"),
    "opponent": ({"opponents": "eazy"}, "did you mean 'easy'"),
    "family": ({"opponents": "family:tak"}, "unknown family"),
    "empty_group": ({"opponents": "family:other"}, "no evaluable strategy"),
    "nobody": ({"agents": ","}, "--agents is empty"),
    "rho": ({"rho": "0,1.5"}, "outside [0, 1]"),
    "games": ({"games": 0}, "--games 0"),
    "seed": ({"seed": -1}, "--seed -1"),
    "turns": ({"max_turns": 0}, "--max_turns 0"),
    "batch": ({"batch_size": 0}, "--batch_size 0"),
    "scenario": ({"scenario": "papr"}, "did you mean 'paper'"),
    "shuffle_one": ({"agents": "shuffled", "rho": "0.5"}, "at least two values"),
    "plugin": ({"plugin": Path("/no/such.py")}, "no such file"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(agents, "JanusAgent", lambda adapter, rho, **options: Dial(rho), raising=False)
    with pytest.raises(InputError) as caught:
        tournament.run(command(tmp_path / "out", **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_failing_plugin_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"broken\.py failed: ZeroDivisionError"):
        plugins.load_plugin(tmp_path / "broken.py")


def test_an_output_that_is_a_file_exits_with_2(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    with pytest.raises(SystemExit) as stop:
        cli.main(tournament.Settings, tournament.run, ["--agents", "scripts", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Dial, "act", stop)
    monkeypatch.setattr(tournament.contestants, "resolve_agents", lambda *_: [dial()])
    with pytest.raises(SystemExit) as stopped:
        cli.main(tournament.Settings, tournament.run, ["--scenario", "paper", "--out", str(tmp_path), "--quiet"])
    assert stopped.value.code == 130
    assert not list(tmp_path.iterdir())


def test_runs_as_a_file_and_as_a_module(tmp_path):
    arguments = ["--agents", "script:hardliner", "--strategies", "linear_standard", "--games", "2", "--quiet"]
    ways = ([str(ROOT / "experiments/tournament.py")], ["-m", "experiments.tournament"])
    for i, way in enumerate(ways):
        done = subprocess.run(
            [sys.executable, *way, *arguments, "--out", str(tmp_path / str(i))],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "0/summary.json").read_bytes() == (tmp_path / "1/summary.json").read_bytes()


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    with locked(tmp_path / tournament.LOCK, "not here"), pytest.raises(InputError, match="another run plays into"):
        tournament.run(
            tournament.Settings("script:easy", opponents="easy", scenario="paper", games=2, out=tmp_path, quiet=True)
        )
    tournament.run(
        tournament.Settings("script:easy", opponents="easy", scenario="paper", games=2, out=tmp_path, quiet=True)
    )
    assert not (tmp_path / tournament.LOCK).exists()


def test_options_that_nobody_takes_are_warned_of(tmp_path, capsys):
    base = {"opponents": "easy", "scenario": "paper", "games": 2, "out": tmp_path}
    tournament.run(tournament.Settings("script:easy", rho="0.5", decode="greedy", guard="none", raw_dial=True, **base))
    said = capsys.readouterr().err
    options = ("--rho", "--config", "--decode", "--raw-dial", "--guard")
    assert [name for name in options if f"warning: {name} has" in said] == [
        "--rho",
        "--decode",
        "--raw-dial",
        "--guard",
    ]
    tournament.run(tournament.Settings("script:easy", **base))
    assert capsys.readouterr().err == ""
    settings = tournament.Settings("janus-nano", rho="0.5", decode="greedy", guard="none", raw_dial=True, **base)
    assert tournament.ignored(settings, *tournament.prepared(settings)) == []
    settings = tournament.Settings("script:easy", **{**base, "opponents": "janus-nano"}, rho="0.5", decode="greedy")
    assert tournament.ignored(settings, *tournament.prepared(settings)) == ["--rho"]


def test_labels_and_folders_may_hold_brackets(tmp_path):
    out = tmp_path / "[" / "q]"
    tournament.run(tournament.Settings("script:easy", opponents="easy", scenario="paper", games=2, out=out))
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("spec", "message"), [("shuffled(0.5)", "permutes what an agent is asked for"), ("janus-nano(7)", "janus-nano")]
)
def test_opponents_that_name_their_rho_are_checked_as_others_are(spec, message):
    with pytest.raises(InputError, match=message):
        opponents.resolve(spec)


def test_one_rho_has_one_name():
    assert opponents.resolve("janus-nano(0.3),janus-nano(0.30)") == opponents.resolve("janus-nano", rho=[0.3])
