"""The gate separation loss in its two forms: values, direction, bounds, and rows that are no pairs."""

from __future__ import annotations

import pytest
import torch

from bargain_env.errors import InputError
from hyperlora import compute_gate_separation_loss
from hyperlora.gates import ACTIVATIONS
from hyperlora.losses import SEPARATION_MODES, _hinge

from .models import descended, gate_parameters, gates_only

RHO = torch.tensor([[0.0], [0.2], [-1.0], [0.9], [0.55]])


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_seed_s_form_is_its_formula():
    model = gates_only()
    value = compute_gate_separation_loss(model, RHO, True, seeded(), mode="seed")
    kept = RHO[RHO[:, 0] >= 0]
    permutation = torch.randperm(4, generator=seeded())
    nets = model.hyperlora_binding.nets
    distance = sum((n(kept) - n(kept[permutation])).square().sum(1).mean() for n in nets) / len(nets)
    weight = (kept - kept[permutation]).abs().clamp(max=1).mean()
    torch.testing.assert_close(value, -distance * weight)
    assert value < 0


def test_the_form_of_pairs_is_its_formula():
    model = gates_only()
    value = compute_gate_separation_loss(model, RHO, False, seeded())
    order = torch.randperm(5, generator=seeded()).tolist()
    terms = []
    for net in model.hyperlora_binding.nets:
        for here, there in zip(order, order[1:] + order[:1], strict=True):
            moved = (net(RHO[[here]]) - net(RHO[[there]])).square().mean().sqrt()
            apart = (RHO[here] - RHO[there]).abs().clamp(max=1.0)
            terms.append((apart - moved).clamp(min=0.0).square())
    torch.testing.assert_close(value, torch.cat(terms).mean())
    assert 0 < value < 1
    assert value == compute_gate_separation_loss(model, RHO, False, seeded(), mode="pair")
    assert value != compute_gate_separation_loss(model, RHO, False, seeded(), mode="seed")


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("mode", SEPARATION_MODES)
def test_a_step_down_moves_gates_apart(mode, activation):
    model = gates_only(activation=activation)
    ends = torch.tensor([[0.0], [1.0]])

    def spread() -> float:
        low, high = model.hyperlora_binding.bank(ends).detach().unbind(dim=1)
        return (high - low).norm().item()

    before = spread()
    values = descended(model, lambda m: compute_gate_separation_loss(m, ends, mode=mode))
    assert values[1] < values[0]
    assert spread() > before


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_pairs_stop_where_gates_have_moved_as_far_as_rho_and_the_seed_s_form_does_not(activation):
    rho = torch.tensor([[0.3], [0.5]])
    kept = {}
    for mode in SEPARATION_MODES:
        model = gates_only(activation=activation)
        descended(model, lambda m, mode=mode: compute_gate_separation_loss(m, rho, mode=mode), steps=150, lr=0.01)
        gates = model.hyperlora_binding.bank(rho).detach()
        kept[mode] = (gates[:, 0] - gates[:, 1]).square().mean(dim=-1).sqrt()
    assert (kept["pair"] > 0.19).all()
    assert (kept["pair"] < 0.3).all()
    assert kept["seed"].max() > 3 * kept["pair"].max()


def test_pairs_stay_between_0_and_1_and_the_seed_s_form_has_no_floor():
    ends = torch.tensor([[0.0], [1.0]])
    for scale in (0.0, 1.0, 1000.0):
        model = gates_only(activation="softplus")
        with torch.no_grad():
            for net in model.hyperlora_binding.nets:
                net.net[4].weight.mul_(scale)
        value = compute_gate_separation_loss(model, ends)
        assert 0.0 <= value <= 1.0
        assert (value > 0.9999) == (scale == 0.0)
    assert compute_gate_separation_loss(model, ends, mode="seed") < -100


