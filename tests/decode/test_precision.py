"""bfloat16: another copy of the frozen weights, the same adapter, nearly the same decisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bargain_env.errors import InputError
from hyperlora import load_hyperlora_adapter
from hyperlora.base import nano_model
from hyperlora.decode import Scorer, precision
from hyperlora.decode.precision import in_precision
from hyperlora.inject import adapter_modules, adapter_parameters, inject_hyperlora
from hyperlora.token_rows import add_token_rows

from .conftest import awake, texts_of


@pytest.fixture(scope="module")
def nano():
    return load_hyperlora_adapter("janus-nano")


def asked(nano, count=14):
    ids = nano.tokenizer(texts_of(count), add_special_tokens=False)["input_ids"]
    return ids, np.linspace(0, 1, count), np.arange(count) > 0


@pytest.mark.parametrize("mode", ["mean", "greedy", "free"])
def test_bf16_decides_nearly_the_same(nano, mode):
    exact, rough = (Scorer(nano.model, nano.tokenizer, mode, precision=p) for p in ("fp32", "bf16"))
    assert exact.model is nano.model
    assert rough.model.get_input_embeddings().weight.dtype == torch.bfloat16
    a, b = exact.decide(*asked(nano)), rough.decide(*asked(nano))
    if mode == "mean":
        assert 0 < np.abs(a.accept_probability - b.accept_probability).max() < 0.1
        assert 0 < np.abs(a.price - b.price).max() < 0.02
    assert (a.accept == b.accept).mean() > 0.9


def test_the_copy_has_the_adapter_itself(nano):
    model = awake()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    copy = in_precision(model, "bf16")
    own, theirs = adapter_parameters(model), adapter_parameters(copy)
    assert own.keys() == theirs.keys()
    assert all(own[name] is theirs[name] for name in own)
    assert {p.dtype for name, p in copy.named_parameters() if name not in own} == {torch.bfloat16}
    assert copy.get_output_embeddings().weight is copy.get_input_embeddings().weight
    assert all(buffer.dtype == torch.float32 for buffer in copy.buffers() if buffer.is_floating_point())
    assert copy.hyperlora_binding is not model.hyperlora_binding
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_the_dial_still_turns_and_follows_training(tokenizer, prompts):
    model = awake()
    scorer = Scorer(model, tokenizer, "mean", precision="bf16")

    def prices():
        return scorer.decide(prompts(1) * 3, np.array([0.0, 0.5, 1.0]), np.ones(3, dtype=bool)).price

    before = prices()
    assert len(np.unique(before)) == 3
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.mul_(0.0)
    assert not np.array_equal(prices(), before)
    assert len(np.unique(prices())) == 1


def test_rows_of_new_tokens_are_no_precision(tokenizer, prompts):
    """They are float32 beside a bfloat16 base, and the first parameter that a model shows."""
    model = in_precision(nano_model(hidden=16, layers=1, heads=2, intermediate=16), "bf16")
    add_token_rows(model, range(126, 131))
    inject_hyperlora(model)
    assert model.dtype == torch.float32
    assert in_precision(model, "bf16") is model
    decided = Scorer(model, tokenizer, "mean").decide(prompts(3), np.linspace(0, 1, 3), np.ones(3, dtype=bool))
    assert np.isfinite(decided.price).all()


def test_auto_is_for_large_models_where_it_is_native(monkeypatch):
    model = nano_model(hidden=16, layers=1, heads=2, intermediate=16)
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)
    assert in_precision(model, "auto") is model
    monkeypatch.setattr(precision, "LARGE", 1)
    copy = in_precision(model, "auto")
    assert copy.dtype == torch.bfloat16
    assert in_precision(copy, "auto") is copy
    assert in_precision(copy, "own") is copy
    assert in_precision(copy, "fp32").dtype == torch.float32
    monkeypatch.setattr(precision, "native_bf16", lambda device: False)
    assert in_precision(model, "auto") is model


def test_what_the_machine_says():
    assert precision.native_bf16(torch.device("cpu")) in (True, False)
    assert precision.native_bf16(torch.device("meta")) is False


def test_another_precision_is_refused(tokenizer):
    with pytest.raises(InputError, match="unknown precision 'fp16'"):
        Scorer(nano_model(hidden=16, layers=1, heads=2), tokenizer, precision="fp16")


def test_a_copy_is_made_once_and_follows_the_adapter():
    model = awake()
    copies = [in_precision(model, "bf16") for _ in range(2)]
    assert copies[0] is copies[1] is not model
    name, tensor = next((n, p) for n, p in model.named_parameters() if n.endswith("lora_B"))
    with torch.no_grad():
        tensor.add_(1.0)
    assert torch.equal(copies[0].get_parameter(name), tensor)
