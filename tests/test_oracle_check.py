"""`check_adapter`: passes on sound models, leaves them as they were, and catches each deliberately broken one by name."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.models import KINDS, awake, tiny
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, inject_hyperlora, load_base
from hyperlora.base import nano_model
from hyperlora.binding import RhoBinding, in_backward
from hyperlora.inject import adapter_modules
from hyperlora.layer import HyperLoRALinear
from hyperlora.merge import merge
from hyperlora.testing import IDENTITIES, IdentityError, check_adapter, weights
from hyperlora.token_rows import add_token_rows

SMALL = {"rows": 3, "length": 8}


def skipped(report: Any) -> set[str]:
    return {finding.name for finding in report.findings if finding.measured is None}


# Sound models


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_passes(kind):
    report = check_adapter(inject_hyperlora(tiny(kind)))
    assert [finding.name for finding in report.findings] == list(IDENTITIES)
    assert skipped(report) == set()
    assert report.awakened
    assert all(finding.holds for finding in report.findings)


@pytest.mark.parametrize(
    "options",
    [
        {"use_fourier": True, "gate_activation": "tanh"},
        {"gate_activation": "softplus", "dropout": 0.0},
        {"target_modules": ["v_proj", "lm_head"]},
    ],
)
def test_adapters_of_every_make_pass(options):
    model = awake(inject_hyperlora(tiny("llama"), rank=4, **options))
    report = check_adapter(model, seed=3)
    assert skipped(report) == set()
    assert not report.awakened


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_in_four_bits_passes_and_is_not_repacked(kind, tmp_path):
    bnb = pytest.importorskip("bitsandbytes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        base = nano_model(hidden=64, layers=1, heads=2, intermediate=64, seed=1) if kind == "qwen2" else LlamaForCausalLM(
            LlamaConfig(vocab_size=125, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0)
        )  # fmt: skip
    base.save_pretrained(str(tmp_path))
    build_nano_tokenizer().save_pretrained(str(tmp_path))
    model = inject_hyperlora(load_base(str(tmp_path), use_qlora=True, dtype=torch.float32)[0])
    four_bits = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    for module in four_bits:
        module.support_avx512bf16_for_cpu = True  # somebody else's model, without our guard
    packed = [module.weight.detach().clone() for module in four_bits]
    assert skipped(check_adapter(model)) == set()
    assert all(torch.equal(module.weight, before) for module, before in zip(four_bits, packed, strict=True))
    assert all(module.support_avx512bf16_for_cpu for module in four_bits)


@pytest.mark.parametrize("head", [False, True])
def test_token_rows_pass(head):
    model = inject_hyperlora(tiny("llama"))
    add_token_rows(model, [125, 126, 127], head=head)
    assert skipped(check_adapter(model, vocab_size=128)) == set()


class Tagger(nn.Module):
    """Somebody's own causal model: running means of embeddings, no cache, no mask, no library."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 16)
        self.up = nn.Linear(16, 24)
        self.down = nn.Linear(24, 40)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        steps = torch.arange(1, input_ids.shape[1] + 1).view(1, -1, 1)
        mean = self.table(input_ids).cumsum(dim=1) / steps
        return {"logits": self.down(torch.tanh(self.up(mean)))}


def test_any_causal_model_passes_and_what_it_lacks_is_skipped():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = inject_hyperlora(Tagger(), target_modules=["up", "down"])
    report = check_adapter(model, vocab_size=40)
    assert skipped(report) == {
        "left_padding",
        "prefix_of_the_same_rho",
        "prefix_of_another_rho",
        "targets_only",
        "checkpointing",
        "recomputed_at_another_rho",
    }
    assert "skipped: forward takes no attention_mask" in str(report)
    with pytest.raises(InputError, match="give vocab_size"):
        check_adapter(model)


def test_an_adapter_behind_the_cache_has_no_cache_of_another_rho():
    model = tiny("llama")
    inject_hyperlora(model, target_modules=["lm_head"])
    assert skipped(check_adapter(model)) == {"prefix_of_another_rho"}


