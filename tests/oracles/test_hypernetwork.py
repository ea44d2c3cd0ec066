"""Hypernetworks: a fresh one is the base, a generated adapter is what PEFT loads, and what is damaged is refused."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from bargain_env.errors import InputError
from hyperlora.adapters import AdapterManager, AdapterRegistry, AdapterSpec, HyperNetwork, read_peft
from hyperlora.adapters.hypernetwork import LINEAGE, update_norm
from hyperlora.adapters.hypernetwork_files import CONFIG, WEIGHTS, load_hypernetwork, save_hypernetwork
from hyperlora.adapters.rows import bind_adapters, inject_rows, row_layers
from hyperlora.identity import identify

from .models import ATOL, ids, tiny

D = 5
TARGETS = ("q_proj", "v_proj", "down_proj")  # three different shapes


def base():
    model = tiny().eval().requires_grad_(False)
    identify(model)
    return inject_rows(model, TARGETS)


def network(model, awake=True, **options):
    """One whose adapters move logits, and differ, unless it is to be ``fresh``."""
    made = HyperNetwork.for_model(model, D, lora_rank=3, bottleneck_dim=6, alpha=6.0, **options)
    if awake:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for head in (made.heads_a, made.heads_b):
                head.weight.normal_(0, 0.2, generator=draw)
            made.heads_b.bias.normal_(0, 0.2, generator=draw)
    return made


def embeddings(count=3, seed=0):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def bound(model, made, vectors, x):
    with bind_adapters(model, made(vectors), range(len(vectors))):
        return model(x).logits


def test_a_fresh_network_leaves_every_row_the_base_bit_for_bit():
    model = base()
    made = network(model, awake=False)
    assert torch.equal(bound(model, made, embeddings(), ids()), model(ids()).logits)
    weights = made(embeddings())
    for name, (a, b) in weights.items():
        assert not b.any()
        assert 0.2 < a.abs().max() * row_layers(model)[name].in_features ** 0.5 <= 1.0  # as a LoRA's A begins
    assert (bound(model, network(model), embeddings(), ids()) - model(ids()).logits).abs().max() > 0.01


@pytest.mark.parametrize("options", [{}, {"head_rank": 2}, {"num_target_layers": 2}])
def test_shapes_follow_the_layers(options):
    model = base()
    made = network(model, **options)
    layers = row_layers(model)
    expected = list(layers)[-options.get("num_target_layers", len(layers)) :]
    weights = made(embeddings(4))
    assert list(weights) == expected
    assert len({layers[name].in_features for name in expected}) > 1
    for name, (a, b) in weights.items():
        assert a.shape == (4, 3, layers[name].in_features)
        assert b.shape == (4, layers[name].out_features, 3)
    assert made.size() == sum(p.numel() for p in made.parameters())
    assert made(embeddings()[0])[expected[0]][0].shape[0] == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model_hidden_dim": 7}, "the model has"),
        ({"num_target_layers": 99}, "num_target_layers 99"),
        ({"lora_rank": 0}, "lora_rank 0"),
        ({"bottleneck_dim": 0}, "bottleneck_dim 0"),
        ({"head_rank": 0}, "head_rank 0"),
        ({"alpha": float("nan")}, "alpha nan"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises(InputError, match=match):
        HyperNetwork.for_model(base(), D, **options)


@pytest.mark.parametrize("shape", [(D + 1,), (2, D + 1), (1, 2, D)])
def test_embeddings_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"embeddings must be \[B, 5\]"):
        network(base())(torch.zeros(shape))


def test_rows_of_a_batch_are_what_they_are_alone():
    model = base()
    made, vectors = network(model), embeddings()
    together = bound(model, made, vectors, ids())
    alone = torch.cat([bound(model, made, vectors[i : i + 1], ids()[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=ATOL)
    swapped = bound(model, made, vectors.flip(0), ids())
    assert (together - swapped)[[0, 2]].abs().max() > 0.01


def test_gradients_reach_the_encoder_as_soon_as_b_has_moved():
    model = base()
    made = network(model, awake=False)
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)

    def step():
        optimizer.zero_grad()
        with bind_adapters(model, made(embeddings()), range(3)):
            model(ids(), labels=ids()).loss.backward()
        return {name: p.grad.abs().max().item() for name, p in made.named_parameters()}

    first = step()
    assert first["heads_b.bias"] > 0
    assert first["heads_b.weight"] > 0
    assert first["encoder.0.weight"] == 0  # B = 0 hides everything behind it
    optimizer.step()
    assert all(size > 0 for size in step().values())
    assert all(p.grad is None for p in model.parameters())


def test_peft_loads_an_export_and_computes_the_same(tmp_path):
    model = base()
    made, vector = network(model), embeddings()[1]
    folder = made.export(vector, tmp_path / "expert", model)
    theirs = peft.PeftModel.from_pretrained(tiny(), folder).eval()(ids()).logits
    ours = bound(model, made, vector.expand(3, -1), ids())
    assert torch.allclose(theirs, ours, atol=ATOL)
    assert (ours - model(ids()).logits).abs().max() > 0.01
    lineage = json.loads((folder / LINEAGE).read_text())
    assert lineage["hypernetwork_digest"] == made.digest() == read_peft(folder).metadata["hypernetwork_digest"]
    assert lineage["embedding"] == pytest.approx(vector.tolist())
    assert lineage["base_digest"] == model.base_digest
    other = made.export(embeddings()[2], tmp_path / "other", model)
    assert json.loads((other / LINEAGE).read_text())["embedding_digest"] != lineage["embedding_digest"]
    with pytest.raises(InputError, match="embedding holds NaN"):
        made.export(torch.full((D,), torch.nan), tmp_path / "nan", model)
    assert not (tmp_path / "nan").exists()


def test_a_manager_serves_exported_and_adopted_experts_alike(tmp_path):
    model = base()
    made, vector = network(model), embeddings()[0]
    made.export(vector, tmp_path / "written", model, description="firm")
    registry = AdapterRegistry(tmp_path)
    assert not registry.problems
    assert registry.get_adapter("written").base_digest == model.base_digest
    manager = AdapterManager(model, registry)
    manager.load("written")
    scaled = made.generate(vector).scaled()
    assert manager.adopt(AdapterSpec("made", "", "x"), scaled).kind == "generated"
    with torch.no_grad(), manager.serving_rows(["written", "made", None]):
        logits = model(ids()[:1].expand(3, -1)).logits
    assert torch.allclose(logits[0], logits[1], atol=ATOL)
    assert (logits[0] - logits[2]).abs().max() > 0.01


def test_it_starts_from_an_adapter_for_everybody(tmp_path):
    model = base()
    lora = network(model).generate(embeddings()[0])
    made = network(model, awake=False, seed=3)
    made.start_from(lora)
    for name, (a, b) in made(embeddings()).items():
        assert all(torch.equal(row, lora.layers[name][0]) for row in a)
        assert torch.allclose(b[1], lora.scaled()[name][1])
    with pytest.raises(InputError, match="cannot start"):
        HyperNetwork.for_model(model, D, lora_rank=2).start_from(lora)


def test_update_norm_is_that_of_the_products():
    weights = network(base())(embeddings())
    expected = sum((b @ a).square().sum(dim=(1, 2)) for a, b in weights.values())
    assert torch.allclose(update_norm(weights), expected, rtol=1e-4)


def test_saved_and_loaded_it_is_the_same_and_the_bytes_too(tmp_path):
    model = base()
    made = network(model, head_rank=2)
    save_hypernetwork(made, tmp_path / "a", model, {"note": 1})
    again, config = load_hypernetwork(tmp_path / "a", model)
    assert config["note"] == 1
    assert again.digest() == made.digest()
    for name, pair in made(embeddings()).items():
        assert all(torch.equal(x, y) for x, y in zip(again(embeddings())[name], pair, strict=True))
    save_hypernetwork(again, tmp_path / "b", model, {"note": 1})
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in (CONFIG, WEIGHTS))
    assert network(model).digest() == network(model).digest() != network(model, seed=1).digest()


def _weights(folder):
    state = load_file(folder / WEIGHTS)
    state["heads_b.bias"][0] += 1.0
    save_file(state, folder / WEIGHTS)


def _config(**changes):
    def change(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_config(base_digest="0" * 64), "trained on another base"),
        (_config(schema_version=9), "version 9"),
        (_config(kind="lora"), "not the config of a hypernetwork"),
        (_config(settings={}), "cannot be read"),
        (_weights, "does not belong"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"short"), "cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / CONFIG).unlink(), r"config\.json is missing"),
    ],
)
def test_damaged_or_foreign_files_are_refused(tmp_path, damage, match):
    model = base()
    folder = save_hypernetwork(network(model), tmp_path / "net", model)
    damage(folder)
    with pytest.raises(InputError, match=match):
        load_hypernetwork(folder, model)


def test_a_model_with_other_layers_is_refused(tmp_path):
    model = base()
    save_hypernetwork(network(model), tmp_path / "net", model)
    other = tiny()
    identify(other)
    with pytest.raises(InputError, match="no adapted layer"):
        load_hypernetwork(tmp_path / "net", inject_rows(other, ("q_proj",)))
