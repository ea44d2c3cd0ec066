"""The catalogue: what is found in a directory, what is left out and why, and the index that saves reading it again."""

from __future__ import annotations

import json
import shutil

import pytest
from made_adapters import pairs, write, write_many
from oracles.models import awake, tiny

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, inject_hyperlora, save_hyperlora_adapter
from hyperlora.adapters import AdapterRegistry, AdapterSpec, LoRA, index, read_peft, write_peft
from hyperlora.adapters.folders import read_spec


@pytest.fixture
def directory(tmp_path):
    write_many(tmp_path, ["calm", "bold"])
    write(tmp_path, "medic", 3, rank=4, targets=["q_proj"], domain="medical", description="for doctors",
          keywords=["Doctor", "symptom"], base_digest="b" * 64)  # fmt: skip
    return tmp_path


def rho_adapter(folder):
    model = awake(inject_hyperlora(tiny(), rank=4))
    model.base_spec = "somewhere"
    return save_hyperlora_adapter(model, build_nano_tokenizer(), folder)


def test_specs_say_what_the_folders_hold(directory):
    registry = AdapterRegistry(directory, max_loaded=2)
    assert [spec.name for spec in registry.list_adapters()] == ["bold", "calm", "medic"]
    spec = registry.get_adapter("medic")
    assert (spec.domain, spec.rank, spec.alpha, spec.target_modules) == ("medical", 4, 6.0, ("q_proj",))
    assert (spec.description, spec.keywords, spec.base_digest) == ("for doctors", ("doctor", "symptom"), "b" * 64)
    assert spec.size_bytes == (directory / "medic" / "adapter_model.safetensors").stat().st_size
    assert registry.get_adapter("calm").domain == "calm"  # its name, where nothing is said
    assert registry.get_adapter("calm").digest != registry.get_adapter("bold").digest
    assert [s.name for s in registry.get_adapters_for_domain("medical")] == ["medic"]
    assert registry.get_adapter("none") is None
    assert registry.max_loaded == 2
    assert registry.loaded_adapters == []


def test_the_seeds_keys_in_the_config_are_read(directory):
    path = directory / "calm" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "domain": "peace", "description": "quiet"}))
    spec = AdapterRegistry(directory).get_adapter("calm")
    assert (spec.domain, spec.description) == ("peace", "quiet")


def in_the_header(folder):
    write_peft(folder, LoRA.of(pairs(1), alpha=3.0), base_model=None, metadata={"base_digest": "c" * 64})


def in_the_summary(folder):
    (folder / "training_summary.json").write_text(json.dumps({"base": {"name": "x", "digest": "c" * 64}}))


def in_the_export(folder):
    (folder / "hyperlora_export.json").write_text(json.dumps({"rho": 0.5, "base_digest": "c" * 64}))


@pytest.mark.parametrize("said", [in_the_header, in_the_summary, in_the_export])
def test_the_base_is_known_wherever_it_was_written(directory, said):
    registry = AdapterRegistry(directory)
    assert registry.get_adapter("calm").base_digest is None
    said(directory / "calm")
    registry.rescan()
    assert registry.get_adapter("calm").base_digest == "c" * 64


def spoil_config(folder):
    (folder / "adapter_config.json").write_text("{")


def spoil_list(folder):
    (folder / "adapter_config.json").write_text("[]")


