"""The identities of the gated layer, its gates, its losses and its injection. Every equality has a "they differ" first."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bargain_env.errors import InputError
from hyperlora import (
    HyperLoRALinear,
    RhoHyperNet,
    adapter_parameters,
    bind_rho,
    compute_gate_separation_loss,
    compute_gate_smoothness_loss,
    gate_bank,
    inject_hyperlora,
)
from hyperlora.base import nano_model
from hyperlora.inject import adapter_modules
from hyperlora.losses import target_loss

ATOL = 1e-5


def tiny(kind: str = "qwen2"):
    if kind == "qwen2":
        return nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=1).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=125, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, pad_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()


def awake(model, seed: int = 0):
    """An adapter whose B is not zero, so that it does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.2, generator=generator)
    return model


def ids(batch: int = 3, length: int = 11):
    return torch.randint(14, 100, (batch, length), generator=torch.Generator().manual_seed(5))


def logits(model, x, rho):
    with torch.no_grad(), bind_rho(model, rho):
        return model(x).logits


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_fresh_adapter_equals_its_base_for_every_rho(kind):
    base, x = tiny(kind), ids()
    before = base(x).logits.detach()
    model = inject_hyperlora(copy.deepcopy(base))
    for rho in (None, 0.0, 0.37, 1.0, -1.0):
        assert torch.equal(logits(model, x, rho), before)
    awake(model)
    assert (logits(model, x, 0.3) - before).abs().max() > 1e-2
    assert torch.equal(logits(model, x, None), before)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_one_batch_of_many_rho_equals_rows_alone(kind):
    model, x = awake(inject_hyperlora(tiny(kind))), ids()
    rho = torch.tensor([[0.0], [0.5], [1.0]])
    together = logits(model, x, rho)
    assert (logits(model, x, 0.0) - logits(model, x, 1.0)).abs().max() > 1e-3
    for i in range(3):
        torch.testing.assert_close(logits(model, x[i : i + 1], rho[i].item())[0], together[i], atol=ATOL, rtol=0)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(logits(model, x[order], rho[order]), together[order], atol=ATOL, rtol=0)


def test_layer_is_the_equation():
    base = nn.Linear(7, 5)
    layer = HyperLoRALinear(base, RhoHyperNet(4, 8), rank=4, alpha=6.0, dropout=0.0)
    layer.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.lora_B.normal_(generator=torch.Generator().manual_seed(1))
    model = nn.Sequential()
    model.add_module("q_proj", base)
    holder = inject_hyperlora(model, rank=4, alpha=6.0, dropout=0.0, hyper_hidden=8)
    with torch.no_grad():
        holder.q_proj.lora_B.copy_(layer.lora_B)
    x, rho = torch.randn(3, 2, 7), torch.tensor([[0.1], [0.5], [0.9]])
    with bind_rho(holder, rho):
        y = holder(x)
    a, b, net = holder.q_proj.lora_A, holder.q_proj.lora_B, holder.q_proj.hyper_net
    for i in range(3):
        weight = base.weight + 6.0 / 4 * b @ torch.diag(net(rho[i : i + 1])[0]) @ a
        torch.testing.assert_close(y[i], x[i] @ weight.T + base.bias, atol=ATOL, rtol=0)


def test_gates_equal_to_one_make_a_plain_peft_lora():
    peft = pytest.importorskip("peft")
    base, x = tiny(), ids()
    model = awake(inject_hyperlora(copy.deepcopy(base), rank=4, alpha=8.0, dropout=0.0))
    for _, layer in adapter_modules(model):
        with torch.no_grad():
            layer.hyper_net.net[4].weight.zero_()
            layer.hyper_net.net[4].bias.fill_(40.0)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=list(model.hyperlora_settings.target_modules), lora_dropout=0.0
    )
    plain = peft.get_peft_model(copy.deepcopy(base), config)
    with torch.no_grad():
        for name, layer in adapter_modules(model):
            twin = plain.base_model.model.get_submodule(name)
            twin.lora_A["default"].weight.copy_(layer.lora_A)
            twin.lora_B["default"].weight.copy_(layer.lora_B)
    assert (logits(model, x, 0.2) - base(x).logits).abs().max() > 1e-2
    torch.testing.assert_close(logits(model, x, 0.2), plain(x).logits.detach(), atol=ATOL, rtol=0)


@pytest.mark.parametrize("fourier", [False, True])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus"])
def test_gate_bank_equals_the_loop(fourier, activation):
    nets = [RhoHyperNet(5, 16, use_fourier=fourier, fourier_freqs=3, activation=activation) for _ in range(6)]
    rho = torch.linspace(-1, 1, 7).unsqueeze(1)
    bank = gate_bank(nets, rho)
    assert bank.shape == (6, 7, 5)
    assert (bank[0] - bank[1]).abs().max() > 1e-3
    torch.testing.assert_close(bank, torch.stack([net(rho) for net in nets]), atol=1e-6, rtol=0)


