"""Many adapters trained at once: each as if alone, and as PEFT with torch's own optimizer trains it."""

from dataclasses import replace

import numpy as np
import peft
import pyarrow as pa
import pytest
import torch

from bargain_env.errors import InputError
from hyperlora.adapters.many import LoRAPlan, Pupil, fresh, train_many
from hyperlora.adapters.rows import inject_rows
from hyperlora.base import build_nano_tokenizer
from hyperlora.data import HyperLoRACollator, NegotiationDataset
from hyperlora.losses import target_loss
from hyperlora.plan import TrainSettings, learning_rate
from hyperlora.train import TrainingDiverged

from .models import tiny

PLAN = LoRAPlan(rank=4, alpha=8, epochs=2, batch_size=4, warmup_steps=3, lr=5e-3, seed=3)


@pytest.fixture(scope="module")
def dataset():
    """40 decisions of buyers whose prompts differ in length."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(40):
        prices = (200 + 1300 * random.random(i % 5)).round(2).tolist()
        accept = bool(prices) and i % 4 == 0
        rows.append(
            {
                "rho_train": 0.5,
                "turn": len(prices) + 1,
                "max_turns": 20,
                "price_low": 200.0,
                "price_high": 1500.0,
                "reservation_price": 1500.0,
                "last_offer_price": prices[-1] if prices else None,
                "history_roles": ["seller", "buyer", "seller", "buyer", "seller"][: len(prices)],
                "history_prices": prices,
                "target_action": "ACCEPT" if accept else "OFFER",
                "target_price": None if accept else float(300 + 20 * i),
                "role": "buyer",
            }
        )
    return NegotiationDataset(pa.Table.from_pylist(rows), build_nano_tokenizer(), prompt_format=4)


def pupils():
    """Of 11, 14 and 3 rows: other numbers of steps, short last batches, and one that validates nothing."""
    rows = np.arange(40)
    return [
        Pupil("a", rows[:11], rows[28:34]),
        Pupil("b", rows[11:25], rows[34:40]),
        Pupil("c", rows[25:28], rows[:0]),
    ]


def trained(dataset, some, plan=PLAN):
    return train_many(inject_rows(tiny()), dataset, some, plan)


def gap(one, two):
    return max(
        (x - y).abs().max().item()
        for name, pair in one.lora.layers.items()
        for x, y in zip(pair, two.lora.layers[name], strict=True)
    )


def test_together_is_alone(dataset):
    together = trained(dataset, pupils())
    assert [found.steps for found in together] == [6, 8, 2]
    assert [len(found.val_losses) for found in together] == [2, 2, 0]
    for found, pupil in zip(together, pupils(), strict=True):
        alone = trained(dataset, [pupil])[0]
        assert alone.best_epoch == found.best_epoch
        assert gap(found, alone) < 2e-4  # a step of Adam is 5e-3
        assert found.val_losses == pytest.approx(alone.val_losses, abs=1e-4)
        assert found.train_losses == pytest.approx(alone.train_losses, abs=1e-4)
        start = fresh(inject_rows(tiny()), PLAN, pupil.name)
        assert max((b.abs().max().item()) for _, b in found.lora.layers.values()) > 5e-3, "it has learned"
        assert all(not torch.equal(a, start[name][0]) for name, (a, _) in found.lora.layers.items())


def test_the_same_group_gives_the_same_bytes_and_names_decide(dataset):
    one, two = trained(dataset, pupils()), trained(dataset, pupils())
    assert all(gap(x, y) == 0 for x, y in zip(one, two, strict=True))
    rows = np.arange(8)
    x, y = trained(dataset, [Pupil("x", rows, rows[:0]), Pupil("y", rows, rows[:0])])
    assert gap(x, y) > 1e-3


def test_it_is_what_peft_and_torch_train(dataset):
    pupil, plan = (
        pupils()[0],
        LoRAPlan(**{**{f: getattr(PLAN, f) for f in PLAN.__slots__}, "dropout": 0.0, "clip": 0.05}),
    )
    ours = trained(dataset, [pupil], plan)[0]
    model = peft.get_peft_model(
        tiny(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    layers = {}
    for name, (a, b) in fresh(inject_rows(tiny()), plan, "a").items():
        module = model.get_submodule(f"base_model.model.{name}")
        layers[name] = (module.lora_A.default.weight, module.lora_B.default.weight)
        with torch.no_grad():
            layers[name][0].copy_(a)
            layers[name][1].copy_(b)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=plan.weight_decay)
    schedule, collate = TrainSettings(max_steps=6, lr=plan.lr, warmup_steps=3), HyperLoRACollator(dataset.pad_token_id)
    from hyperlora.adapters.many import seed_of

    kept, clipped = {}, 0
    for step in range(6):
        order = np.random.default_rng([seed_of(plan, "a"), step // 3]).permutation(11)
        rows = pupil.train[order[step % 3 * 4 : (step % 3 + 1) * 4]]
        batch = collate([dataset[int(row)] for row in rows])
        loss, count = target_loss(model, batch["input_ids"], batch["labels"])
        (loss / count).backward()
        clipped += torch.nn.utils.clip_grad_norm_(parameters, plan.clip).item() > plan.clip
        optimizer.param_groups[0]["lr"] = learning_rate(step, schedule)
        optimizer.step()
        optimizer.zero_grad()
        if step % 3 == 2:
            kept[step // 3 + 1] = {n: tuple(m.detach().clone() for m in pair) for n, pair in layers.items()}
    assert clipped > 0
    for name, pair in ours.lora.layers.items():
        for x, y in zip(pair, kept[ours.best_epoch][name], strict=True):
            assert (x - y).abs().max() < 2e-4


def test_a_start_is_where_everybody_starts(dataset):
    start = trained(dataset, pupils()[:1])[0].lora
    model = inject_rows(tiny())
    still = train_many(model, dataset, pupils(), replace(PLAN, lr=0.0), start=start)
    for found in still:
        for name, pair in start.layers.items():
            assert all(torch.equal(x, y) for x, y in zip(pair, found.lora.layers[name], strict=True))
    assert [found.best_epoch for found in still] == [0, 0, 2], (
        "what is no better does not replace it, if that can be told"
    )
    moved = train_many(inject_rows(tiny()), dataset, pupils(), PLAN, start=start)
    one, two, _ = moved
    assert gap(one, two) > 1e-3
    assert max(gap(found, still[0]) for found in moved) > 1e-3
    assert moved[1].train_losses[0] != trained(dataset, pupils())[1].train_losses[0]


@pytest.mark.parametrize("changed", [{"rank": 2}, {"alpha": 4.0}])
def test_a_start_of_another_shape_is_refused(dataset, changed):
    start = trained(dataset, pupils()[:1])[0].lora
    with pytest.raises(InputError, match=r"does not fit at .*q_proj"):
        train_many(inject_rows(tiny()), dataset, pupils(), replace(PLAN, **changed), start=start)


def test_validation_chooses_the_epoch(dataset):
    rows = np.arange(8)
    plan = LoRAPlan(rank=4, alpha=8, epochs=4, batch_size=4, lr=0.3, warmup_steps=0, seed=1)  # far too high on purpose
    found = trained(dataset, [Pupil("a", rows, rows[:4])], plan)[0]
    assert found.best_epoch == 1 + int(np.argmin(found.val_losses))


def test_dropout_changes_the_training_and_evaluation_has_none(dataset):
    with_it, without = trained(dataset, pupils()[:1]), trained(dataset, pupils()[:1], replace(PLAN, dropout=0.0))
    assert gap(with_it[0], without[0]) > 1e-4


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"epochs": 0}, {"lr": -1.0}, {"dropout": 1.0}, {"alpha": 0.0}, {"seed": -1}, {"clip": 0.0}]
)
def test_plans_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        LoRAPlan(**wrong)


def test_pupils_without_rows_or_names_are_refused(dataset):
    empty = Pupil("empty", np.arange(0), np.arange(0))
    with pytest.raises(InputError, match="empty has no rows"):
        trained(dataset, [empty])
    with pytest.raises(InputError, match="name of its own"):
        trained(dataset, [pupils()[0], pupils()[0]])


def test_a_loss_that_is_not_finite_names_the_pupil(dataset):
    model = inject_rows(tiny())
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss of a is nan at step 1"):
        train_many(model, dataset, pupils()[:1], PLAN)
