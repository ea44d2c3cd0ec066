"""Teacher files: what is read is what was saved, and what is no teacher is refused by name."""

import numpy as np
import pytest
from made_teachers import network, saved
from safetensors.numpy import load_file, save_file
from test_mixed_turns import mixed_view

from agents.teacher import FEATURES, KIND, MOVES, SCHEMA, Teacher, features, teacher_file
from bargain_env import Seat
from bargain_env.errors import InputError


def test_a_file_gives_back_what_was_saved(tmp_path):
    written, other = network(1, "hidden", (9, 7)), network(2, "hidden", (9, 7))
    for name in ("a", "b"):
        written.save(tmp_path / name)
    read = Teacher(tmp_path / "a").network
    assert (read.scale, read.scenario, len(read.layers)) == (600.0, "hidden", 3)
    shown = features(mixed_view(Seat.BUYER)[0], np.full(60, 0.4), 600.0)
    assert (other(shown) != written(shown)).all()
    assert (read(shown) == written(shown)).all()
    read.save(tmp_path / "c")
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    assert (Teacher(tmp_path / "b").network(shown) == written(shown)).all()
    other.save(tmp_path / "b")
    assert (Teacher(tmp_path / "b").network(shown) == other(shown)).all(), "a file that was written anew is read anew"


def damaged(path, change):
    tensors = load_file(saved(path))
    about = {"kind": KIND, "schema_version": SCHEMA, "scale": "500.0", "scenario": "paper"}
    change(tensors, about)
    save_file(tensors, path, metadata=about)


def shape(name, *size):
    return lambda tensors, about: tensors.update({name: np.zeros(size, dtype=np.float32)})


def says(**told):
    return lambda tensors, about: about.update(told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (says(kind="something else"), "'something else'"),
        (says(schema_version="1"), "version 1"),
        (says(scale="wide"), "'wide' is missing or wrong"),
        (says(scale="nan"), "its scale is nan"),
        (says(scale="0"), "its scale is 0"),
        (lambda tensors, about: about.pop("scale"), "'scale' is missing"),
        (lambda tensors, about: about.pop("kind"), "'nothing'"),
        (lambda tensors, about: tensors.pop("0.bias"), "do not lead|is missing"),
        (lambda tensors, about: tensors.clear(), f"do not lead from {FEATURES} features to {MOVES} moves"),
        (shape("0.weight", 12, FEATURES + 1), "do not lead from"),
        (shape("1.weight", MOVES, 11), "do not lead from"),
        (shape("0.bias", 11), "do not lead from"),
        (lambda t, a: (shape("1.weight", MOVES + 1, 12)(t, a), shape("1.bias", MOVES + 1)(t, a)), "do not lead from"),
        (lambda tensors, about: tensors["1.weight"].fill(np.nan), "not finite"),
        (lambda tensors, about: tensors["0.bias"].__setitem__(3, np.inf), "not finite"),
    ],
)
def test_files_that_hold_something_else(tmp_path, change, message):
    path = tmp_path / "t.safetensors"
    damaged(path, lambda tensors, about: None)
    Teacher(path)
    damaged(path, change)
    with pytest.raises(InputError, match=message) as caught:
        Teacher(path)
    assert str(path) in str(caught.value)
    assert "python -m experiments.teacher" in str(caught.value)


def test_no_file_and_no_safetensors(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"no teacher at .* `python -m experiments.teacher`"):
            Teacher(path)
    (tmp_path / "t").write_bytes(saved(tmp_path / "whole").read_bytes()[:-1])
    with pytest.raises(InputError, match="no safetensors file, or damaged"):
        Teacher(tmp_path / "t")
    (tmp_path / "t").write_text("weights")
    with pytest.raises(InputError, match="no safetensors file, or damaged"):
        Teacher(tmp_path / "t")


def test_types_that_numpy_lacks(tmp_path):
    torch, torch_files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    tensors = {name: torch.from_numpy(value).bfloat16() for name, value in load_file(saved(tmp_path / "a")).items()}
    about = {"kind": KIND, "schema_version": SCHEMA, "scale": "500.0", "scenario": "paper"}
    torch_files.save_file(tensors, tmp_path / "t", metadata=about)
    with pytest.raises(InputError, match="cannot be played"):
        Teacher(tmp_path / "t")


def test_the_file_for_a_preset(tmp_path):
    assert teacher_file(tmp_path, "paper") == tmp_path / "paper.safetensors"
    file = saved(tmp_path / "mine")
    assert teacher_file(file, "paper") == teacher_file(file, "hidden") == file