def test_the_report_is_a_table():
    lines = str(check_adapter(inject_hyperlora(tiny()), **SMALL)).splitlines()
    assert lines[0].split() == ["identity", "measured", "tolerance"]
    assert lines[-1] == "(B was next to zero; checked with a random one)"
    assert len(lines) == len(IDENTITIES) + 2
    assert lines[3].startswith("rho_moves_it ")
    assert " > " in lines[3]
    assert max(map(len, lines)) <= 120


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(InputError, match="carries no HyperLoRA"):
        check_adapter(tiny())
    model = inject_hyperlora(tiny())
    with pytest.raises(InputError, match="rows 1"):
        check_adapter(model, rows=1)
    model.current_rho = torch.tensor([[0.5]])
    with pytest.raises(RuntimeError, match="a rho is bound"):
        check_adapter(model)
    model.current_rho = None
    merge(model, 0.3)
    with pytest.raises(RuntimeError, match="unmerge"):
        check_adapter(model)


# As it was found


def portrait(model: Any) -> dict[str, Any]:
    """Everything about a model that a check might disturb, in comparable form."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    return {
        "bytes": {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]},
        "objects": {n: id(p) for n, p in model.named_parameters()},
        "modules": {n: id(m) for n, m in model.named_modules()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "grads": {n: (id(p.grad), None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()},
        "trains": {n: p.requires_grad for n, p in model.named_parameters()},
        "hooks": {n: [dict(getattr(m, hook)) for hook in hooks] for n, m in model.named_modules()},
        "attributes": {n: set(vars(m)) for n, m in model.named_modules()},
        "checkpointing": [m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")],
        "binding": {k: v for k, v in vars(model.hyperlora_binding).items() if k not in ("gates", "nets")},
        "gates": model.hyperlora_binding.gates,
        "rng": torch.random.get_rng_state(),
    }


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, tuple | list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def lived_in(checkpointing: bool) -> Any:
    """A model in the middle of something: mixed modes, gradients, hooks, gates of a seed-style pass."""
    model = awake(inject_hyperlora(tiny()))
    if checkpointing:
        model.activation_checkpointing_enable()
    model.current_rho = torch.tensor([[0.4]])
    x = torch.randint(14, 100, (2, 6), generator=torch.Generator().manual_seed(1))
    model(x, labels=x).loss.backward()
    model.current_rho = None
    model.model.layers[0].train()
    model.model.layers[1].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was_found(broken, checkpointing, monkeypatch):
    model = lived_in(checkpointing)
    before = portrait(model)
    if broken:
        monkeypatch.setattr(weights, "load_adapter_state", lambda model, state: None)
        with pytest.raises(IdentityError):
            check_adapter(model, **SMALL)
    else:
        check_adapter(model, **SMALL)
    after = portrait(model)
    assert [key for key in before if not same(before[key], after[key])] == []
    with torch.no_grad():
        next(layer for _, layer in adapter_modules(model)).lora_A.add_(1.0)
    assert [key for key in before if not same(before[key], portrait(model)[key])] == ["bytes"]


# Broken models


def patched_layer(monkeypatch: Any, change: Any) -> None:
    """Replace what a layer reads from the binding: ``change(binding, gates or None, batch)``."""
    original = RhoBinding.layer
    monkeypatch.setattr(
        RhoBinding, "layer", lambda self, index, batch: change(self, original(self, index, batch), batch)
    )


def patched_update(monkeypatch: Any, change: Any) -> None:
    """Replace what a layer adds to its base: ``change(layer, update)``."""
    original = HyperLoRALinear.forward

    def forward(self: HyperLoRALinear, x: torch.Tensor) -> torch.Tensor:
        y = original(self, x)
        if self.binding is None or self.binding.gates is None:
            return y
        base = self.base_layer(x)
        return base + change(self, y - base)

    monkeypatch.setattr(HyperLoRALinear, "forward", forward)


def patched_forward(model: Any, change: Any) -> None:
    """Let ``change`` alter the arguments of the model's forward, whose signature stays."""
    original = model.forward

    @functools.wraps(original)
    def forward(*args: Any, **inputs: Any) -> Any:
        change(inputs)
        return original(*args, **inputs)

    model.forward = forward


