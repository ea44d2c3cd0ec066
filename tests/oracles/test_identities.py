"""The identities of the gated layer in a model: O1, O2, O8, O10 to O13, O19 to O22, O26. Each has a "they differ" first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from hyperlora import HyperLoRALinear, adapter_parameters, bind_rho, inject_hyperlora
from hyperlora.inject import adapter_modules
from hyperlora.losses import target_loss

from .models import ATOL, KINDS, awake, ids, logits, tiny

RHO = torch.tensor([[0.0], [0.5], [1.0]])


def adapted(kind: str = "qwen2", **options: Any) -> Any:
    return awake(inject_hyperlora(tiny(kind), **options))


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = ATOL) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs).abs().max().item()


# Off, fresh, and the equation


@pytest.mark.parametrize("kind", KINDS)
def test_o1_o2_without_rho_or_without_b_it_is_its_base(kind):
    base, x = tiny(kind), ids()
    before = base(x).logits.detach()
    model = inject_hyperlora(copy.deepcopy(base))
    for rho in (None, 0.0, 0.37, 1.0, -1.0):
        assert torch.equal(logits(model, x, rho), before)
    awake(model)
    assert gap(logits(model, x, 0.3), before) > 1e-2
    assert torch.equal(logits(model, x, None), before)
    assert torch.equal(model(x).logits, before)


def toy(rank: int = 4, alpha: float = 6.0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("q_proj", nn.Linear(7, 5))
    return awake(inject_hyperlora(model, rank=rank, alpha=alpha, dropout=0.0, hyper_hidden=8))


def test_a_layer_is_the_equation():
    model, rho = toy(), torch.tensor([[0.1], [0.5], [0.9]])
    layer: HyperLoRALinear = model.q_proj
    x = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(1))
    with bind_rho(model, rho):
        y = model(x)
    assert gap(y, layer.base_layer(x)) > 1e-2
    for i in range(3):
        gates = torch.diag(layer.hyper_net(rho[i : i + 1])[0])
        weight = layer.base_layer.weight + 6.0 / 4 * layer.lora_B @ gates @ layer.lora_A
        close(y[i], x[i] @ weight.T + layer.base_layer.bias)


def test_o19_gradients_of_a_layer_are_right_down_to_rho():
    model = toy(rank=2).double()
    parameters = list(model.q_proj.adapter_parameters().values())
    x = torch.randn(3, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    rho = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64, requires_grad=True)

    def forward(x, rho, *_parameters):
        with bind_rho(model, rho):
            return model(x)

    assert gradcheck(forward, (x, rho, *parameters))
    (slope,) = torch.autograd.grad(forward(x, rho).sum(), rho)
    assert slope.abs().min() > 1e-6


def test_o20_the_order_of_the_ranks_does_not_matter():
    model, x = adapted(), ids()
    before = logits(model, x, RHO)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_A.copy_(layer.lora_A[order])
            layer.lora_B.copy_(layer.lora_B[:, order])
        assert gap(logits(model, x, RHO), before) > 1e-3  # the gates are not permuted yet
        for _, layer in adapter_modules(model):
            last = layer.hyper_net.net[4]
            last.weight.copy_(last.weight[order])
            last.bias.copy_(last.bias[order])
    close(logits(model, x, RHO), before)


def test_o21_twice_alpha_is_twice_the_update():
    x = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(4))
    model, twice = toy(alpha=6.0), toy(alpha=12.0)
    with bind_rho(model, RHO), bind_rho(twice, RHO):
        update, double = model(x) - model.q_proj.base_layer(x), twice(x) - twice.q_proj.base_layer(x)
    assert update.abs().max() > 1e-2
    close(double, 2 * update)


# Rows


@pytest.mark.parametrize("kind", KINDS)
def test_o8_rows_of_one_batch_are_rows_alone(kind):
    model, x = adapted(kind), ids()
    together = logits(model, x, RHO)
    assert gap(logits(model, x, 0.0), logits(model, x, 1.0)) > 1e-3
    for i in range(3):
        close(logits(model, x[i : i + 1], RHO[i].item())[0], together[i])


@pytest.mark.parametrize("kind", KINDS)
def test_o10_rows_and_their_rho_may_change_places(kind):
    model, x, rho = adapted(kind), ids(4, 16), torch.tensor([[0.0], [0.3], [0.7], [1.0]])
    order = torch.tensor([2, 0, 3, 1])
    together = logits(model, x, rho)
    assert gap(logits(model, x[order], rho), together[order]) > 1e-3
    # Some matrix kernels add in another order in the last rows of a batch; where the base does, so may we.
    exact = torch.equal(logits(model, x[order], None), logits(model, x, None)[order])
    close(logits(model, x[order], rho[order]), together[order], atol=0.0 if exact else ATOL)


@pytest.mark.parametrize("kind", KINDS)
def test_o11_padding_on_the_left_changes_nothing(kind):
    model, x, pads = adapted(kind), ids(), (0, 3, 6)
    rows = [x[i, pad:] for i, pad in enumerate(pads)]
    mask = torch.stack([torch.cat([torch.zeros(p), torch.ones(x.shape[1] - p)]) for p in pads]).long()
    padded = x * mask
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), bind_rho(model, RHO):
        out = model(padded, attention_mask=mask, position_ids=positions).logits
        wrong = model(padded).logits
    for i, (row, pad) in enumerate(zip(rows, pads, strict=True)):
        alone = logits(model, row.unsqueeze(0), RHO[i].item())[0]
        close(out[i, pad:], alone)
        assert pad == 0 or gap(wrong[i, pad:], alone) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_may_come_in_place_of_ids(kind):
    model, x = adapted(kind), ids()
    with torch.no_grad(), bind_rho(model, RHO):
        out = model(inputs_embeds=model.get_input_embeddings()(x)).logits
    assert gap(out, logits(model, x, None)) > 1e-3
    assert torch.equal(out, logits(model, x, RHO))


# The cache belongs to ρ


@pytest.mark.parametrize("kind", KINDS)
def test_o12_o13_a_prefix_s_cache_is_good_for_its_own_rho_alone(kind):
    model, x = adapted(kind), ids()

    def resumed(prefix_rho: Any, rho: Any) -> torch.Tensor:
        with torch.no_grad():
            with bind_rho(model, prefix_rho):
                cache = model(x[:, :6], use_cache=True).past_key_values
            with bind_rho(model, rho):
                return model(x[:, 6:], past_key_values=cache, use_cache=True).logits

    whole = logits(model, x, 0.8)[:, 6:]
    assert gap(resumed(0.2, 0.8), whole) > 1e-3
    close(resumed(0.8, 0.8), whole)
    close(resumed(RHO, RHO), logits(model, x, RHO)[:, 6:])


# What trains


@pytest.mark.parametrize("kind", KINDS)
def test_o22_only_the_adapter_trains(kind):
    model = adapted(kind)
    names = set(adapter_parameters(model))
    assert {n for n, p in model.named_parameters() if p.requires_grad} == names
    before = {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    optimizer = torch.optim.AdamW(adapter_parameters(model).values(), lr=0.01)
    x = ids()
    labels = x.clone()
    labels[:, :-3] = -100
    for step in range(3):
        optimizer.zero_grad()
        with bind_rho(model, RHO * (step + 1) / 3):
            target_loss(model, x, labels)[0].backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == names
        optimizer.step()
    now = dict([*model.named_parameters(), *model.named_buffers()])
    assert {n for n, t in before.items() if not torch.equal(t, now[n])} == names


def test_a_fresh_adapter_s_first_gradient_reaches_b_alone():
    """At B = 0 neither A nor a gate has any say, so spread of gates is no evidence of learning."""
    model, x = inject_hyperlora(tiny()), ids()
    with bind_rho(model, RHO):
        target_loss(model, x, x)[0].backward()
    moved = {n.rpartition(".")[2] for n, p in adapter_parameters(model).items() if p.grad.abs().max() > 0}
    assert moved == {"lora_B"}


# Generation


BEAMS = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"num_beams": 3, "num_return_sequences": 2}, {"num_beams": 2}, {}])
def test_o26_beams_keep_the_rho_of_their_row(kind, options):
    model, x = adapted(kind), ids()
    copies = options.get("num_beams", 1)
    with bind_rho(model, RHO, copies=copies):
        together = model.generate(x, **BEAMS, **options)
    alone = []
    for i in range(3):
        with bind_rho(model, RHO[i]):
            alone.append(model.generate(x[i : i + 1], **BEAMS, **options))
    with bind_rho(model, RHO.flip(0), copies=copies):
        assert not torch.equal(model.generate(x, **BEAMS, **options), together)
    assert torch.equal(together, torch.cat(alone))


def test_o26_sampled_sequences_keep_the_rho_of_their_row():
    model, x = adapted(), ids()
    options = {**BEAMS, "do_sample": True, "num_return_sequences": 2, "return_dict_in_generate": True}
    with torch.random.fork_rng(devices=[]), bind_rho(model, RHO, copies=2):
        torch.manual_seed(0)
        out = model.generate(x, **options, output_logits=True)
    assert len(out.sequences) == 6
    written = torch.stack(out.logits, dim=1)
    rho = RHO.repeat_interleave(2, dim=0)
    assert gap(written, logits(model, out.sequences, rho.flip(0))[:, x.shape[1] - 1 : -1]) > 1e-3
    close(written, logits(model, out.sequences, rho)[:, x.shape[1] - 1 : -1])


def test_o26_copies_are_said_never_guessed():
    model, x = adapted(), ids()
    with pytest.raises(ValueError, match=r"3 values of rho.*6 rows.*copies="), bind_rho(model, RHO):
        model.generate(x, **BEAMS, num_beams=2)
    with pytest.raises(ValueError, match=r"2 values of rho.*4 rows"), bind_rho(model, [0.1, 0.9]):
        model(ids(4))
    with pytest.raises(ValueError, match="copies 0"), bind_rho(model, RHO, copies=0):
        pass
    with bind_rho(model, 0.5, copies=2):  # one ρ is every row's, however often rows are repeated
        assert len(model.generate(x, **BEAMS, num_beams=2)) == 3
