"""Gradient checkpointing: it changes no gradient (O15), and a pass recomputed at other gates raises (O16)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from hyperlora import adapter_parameters, bind_rho, compute_gate_separation_loss
from hyperlora.binding import RhoBinding

from .models import KINDS, ids, largest_gap, taken_gradients, training

RHO = torch.tensor([[0.0], [0.5], [1.0]])
OTHER = torch.full((3, 1), 0.7)
X = ids()


def loss(model: Any) -> torch.Tensor:
    return model(X, labels=X, use_cache=False).loss


def expected(kind: str = "qwen2", rho: Any = RHO) -> dict[str, torch.Tensor]:
    """Gradients of one pass at ``rho`` without checkpointing."""
    model = training(kind)
    with bind_rho(model, rho):
        loss(model).backward()
    return taken_gradients(model)


@pytest.mark.parametrize("kind", KINDS)
def test_o15_checkpointing_changes_no_gradient(kind):
    model = training(kind, checkpointing=True)
    with bind_rho(model, RHO):
        loss(model).backward()
    found = taken_gradients(model)
    assert largest_gap(found, expected(kind, 0.3)) > 1e-4
    assert largest_gap(found, expected(kind)) <= 1e-7
    assert all(grad.abs().max() > 0 for name, grad in found.items() if name.endswith("lora_B"))


def left_before_backward(model: Any) -> None:
    with bind_rho(model, RHO):
        total = loss(model)
    total.backward()


def another_block(model: Any) -> None:
    with bind_rho(model, RHO):
        total = loss(model)
    with bind_rho(model, OTHER):
        total.backward()


def another_pass_in_another_block(model: Any) -> None:
    with bind_rho(model, RHO):
        total = loss(model)
    with bind_rho(model, OTHER):
        (total + loss(model)).backward()


def the_seed_s_attribute(model: Any) -> None:
    model.current_rho = RHO
    total = loss(model)
    model.current_rho = OTHER
    (total + loss(model)).backward()


def a_pass_without_gradients(model: Any) -> None:
    with bind_rho(model, RHO):
        total = loss(model)
        with torch.no_grad():
            loss(model)
        total.backward()


def the_whole_model_checkpointed(model: Any) -> None:
    model.activation_checkpointing_disable()
    with bind_rho(model, RHO):
        total = checkpoint(lambda: loss(model), use_reentrant=False)
    with bind_rho(model, OTHER):
        total.backward()


WRONG = [
    left_before_backward,
    another_block,
    another_pass_in_another_block,
    the_seed_s_attribute,
    a_pass_without_gradients,
    the_whole_model_checkpointed,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.__name__)
def test_o16_a_pass_recomputed_at_other_gates_raises(kind, case):
    model = training(kind, checkpointing=True)
    with pytest.raises(RuntimeError, match="keep bind_rho open around forward and backward"):
        case(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.current_rho = None
    model.zero_grad()
    with bind_rho(model, RHO):  # the model is none the worse for it
        loss(model).backward()
    assert largest_gap(taken_gradients(model), expected(kind)) <= 1e-7


def both() -> dict[str, torch.Tensor]:
    """Gradients of one pass at RHO and one at OTHER."""
    first, second = expected(), expected(rho=OTHER)
    return {name: first[name] + second[name] for name in first}


@pytest.mark.parametrize("case", [the_seed_s_attribute, the_whole_model_checkpointed], ids=lambda case: case.__name__)
def test_o16_unguarded_the_gradients_would_be_wrong_and_nothing_would_show_it(case, monkeypatch):
    monkeypatch.setattr(RhoBinding, "begin_backward", lambda self, gates: None)
    model = training(checkpointing=True)
    case(model)
    assert largest_gap(taken_gradients(model), both() if case is the_seed_s_attribute else expected()) > 1e-4


def nothing_between(model: Any) -> None:
    loss(model).backward()


def two_passes(model: Any) -> None:
    first, second = loss(model), loss(model)
    (first / 2 + second / 2).backward()


def accumulation(model: Any) -> None:
    for _ in range(2):
        (loss(model) / 2).backward()


def an_evaluation_in_its_own_block(model: Any) -> None:
    total = loss(model)
    model.eval()
    with torch.no_grad(), bind_rho(model, 0.9):
        model.generate(X, max_new_tokens=2, do_sample=False, pad_token_id=0)
    with bind_rho(model, None):
        loss(model)
    model.train()
    total.backward()


def other_gates_for_a_gate_term(model: Any) -> None:
    total = loss(model)
    with torch.no_grad():
        compute_gate_separation_loss(model, torch.rand(7, 1))
        model.hyperlora_binding.bank(torch.rand(2, 1))
    total.backward()


def the_whole_model_checkpointed_in_one_block(model: Any) -> None:
    model.activation_checkpointing_disable()
    checkpoint(lambda: loss(model), use_reentrant=False).backward()


def through_hidden_states(model: Any) -> None:
    out = model(X, labels=X, use_cache=False, output_hidden_states=True)
    (out.loss + 0.0 * out.hidden_states[1].sum()).backward()


def through_autograd_grad(model: Any) -> None:
    parameters = adapter_parameters(model)
    for p, grad in zip(parameters.values(), torch.autograd.grad(loss(model), list(parameters.values())), strict=True):
        p.grad = grad


RIGHT = [
    nothing_between,
    two_passes,
    accumulation,
    an_evaluation_in_its_own_block,
    other_gates_for_a_gate_term,
    the_whole_model_checkpointed_in_one_block,
    through_hidden_states,
    through_autograd_grad,
]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.__name__)
def test_o16_all_that_is_right_goes_on_working(case, checkpointing):
    model = training(checkpointing=checkpointing)
    with bind_rho(model, RHO):
        case(model)
    assert largest_gap(taken_gradients(model), expected()) <= 1e-7


@pytest.mark.parametrize("case", WRONG[:4], ids=lambda case: case.__name__)
def test_without_checkpointing_autograd_keeps_the_gates(case):
    model = training()
    case(model)
    found = taken_gradients(model)
    wanted = both() if case in (another_pass_in_another_block, the_seed_s_attribute) else expected()
    assert largest_gap(found, expected(rho=OTHER)) > 1e-4
    assert largest_gap(found, wanted) <= 1e-7


def test_reentrant_checkpointing_is_no_silent_failure():
    model = training()
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    with pytest.raises(RuntimeError), bind_rho(model, RHO):
        loss(model).backward()
