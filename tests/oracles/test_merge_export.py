"""Exports, and PEFT's merge of them, against the live model: O3–O5, O9. "They differ" comes before "they are equal"."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PhiConfig, PhiForCausalLM

from bargain_env.errors import InputError
from hyperlora import inject_hyperlora
from hyperlora.export import EXPORT_RECORD, PEFT_CONFIG, PEFT_WEIGHTS, export, export_grid, peft_tensors
from hyperlora.inject import adapter_tensors
from hyperlora.merge import adapted_layers, merge, merged, unmerge
from hyperlora.token_rows import HeadRows, add_token_rows

from .models import ATOL, KINDS, ids, logits, tiny


def awake(kind: str = "qwen2", seed: int = 0, rows: int = 0, first: int = 0, head: bool = False, base=None, **options):
    """A base and a model on a copy of it whose adapter does something; ``rows`` token rows from id ``first``."""
    base = base or tiny(kind)
    model = inject_hyperlora(copy.deepcopy(base), **{"rank": 4, "alpha": 8.0, **options})
    if rows:
        add_token_rows(model, list(range(first, first + rows)), head)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_B.normal_(0.0, 0.2, generator=generator)
    return base, model


def biased_head():
    """A model whose head, untied, has a bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = PhiConfig(
            vocab_size=131, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
            pad_token_id=0, bos_token_id=1, eos_token_id=1,
        )  # fmt: skip
        model = PhiForCausalLM(config).eval()
        torch.nn.init.normal_(model.lm_head.bias)
    return model


def plain(model, x):
    with torch.no_grad():
        return model(x).logits


def load_peft(base, folder, **options):
    peft = pytest.importorskip("peft")
    return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder), **options).eval()


def differ(a, b, by=1e-3):
    assert (a - b).abs().max() > by


def close(a, b, atol=ATOL):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def distance(a, b):
    """Total variation between two models' next-token distributions, the largest over positions."""
    return (a.float().softmax(-1) - b.float().softmax(-1)).abs().sum(-1).max() / 2


def state_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ── export ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_export_loads_in_peft_with_the_same_logits(kind, tmp_path):
    """O4 live = export; O5 PEFT's own merge of it; O4b gates may sit on A as well as on B."""
    base, model = awake(kind)
    x, live = ids(), logits(model, ids(), 0.3)
    differ(live, plain(base, x), 1e-2)
    differ(live, logits(model, x, 0.7))
    loaded = load_peft(base, export(model, 0.3, tmp_path / "lora"))
    close(plain(loaded, x), live)
    close(plain(loaded.merge_and_unload(), x), live)

    gates = {name: layer.hyper_net(torch.tensor([[0.3]]))[0].detach() for name, layer in adapted_layers(model)}
    tensors = load_file(tmp_path / "lora" / PEFT_WEIGHTS)
    for name, gate in gates.items():
        key = f"base_model.model.{name}.lora_"
        torch.testing.assert_close(tensors[f"{key}B.weight"] / gate, model.get_submodule(name).lora_B)
        tensors[f"{key}A.weight"] = gate[:, None] * tensors[f"{key}A.weight"]
        tensors[f"{key}B.weight"] = model.get_submodule(name).lora_B.detach().clone()
    save_file(tensors, tmp_path / "lora" / PEFT_WEIGHTS)
    close(plain(load_peft(base, tmp_path / "lora"), x), live)


