"""`experiments.replay`: any recorded game is found, shown turn by turn, and is the same game when it is played again."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from janus_worlds import write_adapter, write_base
from test_learned import saved

from agents import registry
from agents.janus_models import clear_models
from bargain_env.errors import InputError
from experiments import cli, replay, tournament
from experiments.match import arena, protocol, recorded, results
from experiments.match import replay as engine
from experiments.reporting import summary

ROOT = Path(__file__).resolve().parents[1]
ODD = 'it\'s "odd" $HOME ü'
PLUGIN = f"import agents\nfrom bargain_env import Linear\nagents.register({ODD!r}, Linear)\n"


def command(folder, **changes):
    chosen = {"rho": "0.2,0.5,0.8", "opponents": "hardliner,noisy_boulware_firm", "games": 3, "threads": 1}
    return tournament.Settings(**{**chosen, "scenario": "paper", "out": folder, "quiet": True, **changes})


def tournament_in(folder, **changes):
    """What a tournament leaves behind as far as a replay reads it, without its landmarks and report."""
    settings = command(folder, **changes)
    players, plan = tournament.prepared(settings)
    folder.mkdir(exist_ok=True)
    results.write(arena.run_tournament(players, plan), folder)
    about = {"schema_version": results.SCHEMA_VERSION, "cells": [{}]}
    summary.write(about | {"settings": tournament.described(settings, players, plan)}, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of a small Janus, which costs little."""
    root = tmp_path_factory.mktemp("adapter")
    yield write_adapter(root / "adapter", write_base(root / "base", seed=3))
    clear_models()