def truncate(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def pickled(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def foreign_meta(folder):
    (folder / "adapter_meta.json").write_text('{"domian": "x"}')


def set_config(**keys):
    def change(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return change


PLAIN = {
    "eva_config": {"rho": 2.0}, "qalora_group_size": 16, "megatron_core": "megatron.core", "use_rslora": True,
    "init_lora_weights": "gaussian", "peft_version": "0.21.0", "layers_to_transform": [0],
}  # fmt: skip
OTHER = {
    "use_dora": True, "bias": "all", "modules_to_save": ["lm_head"], "trainable_token_indices": [3], "lora_bias": True,
    "fan_in_fan_out": True, "layer_replication": [[0, 1]], "target_parameters": ["experts.w"], "use_qalora": True,
    "alora_invocation_tokens": [1, 2], "use_bdlora": {"nblocks": 2}, "kasa_config": {"beta": 1}, "arrow_config": {"k": 2},
    "init_lora_weights": "pissa_niter_4", "peft_type": None, "of_next_year": True,
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER)
def test_catalogue_and_reader_refuse_the_same_methods(directory, key):
    set_config(**PLAIN)(directory / "calm")
    assert read_peft(directory / "calm").scaling
    assert AdapterRegistry(directory).problems == {}
    set_config(**{key: OTHER[key]})(directory / "calm")
    with pytest.raises(InputError, match=key):
        read_peft(directory / "calm")
    assert key in AdapterRegistry(directory).problems["calm"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (spoil_config, "not valid JSON"),
        (spoil_list, "not an object"),
        (truncate, "cannot be read"),
        (pickled, "pickle"),
        (foreign_meta, "unknown keys"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (set_config(r="16"), "rank is '16'"),
        (set_config(lora_alpha=None), "lora_alpha"),
        (set_config(use_dora=True), "use_dora"),
        (set_config(bias="all"), "bias"),
        (set_config(peft_type="IA3"), "IA3"),
        (set_config(domain=3), "domain is 3"),
        (lambda f: f.rename(f.with_name("cal@m")), "rename"),
    ],
)
def test_a_bad_entry_is_reported_and_the_others_served(directory, harm, reason):
    harm(directory / "calm")
    registry = AdapterRegistry(directory)
    assert [spec.name for spec in registry.list_adapters()] == ["bold", "medic"]
    (name, problem), = registry.problems.items()  # fmt: skip
    assert name in ("calm", "cal@m")
    assert reason in problem
    if name == "calm":
        with pytest.raises(InputError, match="'calm' cannot be used"):
            registry.require("calm")


def test_unknown_names_suggest_the_nearest(directory, tmp_path_factory):
    with pytest.raises(InputError, match="did you mean 'medic'"):
        AdapterRegistry(directory).require("medik")
    with pytest.raises(InputError, match="holds no adapter"):
        AdapterRegistry(tmp_path_factory.mktemp("empty")).require("medic")


def test_unchanged_folders_are_not_read_again(directory, monkeypatch):
    first = AdapterRegistry(directory).list_adapters()
    read = []
    monkeypatch.setattr(index, "read_spec", lambda place: read.append(place.name) or read_spec(place))
    second = AdapterRegistry(directory)
    assert second.list_adapters() == first
    assert read == []
    write(directory, "calm", 9)  # the control: a changed one is read, and only that
    second.rescan()
    assert read == ["calm"]
    assert second.get_adapter("calm").digest != next(s.digest for s in first if s.name == "calm")
    shutil.rmtree(directory / "bold")
    second.rescan()
    assert second.get_adapter("bold") is None


def test_a_bad_entry_is_remembered_until_it_is_mended(directory, monkeypatch):
    kept = (directory / "calm" / "adapter_config.json").read_text()
    spoil_config(directory / "calm")
    AdapterRegistry(directory)
    read = []
    monkeypatch.setattr(index, "read_spec", lambda place: read.append(place.name) or read_spec(place))
    registry = AdapterRegistry(directory)
    assert list(registry.problems) == ["calm"]
    assert read == []
    (directory / "calm" / "adapter_config.json").write_text(kept)
    registry.rescan()
    assert registry.problems == {}


def test_a_mended_entry_whose_files_lie_deeper_is_read_again(directory):
    deeper = directory / "run" / "adapter"
    shutil.copytree(directory / "calm", deeper)
    kept = (deeper / "adapter_config.json").read_text()
    spoil_config(deeper)
    (directory / "run" / "training_summary.json").write_text("{}")
    registry = AdapterRegistry(directory)
    assert list(registry.problems) == ["run"]
    (deeper / "adapter_config.json").write_text(kept)
    registry.rescan()
    assert registry.problems == {}
    assert registry.get_adapter("run").path == str(deeper)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_damaged_index_is_made_again(directory, text):
    first = AdapterRegistry(directory).list_adapters()
    whole = (directory / index.INDEX).read_text()
    (directory / index.INDEX).write_text(text)
    assert AdapterRegistry(directory).list_adapters() == first
    assert (directory / index.INDEX).read_text() == whole


def test_a_moved_directory_finds_its_adapters_in_the_new_place(directory, tmp_path_factory):
    AdapterRegistry(directory)
    new = tmp_path_factory.mktemp("moved") / "adapters"
    shutil.copytree(directory, new)
    assert {spec.path for spec in AdapterRegistry(new).list_adapters()} == {
        str(new / n) for n in ("bold", "calm", "medic")
    }


def test_a_rho_adapter_is_listed_once_and_served_at_each_rho(tmp_path):
    rho_adapter(tmp_path / "dial")
    registry = AdapterRegistry(tmp_path)
    (spec,) = registry.list_adapters()
    assert (spec.kind, spec.rank, spec.rho) == ("hyperlora", 4, None)
    low, high = registry.get_adapter("dial@0.2"), registry.get_adapter("dial@0.80")
    assert (low.name, low.rho, high.name, high.rho) == ("dial@0.2", 0.2, "dial@0.8", 0.8)
    assert len({spec.digest, low.digest, high.digest}) == 3
    for name, reason in {"dial@x": "not a rho", "dial@1.5": "outside"}.items():
        with pytest.raises(InputError, match=reason):
            registry.get_adapter(name)


def test_registered_by_hand(directory):
    registry = AdapterRegistry(directory)
    registry.register_adapter(AdapterSpec("guest", str(directory / "calm"), "visitors"))
    assert registry.get_adapter("guest").domain == "visitors"
    with pytest.raises(InputError, match="holds '@'"):
        registry.register_adapter(AdapterSpec("a@0.5", "", "x"))
    with pytest.raises(InputError, match="does not depend on rho"):
        registry.get_adapter("calm@0.5")


def test_settings_that_make_no_sense(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        AdapterRegistry(tmp_path / "file")
    with pytest.raises(InputError, match="max_loaded"):
        AdapterRegistry(tmp_path, max_loaded=0)
