"""Loss terms: the targets' (O14), the gates' gradients in float64, and smoothness under its bound (O32)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from bargain_env.errors import InputError
from hyperlora import (
    adapter_parameters,
    bind_rho,
    compute_gate_separation_loss,
    compute_gate_smoothness_loss,
    inject_hyperlora,
)
from hyperlora.gates import ACTIVATIONS, lipschitz_bound
from hyperlora.losses import SEPARATION_MODES, target_loss

from .models import KINDS, awake, descended, gate_parameters, gates_only, ids, tiny

RHO = torch.tensor([[0.0], [0.2], [-1.0], [0.9], [0.55]])


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The targets (O14)


def labelled(x: torch.Tensor) -> torch.Tensor:
    labels = x.clone()
    labels[0, :-2], labels[1, :-4], labels[2, :-1] = -100, -100, -100
    return labels


@pytest.mark.parametrize("kind", KINDS)
def test_o14_the_loss_of_targets_is_the_full_loss(kind):
    model, x = awake(inject_hyperlora(tiny(kind), dropout=0.0)), ids()
    labels = labelled(x)
    own = adapter_parameters(model)
    with bind_rho(model, 0.4):
        total, count = target_loss(model, x, labels)
        ours = torch.autograd.grad(total / count, list(own.values()))
        full = model(input_ids=x, labels=labels).loss
        theirs = torch.autograd.grad(full, list(own.values()))
        assert (model(input_ids=x, labels=x).loss - full).abs() > 1e-3
    assert int(count) == 7
    torch.testing.assert_close(total / count, full, atol=1e-6, rtol=0)
    for name, mine, other in zip(own, ours, theirs, strict=True):
        assert other.abs().max() > 0, name
        torch.testing.assert_close(mine, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_o14_the_head_sees_the_targets_and_nothing_else(kind):
    model, x = inject_hyperlora(tiny(kind)), ids()
    rows = []
    model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[:-1].numel()))
    with bind_rho(model, 0.4):
        model(input_ids=x)
        target_loss(model, x, labelled(x))
    assert rows == [33, 7]


def test_o14_a_gated_head_keeps_the_rho_of_each_target():
    model, x = awake(inject_hyperlora(tiny("llama"), target_modules=["v_proj", "lm_head"], dropout=0.0)), ids()
    labels, rho = labelled(x), torch.tensor([[0.0], [0.5], [1.0]])
    with torch.no_grad(), bind_rho(model, rho):
        total, count = target_loss(model, x, labels)
        full = model(input_ids=x, labels=labels).loss
    with torch.no_grad(), bind_rho(model, rho.flip(0)):
        assert (target_loss(model, x, labels)[0] - total).abs() > 1e-3
    torch.testing.assert_close(total / count, full, atol=1e-6, rtol=0)


def test_weights_weigh_tokens():
    model, x = awake(inject_hyperlora(tiny(), dropout=0.0)), ids()
    labels, weights = labelled(x), torch.ones(x.shape)
    weights[1] = 0.25
    with torch.no_grad(), bind_rho(model, 0.4):
        whole, _ = target_loss(model, x, labels)
        total, count = target_loss(model, x, labels, weights)
        second, _ = target_loss(model, x[1:2], labels[1:2])
    assert count == 4.0
    torch.testing.assert_close(total, whole - 0.75 * second)


# The gate terms


def double(model: Any) -> Any:
    for net in model.hyperlora_binding.nets:
        net.double()
    return model


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("term", [*SEPARATION_MODES, "smooth"])
def test_gradients_are_right(term, activation):
    model = double(gates_only(2, activation=activation, rank=2, hidden_dim=3))
    rho = (RHO.double() + 0.03).requires_grad_()  # at 0 a small step would be into failure

    def value(rho, *_parameters):
        if term == "smooth":
            return compute_gate_smoothness_loss(model, rho)
        return compute_gate_separation_loss(model, rho, True, seeded(), mode=term)

    assert gradcheck(value, (rho, *gate_parameters(model)))
    assert any(g.abs().max() > 1e-6 for g in torch.autograd.grad(value(rho), gate_parameters(model)))


def test_smoothness_is_the_squared_rate_of_change():
    model = double(gates_only())
    rho = torch.tensor([[0.1], [0.8], [-1.0]], dtype=torch.float64)
    slopes = [
        torch.autograd.functional.jacobian(net, torch.tensor([[r]], dtype=torch.float64)).square().sum()
        for net in model.hyperlora_binding.nets
        for r in (0.1, 0.8)
    ]
    torch.testing.assert_close(
        compute_gate_smoothness_loss(model, rho, step=1e-5), torch.stack(slopes).mean(), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(compute_gate_smoothness_loss(model, rho), torch.stack(slopes).mean(), rtol=0.1, atol=0)
    assert compute_gate_smoothness_loss(model, rho, exclude_failures=False) != compute_gate_smoothness_loss(model, rho)
    assert compute_gate_smoothness_loss(model, rho[2:]) == 0


@pytest.mark.parametrize("fourier", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_smoothness_stays_under_the_bound(activation, fourier):
    model = double(gates_only(activation=activation, use_fourier=fourier, fourier_freqs=3))
    bound = torch.tensor([lipschitz_bound(net) ** 2 for net in model.hyperlora_binding.nets]).mean()
    for step in (0.5, 0.05, 1e-4):
        value = compute_gate_smoothness_loss(model, torch.rand(50, 1, generator=seeded()), step=step)
        assert 0 < value <= bound


def test_a_step_down_smooths():
    model = gates_only(use_fourier=True)
    values = descended(model, lambda m: compute_gate_smoothness_loss(m, RHO), lr=1e-3)
    assert values[1] < values[0]


def test_steps_that_leave_the_range_are_refused():
    for step in (0.0, -0.1, 0.6, float("nan")):
        with pytest.raises(InputError, match=r"\(0, 0.5\]"):
            compute_gate_smoothness_loss(gates_only(), RHO, step=step)


# Gates are shared with the forward pass


def test_the_terms_use_the_gates_of_the_running_pass(monkeypatch):
    model, x = awake(inject_hyperlora(tiny(), dropout=0.0)), ids()
    calls = []
    bank = type(model.hyperlora_binding.bank)
    original = bank.__call__
    monkeypatch.setattr(bank, "__call__", lambda self, rho, mark=None: calls.append(1) or original(self, rho))
    with bind_rho(model, torch.tensor([[0.1], [0.5], [0.9]])):
        loss, _ = target_loss(model, x, x)
        (loss + compute_gate_separation_loss(model, model.current_rho)).backward()
        assert len(calls) == 1
        compute_gate_separation_loss(model, model.current_rho).backward()  # the pass's own graph is gone by now
        compute_gate_separation_loss(model, torch.rand(3, 1)).backward()
        with torch.no_grad():
            assert not compute_gate_separation_loss(model, model.current_rho).requires_grad
    assert len(calls) == 4


def test_the_terms_use_no_gates_of_another_rho_or_without_gradients():
    model, other = awake(inject_hyperlora(tiny(), dropout=0.0)), torch.tensor([[0.2], [0.3], [0.9]])
    alone = compute_gate_separation_loss(model, other)
    with bind_rho(model, torch.tensor([[0.1], [0.5], [0.9]])):
        model(ids())
        assert not torch.equal(compute_gate_separation_loss(model, model.current_rho), alone)
        assert torch.equal(compute_gate_separation_loss(model, other), alone)
        with torch.no_grad():
            model(ids())
        assert compute_gate_separation_loss(model, model.current_rho).requires_grad


def test_both_points_of_the_smoothness_term_lie_in_the_continuum(monkeypatch):
    model, seen = gates_only(), []
    bank = type(model.hyperlora_binding.bank)
    original = bank.__call__
    monkeypatch.setattr(bank, "__call__", lambda self, rho: seen.append(rho) or original(self, rho))
    compute_gate_smoothness_loss(model, torch.tensor([[0.0], [0.5], [0.51], [1.0]]), step=0.5)
    assert seen[0].min() >= 0.0
    assert seen[0].max() <= 1.0
    assert len(seen[0].unique()) > 4