@pytest.fixture(scope="module")
def world(adapter, tmp_path_factory):
    """A folder with everybody in it who can be there, and what plays in it."""
    root = tmp_path_factory.mktemp("world")
    (root / "plugin.py").write_text(PLUGIN)
    saved(root / "p.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
        made = tournament_in(
            root / "out",
            agents=f"janus-nano,shuffled:{adapter},script:fair,script:{ODD},learned:{root / 'p.zip'}",
            opponents=f"noisy_boulware_firm,{ODD},janus:{adapter}",
            opponent_rho="0.3",
            rho="0.2,0.8",
            games=2,
            plugin=root / "plugin.py",
        )
    return made


@pytest.fixture
def plugged(world, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    replay.load_plugin(world.parent / "plugin.py")


def rows(folder):
    return results.read(folder).to_pylist()


def told(folder):
    return summary.read(folder)["settings"]


def differences(folder, some, **options):
    """Of each row played again, the first difference."""
    settings = told(folder)
    return [engine.difference(row, engine.play_again(folder, row, settings, **options)) for row in some]


# ── played again ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_game_is_the_same_again(world, plugged):
    games = rows(world)
    some = {(r["agent"], r["agent_seat"], r["rho_requested"], r["opponent"]): r for r in games}  # one of each cell
    assert len(some) == 2 * 3 * (2 + 2 + 1 + 1 + 1)
    plain = [r for r in some.values() if not any(engine.thinks(r[who]) for who in ("agent", "opponent"))]
    assert len(plain) == 2 * 2 * 3
    assert differences(world, plain) == [None] * len(plain)
    assert len({str(r["offers"]) for r in plain}) > 6, "they differ from each other"
    model = [r for r in some.values() if r not in plain]
    model = list({(r["agent"], r["opponent"] == ODD): r for r in model}.values())
    assert len(model) == 2 * 2 + 3, "agents against others, then others against the model"
    assert differences(world, model, batch=True) == [None] * len(model), "floats too are those of the same batch"


def test_a_game_is_played_alone_or_in_its_batch(world, plugged, monkeypatch):
    seen = []
    play = arena.play_shard

    def watched(team, plan, shard):
        seen.append(play(team, plan, shard))
        return seen[-1]

    monkeypatch.setattr(arena, "play_shard", watched)
    row = next(r for r in rows(world) if r["agent"] == "janus-nano" and r["scenario_id"] == 1)
    differences(world, [row])
    assert differences(world, [row], batch=True) == [None]
    alone, whole = seen
    assert (len(alone), len(whole)) == (1, 2 * 3 * 2)
    assert whole.to_pylist() == [r for r in rows(world) if (r["agent"], r["agent_seat"]) == ("janus-nano", "buyer")]


@pytest.mark.parametrize("shards", [1, 100])
def test_a_batch_of_many_is_cut_where_the_tournament_cut_it(tmp_path, monkeypatch, shards):
    monkeypatch.setattr(arena, "SCRIPT_ROWS", 6)
    monkeypatch.setattr(arena, "MOST_SHARDS", shards)
    folder = tournament_in(tmp_path, agents="script:fair", games=8)
    seen = []
    monkeypatch.setattr(arena, "play_shard", lambda team, plan, shard: seen.append(shard) or pa.table({}))
    for number in range(8):
        row = next(r for r in rows(folder) if r["scenario_id"] == number)
        with pytest.raises(StopIteration):
            engine.play_again(folder, row, told(folder), batch=True)
    assert [(s.first, s.count) for s in seen] == [(0, 3)] * 3 + [(3, 3)] * 3 + [(6, 2)] * 2


def test_scripts_that_met_a_janus_are_played_again_in_the_batch_they_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(arena, "BLOCK_ROWS", 6)
    folder = tournament_in(
        tmp_path, agents="script:fair,script:hardliner,script:linear_standard", opponents="janus-nano(0.5)", games=4
    )
    row = next(r for r in rows(folder) if r["scenario_id"] == 3 and r["agent"] == "script:hardliner")
    seen, usual = [], arena.play_shard
    monkeypatch.setattr(arena, "play_shard", lambda *given: seen.append(given) or usual(*given))
    assert differences(folder, [row], batch=True) == [None]
    team, _, shard = seen[0]
    assert (len(team), shard.first, shard.count) == (3, 2, 2)


def test_the_base_of_the_protocol_takes_no_rho(adapter, tmp_path, monkeypatch):
    monkeypatch.setitem(protocol.FIXED, "opponents", "fair")
    folder = tournament_in(tmp_path, agents=f"janus:{adapter},shuffled:{adapter}", rho=None, opponents=None,
                           scenario=None, protocol="paper", games=1)  # fmt: skip
    games = rows(folder)
    base = [r for r in games if r["agent"] == f"base:{adapter}"]
    assert base
    assert {r["rho_requested"] for r in base} == {None}
    assert differences(folder, games, batch=True) == [None] * len(games)


def test_the_control_needs_the_order_of_its_grid(adapter, tmp_path):
    folder = tournament_in(
        tmp_path,
        agents=f"shuffled:{adapter}",
        rho="0.8,0.2,0.5",
        opponents="hardliner",
        games=2,
        seats="buyer",
        guard="none",
    )
    games, found = rows(folder), summary.read(folder)
    assert differences(folder, games, batch=True) == [None] * len(games)
    summary.write({**found, "settings": found["settings"] | {"grids": {"buyer": [0.2, 0.5, 0.8]}}}, folder)
    assert any(differences(folder, games, batch=True)), "an ascending grid is not what was asked for"
    summary.write({**found, "settings": found["settings"] | {"grids": {}}}, folder)
    with pytest.raises(InputError, match="does not say for which rho"):
        differences(folder, games, batch=True)


def test_the_control_beside_configurations(adapter, tmp_path):
    who = f"shuffled:{adapter},janus:{adapter}"
    folder = tournament_in(tmp_path, agents=who, rho="0.1,0.6", config=("standard",), opponents="fair", games=2)
    games = rows(folder)
    assert differences(folder, games[::3], batch=True) == [None] * len(games[::3])


def test_options_of_janus_reach_it(tmp_path):
    base, other = (write_base(tmp_path / name, seed) for name, seed in (("base", 1), ("other", 2)))
    adapter = write_adapter(tmp_path / "adapter", base)
    made = {"agents": f"janus:{adapter}", "opponents": "fair", "games": 2, "base": str(other), "guard": "monotone",
            "allow_base_mismatch": True, "decode": "sample"}  # fmt: skip
    folder = tournament_in(tmp_path / "out", **made)
    games, settings = rows(folder), told(folder)
    assert differences(folder, games, batch=True) == [None] * len(games)
    for name, value in (("base", None), ("guard", "none"), ("decode", "mean"), ("seed", 1), ("max_turns", 7)):
        changed = {**settings, name: value}
        assert any(engine.difference(r, engine.play_again(folder, r, changed, batch=True)) for r in games), name
    shutil.move(adapter, tmp_path / "elsewhere")
    clear_models()
    with pytest.raises(InputError, match=r"cannot be played again: .*no checkpoint at"):
        differences(folder, games[:1])


# ── what is not the same ──────────────────────────────────────────────────────────────────────────────────────────────

NOISY = "script:fair|buyer|-|noisy_boulware_firm|000000001"


def tampered(folder, out, episode_id, **changes):
    """A copy of the folder in which one row says something else."""
    shutil.copytree(folder, out)
    table = [r | changes if r["episode_id"] == episode_id else r for r in rows(folder)]
    results.write(pa.Table.from_pylist(table, schema=results.SCHEMA), out)
    return out


def changed(name, row):
    offers = [*row["offers"][:1], row["offers"][1] + 0.01, *row["offers"][2:]]
    return {
        "price": {"price": row["price"] + 1},
        "offer": {"offers": offers},
        "longer": {"turns": row["turns"] + 1},
        "limit": {"buyer_max": row["buyer_max"] + 1e-9, "price": row["price"] + 1},
        "utility": {"utility": row["utility"] + 1e-9},
        "told": {"raw_turns": [], "raw_accepts": [], "raw_prices": []},
    }[name]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("price", "turn {turns}: recorded seller accepts"),
        ("offer", "turn 2: recorded buyer offers"),
        ("longer", "turn {turns}: recorded"),
        ("limit", "buyer_max: recorded"),
        ("utility", "utility: recorded"),
        ("told", "raw_turns: recorded [], now None"),
    ],
)
def test_a_row_that_was_tampered_with_is_told(world, tmp_path, capsys, name, where):
    row = next(r for r in rows(world) if r["episode_id"] == NOISY)
    assert row["agreement"]
    assert row["turns"] % 2 == 1, "the seller, who starts, accepts"
    folder = tampered(world, tmp_path / "copy", NOISY, **changed(name, row))
    same = replay.run(replay.Settings(world, NOISY, again=True))
    assert same.difference is None
    assert "the same game again" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        replay.run(replay.Settings(folder, NOISY, again=True))
    assert stop.value.code == 1
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith(f"not the same game: {where.format(turns=row['turns'])}")
    assert "language model" not in shown


