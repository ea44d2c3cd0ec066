"""Bad input to the commands: one line on stderr that names the cause and the next step, exit code 2, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import cli, collect, pipeline, prepare, tournament, train


def complaint(command, arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(command.Settings, command.run, [str(a) for a in arguments])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        (tournament, ["--strategies", "boulware_hrd"], "did you mean 'boulware_hard'"),
        (tournament, ["--agents", "script:hardlinr"], "did you mean"),
        (tournament, ["--agents", "janus-nan"], "janus-nano"),
        (tournament, ["--agents", "janus:/nowhere/at/all"], "/nowhere/at/all"),
        (tournament, ["--rho", "1.5"], "outside [0, 1]"),
        (tournament, ["--rho", "-0.5"], "outside [0, 1]"),
        (tournament, ["--rho", "a:b"], "start:stop:step"),
        (tournament, ["--games", "0"], "games"),
        (tournament, ["--scenario", "papr"], "paper"),
        (tournament, ["--decod", "mean"], "--decode"),
        (collect, ["--strategies", "nobody"], "known:"),
        (collect, ["--episodes", "0"], "episodes"),
        (prepare, ["missing.jsonl"], "missing.jsonl"),
        (train, ["--data", "nowhere"], "nowhere"),
        (train, ["--data", "nowhere", "--lr", "fast"], "--lr"),
    ],
)
def test_one_line_and_exit_2(command, arguments, expected, capsys, tmp_path):
    out = tmp_path / "out"
    assert expected in complaint(command, [*arguments, "--out", out], capsys)
    assert not list(out.rglob("*.*"))


def test_rho_minus_one_is_allowed():
    assert cli.parse_grid("-1,0,1") == [-1.0, 0.0, 1.0]
    assert cli.parse_grid("0:1:0.1") == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_output_that_is_a_file(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    err = complaint(tournament, ["--agents", "script:hardliner", "--games", 1, "--out", blocked / "deeper"], capsys)
    assert "choose another --out" in err
    assert blocked.read_text() == "mine"


def test_training_data_without_its_columns(capsys, tmp_path):
    pq.write_table(pa.table({"turn": [1]}), tmp_path / "steps.parquet")
    assert "rho_train" in complaint(train, ["--data", tmp_path, "--out", tmp_path / "o"], capsys)
    (tmp_path / "steps.parquet").write_bytes(b"PAR1 no more")
    assert "steps.parquet" in complaint(train, ["--data", tmp_path, "--out", tmp_path / "o"], capsys)


def test_base_that_cannot_be_loaded(capsys, tmp_path, steps):
    pq.write_table(steps.set_column(steps.column_names.index("split"), "split", [["train"] * steps.num_rows]),
                   tmp_path / "steps.parquet")  # fmt: skip
    empty = tmp_path / "model"
    empty.mkdir()
    err = complaint(train, ["--data", tmp_path, "--out", tmp_path / "o", "--model-name", empty], capsys)
    assert "cannot load base model" in err
    err = complaint(train, ["--data", tmp_path, "--out", tmp_path / "o", "--model-name", tmp_path / "x.gguf"], capsys)
    assert "does not exist" in err


def test_damaged_adapter_config(capsys, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    err = complaint(tournament, ["--agents", f"janus:{tmp_path}", "--games", 1, "--out", tmp_path / "o"], capsys)
    assert "adapter_config.json" in err


def test_pipeline_does_not_mix_runs(capsys, tmp_path):
    (tmp_path / "pipeline.json").write_text(json.dumps({"seed": 7}))
    assert "other settings" in complaint(pipeline, ["--out", tmp_path], capsys)
    assert [p.name for p in Path(tmp_path).iterdir()] == ["pipeline.json"]