def test_gates_of_one_are_a_lora_bit_for_bit(tmp_path):
    """O3: where g = 1, the export is A and B themselves, and PEFT's forward pass is ours."""
    base, model = awake()
    differ(peft_tensors(model, 0.3)["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"],
           model.get_submodule("model.layers.0.mlp.up_proj").lora_B, 1e-2)  # fmt: skip
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.hyper_net.net[4].weight.zero_()
            layer.hyper_net.net[4].bias.fill_(40.0)
    folder = export(model, 0.3, tmp_path / "lora")
    tensors = load_file(folder / PEFT_WEIGHTS)
    for name, layer in adapted_layers(model):
        assert torch.equal(tensors[f"base_model.model.{name}.lora_A.weight"], layer.lora_A)
        assert torch.equal(tensors[f"base_model.model.{name}.lora_B.weight"], layer.lora_B)
    close(plain(load_peft(base, folder), ids()), logits(model, ids(), 0.3), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_of_many_rho_equals_a_batch_of_exported_adapters(kind, tmp_path):
    """O9: ρ row by row here, one adapter a row there."""
    base, model = awake(kind)
    x, rhos = ids(), [0.0, 0.5, 1.0]
    folders = export_grid(model, rhos, tmp_path)
    assert [folder.name for folder in folders] == ["rho-0.00", "rho-0.50", "rho-1.00"]
    loaded = load_peft(base, folders[0], adapter_name="a0")
    loaded.load_adapter(str(folders[1]), "a1")
    loaded.load_adapter(str(folders[2]), "a2")
    with torch.no_grad():
        theirs = loaded(x, adapter_names=["a0", "a1", "a2"]).logits
    live = logits(model, x, torch.tensor(rhos).unsqueeze(1))
    differ(live, logits(model, x, 0.5))
    close(theirs, live)


def test_an_export_is_what_the_other_readers_take(tmp_path):
    """llama.cpp's converter takes lora_A and lora_B alone and `lora_alpha`; vLLM r, lora_alpha, target_modules and bias."""
    _, model = awake(alpha=6.0, target_modules=["q_proj", "down_proj"])
    folder = export(model, 0.25, tmp_path / "lora", base_model="somebody/base")
    names = {n for n, _ in adapted_layers(model)}
    with safe_open(folder / PEFT_WEIGHTS, "pt") as file:
        keys, record = set(file.keys()), json.loads(file.metadata()["hyperlora"])
        tensors = {key: file.get_tensor(key) for key in keys}
    assert keys == {f"base_model.model.{n}.lora_{side}.weight" for n in names for side in "AB"}
    assert all(t.ndim == 2 and t.dtype == torch.float32 and t.is_contiguous() for t in tensors.values())
    config = json.loads((folder / PEFT_CONFIG).read_text())
    assert (config["peft_type"], config["task_type"], config["bias"]) == ("LORA", "CAUSAL_LM", "none")
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 6, "somebody/base")
    assert set(config["target_modules"]) == {"q_proj", "down_proj"}
    assert config["modules_to_save"] is None
    assert config["inference_mode"] is True
    assert record["rho"] == 0.25
    assert record == json.loads((folder / EXPORT_RECORD).read_text())
    card = (folder / "README.md").read_text()
    for said in ("ρ = 0.25", "somebody/base", record["base_digest"], record["adapter_digest"], "6 / 4"):
        assert said in card


def test_exports_repeat_byte_for_byte_and_follow_the_adapter(tmp_path):
    _, model = awake()
    first, second = export(model, 0.3, tmp_path / "a"), export(model, 0.3, tmp_path / "b")
    other = export(model, 0.4, tmp_path / "c")
    assert (first / PEFT_WEIGHTS).read_bytes() != (other / PEFT_WEIGHTS).read_bytes()
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    before = (first / PEFT_WEIGHTS).read_bytes()
    with merged(model, 0.9):
        export(model, 0.3, first)  # over the earlier one, and of the adapter, whatever is merged
    assert (first / PEFT_WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("rho", [float("nan"), float("inf"), 1.01, -0.5, "much", torch.zeros(2)])
def test_a_rho_that_is_none_is_refused(rho, tmp_path):
    _, model = awake()
    for attempt in (lambda: export(model, rho, tmp_path / "x"), lambda: export_grid(model, [0.1, rho], tmp_path / "x"),
                    lambda: merge(model, rho)):  # fmt: skip
        with pytest.raises(InputError, match="rho"):
            attempt()
    assert not (tmp_path / "x").exists()
    assert model.hyperlora_binding.merged_at is None


def test_an_impasse_can_be_exported(tmp_path):
    base, model = awake()
    differ(logits(model, ids(), -1.0), logits(model, ids(), 0.0))
    (folder,) = export_grid(model, [-1.0, -1], tmp_path)
    assert folder.name == "rho--1.00"
    close(plain(load_peft(base, folder), ids()), logits(model, ids(), -1.0))


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "hyper_net.net.2.weight"])
def test_broken_adapters_are_not_exported(part, tmp_path):
    _, model = awake()
    name = f"model.layers.1.mlp.up_proj.{part}"
    with torch.no_grad():
        adapter_tensors(model)[name][0] = float("nan")
    for attempt in (lambda: export(model, 0.3, tmp_path / "x"), lambda: export_grid(model, [0.1, 0.3], tmp_path / "x")):
        with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj.* NaN"):
            attempt()
    assert not (tmp_path / "x").exists()


