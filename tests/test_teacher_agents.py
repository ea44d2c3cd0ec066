"""``teacher:PATH`` as an agent: it sweeps ρ in tournaments, from a file or a folder, and the dial is measured on it too."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_teachers import folder, saved

import agents
import bargain_env as be
from agents.teacher import Teacher
from bargain_env import Seat
from bargain_env.errors import InputError
from experiments import cli, dial, tournament
from experiments.match import arena, contestants, results
from experiments.match.identity import identify

GRID = (0.0, 0.35, 1.0)


def played(tmp_path, spec, **changes):
    """Rows of a tournament of ``spec`` against one opponent."""
    usual = {"rho": "0,0.35,1", "opponents": "linear_standard", "games": 6, "scenario": "paper", "threads": 1,
             "quiet": True}  # fmt: skip
    chosen = tournament.Settings(spec, out=tmp_path, **{**usual, **changes})
    tournament.run(chosen)
    return pq.read_table(results.located(tmp_path)).to_pylist()


def settled(path, scenario, rho, seat):
    """Prices of the same games, played directly."""
    games = be.sample(scenario, 6, seed=0)
    rival = agents.make_for(be.PRESETS[scenario], "linear_standard")
    player = Teacher(path, rho)
    result = be.play(games, *((player, rival) if seat == Seat.BUYER else (rival, player)))
    return np.where(result.agreement, result.price, np.nan)


def prices(rows, rho, seat):
    mine = [r for r in rows if r["agent_seat"] == seat.label and r["rho_requested"] == rho]
    assert [row["scenario_id"] for row in mine] == list(range(6))
    return [np.nan if row["price"] is None else row["price"] for row in mine]


def test_it_is_asked_for_every_rho_in_both_seats(tmp_path):
    file = saved(tmp_path / "t", 7)
    rows = played(tmp_path / "out", f"teacher:{file}")
    assert {row["agent"] for row in rows} == {f"teacher:{file}"}
    assert len(rows) == len(GRID) * 2 * 6
    for seat in Seat:
        found = [prices(rows, rho, seat) for rho in GRID]
        for rho, some in zip(GRID, found, strict=True):
            np.testing.assert_array_equal(some, settled(file, "paper", rho, seat))
        assert not np.array_equal(found[0], found[2], equal_nan=True), "it hears what it is asked"


def test_a_folder_has_one_for_each_preset(tmp_path):
    several = folder(tmp_path / "teachers", seed=7)
    for scenario, other in (("paper", "hidden"), ("hidden", "paper")):
        rows = played(tmp_path / scenario, f"teacher:{several}", scenario=scenario)
        found = [prices(rows, 0.35, seat) for seat in Seat]
        mine, others = (
            [settled(several / f"{name}.safetensors", scenario, 0.35, seat) for seat in Seat]
            for name in (scenario, other)
        )
        assert not np.array_equal(mine, others, equal_nan=True)
        np.testing.assert_array_equal(found, mine)


def test_it_is_no_janus_and_no_script():
    assert "teacher:PATH" in _refused("teachr:x")
    with pytest.raises(InputError, match="unknown"):
        agents.describe("teacher:x")


def _refused(spec):
    with pytest.raises(InputError) as caught:
        contestants.resolve_agents(spec)
    return str(caught.value)


def test_paths_that_hold_no_teacher(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty"):
        assert "python -m experiments.teacher" in _refused(f"teacher:{path}")
    arguments = ["--agents", f"teacher:{tmp_path / 'none'}", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        cli.main(tournament.Settings, tournament.run, arguments)
    err = capsys.readouterr().err
    assert (stop.value.code, err.count("\n")) == (2, 1)
    assert f"no teacher at '{tmp_path / 'none'}'" in err
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_folder_without_the_preset(tmp_path):
    only = folder(tmp_path / "teachers", scenarios=("paper",))
    played(tmp_path / "a", f"teacher:{only}", games=1, rho="0.5")
    with pytest.raises(InputError, match=r"no teacher at '.*hidden.safetensors'; .* `python -m experiments.teacher`"):
        played(tmp_path / "b", f"teacher:{only}", games=1, rho="0.5", scenario="hidden")


def test_a_file_that_was_trained_anew_is_another_tournament(tmp_path):
    several = folder(tmp_path / "teachers")
    plan = arena.Plan(("fair",), arena.same_grid(GRID), 2, tuple(Seat), be.PRESETS["paper"])
    for path in (several, several / "paper.safetensors"):
        players = contestants.resolve_agents(f"teacher:{path}")
        before, same = (identify({}, players, plan).digest for _ in range(2))
        saved(several / "paper.safetensors", 8 if path == several else 9)
        after = identify({}, players, plan)
        assert before == same != after.digest
        assert list(after.document["files"]) == [str(path)]


class Reached(Exception):
    pass


def test_the_dial_is_measured_on_whoever_is_asked(tmp_path, monkeypatch):
    def pool(*args):
        raise Reached

    monkeypatch.setattr(dial, "_pool", pool)
    file = saved(tmp_path / "t")
    for label in (f"teacher:{file}", f"janus-nano,teacher:{file}"):
        with pytest.raises(Reached):
            dial.run(dial.Settings(tmp_path / "out", agents=label, quiet=True))
    for label in ("script:fair", f"teacher:{file},scripts"):
        with pytest.raises(InputError, match="has no dial to measure"):
            dial.run(dial.Settings(tmp_path / "out", agents=label, quiet=True))


def test_nobody_plays_without_being_asked(tmp_path):
    [contestant] = contestants.resolve_agents(f"teacher:{saved(tmp_path / 't')}")
    contestant.build(np.array([0.2]), be.PRESETS["paper"])
    with pytest.raises(ValueError, match="takes rho"):
        contestant.build(None, be.PRESETS["paper"])
