"""Hot swap (O29): afterwards the model is a fresh load; a swap that fails leaves the old adapter serving, bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from bargain_env.errors import InputError
from hyperlora import bind_rho, build_nano_tokenizer, inject_hyperlora, load_hyperlora_adapter, save_hyperlora_adapter
from hyperlora.adapter_files import CONFIG, WEIGHTS
from hyperlora.base import load_base, nano_model
from hyperlora.digest import adapter_digest
from hyperlora.inject import HyperLoRASettings, adapter_parameters, adapter_state
from hyperlora.merge import adapted_layers, merge, merged
from hyperlora.swap import swap
from hyperlora.token_rows import add_token_rows

from .models import ids, logits

SHAPE = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "hyper_hidden": 8}


def trained(folder, base, seed, **shape):
    """An adapter on disk whose every tensor depends on ``seed``."""
    model, tokenizer = load_base(str(base))
    inject_hyperlora(model, **{**SHAPE, **shape}, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_B.normal_(0.0, 0.2, generator=generator)
    return save_hyperlora_adapter(model, tokenizer, folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two bases of one shape; adapters one and two of the first, and others that do not fit."""
    root = tmp_path_factory.mktemp("world")
    for name, seed in (("base", 1), ("other", 2)):
        nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=seed).save_pretrained(str(root / name))
        build_nano_tokenizer().save_pretrained(str(root / name))
    trained(root / "one", root / "base", 1)
    trained(root / "two", root / "base", 2)
    trained(root / "other_base", root / "other", 3)
    trained(root / "rank", root / "base", 3, rank=5)
    trained(root / "alpha", root / "base", 3, alpha=9.0)
    trained(root / "targets", root / "base", 3, target_modules=("q_proj",))
    trained(root / "tanh", root / "base", 3, gate_activation="tanh")
    return root


@pytest.fixture
def live(world):
    return load_hyperlora_adapter(world / "one")


def test_after_a_swap_the_model_is_a_fresh_load(world, live):
    x, before, old = ids(), logits(live.model, ids(), 0.3), adapter_digest(live.model)
    fresh = load_hyperlora_adapter(world / "two")
    assert (logits(fresh.model, x, 0.3) - before).abs().max() > 1e-3
    digest = swap(live, world / "two")
    assert torch.equal(logits(live.model, x, 0.3), logits(fresh.model, x, 0.3))
    assert live.config == fresh.config
    assert live.model.hyperlora_digest == digest == fresh.model.hyperlora_digest == adapter_digest(fresh.model) != old
    assert swap(live.model, adapter_state(load_hyperlora_adapter(world / "one").model)) == old
    assert torch.equal(logits(live.model, x, 0.3), before)


def test_no_gates_of_the_old_adapter_stay(world, live):
    """The seed's way leaves the gates of its last pass behind; a call of an inner module would still read them."""
    model = live.model
    model.current_rho = torch.tensor([[0.8]])
    with torch.no_grad():
        model(ids())
        model.current_rho = None
        swap(live, world / "two")
        inner = model.lm_head(model.model(ids()).last_hidden_state)
    assert torch.equal(inner, logits(model, ids(), None))


def test_parameters_stay_the_same_objects(world, live):
    """An optimizer, or a compiled model, that holds them follows."""
    before = {name: id(p) for name, p in adapter_parameters(live.model).items()}
    swap(live, world / "two")
    assert {name: id(p) for name, p in adapter_parameters(live.model).items()} == before


def damaged(world, tmp_path, kind):
    folder = tmp_path / kind
    shutil.copytree(world / "two", folder)
    state = load_file(folder / WEIGHTS)
    name = sorted(state)[3]
    if kind == "cut short":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:900])
    elif kind == "no weights":
        (folder / WEIGHTS).unlink()
    elif kind == "bad config":
        (folder / CONFIG).write_text("{")
    elif kind == "tokenizer":
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, "tokenizer_digest": "0" * 64}))
    else:
        changed = {
            "missing": None,
            "shape": state[name].flatten()[:-1],
            "integers": state[name].to(torch.int32),
            "NaN": torch.full_like(state[name], float("nan")),
            "infinite": state[name].double().fill_(1e300),
        }[kind]
        state = {k: v for k, v in state.items() if k != name} | ({} if changed is None else {name: changed})
        save_file(state | ({"stray": torch.ones(1)} if kind == "missing" else {}), folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("other_base", "was trained on"),
        ("rank", "rank 5"),
        ("alpha", r"alpha 9\.0"),
        ("targets", "target_modules"),
        ("tanh", "gate_activation tanh"),
        ("nowhere", "no adapter in"),
        ("cut short", "cannot be read|damaged"),
        ("no weights", "no weights"),
        ("bad config", "not valid JSON"),
        ("tokenizer", "tokenizer_digest"),
        ("missing", "missing .*unexpected .*stray"),
        ("shape", "does not fit"),
        ("integers", "int32"),
        ("NaN", "NaN or infinity"),
        ("infinite", "NaN or infinity"),
    ],
)
def test_a_swap_that_fails_leaves_the_old_adapter(world, live, tmp_path, kind, message):
    folder = world / kind if (world / kind).is_dir() or kind == "nowhere" else damaged(world, tmp_path, kind)
    swap(live, world / "one")
    x, config, digest = ids(), dict(live.config), live.model.hyperlora_digest
    before, state = logits(live.model, x, 0.3), adapter_state(live.model)
    with pytest.raises(InputError, match=message):
        swap(live, folder)
    after = adapter_state(live.model)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert torch.equal(logits(live.model, x, 0.3), before)
    assert (live.config, live.model.hyperlora_digest) == (config, digest) == (config, adapter_digest(live.model))