def test_of_a_language_model_it_says_why_floats_may_differ(world, plugged, tmp_path, capsys):
    row = next(r for r in rows(world) if r["agent"] == "janus-nano")
    folder = tampered(world, tmp_path / "copy", row["episode_id"], utility=0.123)
    for batch, said in ((False, "--batch plays the game among"), (True, "threads and on the machine.")):
        with pytest.raises(SystemExit):
            replay.run(replay.Settings(folder, row["episode_id"], again=True, batch=batch))
        assert said in capsys.readouterr().out


def test_versions_that_recorded_less_are_compared_in_what_they_have(world, tmp_path):
    table = results.read(world)
    shutil.copytree(world, tmp_path / "old")
    pq.write_table(table.drop_columns(table.schema.names[-4:]), tmp_path / "old" / "episodes.parquet")
    found = replay.run(replay.Settings(tmp_path / "old", NOISY, again=True, quiet=True))
    assert found.difference is None
    assert "raw_turns" not in found.game


# ── shown ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_turns_by_hand():
    game = {"starter": "seller", "turns": 5, "agreement": True, "price": 600.0, "offers": [900.0, 300.0, 600.0],
            "offer_turns": [1, 2, 4], "buyer_max": 800.0, "seller_min": 400.0, "raw_turns": [2, 4],
            "raw_accepts": [True, False], "raw_prices": [250.0, None]}  # fmt: skip
    T = recorded.Turn
    assert recorded.turns(game) == [
        T(1, "seller", "offer", 900.0, 1.25),
        T(2, "buyer", "offer", 300.0, -0.25, "guard", True, 250.0),
        T(3, "seller", "wasted", None, None),
        T(4, "buyer", "offer", 600.0, 0.5, "fallback", False, None),
        T(5, "seller", "accept", 600.0, 0.5),
    ]
    impasse = game | {"agreement": False, "price": None, "seller_min": 900.0, "raw_turns": None, "raw_accepts": None,
                      "raw_prices": None}  # fmt: skip
    found = recorded.turns(impasse)
    assert [turn.action for turn in found] == ["offer", "offer", "wasted", "offer", "wasted"]
    assert {turn.rho for turn in found} == {turn.replaced for turn in found} == {None}


