"""The log of a training run, its TensorBoard events, and the summary."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bargain_env.errors import InputError
from experiments.training_log import TrainingLog, scalars
from experiments.training_summary import (
    SUMMARY,
    VARYING,
    Milestone,
    PeakMemory,
    Resumption,
    TrainingSummary,
    library_versions,
    peak_memory,
    read_summary,
    write_summary,
)
from hyperlora.train import StepReport

EVALUATION = {"eval_loss": 1.5, "by_action": {"ACCEPT": None, "OFFER": 0.5}, "rows": 12, "note": "text", "flag": True}


def report(step: int, **changes) -> StepReport:
    values = {"loss": 10.0 / step, "separation": 0.0, "smoothness": 0.25, "lr": 1e-3, "grad_norm": 0.5, **changes}
    return StepReport(step=step, **values)


def console() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False)


def run(steps, folder=None, done=0, scale=1.0):
    """A log that has seen ``steps``, with an evaluation at every third."""
    with TrainingLog(console(), 12, done, every=2, tensorboard=folder) as log:
        for step in steps:
            log(report(step, loss=scale * step))
            if step % 3 == 0:
                log.checkpoint(step, f"step-{step}", 1e-3, {**EVALUATION, "eval_loss": scale * step})
    return log


def events(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show: tag -> (step, value)."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


# --- the log ------------------------------------------------------------------------------------------------------


def test_the_log_keeps_losses_entries_and_whatever_else(tmp_path):
    log = run(range(1, 7))
    log.write(tmp_path / "log.json", resumed_from=None, more=3)
    found = json.loads((tmp_path / "log.json").read_text())
    assert found["losses"] == [1, 2, 3, 4, 5, 6]
    assert [e["step"] for e in found["checkpoints"]] == [3, 6]
    assert found["final"] == found["checkpoints"][-1]
    assert found["final"]["eval"] == {**EVALUATION, "eval_loss": 6.0}
    assert found["final"]["train_loss_window_mean"] == 3.5
    assert (found["resumed_from"], found["more"]) == (None, 3)
    assert set(found["final"]) == {
        "step", "checkpoint", "train_loss_last", "train_loss_window_mean", "train_loss_window_std", "lr", "eval",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["log.json"]


def test_play_is_kept_beside_the_evaluation(tmp_path):
    with TrainingLog(console(), 1) as log:
        log(report(1))
        log.checkpoint(1, "", 1e-3, None, {"buyer": {"slope": 0.5}})
    log.write(tmp_path / "log.json")
    final = json.loads((tmp_path / "log.json").read_text())["final"]
    assert (final["eval"], final["play"]) == (None, {"buyer": {"slope": 0.5}})


def test_lines_where_there_is_no_terminal():
    lines = run([1, 2, 3, 4]).console.file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["2/12", "4/12"]
    assert "smooth 0.250" in lines[0]
    assert "sep" not in lines[0]


# --- events -------------------------------------------------------------------------------------------------------


def test_numbers_are_found_by_path():
    assert scalars(EVALUATION, "eval") == {"eval/loss": 1.5, "eval/by_action/OFFER": 0.5, "eval/rows": 12.0}
    assert scalars({"by_rho": [{"rho": 0.1}], "mae": 0.2}, "play") == {"play/mae": 0.2}
    assert scalars({}) == {}


def test_events_hold_what_the_log_saw(tmp_path):
    run(range(1, 7), tmp_path / "events")
    found = events(tmp_path / "events")
    assert found["loss"] == [(s, float(s)) for s in range(1, 7)]
    assert {"lr", "grad_norm", "smoothness", "eval/loss", "eval/by_action/OFFER", "eval/rows"} <= set(found)
    assert not {"step", "separation", "eval/note", "eval/flag", "eval/by_action/ACCEPT"} & set(found)
    assert found["eval/loss"] == [(3, 3.0), (6, 6.0)]
    assert found["lr"][0] == (1, pytest.approx(1e-3))


def test_play_has_its_events(tmp_path):
    with TrainingLog(console(), 1, tensorboard=tmp_path) as log:
        log.checkpoint(1, "", 1e-3, None, {"buyer": {"slope": 0.5, "by_rho": [1]}, "seed": 3})
    assert events(tmp_path) == {"play/buyer/slope": [(1, 0.5)], "play/seed": [(1, 3.0)]}


def test_a_resumed_run_appends_and_no_step_is_there_twice(tmp_path):
    run(range(1, 10), tmp_path)
    assert events(tmp_path)["loss"][-1] == (9, 9.0)
    run(range(7, 13), tmp_path, done=6, scale=10.0)
    found = events(tmp_path)
    assert found["loss"] == [(s, float(s)) for s in range(1, 7)] + [(s, 10.0 * s) for s in range(7, 13)]
    assert found["eval/loss"] == [(3, 3.0), (6, 6.0), (9, 90.0), (12, 120.0)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_run_hides_an_old_one(tmp_path):
    run(range(1, 10), tmp_path)
    run([1, 2], tmp_path, scale=5.0)
    assert events(tmp_path)["loss"] == [(1, 5.0), (2, 10.0)]


def test_a_checkpoint_puts_its_events_on_disk(tmp_path):
    with TrainingLog(console(), 9, tensorboard=tmp_path) as log:
        for step in range(1, 41):
            log(report(step))
        log.checkpoint(40, "step-40", 1e-3, None)
        assert [step for step, _ in events(tmp_path)["loss"]] == list(range(1, 41))


def test_nothing_is_written_before_or_after_the_block(tmp_path):
    log = TrainingLog(console(), 9, tensorboard=tmp_path / "never")
    log(report(1))
    assert not (tmp_path / "never").exists()
    late = run([1], tmp_path / "late")
    late.checkpoint(1, "", 1e-3, EVALUATION)
    assert "eval/loss" not in events(tmp_path / "late")


def test_without_the_package_events_are_refused_and_the_log_is_not(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'bargain-lab\[train\]'"):
        TrainingLog(console(), 3, tensorboard=tmp_path)
    assert run([1, 2, 3]).losses == [1, 2, 3]


# --- the summary --------------------------------------------------------------------------------------------------


def summary(**changes) -> TrainingSummary:
    values = {
        "settings": {"data": Path("games") / "steps", "ranks": (4, 8), "lr": np.float64(1e-7)},
        "data_sha256": "ab" * 32,
        "base": {"spec": "janus-nano", "digest": "cd" * 32, "precision": "float32"},
        "adapter": {"rank": 4, "digest": "ef" * 32},
        "steps": 60,
        "rows_seen": 960,
        "target_tokens": 7_000,
        "wall_time_s": 12.5,
        "peak_memory": peak_memory(),
        "best": Milestone(40, 100, {"eval_loss": 1.25, "by_action": {"ACCEPT": None}}),
        "last": Milestone(60, 100, {"eval_loss": math.nan}),
        **changes,
    }
    return TrainingSummary(**values)


def test_the_summary_says_everything_as_json(tmp_path):
    lineage = (Resumption("runs/a/step-000020", 20), Resumption("runs/a/step-000040", 40))
    path = write_summary(tmp_path, summary(resumed=lineage, early_stopped=True))
    assert path == tmp_path / SUMMARY == tmp_path / "training_summary.json"
    text = path.read_text()
    assert "NaN" not in text
    found = read_summary(tmp_path)
    assert found == read_summary(path) == json.loads(text)
    assert list(found) == [f.name for f in fields(TrainingSummary)]
    assert found["settings"] == {"data": "games/steps", "ranks": [4, 8], "lr": 1e-7}
    assert found["best"] == {"step": 40, "n": 100, "metrics": {"eval_loss": 1.25, "by_action": {"ACCEPT": None}}}
    assert found["last"]["metrics"] == {"eval_loss": None}
    assert found["resumed"] == [
        {"from_checkpoint": "runs/a/step-000020", "at_step": 20},
        {"from_checkpoint": "runs/a/step-000040", "at_step": 40},
    ]
    assert found["early_stopped"] is True
    assert found["schema_version"] == 1


def test_the_same_run_differs_in_the_named_fields_only(tmp_path):
    one, other = summary(), summary(wall_time_s=99.0, peak_memory=PeakMemory(None, 5), libraries={"torch": "0"})
    documents = [read_summary(write_summary(tmp_path / f"{i}.json", s)) for i, s in enumerate((one, other))]
    assert documents[0] != documents[1]
    assert {k for k in documents[0] if documents[0][k] != documents[1][k]} == set(VARYING)


def test_a_failed_write_leaves_the_earlier_summary(tmp_path):
    path = write_summary(tmp_path / "s.json", summary())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_summary(path, replace(summary(), settings={"model": object()}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_unreadable_summaries_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_summary(tmp_path)
    for content, message in (("{", "not JSON"), ("[]", "version 1"), ('{"schema_version": 0}', "version 1")):
        (tmp_path / SUMMARY).write_text(content)
        with pytest.raises(InputError, match=message):
            read_summary(tmp_path)


def test_peak_memory_is_in_bytes_and_never_falls():
    pytest.importorskip("resource")
    before = peak_memory()
    assert before.rss > 50 * 2**20  # Python with torch takes more
    block = np.ones(2**26)
    assert block.nbytes == 2**29
    del block
    after = peak_memory()
    assert before.rss <= after.rss < 2**40


def test_versions_are_of_what_is_installed():
    found = library_versions()
    assert {"python", "torch", "numpy", "transformers"} <= set(found)
    assert found["numpy"] == np.__version__
