"""The gate networks: one bank equal to the loop (O17), a Lipschitz bound that holds (O32), float32 under every precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlora import GateBank, RhoHyperNet, bind_rho, inject_hyperlora
from hyperlora.gates import ACTIVATIONS, lipschitz_bound

from .models import awake, ids, logits, tiny

RHO = torch.linspace(-1, 1, 7).unsqueeze(1)


def networks(count: int, seed: int = 0, **options: Any) -> list[RhoHyperNet]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [RhoHyperNet(**{"rank": 5, "hidden_dim": 16, "fourier_freqs": 3, **options}) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("fourier", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_o17_the_bank_equals_the_loop(activation, fourier, dtype):
    nets = [net.to(dtype) for net in networks(6, activation=activation, use_fourier=fourier)]
    owner = GateBank(copy.deepcopy(nets))
    bank, loop = owner(RHO), torch.stack([net(RHO) for net in nets])
    assert bank.shape == (6, 7, 5)
    assert bank.dtype == torch.promote_types(dtype, torch.float32)
    assert (bank[0] - bank[1]).abs().max() > 1e-3
    assert (bank[:, 0] - bank[:, -1]).abs().max() > 1e-3
    torch.testing.assert_close(bank, loop, atol=1e-6, rtol=0)
    ours = torch.autograd.grad(bank.square().sum(), [owner.weights[1]])[0][3].t()
    (theirs,) = torch.autograd.grad(loop.square().sum(), [nets[3].net[2].weight])
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)


def test_o17_196_layers_of_the_default_size():
    nets = networks(196, rank=16, hidden_dim=64)
    rho = torch.rand(4, 1, generator=torch.Generator().manual_seed(0))
    loop = torch.stack([net(rho) for net in nets])
    torch.testing.assert_close(GateBank(nets)(rho), loop, atol=1e-6, rtol=0)


def test_a_bank_follows_its_networks():
    nets = networks(3)
    bank = GateBank(nets)
    before = bank(RHO)
    with torch.no_grad():
        nets[1].net[2].weight.mul_(2.0)
        nets[2].net[4].bias.fill_(1.0)
    after = bank(RHO)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])
    assert not torch.equal(after[2], before[2])
    with pytest.raises(KeyError, match="already exists"):  # it is the bank's, and would be lost
        nets[2].net[4].bias = torch.nn.Parameter(torch.ones(5))
    torch.testing.assert_close(after, torch.stack([net(RHO) for net in nets]), atol=1e-6, rtol=0)


def test_networks_of_different_shapes_share_no_bank():
    for options in ({"rank": 4}, {"activation": "tanh"}, {"use_fourier": True}, {"hidden_dim": 8}):
        with pytest.raises(ValueError, match="one shape"):
            GateBank([*networks(1), *networks(1, **options)])
    with pytest.raises(ValueError, match="one shape"):
        GateBank([])


def test_networks_that_cannot_be():
    with pytest.raises(ValueError, match="unknown gate activation 'relu'"):
        RhoHyperNet(2, activation="relu")
    with pytest.raises(ValueError, match="fourier_freqs 0"):
        RhoHyperNet(2, use_fourier=True, fourier_freqs=0)


# The encoding


def test_fourier_frequencies_are_powers_of_two_times_pi():
    net = RhoHyperNet(2, 4, use_fourier=True, fourier_freqs=2, include_raw=True)
    rho = torch.tensor([[0.3]])
    expected = [f(0.3 * k * torch.pi) for f in (torch.sin, torch.cos) for k in (torch.tensor(1.0), torch.tensor(2.0))]
    torch.testing.assert_close(net.encode(rho)[0], torch.stack([*expected, torch.tensor(0.3)]), atol=1e-6, rtol=0)


def test_without_rho_itself_a_failure_looks_like_the_highest_settlement():
    ends = torch.tensor([[-1.0], [1.0]])
    (with_raw,) = networks(1, use_fourier=True)
    (without,) = networks(1, use_fourier=True, include_raw=False)
    assert (with_raw(ends)[0] - with_raw(ends)[1]).abs().max() > 1e-3
    torch.testing.assert_close(without(ends)[0], without(ends)[1], atol=1e-5, rtol=0)


def test_a_model_in_half_precision_keeps_its_frequencies():
    (net,) = networks(1, use_fourier=True, fourier_freqs=8)
    rho = torch.tensor([[0.37]])
    assert torch.equal(copy.deepcopy(net).bfloat16().encode(rho), net.encode(rho))


# Precision


@pytest.mark.parametrize("fourier", [False, True])
def test_gates_stay_float32_under_autocast(fourier):
    nets = networks(3, use_fourier=fourier)
    bank = GateBank(copy.deepcopy(nets))
    exact, alone = bank(RHO), nets[0](RHO)
    with torch.autocast("cpu", torch.bfloat16):
        assert nets[0].net(nets[0].encode(RHO)).dtype == torch.bfloat16  # what it would be
        assert torch.equal(bank(RHO), exact)
        assert torch.equal(nets[0](RHO), alone)


def test_a_model_in_bfloat16_has_gates_in_float32():
    model = awake(inject_hyperlora(tiny())).bfloat16()
    with torch.no_grad(), bind_rho(model, torch.tensor([[0.0], [0.301], [1.0]])):
        out = model(ids()).logits
        assert model.hyperlora_binding.gates.dtype == torch.float32
        # 0.301 has no bfloat16; ρ is bound as it was given
        torch.testing.assert_close(model.current_rho[1, 0], torch.tensor(0.301), atol=1e-8, rtol=0)
    assert out.dtype == torch.bfloat16
    assert (out - logits(model, ids(), None)).abs().max() > 1e-2


# O32


@st.composite
def cases(draw) -> tuple[RhoHyperNet, float, float]:
    (net,) = networks(
        1,
        seed=draw(st.integers(0, 10_000)),
        rank=draw(st.integers(1, 6)),
        hidden_dim=draw(st.integers(1, 20)),
        use_fourier=draw(st.booleans()),
        fourier_freqs=draw(st.integers(1, 5)),
        include_raw=draw(st.booleans()),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
    )
    with torch.no_grad():
        for position in (0, 2, 4):
            net.net[position].weight.mul_(draw(st.floats(0.1, 3.0)))
    return net.double(), draw(st.floats(-1.0, 1.0)), draw(st.floats(1e-4, 1.0)) * draw(st.sampled_from([-1.0, 1.0]))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_o32_gates_move_no_faster_than_the_bound(case):
    net, rho, epsilon = case
    here, there = net(torch.tensor([[rho], [rho + epsilon]], dtype=torch.float64)).detach()
    assert (there - here).norm() <= lipschitz_bound(net) * abs(epsilon) + 1e-12


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_o32_the_bound_is_nearly_reached_where_every_stage_is_at_its_steepest(activation):
    """So no factor of it is missing and none is there twice: a chain of width 1 with each unit at its largest slope."""
    net = RhoHyperNet(1, 1, activation=activation).double()
    top = 2.399357  # where SiLU is steepest
    silu = torch.nn.functional.silu(torch.tensor(top, dtype=torch.float64)).item()
    centre = 0.0 if activation != "softplus" else 30.0
    with torch.no_grad():
        for position, weight, bias in ((0, 0.5, top), (2, 0.7, top - 0.7 * silu), (4, 0.9, centre - 0.9 * silu)):
            net.net[position].weight.fill_(weight)
            net.net[position].bias.fill_(bias)
    step = 1e-4
    low, high = net(torch.tensor([[-step], [step]], dtype=torch.float64)).detach()
    rate = ((high - low) / (2 * step)).abs().item()
    assert rate == pytest.approx(lipschitz_bound(net), rel=1e-4)
    assert rate <= lipschitz_bound(net)


def test_o32_the_encoding_s_part_of_the_bound():
    net = RhoHyperNet(2, 4, use_fourier=True, fourier_freqs=4).double()
    rho = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rates = [torch.autograd.functional.jacobian(net.encode, r.unsqueeze(0)).norm().item() for r in rho]
    plain = RhoHyperNet(2, 4).double()
    for position in (0, 2, 4):
        net.net[position].weight.data = torch.eye(*net.net[position].weight.shape, dtype=torch.float64)
        plain.net[position].weight.data = torch.eye(*plain.net[position].weight.shape, dtype=torch.float64)
    assert max(rates) == pytest.approx(min(rates))
    assert lipschitz_bound(net) / lipschitz_bound(plain) == pytest.approx(rates[0])
