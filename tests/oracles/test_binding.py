"""ρ bound for a block: what may be bound, what the block leaves behind, and when gates are made."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hyperlora import bind_rho, inject_hyperlora
from hyperlora.inject import adapter_modules

from .models import awake, ids, largest_gap, logits, taken_gradients, tiny, training

RHO = torch.tensor([[0.0], [0.5], [1.0]])
X = ids()


def loss(model: Any) -> torch.Tensor:
    return model(X, labels=X, use_cache=False).loss


def test_current_rho_is_the_same_path():
    model = awake(inject_hyperlora(tiny()))
    model.current_rho = RHO
    with torch.no_grad():
        seeds_way = model(X).logits
    model.current_rho = None
    assert not torch.equal(seeds_way, logits(model, X, None))
    assert torch.equal(seeds_way, logits(model, X, RHO))


def test_wrong_rho_is_refused():
    model = inject_hyperlora(tiny())
    with pytest.raises(ValueError, match="2 values of rho"), bind_rho(model, [0.1, 0.2]):
        model(X)
    with pytest.raises(ValueError, match="NaN"), bind_rho(model, float("nan")):
        pass
    with pytest.raises(ValueError, match=r"\[B, 1\]"), bind_rho(model, torch.zeros(3, 2)):
        pass
    with pytest.raises(RuntimeError, match="replaced"), bind_rho(model, 0.5):
        model.current_rho = torch.tensor([[0.9]])
    assert model.current_rho is None


def test_blocks_nest_and_leave_what_was_there():
    model = awake(inject_hyperlora(tiny()))
    with torch.no_grad(), bind_rho(model, 0.2):
        outer = model(X).logits
        with bind_rho(model, 0.9):
            assert not torch.equal(model(X).logits, outer)
        assert torch.equal(model(X).logits, outer)
        with bind_rho(model, None):
            assert not torch.equal(model(X).logits, outer)
        assert torch.equal(model(X).logits, outer)
    assert model.current_rho is None
    assert model.hyperlora_binding.gates is None


def test_an_error_inside_the_block_comes_out_as_it_is():
    model = inject_hyperlora(tiny())

    def fail():
        model.current_rho = torch.tensor([[0.9]])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), bind_rho(model, 0.5):
        fail()
    assert model.current_rho is None


@pytest.mark.parametrize("rho", [RHO, torch.tensor([[0.9]])])
def test_a_rho_written_after_binding_does_not_reach_the_model(rho):
    model, given = awake(inject_hyperlora(tiny())), rho.clone()
    with torch.no_grad(), bind_rho(model, given):
        given.fill_(0.1)
        inside = model(X).logits
    assert not torch.equal(logits(model, X, given), inside)
    assert torch.equal(logits(model, X, rho), inside)


def test_a_pass_that_begins_inside_the_model_raises():
    """Without it, its layers would run as the bare base."""
    model = awake(inject_hyperlora(tiny()))
    with pytest.raises(RuntimeError, match="call the model that was injected"), bind_rho(model, 0.5):
        model.model(X)
    with bind_rho(model, None):
        model.model(X)
    with torch.no_grad(), bind_rho(model, 0.5):
        model(X)
        assert torch.equal(model.lm_head(model.model(X).last_hidden_state), model(X).logits)


def test_a_backward_pass_of_other_gates_does_not_outlive_itself():
    model = training()
    with bind_rho(model, RHO):
        total = loss(model)
    total.backward()
    assert torch.isfinite(model.model(X).last_hidden_state).all()


def test_a_merged_model_refuses_rho():
    model = inject_hyperlora(tiny())
    model.hyperlora_binding.merged_at = 0.3
    with pytest.raises(RuntimeError, match=r"merged at rho = 0\.3; call unmerge\(model\)"), bind_rho(model, 0.3):
        pass
    with bind_rho(model, None):
        model(X)
    model.current_rho = torch.tensor([[0.5]])
    with pytest.raises(RuntimeError, match="unmerge"):
        model(X)


def test_a_model_copies_after_a_pass():
    model = training()
    model.current_rho = RHO
    out = model(X).logits
    twin = copy.deepcopy(model)
    assert torch.equal(twin(X).logits, out)
    awake(twin, seed=5)
    with torch.no_grad():
        next(layer for _, layer in adapter_modules(twin)).hyper_net.net[4].bias.add_(1.0)
    assert not torch.equal(twin(X).logits, out)
    assert torch.equal(model(X).logits, out)


# Gates made once a block


def test_gates_are_made_once_a_block_without_gradients(monkeypatch):
    model = awake(inject_hyperlora(tiny()))
    calls = []
    bank = type(model.hyperlora_binding.bank)
    original = bank.__call__
    monkeypatch.setattr(bank, "__call__", lambda self, rho, mark=None: calls.append(1) or original(self, rho))
    with torch.no_grad(), bind_rho(model, RHO):
        for _ in range(3):
            model(X)
    assert len(calls) == 1
    with bind_rho(model, RHO):
        for _ in range(3):
            model(X)
    assert len(calls) == 4


def _written(model: Any) -> None:
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.hyper_net.net[2].weight.mul_(0.5)


def _replaced(model: Any) -> None:
    biases = model.hyperlora_binding.bank.biases
    biases[2] = torch.nn.Parameter(biases[2].detach() + 1.0)


def _pointed_elsewhere(model: Any) -> None:
    last = model.hyperlora_binding.bank.biases[2]
    last.data = last.detach() + 1.0


def _stepped(model: Any) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True)
    with torch.enable_grad(), bind_rho(model, RHO):
        loss(model).backward()
    optimizer.step()


@pytest.mark.parametrize("change", [_written, _replaced, _pointed_elsewhere, _stepped])
def test_gates_made_once_follow_their_weights(change):
    model = awake(inject_hyperlora(tiny(), dropout=0.0))
    with torch.no_grad(), bind_rho(model, RHO):
        before = model(X).logits
        change(model)
        after = model(X).logits
    assert not torch.equal(after, before)
    assert torch.equal(after, logits(model, X, RHO))


def test_inference_mode_and_gradients_may_alternate_in_one_block():
    model = training()
    with bind_rho(model, RHO):
        with torch.inference_mode():
            first = model(X).logits.clone()
        with torch.no_grad():
            assert torch.equal(model(X).logits, first)
        loss(model).backward()
        with torch.no_grad():
            assert torch.equal(model(X).logits, first)
    found = taken_gradients(model)
    with bind_rho(model, RHO):
        loss(model).backward()
    assert largest_gap(found, taken_gradients(model)) <= 1e-7


def test_a_compiled_model_compiles_once_for_all_rho():
    model = torch.nn.Sequential()
    model.add_module("q_proj", torch.nn.Linear(4, 4))
    awake(inject_hyperlora(model, rank=2, hyper_hidden=4, dropout=0.0))
    graphs = []
    compiled = torch.compile(model, backend=lambda graph, _inputs: graphs.append(graph) or graph)
    x, seen, outputs = torch.ones(3, 4), [], []
    for rho in (0.1, 0.5, 0.9):
        with torch.no_grad(), bind_rho(model, torch.full((3, 1), rho)):
            outputs.append(compiled(x))
            torch.testing.assert_close(outputs[-1], model(x), atol=1e-6, rtol=0)
        seen.append(len(graphs))
    assert not torch.equal(outputs[0], outputs[2])
    assert seen[0] == seen[2] > 0
