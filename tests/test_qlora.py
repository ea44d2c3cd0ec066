"""A base in 4 bits, on the CPU: loads, trains, reloads, and the guard against repacked weights is on."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from experiments import train as train_command
from hyperlora import bind_rho, build_nano_tokenizer, inject_hyperlora, load_base, load_hyperlora_adapter
from hyperlora.base import base_digest, nano_model
from hyperlora.checkpoint import read_state

bnb = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    nano_model(hidden=64, layers=1, heads=2, intermediate=128, seed=1).save_pretrained(str(folder))
    build_nano_tokenizer().save_pretrained(str(folder))
    return folder


def gradient(model, ids):
    model.train()
    model.zero_grad()
    with bind_rho(model, 0.4):
        model(input_ids=ids, labels=ids).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_evaluating_does_not_spoil_training(base):
    """Without the guard an evaluation pass repacks the weights and later gradients are wrong or crash."""
    model, _ = load_base(str(base), use_qlora=True)
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in model.modules())
    assert model.base_precision == "nf4"
    inject_hyperlora(model, dropout=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(14, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    before = gradient(model, ids)
    model.eval()
    with torch.no_grad(), bind_rho(model, 0.4):
        model(ids)
    after = gradient(model, ids)
    assert before.norm() > 0
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)


def test_digest_is_that_of_the_dense_checkpoint(base):
    assert base_digest(load_base(str(base), use_qlora=True)[0]) == base_digest(load_base(str(base))[0])


def test_it_trains_and_reloads(base, steps, tmp_path):
    table = steps.slice(0, 200)
    column = table.column_names.index("split")
    pq.write_table(table.set_column(column, "split", [["train"] * 200]), tmp_path / "steps.parquet")
    final = train_command.run(
        train_command.Settings(
            tmp_path, tmp_path / "run", model_name=str(base), use_qlora=True, rank=4, max_steps=3, batch_size=4,
            grad_accum=1, warmup_steps=1, eval_every=0, save_every=0, quiet=True,
        )
    )  # fmt: skip
    loaded = load_hyperlora_adapter(final)
    assert loaded.config["base_precision"] == "nf4"
    assert any(v.abs().max() > 0 for k, v in read_state(final).items() if k.endswith("lora_B"))
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in loaded.model.modules())
