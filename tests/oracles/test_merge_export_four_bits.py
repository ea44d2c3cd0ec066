"""Export and merge on a base in 4 bits (O33): the same 4-bit base gives the same logits; a dense merge the same odds."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, inject_hyperlora, load_base
from hyperlora.base import nano_model
from hyperlora.dense import save_merged
from hyperlora.export import export
from hyperlora.inject import adapter_state
from hyperlora.merge import adapted_layers, dense_weight, merge, merged, unmerge

from .models import KINDS, ids, logits
from .test_merge_export import close, differ, distance, plain

bnb = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """A dense base on disk, wide enough for blocks of 64."""
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "qwen2":
        model = nano_model(hidden=64, layers=2, heads=2, intermediate=128, seed=1)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = LlamaForCausalLM(LlamaConfig(
                vocab_size=131, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, pad_token_id=0, initializer_range=0.08,
            ))  # fmt: skip
    model.save_pretrained(str(path))
    build_nano_tokenizer().save_pretrained(str(path))
    return path


def four_bits(folder, dtype=None, seed=0, **options):
    base, _ = load_base(str(folder), use_qlora=True, dtype=dtype)
    model = inject_hyperlora(base, **{"rank": 4, "alpha": 8.0, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_B.normal_(0.0, 0.1, generator=generator)
    return model


def raw(model):
    """Every parameter's bytes, packed ones too."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def four_bit_export(folder, dtype, seed, path):
    """A live 4-bit adapter's logits, and those of its export on the same 4-bit base and on the dense one."""
    peft = pytest.importorskip("peft")
    model = four_bits(folder, dtype, seed=seed)
    x, live = ids(), logits(model, ids(), 0.3)
    differ(live, logits(model, x, None), 1e-2)
    exported = export(model, 0.3, path)
    assert "use_qlora=True" in (exported / "README.md").read_text()
    bases = (load_base(str(folder), use_qlora=True, dtype=dtype)[0], load_base(str(folder))[0])
    loaded, dense = (peft.PeftModel.from_pretrained(base, str(exported)).eval() for base in bases)
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in loaded.modules())
    return live, plain(loaded, x), plain(dense, x)


def test_the_export_on_the_same_four_bits(folder, tmp_path):
    live, loaded, dense = four_bit_export(folder, torch.float32, 0, tmp_path / "lora")
    close(loaded, live)
    assert distance(dense, live) > 1e-2  # the precision of the base is not a detail


def test_the_export_on_the_same_four_bits_in_bfloat16(folder, tmp_path):
    """Where 4-bit layers compute in bfloat16 (the default), inputs that agree to the last bits of float32 round to the
    same bfloat16, and logits agree, or one of them rounds the other way: a step of 2⁻⁸, which moves the distribution by
    1.3e-3 at most in 20 draws."""
    distances = []
    for seed in range(6):
        live, loaded, dense = four_bit_export(folder, None, seed, tmp_path / str(seed))
        distances.append(distance(loaded, live))
        assert distance(dense, live) > 1e-2
    assert max(distances) < 5e-3
    assert sorted(distances)[1] < 1e-6


@pytest.mark.parametrize("compute", [torch.float32, None])
def test_merged_is_dense_and_unmerging_is_bitwise(folder, compute):
    model = four_bits(folder, compute)
    x, before, state = ids(), raw(model), adapter_state(model)
    live = logits(model, x, 0.3)
    assert distance(live, logits(model, x, None)) > 0.02
    with merged(model, 0.3):
        kinds = {type(layer.base_layer) for _, layer in adapted_layers(model)}
        assert kinds == {torch.nn.Linear}
        assert distance(plain(model, x), live) < 0.005
        if compute is not None:
            close(plain(model, x), live)
        assert all(torch.equal(adapter_state(model)[name], tensor) for name, tensor in state.items())
    after = raw(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(isinstance(layer.base_layer, bnb.nn.Linear4bit) for _, layer in adapted_layers(model))
    assert torch.equal(logits(model, x, 0.3), live)


def test_nothing_is_quantised_again(folder):
    """With B = 0 the merged weight is the dequantised one, to the last bit."""
    model = four_bits(folder)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_B.zero_()
    name, layer = next(adapted_layers(model))
    weight = dense_weight(layer.base_layer)
    dense = AutoModelForCausalLM.from_pretrained(folder).get_submodule(name).weight
    assert 0 < (weight - dense).abs().max() < 0.1
    merge(model, 0.3)
    assert torch.equal(layer.base_layer.weight, weight)
    unmerge(model)


def test_repacked_weights_are_refused(folder):
    """What bitsandbytes leaves after an evaluation pass without the guard reads as noise."""
    model = four_bits(folder)
    _, layer = next(adapted_layers(model))
    layer.base_layer.weight.quant_state.packing_format_for_cpu = True
    before = [layer.base_layer for _, layer in adapted_layers(model)]
    with pytest.raises(InputError, match="guard_four_bits"):
        merge(model, 0.3)
    assert all(a is b.base_layer for a, (_, b) in zip(before, adapted_layers(model), strict=True))
    assert model.hyperlora_binding.merged_at is None


def test_a_merged_folder_is_dense_and_its_dtype_is_said(folder, tmp_path):
    model = four_bits(folder, target_modules=["q_proj", "down_proj"])  # the other layers are 4-bit and unadapted
    x, live = ids(), logits(model, ids(), 0.3)
    assert distance(live, logits(model, x, 0.9)) > 0.01
    with pytest.raises(InputError, match=r"in 4 bits.*bfloat16"):
        save_merged(model, 0.3, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    loaded = AutoModelForCausalLM.from_pretrained(save_merged(model, 0.3, tmp_path / "m", dtype=torch.float32))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not hasattr(loaded.config, "quantization_config")
    assert distance(plain(loaded, x), live) < 0.005
