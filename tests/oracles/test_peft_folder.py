"""LoRA folders: what PEFT writes is read, what is written PEFT reads, and both compute the same."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from bargain_env.errors import InputError
from hyperlora.adapters.peft_folder import LoRA, read_peft, write_peft
from hyperlora.adapters.rows import bind_adapters, inject_rows, row_layers, stack_adapters

from .models import ATOL, ids, tiny


def made(rank=4, alpha=16.0, seed=0, ranks=None):
    """An adapter of the tiny model; ``ranks`` by part of a name."""
    generator, layers = torch.Generator().manual_seed(seed), {}
    for name, layer in row_layers(inject_rows(tiny())).items():
        r = next((value for key, value in (ranks or {}).items() if key in name), rank)
        layers[name] = (
            torch.empty(r, layer.in_features).normal_(0, 0.2, generator=generator),
            torch.empty(layer.out_features, r).normal_(0, 0.2, generator=generator),
        )
    return LoRA.of(layers, alpha)


@torch.no_grad()
def ours(lora, x):
    model = inject_rows(tiny())
    with bind_adapters(model, lora.scaled(), 0):
        return model(x).logits


@torch.no_grad()
def by_peft(folder, x):
    return peft.PeftModel.from_pretrained(tiny(), folder).eval()(x).logits


@pytest.mark.parametrize("ranks", [None, {"layers.1": 2, "layers.0.self_attn.q": 7}])
def test_peft_reads_what_is_written_and_computes_the_same(tmp_path, ranks):
    lora = made(ranks=ranks)
    folder = write_peft(tmp_path / "a", lora, base_model="tiny", dropout=0.05, metadata={"persona": "p1"})
    assert torch.allclose(by_peft(folder, ids()), ours(lora, ids()), atol=ATOL)
    assert (by_peft(folder, ids()) - tiny()(ids()).logits).abs().max() > 0.01
    again = read_peft(folder)
    assert again.metadata["persona"] == "p1"
    assert again.scaling == pytest.approx(dict(lora.scaling))
    for name, pair in lora.layers.items():
        assert all(torch.equal(x, y) for x, y in zip(again.layers[name], pair, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"rank_pattern": {"layers.1.self_attn.q_proj": 2}}, {"alpha_pattern": {"v_proj": 3}}],
)
def test_what_peft_writes_is_read_exactly(tmp_path, options):
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(tiny(), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
        expected = model(ids()).logits
    model.save_pretrained(tmp_path / "peft")
    lora = read_peft(tmp_path / "peft")
    assert torch.allclose(ours(lora, ids()), expected, atol=ATOL)
    write_peft(tmp_path / "ours", lora, base_model="tiny")
    theirs, mine = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "ours"))
    assert theirs.keys() == mine.keys()
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)
    assert torch.allclose(by_peft(tmp_path / "ours", ids()), expected, atol=ATOL)


def test_two_folders_in_one_batch_are_each_what_peft_says(tmp_path):
    adapters = [made(rank=4, seed=1), made(rank=8, alpha=8.0, seed=2)]
    folders = [write_peft(tmp_path / str(i), lora, base_model=None) for i, lora in enumerate(adapters)]
    model, x = inject_rows(tiny()), ids(2)
    with bind_adapters(model, stack_adapters([read_peft(f).scaled() for f in folders]), [1, 0]), torch.no_grad():
        together = model(x).logits
    for row, i in enumerate((1, 0)):
        assert torch.allclose(together[row], by_peft(folders[i], x)[row], atol=ATOL)


def test_same_adapter_same_bytes_and_foreign_folders_stay(tmp_path):
    for name in ("a", "b", "a"):
        write_peft(tmp_path / name, made(), base_model="tiny", metadata={"x": "1", "y": "2"}, files={"note.txt": "n"})
    for file in ("adapter_model.safetensors", "adapter_config.json", "note.txt"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="would be lost"):
        write_peft(tmp_path / "mine", made(), base_model="tiny")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    broken = LoRA.of({name: (a * float("inf"), b) for name, (a, b) in made().layers.items()}, 16)
    with pytest.raises(InputError, match="NaN or infinity"):
        write_peft(tmp_path / "c", broken, base_model="tiny")
    assert not (tmp_path / "c").exists()


def drop_b(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, path)


def edit_config(**changes):
    def edit(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "not the config of a PEFT LoRA"),
        (edit_config(peft_type="IA3"), "not the config of a PEFT LoRA"),
        (edit_config(lora_alpha="much"), "no number as lora_alpha"),
        (edit_config(use_dora=True), "use_dora"),
        (edit_config(r=5), "has rank 4, but"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x08" * 64), "cannot be read"),
        (drop_b, "do not fit each other"),
        (lambda f: save_file({"x": torch.zeros(2)}, f / "adapter_model.safetensors"), "no A or B"),
        (lambda f: save_file({}, f / "adapter_model.safetensors"), "holds no tensors"),
    ],
)
def test_damaged_folders_are_refused_by_name(tmp_path, damage, match):
    folder = write_peft(tmp_path / "a", made(), base_model="tiny")
    damage(folder)
    with pytest.raises(InputError, match=match) as caught:
        read_peft(folder)
    assert str(folder) in str(caught.value)