def test_fourier_frequencies_are_powers_of_two_times_pi():
    net = RhoHyperNet(2, 4, use_fourier=True, fourier_freqs=2, include_raw=True)
    rho = torch.tensor([[0.3]])
    expected = [f(0.3 * k * torch.pi) for f in (torch.sin, torch.cos) for k in (torch.tensor(1.0), torch.tensor(2.0))]
    torch.testing.assert_close(net.encode(rho)[0], torch.stack([*expected, torch.tensor(0.3)]), atol=1e-6, rtol=0)


def test_only_the_adapter_trains():
    model = inject_hyperlora(tiny())
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(adapter_parameters(model))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    awake(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x = ids()
    labels = x.clone()
    labels[:, :-3] = -100
    with bind_rho(model, torch.rand(3, 1)):
        target_loss(model, x, labels)[0].backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(adapter_parameters(model))


def test_target_loss_equals_the_full_loss():
    model, x = awake(inject_hyperlora(tiny(), dropout=0.0)), ids()
    labels = x.clone()
    labels[0, :-2], labels[1, :-4], labels[2, :-1] = -100, -100, -100
    with bind_rho(model, 0.4):
        total, count = target_loss(model, x, labels)
        (total / count).backward()
        ours = [p.grad.clone() for p in adapter_parameters(model).values()]
        model.zero_grad()
        full = model(input_ids=x, labels=labels).loss
        full.backward()
    assert int(count) == 7
    torch.testing.assert_close(total / count, full, atol=1e-6, rtol=0)
    for mine, p in zip(ours, adapter_parameters(model).values(), strict=True):
        torch.testing.assert_close(mine, p.grad, atol=1e-6, rtol=1e-4)


def test_separation_loss_is_the_formula_and_pushes_gates_apart():
    model = inject_hyperlora(tiny())
    rho = torch.tensor([[0.0], [0.2], [-1.0], [0.9]])
    value = compute_gate_separation_loss(model, rho, generator=torch.Generator().manual_seed(3))
    kept = rho[[0, 1, 3]]
    permutation = torch.randperm(3, generator=torch.Generator().manual_seed(3))
    nets = model.hyperlora_binding.nets
    distance = sum((n(kept) - n(kept[permutation])).square().sum(1).mean() for n in nets) / len(nets)
    weight = (kept - kept[permutation]).abs().clamp(max=1).mean()
    torch.testing.assert_close(value, -distance * weight)
    with_failure = compute_gate_separation_loss(
        model, rho, exclude_failures=False, generator=torch.Generator().manual_seed(3)
    )
    assert not torch.equal(with_failure, value)
    value.backward()
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if "hyper_net" in name:
                parameter -= 0.5 * parameter.grad
    after = compute_gate_separation_loss(model, rho, generator=torch.Generator().manual_seed(3))
    assert after < value < 0
    assert compute_gate_separation_loss(model, torch.tensor([[-1.0], [0.4]])) == 0


def test_smoothness_loss_is_the_squared_rate_of_change():
    model = inject_hyperlora(tiny())
    rho = torch.tensor([[0.1], [0.8], [-1.0]])
    value = compute_gate_smoothness_loss(model, rho, step=1e-3)
    nets = model.hyperlora_binding.nets
    slopes = []
    for net in nets:
        for r in (0.1, 0.8):
            jacobian = torch.autograd.functional.jacobian(net, torch.tensor([[r]])).flatten()
            slopes.append(jacobian.square().sum())
    torch.testing.assert_close(value, torch.stack(slopes).mean(), atol=1e-6, rtol=2e-2)
    assert value > 0
    value.backward()
    assert any(
        p.grad is not None and p.grad.abs().max() > 0 for n, p in adapter_parameters(model).items() if "hyper_net" in n
    )


def test_current_rho_is_the_same_path():
    model, x = awake(inject_hyperlora(tiny())), ids()
    model.current_rho = torch.tensor([[0.1], [0.2], [0.3]])
    with torch.no_grad():
        seeds_way = model(x).logits
    model.current_rho = None
    assert torch.equal(seeds_way, logits(model, x, torch.tensor([[0.1], [0.2], [0.3]])))


def test_wrong_rho_is_refused():
    model, x = inject_hyperlora(tiny()), ids()
    with pytest.raises(ValueError, match="2 values of rho"), bind_rho(model, [0.1, 0.2]):
        model(x)
    with pytest.raises(ValueError, match="NaN"), bind_rho(model, float("nan")):
        pass
    with pytest.raises(ValueError, match=r"\[B, 1\]"), bind_rho(model, torch.zeros(3, 2)):
        pass
    with pytest.raises(RuntimeError, match="replaced"), bind_rho(model, 0.5):
        model.current_rho = torch.tensor([[0.9]])


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