def off_leaks(model, monkeypatch):
    half = torch.full((1, 16), 0.5)
    patched_layer(monkeypatch, lambda binding, gates, batch: half if gates is None else gates)


def update_without_b(model, monkeypatch):
    patched_update(monkeypatch, lambda layer, update: update + 1e-4)


def gates_without_rho(model, monkeypatch):
    with torch.no_grad():
        for net in model.hyperlora_binding.nets:
            net.net[4].weight.zero_()


def dropout_in_eval(model, monkeypatch):
    patched_update(monkeypatch, lambda layer, update: F.dropout(update, 0.05, training=True))


def stale_by_one_pass(model, monkeypatch):
    original, last = RhoBinding.refresh, []

    def refresh(self, rho):
        original(self, rho)
        if self.gates is not None:
            last.append(self.gates.detach())
            self.gates = last[max(0, len(last) - 2)][:, :1]

    monkeypatch.setattr(RhoBinding, "refresh", refresh)


def first_row_s_gates_for_all(model, monkeypatch):
    patched_layer(monkeypatch, lambda binding, gates, batch: None if gates is None else gates[:1])


def mean_gates_for_all(model, monkeypatch):
    patched_layer(monkeypatch, lambda binding, gates, batch: None if gates is None else gates.mean(0, keepdim=True))


def copies_in_turn(model, monkeypatch):
    original = torch.Tensor.repeat_interleave
    monkeypatch.setattr(
        torch.Tensor,
        "repeat_interleave",
        lambda self, n, dim=None: (
            self.repeat(n, 1) if self.dim() == 2 and self.is_floating_point() else original(self, n, dim=dim)
        ),
    )


def spare_rho_cut_off(model, monkeypatch):
    def layer(self, index, batch):
        return None if self.gates is None else self.gates[index][:batch]

    monkeypatch.setattr(RhoBinding, "layer", layer)


def mask_ignored(model, monkeypatch):
    patched_forward(model, lambda inputs: inputs.pop("attention_mask", None))


def cache_ignored(model, monkeypatch):
    patched_forward(model, lambda inputs: inputs.pop("past_key_values", None))


def bank_in_another_order(model, monkeypatch):
    layers = [layer for _, layer in adapter_modules(model)]
    for index, layer in enumerate(layers):
        layer.index = (index + 1) % len(layers)


def scaled_otherwise(model, monkeypatch):
    monkeypatch.setattr(HyperLoRALinear, "scaling", property(lambda self: 1.01 * self.alpha / self.rank))


def targets_one_too_late(model, monkeypatch):
    def shift(inputs):
        if isinstance(inputs.get("logits_to_keep"), torch.Tensor):
            inputs["logits_to_keep"] = inputs["logits_to_keep"].roll(1, dims=1)

    patched_forward(model, shift)


def base_not_frozen(model, monkeypatch):
    model.model.norm.weight.requires_grad_(True)


def gates_detached(model, monkeypatch):
    patched_layer(monkeypatch, lambda binding, gates, batch: None if gates is None else gates.detach())


def a_not_declared(model, monkeypatch):
    original = HyperLoRALinear.adapter_parameters
    monkeypatch.setattr(
        HyperLoRALinear,
        "adapter_parameters",
        lambda self: {name: p for name, p in original(self).items() if name != "lora_A"},
    )


def gradient_cut(model, monkeypatch):
    def cut(_module, args):
        if args[0].requires_grad:
            args[0].register_hook(lambda grad: grad * 0.0)

    model.model.layers[1].register_forward_pre_hook(cut)


