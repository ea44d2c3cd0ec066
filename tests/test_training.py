"""Data, training, exact resume and checkpoints on small real games."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from bargain_env.errors import InputError
from experiments import pretrain
from experiments import train as train_command
from hyperlora import HyperLoRACollator, NegotiationDataset, build_nano_tokenizer, load_hyperlora_adapter
from hyperlora.base import base_digest, load_base, nano_model
from hyperlora.checkpoint import PICKLE, WEIGHTS, read_state
from hyperlora.data import StepSampler
from hyperlora.inject import adapter_state
from hyperlora.train import TrainSettings, learning_rate, train

TINY = {"batch_size": 8, "grad_accum": 2, "lr": 3e-3, "warmup_steps": 2}


def settings(data, base, out, **changes):
    options = {"max_steps": 6, "save_every": 3, "eval_every": 3, "rank": 4, "quiet": True, **TINY, **changes}
    return train_command.Settings(data=data, out=out, model_name=str(base), **options)


def test_dataset_rows_are_prompt_then_target(steps):
    tokenizer = build_nano_tokenizer()
    dataset = NegotiationDataset(steps, tokenizer)
    assert len(dataset) == steps.num_rows
    row = dataset[7]
    record = steps.slice(7, 1).to_pylist()[0]
    text = tokenizer.decode(row["input_ids"])
    assert text.startswith("<RHO> ")
    answer = tokenizer.decode(row["input_ids"][row["labels"] != -100])
    norm = (record["target_price"] - 200) / 1300 if record["target_price"] else None
    assert answer == ("ACCEPT<eos>" if norm is None else f"OFFER {norm:.4f}<eos>")
    assert row["rho"].item() == pytest.approx(record["rho_train"])


def test_degenerate_ranges_are_dropped_and_counted(steps):
    low = steps["price_high"].to_numpy().copy()
    low[::2] = 200.0
    column = steps.column_names.index("price_high")
    dataset = NegotiationDataset(steps.set_column(column, "price_high", pa.array(low)), build_nano_tokenizer())
    assert dataset.dropped == (steps.num_rows + 1) // 2
    assert len(dataset) == steps.num_rows - dataset.dropped


def test_truncation_eats_the_prompt_never_the_target(steps):
    tokenizer = build_nano_tokenizer()
    short, full = NegotiationDataset(steps, tokenizer, max_length=20), NegotiationDataset(steps, tokenizer)
    for i in (0, 5, 11):
        wanted = full[i]["labels"][full[i]["labels"] != -100]
        assert torch.equal(short[i]["labels"][short[i]["labels"] != -100], wanted)
        assert len(short[i]["input_ids"]) == 20
    with pytest.raises(InputError, match="max_length 5"):
        NegotiationDataset(steps, tokenizer, max_length=5)


def test_collator_pads_each_field_with_its_own_value(steps):
    dataset = NegotiationDataset(steps, build_nano_tokenizer())
    lengths = dataset.lengths
    rows = [int(lengths.argmin()), int(lengths.argmax())]
    batch = HyperLoRACollator(dataset.pad_token_id)([dataset[i] for i in rows])
    pad = int(lengths.max() - lengths.min())
    assert pad > 0
    assert (batch["input_ids"][0, -pad:] == dataset.pad_token_id).all()
    assert (batch["attention_mask"][0, -pad:] == 0).all()
    assert (batch["labels"][0, -pad:] == -100).all()
    assert batch["rho"].shape == (2, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt_weight": 0.05, "decimal_weights": (1.0, 1.0, 0.3, 0.1)},
        {"max_length": 60, "prompt_format": 3},
        {"prompt_format": 4, "text_rho": 0.5},
    ],
)
def test_a_batch_is_what_the_collator_makes_of_its_rows(steps, options):
    random = np.random.default_rng(0)
    weights = random.choice([1.0, 2.0, 0.1], steps.num_rows)
    dataset = NegotiationDataset(steps, build_nano_tokenizer(), row_weights=weights, **options)
    collate = HyperLoRACollator(dataset.pad_token_id)
    for size in (1, 2, 7, 64):
        rows = random.integers(0, len(dataset), size)
        found, wanted = dataset.batch(rows), collate([dataset[int(row)] for row in rows])
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name


def test_sampler_visits_every_row_once_an_epoch():
    lengths = np.random.default_rng(0).integers(40, 90, 64 * 5)
    sampler = StepSampler(lengths, 8, seed=3)
    epoch = np.concatenate([sampler.rows(i) for i in range(sampler.batches_per_epoch)])
    assert sorted(epoch) == list(range(len(lengths)))
    again = StepSampler(lengths, 8, seed=3)
    np.testing.assert_array_equal(again.rows(45), sampler.rows(45))
    assert not np.array_equal(sampler.rows(0), sampler.rows(sampler.batches_per_epoch))
    spread = np.mean([np.ptp(lengths[sampler.rows(i)]) for i in range(10)])
    assert spread < np.ptp(lengths) / 2


def test_schedule_warms_up_and_reaches_zero():
    plan = TrainSettings(max_steps=100, warmup_steps=10, lr=1.0)
    assert learning_rate(0, plan) == pytest.approx(0.1)
    assert learning_rate(9, plan) == 1.0
    assert learning_rate(55, plan) == pytest.approx(0.5)
    assert learning_rate(100, plan) == 0.0
    cosine = TrainSettings(max_steps=100, warmup_steps=10, lr=1.0, schedule="cosine")
    assert learning_rate(55, cosine) == pytest.approx(0.5)


def test_accumulation_equals_one_large_batch(steps):
    tokenizer = build_nano_tokenizer()
    dataset = NegotiationDataset(steps, tokenizer)
    grads = []
    for batch_size, accum in ((16, 1), (4, 4)):
        model = nano_model(32, 1, 2, 48, seed=0)
        seen = {}

        class Order(StepSampler):
            def _permutation(self, epoch):
                return np.arange(len(self.lengths))

        import hyperlora.train as module

        original, module.StepSampler = module.StepSampler, Order
        try:
            plan = TrainSettings(
                max_steps=1, batch_size=batch_size, grad_accum=accum, lr=1e-2, warmup_steps=1, weight_decay=0.0
            )
            train(model, dataset, plan, on_step=lambda r, seen=seen: seen.update(loss=r.loss, norm=r.grad_norm))
        finally:
            module.StepSampler = original
        grads.append((seen["loss"], seen["norm"]))
    assert grads[0] == pytest.approx(grads[1], rel=1e-4)


def test_training_lowers_the_loss(training_data, tiny_base, tmp_path):
    train_command.run(settings(training_data, tiny_base, tmp_path, max_steps=30, eval_every=30, save_every=0))
    log = json.loads((tmp_path / "training_log.json").read_text())
    from hyperlora.data import read_steps
    from hyperlora.evaluate import evaluate_loss

    model, tokenizer = load_base(str(tiny_base))
    before = evaluate_loss(model, NegotiationDataset(read_steps(training_data, "eval"), tokenizer))
    assert log["final"]["eval"]["eval_loss"] < before["eval_loss"] - 0.01
    assert set(log["final"]["eval"]["rho_bucket_losses"]) == {f"{k / 10:.1f}-{(k + 1) / 10:.1f}" for k in range(10)}


def test_the_saved_base_reads_the_tokens_it_was_trained_on(tiny_base, steps):
    trained, loaded = build_nano_tokenizer(), load_base(str(tiny_base))[1]
    for ours, theirs in zip(NegotiationDataset(steps, trained), NegotiationDataset(steps, loaded), strict=True):
        assert torch.equal(ours["input_ids"], theirs["input_ids"])


def test_resume_is_bit_exact(training_data, tiny_base, tmp_path):
    train_command.run(settings(training_data, tiny_base, tmp_path / "whole"))
    train_command.run(settings(training_data, tiny_base, tmp_path / "rest", resume=tmp_path / "whole" / "step-000003"))
    whole, rest = read_state(tmp_path / "whole" / "final"), read_state(tmp_path / "rest" / "final")
    halfway = read_state(tmp_path / "whole" / "step-000003")
    assert any(not torch.equal(halfway[k], whole[k]) for k in whole)
    assert all(torch.equal(rest[k], whole[k]) for k in whole)


def test_checkpoint_round_trip_and_pickle(training_data, tiny_base, tmp_path):
    final = train_command.run(settings(training_data, tiny_base, tmp_path, save_pickle=True, max_steps=3))
    loaded = load_hyperlora_adapter(final)
    state = adapter_state(loaded.model)
    assert all(torch.equal(state[k], v) for k, v in read_state(final).items())
    assert loaded.config["k_history"] == 8
    assert loaded.config["augmented_tokens"][0] == "<RHO>"
    (final / WEIGHTS).unlink()
    assert (final / PICKLE).is_file()
    again = load_hyperlora_adapter(final)
    assert all(torch.equal(v, state[k]) for k, v in adapter_state(again.model).items())
    assert (final / "README.md").read_text().startswith("# HyperLoRA adapter")


def test_another_base_is_refused(training_data, tiny_base, tmp_path):
    final = train_command.run(settings(training_data, tiny_base, tmp_path / "a", max_steps=1))
    other = pretrain.run(
        pretrain.Settings(
            data=training_data,
            out=tmp_path / "other",
            hidden=32,
            layers=2,
            heads=2,
            intermediate=48,
            max_steps=1,
            seed=9,
            quiet=True,
        )
    )
    assert base_digest(load_base(str(tiny_base))[0]) != base_digest(load_base(str(other))[0])
    with pytest.raises(InputError, match="trained on"):
        load_hyperlora_adapter(final, base=str(other))
    load_hyperlora_adapter(final, base=str(other), allow_base_mismatch=True)


def test_damaged_and_missing_checkpoints_say_so(training_data, tiny_base, tmp_path):
    final = train_command.run(settings(training_data, tiny_base, tmp_path, max_steps=1))
    with pytest.raises(InputError, match="no adapter in"):
        load_hyperlora_adapter(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(final, copy)
    (copy / WEIGHTS).write_bytes((final / WEIGHTS).read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        load_hyperlora_adapter(copy)
    (copy / WEIGHTS).unlink()
    with pytest.raises(InputError, match="no weights"):
        load_hyperlora_adapter(copy)
    with pytest.raises(InputError, match="give --max-steps above"):
        train_command.run(settings(training_data, tiny_base, tmp_path / "again", max_steps=1, resume=final))


def test_blind_rho_keeps_the_distribution_and_cuts_the_relation(steps):
    blind = pretrain.blind_rho(steps, 0)
    rho = steps["rho_train"].to_numpy()
    ids = steps["trajectory_id"].to_numpy(zero_copy_only=False)
    assert all(len(set(blind[ids == i])) == 1 for i in np.unique(ids)[:50])
    assert abs(np.corrcoef(blind, rho)[0, 1]) < 0.1
    _, first = np.unique(ids, return_index=True)
    np.testing.assert_allclose(np.sort(blind[first]), np.sort(rho[first]))


def test_non_finite_loss_stops_with_step_and_rows(steps):
    model = nano_model(32, 1, 2, 48)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        train(model, NegotiationDataset(steps, build_nano_tokenizer()), TrainSettings(max_steps=1))