def test_a_foreign_folder_is_not_overwritten(tmp_path):
    """Neither notes, nor an adapter that is trained: its config has the same file name as PEFT's."""
    _, model = awake()
    for name in ("notes.txt", PEFT_CONFIG, PEFT_WEIGHTS):
        folder = tmp_path / "family" / "rho-0.50"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match="would be lost"):
            export(model, 0.5, folder)
        with pytest.raises(InputError, match="would be lost"):
            export_grid(model, [0.1, 0.5], tmp_path / "family")
        assert [p.name for p in (tmp_path / "family").rglob("*")] == ["rho-0.50", name]
        (folder / name).unlink()


def test_a_model_without_an_adapter_says_so(tmp_path):
    for attempt in (lambda: export(tiny(), 0.3, tmp_path / "x"), lambda: merge(tiny(), 0.3), lambda: unmerge(tiny())):
        with pytest.raises(InputError, match="carries no HyperLoRA"):
            attempt()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("first", [120, 131])
def test_token_rows_travel_as_trainable_token_indices(kind, head, first, tmp_path):
    """Within the base's 131 rows, or beyond them, where the card's lines grow the table first; tied head and untied."""
    base, model = awake(kind, rows=3, first=first, head=head)
    x, new = ids(), range(first, first + 3)
    x[:, 2], x[:, 5] = first, first + 2
    live = logits(model, x, 0.3)
    compared = [i for i in range(live.shape[-1]) if head or i not in new]
    assert (max(compared) >= 131) == (head and first == 131)
    folder = export(model, 0.3, tmp_path / "lora", base_model="somebody/base")
    card, fresh = (folder / "README.md").read_text(), copy.deepcopy(base)
    line = f"base.resize_token_embeddings({first + 3})"
    assert (line in card) == (first == 131)
    assert "vLLM and llama.cpp do not read" in card
    assert ("never writes them" in card) != head
    if first == 131:
        exec(line, {"base": fresh})
    loaded = load_peft(fresh, folder)
    close(plain(loaded, x)[..., compared], live[..., compared])
    stored = [name for name in load_file(folder / PEFT_WEIGHTS) if "lora_" not in name]
    assert len(stored) == (2 if head and kind == "llama" else 1)
    own = [p for name, p in loaded.named_parameters() if "trainable_tokens_delta" in name]
    assert len(own) == len(stored)
    for rows in own:  # the control: these rows are what the logits came from
        with torch.no_grad():
            rows.mul_(-1.0)
        differ(plain(loaded, x)[..., compared], live[..., compared], 1e-2)
        with torch.no_grad():
            rows.mul_(-1.0)


def test_a_head_that_peft_cannot_hold_is_not_exported(tmp_path):
    _, model = awake("llama", target_modules=["lm_head"])
    model.set_output_embeddings(HeadRows(model.lm_head, 131, torch.nn.Parameter(torch.zeros(2, 32)), tied=False))
    with pytest.raises(InputError, match="a LoRA and rows for new tokens, which PEFT cannot hold"):
        export(model, 0.3, tmp_path / "x")
    _, model = awake(base=biased_head(), target_modules=["q_proj"], rows=2, first=131, head=True)
    with pytest.raises(InputError, match="a bias and rows for new tokens, which PEFT cannot hold"):
        export(model, 0.3, tmp_path / "x")
