"""Which base a model is, in every precision; and an adapter that is served in another than it was trained in."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from bargain_env.errors import InputError
from hyperlora import load_hyperlora_adapter, prepare_model, save_hyperlora_adapter
from hyperlora.adapter_files import read_config
from hyperlora.base import load_base, nano_model
from hyperlora.identity import base_digest, identify, precision_of, weights_digest
from hyperlora.inject import adapter_parameters, inject_hyperlora
from hyperlora.tokens import build_nano_tokenizer

from .saved import GOLDEN, SHAPE, edit, logits, save, trained, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("checkpoints") / "base")


# --- which base it is ----------------------------------------------------------------------------------------------


def test_digests_tell_bases_apart_and_survive_wrapping(base, tmp_path):
    other = load_base(str(write_base(tmp_path / "other", projections=5)))[0]
    model, tokenizer = load_base(str(base))
    assert base_digest(other) == base_digest(model)
    assert weights_digest(other) != weights_digest(model)
    digests = (model.base_digest, model.weights_digest)
    assert digests == (base_digest(model), weights_digest(model))
    prepare_model(model, tokenizer, SHAPE)
    assert weights_digest(model) != digests[1]
    assert (model.base_digest, model.weights_digest) == digests


@pytest.mark.parametrize(
    "name", [f"model.layers.0.{n}" for n in ("self_attn.v_proj", "mlp.down_proj", "self_attn.q_proj")]
)
def test_every_projection_is_sampled(base, name):
    model = load_base(str(base))[0]
    before = weights_digest(model)
    with torch.no_grad():
        model.get_submodule(name).weight[:, 5] += 1.0  # one column
    assert weights_digest(model) != before


def test_digests_are_those_of_the_checkpoint_in_every_dense_precision(base, tmp_path):
    whole, half = load_base(str(base))[0], load_base(str(base), dtype=torch.bfloat16)[0]
    assert not torch.equal(whole.lm_head.weight, half.lm_head.weight.float())
    assert (half.base_digest, half.weights_digest) == (whole.base_digest, whole.weights_digest)
    assert (whole.base_precision, half.base_precision) == ("float32", "bfloat16")
    half.to(torch.float16).save_pretrained(str(tmp_path))
    build_nano_tokenizer().save_pretrained(str(tmp_path))
    native, wide = load_base(str(tmp_path))[0], load_base(str(tmp_path), dtype=torch.float32)[0]
    assert native.base_precision == "float16"
    assert (native.base_digest, native.weights_digest) == (wide.base_digest, wide.weights_digest)


def test_digests_depend_on_neither_names_nor_order(base):
    model = load_base(str(base))[0]
    before, layers = weights_digest(model), model.model.layers
    renamed = nn.Module()
    renamed.later, renamed.head = model.model, model.lm_head
    del renamed.later.layers
    renamed.blocks = layers
    assert weights_digest(renamed) == before


def test_quantised_weights_have_no_digest(base):
    model = load_base(str(base))[0]
    before = weights_digest(model)
    model.quantization_method = "gguf"  # unpacked in loading
    assert (weights_digest(model), precision_of(model)) == (before, "float32")
    model.quantization_method = "gptq"
    assert (weights_digest(model), precision_of(model)) == (None, "gptq")
    del model.quantization_method
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    assert weights_digest(model) is None


def test_a_base_keeps_the_name_it_was_loaded_by():
    model = load_base("janus-nano")[0]
    assert model.base_spec == "janus-nano"
    assert inject_hyperlora(model).base_spec == "janus-nano"


def test_a_model_without_weights_is_not_identified():
    with torch.device("meta"):
        model = nano_model(16, 1, 2, 16)
    identify(model)
    assert not hasattr(model, "base_digest")
    tokenizer = load_base(str(GOLDEN / "base"))[1]
    with torch.device("meta"):
        prepare_model(model, tokenizer, SHAPE, head_rows=True)
    assert all(p.is_meta for p in adapter_parameters(model).values())


# --- precision -----------------------------------------------------------------------------------------------------


def test_the_trained_dtype_is_restored(base, tmp_path):
    model, tokenizer = load_base(str(base), dtype=torch.bfloat16)
    folder = save_hyperlora_adapter(prepare_model(model, tokenizer, SHAPE), tokenizer, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = load_hyperlora_adapter(folder)
        same = load_hyperlora_adapter(folder, precision="dense")
    assert adapter.model.dtype == same.model.dtype == torch.bfloat16
    assert adapter.config["served_precision"] == adapter.config["base_precision"] == "bfloat16"


def test_an_adapter_of_four_bits_serves_on_the_dense_base_with_a_warning(base, tmp_path):
    """Needs no bitsandbytes: what matters is what the config says it was trained on."""
    folder = edit(save(base, tmp_path / "a"), tmp_path / "nf4", base_precision="nf4", weights_digest=None)
    with pytest.warns(UserWarning, match=r"trained on its base in nf4 and is served on float32.*precision='trained'"):
        adapter = load_hyperlora_adapter(folder, precision="dense")
    assert (adapter.config["base_precision"], adapter.config["served_precision"]) == ("nf4", "float32")
    again = save_hyperlora_adapter(adapter.model, adapter.tokenizer, tmp_path / "again")
    assert read_config(again)["base_precision"] == "nf4"
    assert "served_precision" not in read_config(again)


def test_unknown_precisions_are_refused(base, tmp_path):
    with pytest.raises(InputError, match=r"unknown precision 'int8'.*trained"):
        load_hyperlora_adapter(save(base, tmp_path / "a"), precision="int8")


def test_four_bits_and_dense_know_each_other_s_adapters(base, tmp_path):
    bnb = pytest.importorskip("bitsandbytes")
    quantised, tokenizer = trained(base, use_qlora=True)
    assert quantised.base_digest == load_base(str(base))[0].base_digest
    folder = save_hyperlora_adapter(quantised, tokenizer, tmp_path / "nf4")
    assert read_config(folder)["weights_digest"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = load_hyperlora_adapter(folder)
    with pytest.warns(UserWarning, match="nf4"):
        dense = load_hyperlora_adapter(folder, precision="dense")
    assert (same.config["served_precision"], dense.config["served_precision"]) == ("nf4", "float32")
    assert isinstance(same.model.model.layers[0].mlp.up_proj.base_layer, bnb.nn.Linear4bit)
    assert torch.equal(logits(same.model), logits(quantised))
    assert (logits(dense.model) - logits(quantised)).abs().max() > 1e-4
    other = write_base(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match="base_digest"):
        load_hyperlora_adapter(folder, base=str(other), precision="dense")
    whole = save(base, tmp_path / "dense")
    with pytest.warns(UserWarning, match="trained on its base in float32 and is served on nf4"):
        assert load_hyperlora_adapter(whole, precision="nf4").config["served_precision"] == "nf4"
