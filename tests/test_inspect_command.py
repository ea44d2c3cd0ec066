"""The command `experiments.inspect`: how it is called, what it prints and where, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import collect, inspect, prepare
from experiments.inspecting import models

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """How well models fit is for test_inspect_leaks.py; here it only matters that they are fitted."""
    monkeypatch.setattr(models, "_ROUNDS", 5)


def inspected(folder, **options):
    return inspect.run(inspect.Settings(data=folder, quiet=True, **{"sample": 250, **options}))


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    base = tmp_path_factory.mktemp("hidden")
    collect.run(collect.Settings(episodes=300, seed=3, out=base / "raw", quiet=True))
    prepare.run(prepare.Settings(input=base / "raw", out=base / "ready", quiet=True))
    return base / "ready"


def test_it_runs_as_a_file_whose_name_python_has_too(ready, tmp_path):
    out = tmp_path / "card.html"
    command = [sys.executable, str(ROOT / "experiments" / "inspect.py"), str(ready), "--out", str(out), "--no-verify"]
    ran = subprocess.run([*command, "--sample", "250"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Data card: ready" in ran.stdout
    assert "wrote " in ran.stdout
    assert ran.stderr == ""
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_it_runs_as_a_module_and_says_what_is_wrong_in_a_line(tmp_path):
    command = [sys.executable, "-m", "experiments.inspect", str(tmp_path / "nowhere")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert re.fullmatch(r"error: .*nowhere is no folder; .*\n", ran.stderr)


def test_quiet_json_and_the_default_place(ready, capsys):
    made = inspected(ready)
    assert capsys.readouterr().out == ""
    page = (ready / "card.html").read_bytes()
    inspect.run(inspect.Settings(data=ready, sample=250, json=True))
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(json.dumps(made))
    assert (ready / "card.html").read_bytes() == page  # the same settings, the same bytes
    inspected(ready, seed=1)
    assert (ready / "card.html").read_bytes() != page
    (ready / "card.html").unlink()


def test_bad_input_is_refused(ready, tmp_path):
    good = {"data": ready, "quiet": True}
    for options, words in (
        ({"data": tmp_path / "nowhere"}, "no folder"),
        ({"data": tmp_path}, "no steps.parquet"),
        ({"sample": 10}, "--sample 10"),
        ({"seed": -1}, "--seed -1"),
        ({"out": tmp_path}, "is a folder"),
    ):
        with pytest.raises(InputError, match=words):
            inspect.run(inspect.Settings(**{**good, **options}))
    table = pq.read_table(ready / "steps.parquet")
    shutil.copy(ready / "episodes.parquet", tmp_path / "episodes.parquet")
    pq.write_table(table.drop(["rho_train"]), tmp_path / "steps.parquet")
    with pytest.raises(InputError, match=r"steps\.parquet lacks the column rho_train"):
        inspected(tmp_path)
    pq.write_table(table.slice(0, 0), tmp_path / "steps.parquet")
    with pytest.raises(InputError, match="holds no games"):
        inspected(tmp_path)
    (tmp_path / "steps.parquet").write_text("not Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        inspected(tmp_path)