def test_a_pair_of_near_rho_is_pushed_less_than_a_distant_one():
    """Both pairs have the same gates' distance; the seed's form gives both the same push."""
    near, far = torch.tensor([[0.5], [0.51]]), torch.tensor([[0.0], [1.0]])
    for mode, equal in (("pair", False), ("seed", True)):
        gates = torch.zeros(1, 4, 3, requires_grad=True)
        with torch.no_grad():
            gates[0, 1::2] += 0.002
        rho = torch.cat([near, far])
        order = torch.tensor([1, 0, 3, 2])
        if mode == "pair":
            value = _hinge(gates - gates[:, order], (rho - rho[order]).flatten())
        else:
            value = -(gates - gates[:, order]).square().sum(-1).mean() * (rho - rho[order]).abs().mean()
        (push,) = torch.autograd.grad(value, gates)
        ratio = (push[0, 2].norm() / push[0, 0].norm()).item()
        assert (ratio == pytest.approx(1.0)) == equal
        assert equal or ratio > 50


@pytest.mark.parametrize("mode", SEPARATION_MODES)
@pytest.mark.parametrize("dead", [False, True])
def test_fresh_equal_and_dead_gates_give_finite_gradients(mode, dead):
    model = gates_only()
    if dead:  # no ρ reaches the output, so every distance is exactly 0
        with torch.no_grad():
            for net in model.hyperlora_binding.nets:
                net.net[4].weight.zero_()
    rho = torch.tensor([[0.4], [0.4], [0.4], [0.7]])
    compute_gate_separation_loss(model, rho, mode=mode).backward()
    grads = [p.grad for p in gate_parameters(model)]
    assert all(torch.isfinite(g).all() for g in grads)
    assert any(g.abs().max() > 0 for g in grads) != dead
    for p in gate_parameters(model):
        p.grad = None
    compute_gate_separation_loss(model, rho[:3], mode=mode).backward()
    assert all((p.grad == 0).all() for p in gate_parameters(model))


@pytest.mark.parametrize("mode", SEPARATION_MODES)
def test_failures_are_left_out_unless_asked_for(mode):
    model = gates_only()
    kept = RHO[RHO[:, 0] >= 0]
    without = compute_gate_separation_loss(model, RHO, True, seeded(), mode=mode)
    assert not torch.equal(without, compute_gate_separation_loss(model, RHO, False, seeded(), mode=mode))
    assert torch.equal(without, compute_gate_separation_loss(model, kept, False, seeded(), mode=mode))
    assert torch.equal(without, compute_gate_separation_loss(model, RHO.flatten(), True, seeded(), mode=mode))


@pytest.mark.parametrize("mode", SEPARATION_MODES)
@pytest.mark.parametrize("rho", [[[-1.0], [0.4]], [[-1.0], [-1.0]], [[0.3]]])
def test_fewer_than_two_rows_are_nothing_to_separate(mode, rho):
    model = gates_only()
    value = compute_gate_separation_loss(model, torch.tensor(rho), mode=mode)
    assert value == 0
    value.backward()
    assert all((p.grad == 0).all() for p in gate_parameters(model))


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_no_row_meets_itself_and_every_row_is_heard(rows):
    """A permutation has a fixed point in expectation: in a batch of 4 a quarter of the seed's pairs are of one row."""
    model = gates_only()
    rho = torch.linspace(0.0, 1.0, rows).unsqueeze(1).requires_grad_()
    for seed in range(10):
        (slope,) = torch.autograd.grad(compute_gate_separation_loss(model, rho, generator=seeded(seed)), rho)
        assert (slope[[0, -1]] != 0).all()
        assert (slope != 0).sum() >= rows - 1  # a row in the very middle of its neighbours is pulled both ways


def test_the_pairing_is_the_generator_s_alone():
    model = gates_only()
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = compute_gate_separation_loss(model, RHO)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(compute_gate_separation_loss(model, RHO), first)
    others = {compute_gate_separation_loss(model, RHO, generator=seeded(k)).item() for k in range(10)}
    assert len(others) > 1


def test_unknown_modes_are_refused():
    with pytest.raises(InputError, match="unknown separation mode 'triplet'; choose pair or seed"):
        compute_gate_separation_loss(gates_only(), RHO, mode="triplet")
