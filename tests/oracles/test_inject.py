"""What can be adapted, what is refused and how, on both architectures, dense and in 4 bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bargain_env.errors import InputError
from hyperlora.base import load_base, nano_model
from hyperlora.inject import adapter_modules, adapter_parameters, adapter_summary, inject_hyperlora
from hyperlora.layer import HyperLoRALinear
from hyperlora.token_rows import add_token_rows
from hyperlora.tokens import build_nano_tokenizer

from .models import KINDS, awake, ids, logits, tiny


def names(model) -> list[str]:
    return [name for name, _ in model.named_modules()]


@pytest.mark.parametrize("kind", KINDS)
def test_seven_projections_of_every_layer_are_wrapped(kind):
    model = inject_hyperlora(tiny(kind), rank=4)
    found = [name.split(".")[-1] for name, module in adapter_modules(model) if isinstance(module, HyperLoRALinear)]
    assert sorted(found) == sorted(2 * list(model.hyperlora_settings.target_modules))
    assert isinstance(model.get_output_embeddings(), nn.Linear)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_in_four_bits_is_adapted(kind, tmp_path):
    bnb = pytest.importorskip("bitsandbytes")
    if kind == "qwen2":
        nano_model(hidden=64, layers=1, heads=2, intermediate=64, seed=1).save_pretrained(str(tmp_path))
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            LlamaForCausalLM(LlamaConfig(vocab_size=131, pad_token_id=0, **shape)).save_pretrained(str(tmp_path))
    build_nano_tokenizer().save_pretrained(str(tmp_path))
    base, _ = load_base(str(tmp_path), use_qlora=True)
    x = ids()
    with torch.no_grad():
        before = base(x).logits
    model = inject_hyperlora(base)
    wrapped = [m for _, m in adapter_modules(model)]
    assert len(wrapped) == 7
    assert all(isinstance(m.base_layer, bnb.nn.Linear4bit) for m in wrapped)
    assert torch.equal(logits(model, x, 0.4), before)
    awake(model)
    assert (logits(model, x, 0.4) - before).abs().max() > 1e-2
    assert model.base_precision == "nf4"
    assert model.weights_digest is None


class PackedLinear(nn.Module):
    """Stands for the layers of GPTQ and AWQ: a matrix product, but no ``nn.Linear``."""


def test_a_layer_of_another_quantisation_is_refused_by_name():
    model = tiny()
    model.model.layers[1].mlp.up_proj = PackedLinear()
    before = names(model)
    with pytest.raises(
        InputError, match=r"model\.layers\.1\.mlp\.up_proj is a PackedLinear.*use_qlora.*target_modules"
    ):
        inject_hyperlora(model)
    assert names(model) == before
    assert all(p.requires_grad for p in model.parameters())
    inject_hyperlora(model, target_modules=["q_proj"])


def test_weights_of_eight_bits_are_refused_by_dtype():
    model = tiny()
    layer = model.model.layers[0].self_attn.k_proj
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"k_proj is a Linear with weights in int8"):
        inject_hyperlora(model)


def test_a_container_is_no_layer():
    with pytest.raises(InputError, match=r"mlp is a Qwen2MLP"):
        inject_hyperlora(tiny(), target_modules=["mlp"])


def test_a_tied_weight_is_refused_with_all_its_names():
    tied = tiny("qwen2")
    with pytest.raises(
        InputError, match=r"lm_head shares its weight \(model\.embed_tokens\.weight = lm_head\.weight\)"
    ):
        inject_hyperlora(tied, target_modules=["q_proj", "lm_head"])
    inject_hyperlora(tiny("llama"), target_modules=["q_proj", "lm_head"])


def test_a_layer_under_two_names_is_refused():
    model = tiny()
    model.model.layers[1].self_attn.q_proj = model.model.layers[0].self_attn.q_proj
    with pytest.raises(
        InputError, match=r"layers\.0\.self_attn\.q_proj\.weight = model\.layers\.1\.self_attn\.q_proj\.weight"
    ):
        inject_hyperlora(model)


def test_a_peft_model_is_refused():
    peft = pytest.importorskip("peft")
    base = tiny()
    wrapped = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(InputError, match=r"PEFT adapter.*merge_and_unload"):
        inject_hyperlora(wrapped)
    with pytest.raises(InputError, match="PEFT adapter"):
        inject_hyperlora(wrapped.base_model.model)
    inject_hyperlora(wrapped.merge_and_unload())


def test_rows_added_before_the_adapter_still_train():
    model = tiny()
    add_token_rows(model, range(126, 131))
    inject_hyperlora(model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(adapter_parameters(model))
    assert "model.embed_tokens.rows" in trainable


def test_the_summary_counts_what_trains():
    model = inject_hyperlora(tiny(), rank=4, alpha=6.0, hyper_hidden=8)
    bare = adapter_summary(model)
    add_token_rows(model, range(126, 131))
    text, total = adapter_summary(model), sum(p.numel() for p in model.parameters() if p.requires_grad)
    low_rank = sum(
        m.lora_A.numel() + m.lora_B.numel() for _, m in adapter_modules(model) if isinstance(m, HyperLoRALinear)
    )
    assert bare.endswith("0 in token rows")
    assert text.startswith("14 layers (2 q_proj, 2 k_proj, ")
    assert f"rank 4, alpha 6; {total:,} parameters train: {low_rank:,} in A and B" in text
    assert f"{total - low_rank - 5 * 32:,} in gates, {5 * 32} in token rows" in text
