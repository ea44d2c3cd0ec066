"""Bad input to the commands: one line on stderr that names the cause and the next step, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import cli, collect, pipeline, prepare, pretrain, tournament, train
from hyperlora import build_nano_tokenizer
from hyperlora.base import nano_folder, nano_model


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


@pytest.mark.parametrize(
    ("config", "weights", "expected"),
    [
        ("[]", None, "base_model"),
        ('{"rank": 16}', None, "base_model"),
        ('{"base_model": "janus-nano"}', b"not a tensor file", "cannot be read"),
    ],
)
def test_damaged_adapters(config, weights, expected, capsys, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config)
    if weights:
        (folder / "adapter_state.pt").write_bytes(weights)
    out = tmp_path / "o"
    assert expected in complaint(tournament, ["--agents", f"janus:{folder}", "--games", 1, "--out", out], capsys)


def test_an_adapter_of_another_base_is_refused(capsys, tmp_path):
    shutil.copytree(nano_folder() / "adapter", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    other = tmp_path / "base"
    nano_model(seed=5).save_pretrained(str(other))
    build_nano_tokenizer().save_pretrained(str(other))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "base_model": "../base"}))
    arguments = ["--agents", f"janus:{tmp_path / 'adapter'}", "--games", 1, "--out", tmp_path / "o"]
    capsys.readouterr()  # transformers' own progress bar of saving
    assert "was trained on" in complaint(tournament, arguments, capsys)


def test_a_folder_that_is_not_ours_is_never_replaced(capsys, tmp_path, steps):
    pq.write_table(steps, tmp_path / "steps.parquet")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    err = complaint(pretrain, ["--data", tmp_path, "--out", mine, "--max-steps", 1], capsys)
    assert "would be lost" in err
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_resumed_run_must_be_the_same_run(capsys, tmp_path, steps):
    table = steps.slice(0, 40)
    split = table.set_column(table.column_names.index("split"), "split", [["train"] * 40])
    pq.write_table(split, tmp_path / "steps.parquet")
    options = ["--data", tmp_path, "--model-name", "janus-nano", "--batch-size", 2, "--grad-accum", 1, "--max-steps", 2,
               "--save-every", 1, "--eval-every", 0, "--quiet"]  # fmt: skip
    cli.main(train.Settings, train.run, [str(a) for a in [*options, "--out", tmp_path / "a"]])
    resume = [*options, "--resume", tmp_path / "a" / "step-000001", "--out", tmp_path / "b"]
    assert "lr 0.0002 → 0.1" in complaint(train, [*resume, "--lr", 0.1], capsys)
    assert not (tmp_path / "b").exists()
    cli.main(train.Settings, train.run, [str(a) for a in resume])
