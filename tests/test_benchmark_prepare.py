"""`experiments.benchmark prepare`: the reference prepares the same rows, and the command says what it measured."""

import json

import pyarrow.parquet as pq
import pytest

from experiments import benchmark, cli, collect
from experiments import prepare as command
from experiments.speed import prepare


def test_the_reference_prepares_the_same_rows(tmp_path):
    collect.run(collect.Settings(episodes=40, seed=2, jsonl=True, out=tmp_path / "raw", quiet=True))
    command.run(command.Settings(tmp_path / "raw", tmp_path / "ready", quiet=True))
    work = prepare._one_by_one(tmp_path / "raw" / "log", tmp_path / "reference.parquet")
    assert work() > 0
    theirs = pq.read_table(tmp_path / "reference.parquet")
    ours = pq.read_table(tmp_path / "ready" / "steps.parquet")
    assert theirs.column_names == ours.column_names[:15]
    assert theirs.to_pylist() == ours.select(theirs.column_names).to_pylist()


def test_the_command(monkeypatch, capsys, tmp_path):
    for name, value in (("GAMES", (10, 30)), ("LOG_GAMES", 10), ("WALL_LOG_GAMES", 30), ("REFERENCE_GAMES", 10)):
        monkeypatch.setattr(prepare, name, value)
    cli.main(benchmark.Settings, benchmark.run, ["prepare", "--seconds", "0.01", "--json"])
    speeds = json.loads(capsys.readouterr().out)["speeds"]
    named = {speed["name"]: speed for speed in speeds}
    assert [speed["reference"] for speed in speeds[:3]] == [prepare.REFERENCE] * 3
    assert {speed["unit"] for speed in speeds} == {"steps/s"}
    reference = named[prepare.REFERENCE]["rate"]
    wall = named[f"{prepare.REFERENCE}, wall"]["rate"]
    timed = [speed for speed in speeds if f"wall, {prepare.WORKERS} workers" in speed["name"]]
    assert len(timed) == 2
    expected = [("table", reference), ("table", reference), ("log", reference), ("table", wall), ("log", wall)]
    for speed, (kind, rate) in zip([*speeds[:3], *timed], expected, strict=True):
        assert speed["ratio"] == pytest.approx(speed["rate"] / rate)
        assert (speed["bar"], speed["goal"]) == (None if speed is speeds[0] else prepare.BAR[kind], prepare.GOAL[kind])
    assert {prepare.ARROW, prepare.ORJSON} <= set(named)
