"""Ways to break a gated model, each with the identity of `check_adapter` that has to name it."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from hyperlora.binding import RhoBinding, in_backward
from hyperlora.inject import adapter_modules
from hyperlora.layer import HyperLoRALinear
from hyperlora.testing import weights


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
            self._rows = self.gates.unbind(0)

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
