"""The manager on real causal LMs: ρ-adapters, PEFT's own answer, and a model that carries a HyperLoRA besides."""

from __future__ import annotations

import pytest
import torch
from made_adapters import TARGETS, pairs, stack
from oracles.models import ATOL, awake, ids, logits, tiny

from bargain_env.errors import InputError
from hyperlora import bind_rho, build_nano_tokenizer, export, inject_hyperlora, save_hyperlora_adapter
from hyperlora.adapters import AdapterManager, AdapterRegistry, LoRA, write_peft
from hyperlora.adapters.backends import ModelBackend


def dial(folder, **options):
    model = awake(inject_hyperlora(tiny(), **{"rank": 4, "dropout": 0.0, **options}))
    model.base_spec = "tiny"
    save_hyperlora_adapter(model, build_nano_tokenizer(), folder / "dial")
    return model


@torch.no_grad()
def served(manager, x, selection):
    with manager.serving(selection):
        return manager.model(x).logits


def test_a_rho_adapter_at_a_rho_is_what_binding_rho_gives(tmp_path):
    ours = dial(tmp_path)
    export(ours, 0.3, tmp_path / "exported")
    manager = AdapterManager(tiny(), AdapterRegistry(tmp_path))
    x = ids()
    low, high = (logits(ours, x, rho) for rho in (0.3, 0.9))
    assert (low - high).abs().max() > 1e-3
    torch.testing.assert_close(served(manager, x, {"dial@0.3": 1.0}), low, atol=ATOL, rtol=0)
    torch.testing.assert_close(served(manager, x, {"exported": 1.0}), low, atol=ATOL, rtol=0)
    with torch.no_grad(), manager.serving_rows(["dial@0.9", None, "dial@0.3"]):
        rows = manager.model(x).logits
    for i, want in enumerate([high, tiny()(x).logits, low]):
        torch.testing.assert_close(rows[i], want[i], atol=ATOL, rtol=0)
    assert manager.status()["loaded"][0]["base_checked"]
    with pytest.raises(InputError, match="name the rho"):
        manager.load("dial")


def test_a_rho_adapter_of_another_base_is_refused(tmp_path):
    dial(tmp_path)
    manager = AdapterManager(tiny("llama"), AdapterRegistry(tmp_path))
    with pytest.raises(InputError, match="another base"):
        manager.load("dial@0.5")


def test_what_peft_makes_of_the_same_folder(tmp_path):
    from peft import PeftModel

    export(dial(tmp_path), 0.6, tmp_path / "exported")
    theirs = PeftModel.from_pretrained(tiny(), str(tmp_path / "exported")).eval()
    manager = AdapterManager(tiny(), AdapterRegistry(tmp_path))
    with torch.no_grad():
        want = theirs(ids()).logits
    assert (want - tiny()(ids()).logits).abs().max() > 1e-3
    torch.testing.assert_close(served(manager, ids(), {"exported": 1.0}), want, atol=ATOL, rtol=0)


def test_beside_a_hyperlora_both_updates_add_up(tmp_path):
    name = "model.layers.0.self_attn.q_proj"
    draw = torch.Generator().manual_seed(3)
    pair = (0.3 * torch.randn(2, 32, generator=draw), 0.3 * torch.randn(32, 2, generator=draw))
    write_peft(tmp_path / "plain", LoRA.of({name: pair}, alpha=2.0), base_model=None)
    model = awake(inject_hyperlora(tiny(), rank=4, dropout=0.0))
    manager = AdapterManager(model, AdapterRegistry(tmp_path))
    alone = logits(model, ids(), 0.4)
    with torch.no_grad(), bind_rho(model, 0.4), manager.serving({"plain": 1.0}):
        both = model(ids()).logits
    assert (both - alone).abs().max() > 1e-3
    other = awake(inject_hyperlora(tiny(), rank=4, dropout=0.0))
    with torch.no_grad():
        other.get_submodule(name).base_layer.weight += pair[1] @ pair[0]
    torch.testing.assert_close(both, logits(other, ids(), 0.4), atol=ATOL, rtol=0)


def test_a_backend_on_a_model_that_takes_rows_already_uses_its_layers():
    model = stack()
    assert ModelBackend(model, TARGETS).layers.keys() == ModelBackend(model).layers.keys() == pairs(0).keys()
