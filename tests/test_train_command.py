"""The train command as a user meets it: dry run, resuming, limits, precision, and what it says when a run goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bargain_env.errors import InputError
from experiments import train
from experiments.training_rows import train_rows
from hyperlora import load_hyperlora_adapter
from hyperlora.checkpoint import read_config, read_state
from hyperlora.data import read_steps
from hyperlora.train import TrainingDiverged


def settings(data, base, out, **changes):
    options = {
        "max_steps": 6, "save_every": 3, "eval_every": 3, "play_games": 0, "rank": 2, "batch_size": 4, "grad_accum": 2,
        "lr": 3e-3, "warmup_steps": 2, "quiet": True, "device": "cpu",
    }  # fmt: skip
    return train.Settings(data=data, out=out, model_name=str(base), **{**options, **changes})


def same(a, b):
    a, b = read_state(a), read_state(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ── dry run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_says_what_is_needed_and_writes_nothing(training_data, tiny_base, tmp_path, capsys):
    out = tmp_path / "never"
    assert train.run(settings(training_data, tiny_base, out, dry_run=True, quiet=False)) is None
    text = capsys.readouterr().out
    assert not out.exists()
    for part in (
        "decisions, the longest",
        "trainable parameters in 14 layers",
        "one step on a shrunk model",
        "nothing was written",
    ):
        assert part in text
    train.run(settings(training_data, tiny_base, out, dry_run=True, json=True))
    found = json.loads(capsys.readouterr().out)
    trained = train.run(settings(training_data, tiny_base, tmp_path / "real", max_steps=1))
    assert found["adapter_parameters"] == sum(t.numel() for t in read_state(trained).values())
    adapter = load_hyperlora_adapter(trained)
    frozen = {id(p): p.numel() for p in adapter.model.parameters() if not p.requires_grad}
    assert found["base_parameters"] == sum(frozen.values())
    assert 3 < found["first_loss"] < 7


def test_a_dry_run_fails_where_the_run_would(training_data, tiny_base, tmp_path):
    with pytest.raises(InputError, match="cannot load base model"):
        train.run(settings(training_data, tmp_path / "no-base", tmp_path / "x", dry_run=True))
    with pytest.raises(InputError, match="no linear layer ends with"):
        train.run(settings(training_data, tiny_base, tmp_path / "x", dry_run=True, target_modules=("wq",)))
    with pytest.raises(InputError, match="max_length 5"):
        train.run(settings(training_data, tiny_base, tmp_path / "x", dry_run=True, max_length=5))
    assert not (tmp_path / "x").exists()


def test_a_dry_run_refuses_what_does_not_fit(training_data, tiny_base, tmp_path, monkeypatch):
    import hyperlora.forecast

    monkeypatch.setattr(hyperlora.forecast, "free_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"are needed and 0\.0 MiB free"):
        train.run(settings(training_data, tiny_base, tmp_path / "x", dry_run=True))


# ── which rows ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_training_samples_hold_the_fewer(training_data, tmp_path):
    def rows(count):
        table = train_rows(settings(training_data, "x", tmp_path, max_train_samples=count))
        return list(zip(table["trajectory_id"].to_pylist(), table["turn"].to_pylist(), strict=True))

    whole = read_steps(training_data).num_rows
    few, more = rows(30), rows(100)
    assert (len(few), len(more)) == (30, 100)
    assert set(few) < set(more)
    assert few != rows(100)[:30]  # drawn, not the head of the table
    assert len(rows(10**6)) == whole


# ── resuming ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_latest_is_the_last_checkpoint_or_a_fresh_start(training_data, tiny_base, tmp_path):
    out = tmp_path / "run"
    whole = train.run(settings(training_data, tiny_base, tmp_path / "whole", resume="latest"))
    train.run(settings(training_data, tiny_base, out))
    for left in ("final", "step-000006", "best"):
        (out / left).rename(tmp_path / left)
    assert read_config(out / "step-000003")["step"] == 3
    again = train.run(settings(training_data, tiny_base, out, resume="latest"))
    assert same(whole, again)
    assert read_config(again)["progress"]["lineage"] == [{"from_checkpoint": "step-000003", "at_step": 3}]
    assert read_config(again)["progress"]["rows"] == 6 * 8
    with pytest.raises(InputError, match="at step 6; give --max-steps above"):
        train.run(settings(training_data, tiny_base, out, resume="latest"))


def test_another_run_is_not_continued(training_data, tiny_base, tmp_path):
    train.run(settings(training_data, tiny_base, tmp_path, max_steps=3))
    for change in ({"lr": 1e-4}, {"precision": "bf16"}, {"patience": 3}, {"lambda_sep": 0.1}):
        with pytest.raises(InputError, match=rf"{next(iter(change))} .* repeat the first run's options"):
            train.run(settings(training_data, tiny_base, tmp_path, resume="latest", **change))


def test_early_stopping_survives_a_resume(training_data, tiny_base, tmp_path):
    options = {"lr": 0.0, "eval_every": 1, "save_every": 2, "patience": 3, "max_steps": 12}
    whole = train.run(settings(training_data, tiny_base, tmp_path / "a", **options))
    assert read_config(whole)["step"] == 4  # the first evaluation is the best, three more are no better
    assert read_config(tmp_path / "a" / "best")["step"] == 1
    rest = train.run(
        settings(training_data, tiny_base, tmp_path / "b", **options, resume=str(tmp_path / "a" / "step-000002"))
    )
    assert read_config(rest)["step"] == 4
    summary = json.loads((tmp_path / "b" / "training_summary.json").read_text())
    assert summary["early_stopped"] is True
    assert summary["steps"] == 4


# ── precision ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_differs_learns_and_resumes_bit_for_bit(precision, training_data, tiny_base, tmp_path):
    full = train.run(settings(training_data, tiny_base, tmp_path / "full"))
    half = train.run(settings(training_data, tiny_base, tmp_path / "half", precision=precision))
    assert not same(full, half)
    a, b = read_state(full), read_state(half)
    assert {t.dtype for t in b.values()} == {torch.float32}
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 0.02
    again = train.run(
        settings(
            training_data,
            tiny_base,
            tmp_path / "again",
            precision=precision,
            resume=str(tmp_path / "half" / "step-000003"),
        )
    )
    assert same(half, again)
    assert read_config(half)["run"]["precision"] == precision


def test_the_launcher_may_choose_the_precision(training_data, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched = train.run(settings(training_data, tiny_base, tmp_path / "a"))
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert same(launched, train.run(settings(training_data, tiny_base, tmp_path / "b", precision="bf16")))


def test_gradient_checkpointing_changes_nothing(training_data, tiny_base, tmp_path):
    kept = train.run(settings(training_data, tiny_base, tmp_path / "a", dropout=0.1))
    recomputed = train.run(settings(training_data, tiny_base, tmp_path / "b", dropout=0.1, gradient_checkpointing=True))
    for name, tensor in read_state(kept).items():
        torch.testing.assert_close(read_state(recomputed)[name], tensor, atol=1e-6, rtol=1e-5)


# ── runs that go wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_blows_up_names_step_rows_and_the_last_good_checkpoint(
    training_data, tiny_base, tmp_path, monkeypatch
):
    import hyperlora.train

    usual = hyperlora.train.learning_rate
    monkeypatch.setattr(hyperlora.train, "learning_rate", lambda step, plan: 1e9 if step == 3 else usual(step, plan))
    with pytest.raises(TrainingDiverged) as caught:
        train.run(settings(training_data, tiny_base, tmp_path, save_every=1, eval_every=0))
    text = str(caught.value)
    assert "at step 5" in text
    assert "lower --lr" in text or "look at these rows" in text
    assert (tmp_path / "step-000004").is_dir()  # whole, but spoilt by its last step
    assert text.endswith(f"last good checkpoint: {tmp_path / 'step-000003'}")


def test_a_batch_that_cannot_work_fails_before_anything_is_written(training_data, tiny_base, tmp_path, monkeypatch):
    import hyperlora.rehearsal

    def broken(self, batches, first):
        return [float("nan")] * len(batches), 0.0, 0.0

    monkeypatch.setattr(hyperlora.rehearsal.Loop, "gradients", broken)
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 1, rows \["):
        train.run(settings(training_data, tiny_base, tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"lr": float("nan")}, "lr nan must be 0 or more"),
        ({"lambda_sep": -1.0}, "lambda_sep -1.0 must be 0 or more"),
        ({"sep_mode": "sum"}, "unknown sep_mode 'sum'"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"max_train_samples": 0}, "--max-train-samples 0 must be at least 1"),
        ({"play_games": -1}, "--play-games -1 must be at least 0"),
        ({"k_history": 99}, "--k-history 99 must lie in"),
        ({"opening_weight": 0.0}, "--opening-weight 0.0 must be a positive number"),
        ({"closing_weight": -1.0}, "--closing-weight -1.0 must be a positive number"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"resume": "nowhere"}, "no adapter in nowhere"),
    ],
)
def test_settings_that_cannot_be_are_named(change, message, training_data, tiny_base, tmp_path):
    with pytest.raises(InputError, match=message):
        train.run(settings(training_data, tiny_base, tmp_path / "x", **change))
    assert not (tmp_path / "x").exists()


# ── what a run leaves ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_and_the_summary_hold_the_evaluations(training_data, tiny_base, tmp_path):
    train.run(settings(training_data, tiny_base, tmp_path, play_games=1, max_steps=3))
    log = json.loads((tmp_path / "training_log.json").read_text())
    found = log["final"]["eval"]
    assert 0 <= found["decisions"]["action_accuracy"] <= 1
    assert found["play"]["buyer"]["games"] == 15
    summary = json.loads((tmp_path / "training_summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["rows_seen"] == 3 * 8
    assert summary["best"]["step"] == 3
    assert summary["target_tokens"] > 3 * 8 * 2


def test_the_same_seed_gives_the_same_bytes(training_data, tiny_base, tmp_path):
    a = train.run(settings(training_data, tiny_base, tmp_path / "a"))
    b = train.run(settings(training_data, tiny_base, tmp_path / "b"))
    c = train.run(settings(training_data, tiny_base, tmp_path / "c", seed=7))
    assert not same(a, c)
    for file in sorted(p.name for p in a.iterdir()):
        assert (a / file).read_bytes() == (b / file).read_bytes(), file
    assert np.isfinite(json.loads((tmp_path / "a" / "training_log.json").read_text())["losses"]).all()
