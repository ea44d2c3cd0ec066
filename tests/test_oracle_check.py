"""`check_adapter`: passes on sound models, leaves them as they were, and catches each deliberately broken one by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles.models import KINDS, awake, tiny
from oracles.mutants import MUTANTS
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, inject_hyperlora, load_base
from hyperlora.base import nano_model
from hyperlora.inject import adapter_modules
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
