"""Merging in place (O6), and back bit for bit (O7), against the live model."""

from __future__ import annotations

import copy

import pytest
import torch

from hyperlora import bind_rho
from hyperlora.export import export
from hyperlora.inject import adapter_state
from hyperlora.merge import adapted_layers, merge, merged, unmerge

from .models import KINDS, ids, logits, tiny
from .test_merge_export import awake, close, differ, distance, load_peft, plain, same, state_of


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_live_and_unmerging_is_bitwise(kind):
    """O6, O7."""
    base, model = awake(kind)
    x, live, before, state = ids(), logits(model, ids(), 0.3), state_of(model), adapter_state(model)
    assert merge(model, 0.3) is model
    differ(plain(model, x), plain(base, x), 1e-2)
    differ(plain(model, x), logits_at(model, x, 0.7))
    close(plain(model, x), live)
    during = state_of(model)
    assert during.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], during[name])}
    assert changed == {f"{name}.base_layer.weight" for name, _ in adapted_layers(model)}
    assert same(adapter_state(model), state)
    assert unmerge(model) is model
    assert same(state_of(model), before)
    assert torch.equal(logits(model, x, 0.3), live)


def logits_at(model, x, rho):
    """Of the adapter at another ρ, from a merged model."""
    other = unmerge(copy.deepcopy(model))
    return logits(other, x, rho)


def test_subtracting_would_drift():
    """O7's reason: the update taken away again does not give the base back."""
    _, model = awake()
    name, layer = next(adapted_layers(model))
    gates = layer.hyper_net(torch.tensor([[0.3]]))[0]
    for dtype in (torch.float32, torch.bfloat16):
        weight = layer.base_layer.weight.to(dtype)
        there = (weight.float() + layer.update(gates)).to(dtype)
        assert not torch.equal((there.float() - layer.update(gates)).to(dtype), weight), name


def test_a_merged_model_refuses_another_rho():
    _, model = awake()
    x = ids()
    merge(model, 0.3)
    with pytest.raises(RuntimeError, match=r"merged at rho = 0\.3.*unmerge"), bind_rho(model, 0.8):
        pass
    model.current_rho = torch.tensor([[0.8]])
    with pytest.raises(RuntimeError, match="unmerge"):
        model(x)
    model.current_rho = None
    at = plain(model, x)
    assert torch.equal(logits(model, x, None), at)
    with pytest.raises(RuntimeError, match=r"merged at rho = 0\.3 already"):
        merge(model, 0.8)
    assert torch.equal(plain(model, x), at)
    unmerge(model)
    with pytest.raises(RuntimeError, match="not merged"):
        unmerge(model)
    with pytest.raises(RuntimeError, match="is bound"), bind_rho(model, 0.8):
        merge(model, 0.3)


def test_merged_is_a_block():
    base, model = awake()
    with merged(model, 0.3) as same_model:
        assert same_model is model
        differ(plain(model, ids()), plain(base, ids()))
    with pytest.raises(IndexError), merged(model, 0.3):
        ids()[99]
    assert torch.equal(logits(model, ids(), None), plain(base, ids()))


def test_gates_of_the_last_pass_do_not_stay_in_a_merged_model():
    """The seed's way leaves the gates of its last forward pass behind; an inner module must not add them again."""
    _, model = awake()
    model.current_rho = torch.tensor([[0.8]])
    plain(model, ids())
    model.current_rho = None
    with torch.no_grad(), merged(model, 0.3):
        inner = model.model(ids()).last_hidden_state
        close(model.lm_head(inner), plain(model, ids()), 0)


def test_merging_copies_and_trains_as_the_model_does():
    _, model = awake()
    x, live = ids(), logits(model, ids(), 0.3)
    twin = copy.deepcopy(merge(model, 0.3))
    close(plain(twin, x), live)
    twin.train()
    unmerge(twin)
    assert all(layer.base_layer.training for _, layer in adapted_layers(twin))
    close(logits(twin.eval(), x, 0.3), live, 0)


def test_an_adapted_head_merges_and_exports(tmp_path):
    base, model = awake("llama", target_modules=["lm_head"])
    x, live = ids(), logits(model, ids(), 0.3)
    differ(live, plain(base, x), 1e-2)
    close(plain(load_peft(base, export(model, 0.3, tmp_path / "lora")), x), live)
    close(plain(merge(model, 0.3), x), live)
    assert torch.equal(model.model.embed_tokens.weight, base.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_in_probabilities(kind, tmp_path):
    """The last bits of bfloat16 depend on the order of sums, so distributions are compared: O4 and O6."""
    base = tiny(kind).to(torch.bfloat16)
    _, model = awake(kind, base=base)
    x, live, before = ids(), logits(model, ids(), 0.3), state_of(model)
    assert distance(live, logits(model, x, 0.7)) > 0.01
    with merged(model, 0.3):
        assert {layer.base_layer.weight.dtype for _, layer in adapted_layers(model)} == {torch.bfloat16}
        assert distance(plain(model, x), live) < 0.006
    assert same(state_of(model), before)
    assert distance(plain(load_peft(base, export(model, 0.3, tmp_path / "lora")), x), live) < 0.006