def test_what_people_read(world, adapter, capsys):
    control = f"shuffled:{adapter}"
    row = next(r for r in rows(world) if r["agent"] == control and r["agreement"])
    replay.run(replay.Settings(world, row["episode_id"]))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "\x1b" not in text
    rho = f"{row['rho_requested']:.2f}"
    assert lines[0] == f"{control} as {row['agent_seat']}, asked for rho {rho} (a control), against {row['opponent']}"
    assert f"at most {row['buyer_max']:.2f}" in lines[1]
    assert "a ZOPA of 500.00" in lines[1]
    table = [line.split() for line in lines[4 : 4 + row["turns"]]]
    assert [cells[0] for cells in table] == [str(turn) for turn in range(1, row["turns"] + 1)]
    assert f"{row['price']:.2f}" in table[-1]
    assert lines[-1] == (
        f"deal at rho {row['rho_achieved']:.3f} for {row['price']:.2f} on turn {row['turns']}; utility "
        f"{row['utility']:.3f}, of the opponent {row['opponent_utility']:.3f}"
    )
    replay.run(replay.Settings(world, row["episode_id"], quiet=True))
    assert capsys.readouterr().out == ""


def test_what_was_replaced_has_a_column(world, tmp_path, capsys):
    row = next(r for r in rows(world) if r["agent"] == "janus-nano" and r["starter"] == "buyer" and r["turns"] > 6)
    first = {"raw_turns": [1, 3, 5], "raw_accepts": [True, False, False], "raw_prices": [None, 1234.5, None]}
    folder = tampered(world, tmp_path / "copy", row["episode_id"], **first)
    replay.run(replay.Settings(world, row["episode_id"]))
    assert "instead of" not in capsys.readouterr().out
    replay.run(replay.Settings(folder, row["episode_id"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].rstrip().endswith("instead of")
    ends = ["accepting (guard)", "", "offering 1234.50 (guard)", "", "an answer that was no move"]
    for line, end in zip(lines[4:], ends, strict=False):
        assert line.rstrip().endswith(end) if end else not line.rstrip().endswith(")")


def test_json_is_one_object(world, capsys):
    row = next(r for r in rows(world) if r["episode_id"] == NOISY)
    replay.run(replay.Settings(world, NOISY, json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["game"] == row
    assert [turn["turn"] for turn in found["turns"]] == list(range(1, row["turns"] + 1))
    assert (found["scenario"], found["max_turns"]) == ("paper", 20)
    assert "again" not in found
    replay.run(replay.Settings(world, NOISY, json=True, again=True))
    assert json.loads(capsys.readouterr().out)["again"] == {"same": True, "difference": None, "game": row}


# ── ids and commands ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_of_a_game_survives_a_shell(world):
    for folder, episode_id in (
        (Path("a b/it's"), f"script:{ODD}|buyer|-|{ODD}|000000000"),
        (world, "x|y|-|z(a=1, b=2)|0"),
    ):
        command = recorded.replay_command(folder, episode_id)
        assert shlex.split(command) == ["python", "-m", "experiments.replay", str(folder), episode_id]
        said = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
        assert said.stdout.splitlines()[-2:] == [str(folder), episode_id]


def test_the_command_runs(world):
    episode_id = f"script:{ODD}|seller|-|{ODD}|000000001"
    words = shlex.split(recorded.replay_command(world, episode_id))[1:]
    command = [sys.executable, *words, "--again", "--plugin", str(world.parent / "plugin.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"script:{ODD} as seller, against {ODD}\n")
    assert done.stdout.endswith("the same game again\n")


def test_commands_are_made_without_torch():
    code = "import sys, experiments.match.recorded; print(*sorted({'torch', 'pyarrow.dataset'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_only_the_row_groups_that_can_hold_it_are_read(world, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "GROUP_ROWS", 10)
    table = results.read(world)
    path = results.write(table, tmp_path)
    ids = table["episode_id"].to_pylist()
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 5
    broken = bytearray(path.read_bytes())
    place = ids.index(NOISY) // 10
    for group in range(file.num_row_groups):
        if group != place:  # whoever reads these bytes fails
            for column in range(file.metadata.num_columns):
                about = file.metadata.row_group(group).column(column)
                start = about.dictionary_page_offset or about.data_page_offset
                broken[start : start + about.total_compressed_size] = b"\xff" * about.total_compressed_size
    path.write_bytes(bytes(broken))
    with pytest.raises(InputError, match="not readable Parquet"):
        recorded.games(tmp_path, [ids[0] if place else ids[-1]])
    assert recorded.games(tmp_path, [NOISY])[0]["episode_id"] == NOISY


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("janus-nano|buyer|0.2|noisy_boulware_firm|1", "mean 'janus-nano|buyer|0.20|noisy_boulware_firm|000000001'"),
        ("janus|byer|0.20|nosy_boulware_firm|000000099", "mean 'janus-nano|buyer|0.20|noisy_boulware_firm|000000001'"),
        ("script:fare|seller|-|noisy_boulware_firm|x", "mean 'script:fair|seller|-|noisy_boulware_firm|000000000'"),
        ("script:fair|seller|0.50|noisy_boulware_firm|000000000", "for example 'janus-nano|buyer|0.20|"),
        ("seven", "ids look like AGENT|SEAT|RHO|OPPONENT|SCENARIO, for example 'janus-nano|buyer|0.20|"),
        ("", "for example 'janus-nano"),
    ],
)
def test_an_id_that_nobody_has(world, given, message):
    with pytest.raises(InputError) as caught:
        replay.run(replay.Settings(world, given))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_players_that_are_not_there(world, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match=r"no summary\.json in .*nowhere"):
        replay.run(replay.Settings(tmp_path / "nowhere", NOISY))
    shutil.copytree(world, tmp_path / "copy")
    (tmp_path / "copy" / "episodes.parquet").unlink()
    with pytest.raises(InputError, match=r"no episodes\.parquet"):
        replay.run(replay.Settings(tmp_path / "copy", NOISY))
    (tmp_path / "copy" / "episodes.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable Parquet"):
        replay.run(replay.Settings(tmp_path / "copy", NOISY))
    pq.write_table(pa.table({"episode_id": ["x"]}), tmp_path / "copy" / "episodes.parquet")
    with pytest.raises(InputError, match="lacks columns agent"):
        replay.run(replay.Settings(tmp_path / "copy", NOISY))
    monkeypatch.setattr(registry, "_REGISTRY", {k: v for k, v in registry._REGISTRY.items() if k != ODD})
    for who in (f"script:fair|buyer|-|{ODD}|000000000", f"script:{ODD}|buyer|-|noisy_boulware_firm|000000000"):
        with pytest.raises(InputError, match=r"cannot be played again: unknown strategy .*give the --plugin"):
            replay.run(replay.Settings(world, who, again=True, quiet=True))
    with pytest.raises(InputError, match="--batch says how --again plays"):
        replay.run(replay.Settings(world, NOISY, batch=True))
    with pytest.raises(SystemExit) as stop:
        cli.main(replay.Settings, replay.run, [str(world), "seven"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: no game 'seven'")
