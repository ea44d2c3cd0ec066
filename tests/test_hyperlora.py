"""Injection: errors that name the cause, initial weights, modes. What the adapter computes is in tests/oracles."""

from __future__ import annotations

import pytest
import torch
from oracles.models import tiny

from bargain_env.errors import InputError
from hyperlora import adapter_parameters, inject_hyperlora


def test_injection_errors_name_the_cause():
    with pytest.raises(InputError, match=r"no linear layer ends with.*q_proj"):
        inject_hyperlora(tiny(), target_modules=["wq"])
    with pytest.raises(InputError, match="already"):
        inject_hyperlora(inject_hyperlora(tiny()))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = inject_hyperlora(tiny(), seed=7)
    torch.manual_seed(2)
    second, third = inject_hyperlora(tiny(), seed=7), inject_hyperlora(tiny(), seed=8)
    pairs = zip(adapter_parameters(first).values(), adapter_parameters(second).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(adapter_parameters(first)["model.layers.0.self_attn.q_proj.lora_A"],
                           adapter_parameters(third)["model.layers.0.self_attn.q_proj.lora_A"])  # fmt: skip


def test_injection_keeps_the_mode_of_the_model():
    assert not any(m.training for m in inject_hyperlora(tiny()).modules())
    assert all(m.training for m in inject_hyperlora(tiny().train()).modules())