def test_another_base_can_be_allowed(world, live):
    swap(live, world / "other_base", allow_base_mismatch=True)
    assert adapter_digest(live.model) == adapter_digest(load_hyperlora_adapter(world / "other_base").model)


def test_another_precision_warns(world, live, tmp_path):
    folder = tmp_path / "four_bits"
    shutil.copytree(world / "two", folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "base_precision": "nf4"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swap(live, world / "two")
    with pytest.warns(UserWarning, match="trained on its base in nf4 and is served on float32"):
        swap(live, folder)
    assert (live.config["served_precision"], live.model.trained_precision) == ("float32", "nf4")


def test_tokens_of_its_own_must_have_the_same_places(world, tmp_path):
    """Tied head rows have no tensors of their own, and rows do not say where they begin: only the config tells."""
    for name, first, head in (("a", 131, False), ("b", 130, False), ("c", 131, True), ("d", 131, False)):
        model, tokenizer = load_base(str(world / "base"))
        inject_hyperlora(model, **SHAPE, seed=len(name))
        add_token_rows(model, range(first, first + 2), head)
        save_hyperlora_adapter(model, tokenizer, tmp_path / name)
    live = load_hyperlora_adapter(tmp_path / "a")
    assert live.model.get_input_embeddings().first == 131
    for name, said in (("b", "first_new_id 130"), ("c", "head_rows 2")):
        with pytest.raises(InputError, match=said):
            swap(live, tmp_path / name)
    swap(live, tmp_path / "d")


def test_not_while_merged_or_bound(world, live):
    state = adapter_state(live.model)
    with merged(live.model, 0.3), pytest.raises(RuntimeError, match="unmerge"):
        swap(live, world / "two")
    with bind_rho(live.model, 0.3), pytest.raises(RuntimeError, match="is bound"):
        swap(live, world / "two")
    assert all(torch.equal(adapter_state(live.model)[name], state[name]) for name in state)
    with pytest.raises(InputError, match="carries no HyperLoRA"):
        swap(load_base(str(world / "base"))[0], world / "two")


def test_the_digest_names_bytes_shape_and_settings(world, live):
    settings, state, digest = live.model.hyperlora_settings, adapter_state(live.model), adapter_digest(live.model)
    assert adapter_digest(dict(reversed(state.items())), settings) == digest
    merge(live.model, 0.3)
    assert adapter_digest(live.model) == digest
    name, tensor = next(iter(state.items()))
    flipped = tensor.clone()
    flipped.view(torch.int32).view(-1)[0] ^= 1  # the last bit of one number
    others = [{name: flipped}, {name: tensor.reshape(-1)}, {name: tensor.view(torch.int32)}, {f"{name}x": tensor}]
    seen = {digest} | {adapter_digest({**state, **other}, settings) for other in others}
    assert len(seen) == 1 + len(others)
    assert adapter_digest(load_hyperlora_adapter(world / "alpha").model) not in seen
    with pytest.raises(TypeError, match="settings"):
        adapter_digest(state)


def test_the_digest_is_this_sum():
    """Each part after its length, so that no part can pass for the beginning of the next; caches on disk may hold it."""
    settings, total = HyperLoRASettings(rank=2, alpha=4, target_modules=("q_proj",)), hashlib.sha256()
    text = (
        '{"alpha":4.0,"dropout":0.05,"fourier_freqs":8,"gate_activation":"sigmoid","hyper_hidden":64,"include_raw":true,'
        '"rank":2,"target_modules":["q_proj"],"use_fourier":false}'
    )
    for part in (text.encode(), b"a", b"torch.float32", b"[1, 2]", struct.pack("<2f", 1.5, -2.0), b"b", b"torch.bfloat16",
                 b"[]", b"\x80\x3f"):  # fmt: skip
        total.update(struct.pack("<Q", len(part)) + part)
    state = {"b": torch.tensor(1.0, dtype=torch.bfloat16), "a": torch.tensor([[1.5, -2.0]])}
    assert adapter_digest(state, settings) == total.hexdigest()