def base_drifts(model, monkeypatch):
    def drift(module, _args):
        if module.training:
            module.weight.data.add_(1e-6)

    model.model.norm.register_forward_pre_hook(drift)


def recomputed_otherwise(model, monkeypatch):
    patched_layer(monkeypatch, lambda binding, gates, batch: gates * 1.01 if in_backward() else gates)


def unguarded(model, monkeypatch):
    monkeypatch.setattr(RhoBinding, "begin_backward", lambda self, gates: None)


def loading_leaves_one_out(model, monkeypatch):
    original = weights.load_adapter_state

    def load(model, state):
        name = next(iter(state))
        kept = dict(model.named_parameters())[name].detach().clone()
        original(model, {**state, name: kept})

    monkeypatch.setattr(weights, "load_adapter_state", load)


def merged_at_another_scale(model, monkeypatch):
    original = HyperLoRALinear.update
    monkeypatch.setattr(HyperLoRALinear, "update", lambda self, gates: 1.01 * original(self, gates))


def unmerged_by_subtraction(model, monkeypatch):
    original = weights._merge()

    def unmerge(model):
        layers = [layer for _, layer in adapter_modules(model)]
        gates = model.hyperlora_binding.bank(torch.tensor([[model.hyperlora_binding.merged_at]]))[:, 0]
        drifted = [layer.base_layer.weight - layer.update(gates[layer.index]) for layer in layers]
        original.unmerge(model)
        with torch.no_grad():
            for layer, weight in zip(layers, drifted, strict=True):
                layer.base_layer.weight.copy_(weight)

    monkeypatch.setattr(weights, "_merge", lambda: SimpleNamespace(merge=original.merge, unmerge=unmerge))


MUTANTS = [
    (off_leaks, "base_when_off"),
    (update_without_b, "base_when_b_is_zero"),
    (gates_without_rho, "rho_moves_it"),
    (dropout_in_eval, "deterministic"),
    (stale_by_one_pass, "deterministic"),
    (first_row_s_gates_for_all, "rows_alone"),
    (mean_gates_for_all, "rows_alone"),
    (copies_in_turn, "copies_of_rows"),
    (spare_rho_cut_off, "wrong_number_of_rho"),
    (mask_ignored, "left_padding"),
    (cache_ignored, "prefix_of_the_same_rho"),
    (bank_in_another_order, "bank_is_loop"),
    (scaled_otherwise, "equation"),
    (targets_one_too_late, "targets_only"),
    (base_not_frozen, "only_the_adapter_trains"),
    (gates_detached, "only_the_adapter_trains"),
    (a_not_declared, "only_the_adapter_trains"),
    (gradient_cut, "every_b_is_reached"),
    (base_drifts, "base_unchanged"),
    (recomputed_otherwise, "checkpointing"),
    (unguarded, "recomputed_at_another_rho"),
    (loading_leaves_one_out, "state_round_trip"),
    (merged_at_another_scale, "merged"),
    (unmerged_by_subtraction, "unmerged"),
]


@pytest.mark.parametrize(("mutate", "name"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_model_is_caught_by_name(mutate, name, monkeypatch):
    model = inject_hyperlora(tiny())
    mutate(model, monkeypatch)
    with pytest.raises(IdentityError, match=f"^{name}: ") as caught:
        check_adapter(model, **SMALL)
    error = caught.value
    assert isinstance(error, AssertionError)
    assert error.name == name == error.report.findings[-1].name
    assert not error.report.findings[-1].holds
    assert all(finding.holds for finding in error.report.findings[:-1])


def test_every_identity_but_the_redundant_ones_has_its_mutant():
    assert set(IDENTITIES) - {name for _, name in MUTANTS} == {"permuted_rows", "prefix_of_another_rho"}


def test_not_a_number_is_no_identity():
    model = awake(inject_hyperlora(tiny()))
    with torch.no_grad():
        next(layer for _, layer in adapter_modules(model)).lora_A[0, 0] = float("nan")
    with pytest.raises(IdentityError):
        check_adapter(model, **SMALL)
