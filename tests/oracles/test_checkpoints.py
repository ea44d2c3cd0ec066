"""O24, adapters on disk: the same bytes again, nothing but their own base, and whole or absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import bargain_env.files
from bargain_env.errors import InputError
from hyperlora import adapter_files, checkpoint, load_hyperlora_adapter, save_hyperlora_adapter, tokens
from hyperlora.adapter_files import CONFIG, PICKLE, SCHEMA_VERSION, WEIGHTS, read_config, read_state
from hyperlora.base import load_base, nano_model
from hyperlora.identity import base_digest, weights_digest
from hyperlora.inject import adapter_parameters, adapter_state, inject_hyperlora
from hyperlora.tokens import build_nano_tokenizer

from .saved import SHAPE, contents, edit, logits, save, trained, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("checkpoints") / "base")


# --- O24: there and back -------------------------------------------------------------------------------------------


def test_save_load_save_has_the_same_bytes(base, tmp_path):
    options = {"k_history": 5, "prompt_format": 1, "pickle": True, "extra": {"step": 3, "run": {"lr": 0.1}}}
    first = save_hyperlora_adapter(trained(base)[0], build_nano_tokenizer(), tmp_path / "a", **options)  # never on disk
    other = save(base, tmp_path / "c", seed=3, **options)
    loaded = load_hyperlora_adapter(first)
    second = save_hyperlora_adapter(loaded.model, loaded.tokenizer, tmp_path / "b", **options)
    names = {WEIGHTS, PICKLE, CONFIG, "README.md", "tokenizer.json", "tokenizer_config.json"}
    assert set(contents(first)) == names
    assert contents(second) == contents(first)
    differ = {name for name, data in contents(other).items() if contents(first)[name] != data}
    assert differ == {WEIGHTS, PICKLE, CONFIG, "README.md"}
    assert torch.equal(logits(loaded.model), logits(trained(base)[0]))
    assert (logits(loaded.model) - logits(trained(base, 3)[0])).abs().max() > 1e-3


def test_a_relative_base_stays_relative_where_it_still_leads_there(base, tmp_path):
    shutil.copytree(base, tmp_path / "pair" / "base")
    model, tokenizer = trained(tmp_path / "pair" / "base")
    model.base_spec = "../base"
    first = save_hyperlora_adapter(model, tokenizer, tmp_path / "pair" / "a")
    loaded = load_hyperlora_adapter(first)
    beside = save_hyperlora_adapter(loaded.model, loaded.tokenizer, tmp_path / "pair" / "b")
    away = save_hyperlora_adapter(loaded.model, loaded.tokenizer, tmp_path / "away" / "b")
    assert contents(beside) == contents(first)
    assert read_config(away)["base_model"] == str((tmp_path / "pair" / "base").resolve())
    load_hyperlora_adapter(away)


def test_the_config_says_all_that_loading_needs(base, tmp_path):
    config = read_config(save(base, tmp_path / "a", seed=7))
    model, tokenizer = load_base(str(base))
    assert config["schema_version"] == SCHEMA_VERSION
    assert (config["base_model"], config["base_precision"], config["vocab_rows"]) == (str(base), "float32", 131)
    assert (config["base_digest"], config["weights_digest"]) == (base_digest(model), weights_digest(model))
    assert config["tokenizer_digest"] == tokens.tokenizer_digest(tokenizer)
    assert {k: config[k] for k in SHAPE.as_config()} == SHAPE.as_config()
    assert (config["k_history"], config["prompt_format"], config["markers"], config["seed"]) == (8, 2, "new", 7)
    assert (config["token_rows"], config["head_rows"], config["first_new_id"]) == (0, 0, None)
    assert set(config["versions"]) == {"bargain-lab", "torch", "transformers"}
    assert config["versions"]["torch"] == torch.__version__


def test_this_package_s_version_is_that_of_its_distribution_or_unknown(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: {"bargain-lab": "1.2.3"}[name])
    assert adapter_files.library_versions()["bargain-lab"] == "1.2.3"

    def missing(name):
        raise adapter_files.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert adapter_files.library_versions()["bargain-lab"] == "unknown"


def test_files_may_be_read_by_others(base, tmp_path):
    folder = save(base, tmp_path / "a", files={"optimizer.safetensors": {"x": torch.zeros(1)}})
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}


def test_extra_entries_cannot_replace_the_identity(base, tmp_path):
    with pytest.raises(InputError, match=r"\['base_digest', 'seed'\]"):
        save(base, tmp_path / "a", extra={"seed": 1, "base_digest": "0", "step": 3})
    assert not (tmp_path / "a").exists()


def test_a_model_of_unknown_origin_is_not_saved(tmp_path):
    model = inject_hyperlora(nano_model(16, 1, 2, 16), rank=2, hyper_hidden=4)
    with pytest.raises(InputError, match=r"set model\.base_spec"):
        save_hyperlora_adapter(model, build_nano_tokenizer(), tmp_path / "a")
    model.base_spec = "somewhere"
    config = read_config(save_hyperlora_adapter(model, build_nano_tokenizer(), tmp_path / "a"))
    assert (config["base_model"], config["base_precision"]) == ("somewhere", "float32")
    assert config["base_digest"] == base_digest(nano_model(16, 1, 2, 16))


# --- O24: strictness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_adapter_is_neither_saved_nor_loaded(base, tmp_path, value):
    model, tokenizer = trained(base)
    whole = save_hyperlora_adapter(model, tokenizer, tmp_path / "a", pickle=True)
    before = contents(whole)
    name = "model.layers.0.mlp.up_proj.lora_A"
    with torch.no_grad():
        adapter_parameters(model)[name][1, 3] = value
    with pytest.raises(InputError, match=rf"publish refuses a NaN adapter: {name} holds NaN or infinity"):
        save_hyperlora_adapter(model, tokenizer, whole)
    assert contents(whole) == before
    (whole / WEIGHTS).unlink()
    torch.save(adapter_state(model), whole / PICKLE)
    with pytest.raises(InputError, match=rf"cannot be used: {name} holds NaN.*earlier checkpoint"):
        load_hyperlora_adapter(whole)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_tensors_must_be_those_of_the_adapter(base, tmp_path, change):
    folder = save(base, tmp_path / "a")
    load_hyperlora_adapter(folder)
    state = read_state(folder)
    name = "model.layers.0.self_attn.q_proj.lora_B"
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        state["model.layers.9.self_attn.q_proj.lora_B"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(1, 2)
    checkpoint.save_file(state, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"does not fit.*q_proj"):
        load_hyperlora_adapter(folder)


def test_another_target_list_is_refused(base, tmp_path):
    folder = save(base, tmp_path / "a")
    for i, targets in enumerate((["q_proj"], [*SHAPE.target_modules, "lm_head_2"], ["q_proj", "wq"])):
        wrong = edit(folder, tmp_path / f"wrong-{i}", target_modules=targets)
        if i == 1:
            load_hyperlora_adapter(wrong)
        else:
            with pytest.raises(InputError, match="does not fit this model"):
                load_hyperlora_adapter(wrong)


@pytest.mark.parametrize(
    ("name", "options"),
    [("base_digest", {"seed": 5}), ("weights_digest", {"projections": 5}), ("base_digest", {"layers": 2})],
)
def test_another_base_is_refused(base, tmp_path, name, options):
    folder, other = save(base, tmp_path / "a"), write_base(tmp_path / "other", **options)
    with pytest.raises(InputError, match=rf"trained on .*\({name} "):
        load_hyperlora_adapter(folder, base=str(other))
    load_hyperlora_adapter(folder, base=str(base))


def test_another_table_and_another_tokenizer_are_refused(base, tmp_path):
    folder = save(base, tmp_path / "a")
    rows = edit(folder, tmp_path / "rows", vocab_rows=132)
    with pytest.raises(InputError, match=r"\(vocab_rows 132\).*\(131\)"):
        load_hyperlora_adapter(rows)
    load_hyperlora_adapter(rows, allow_base_mismatch=True)
    grown = load_base(str(base))[1]
    grown.add_tokens(["more"])
    tokens.save_tokenizer(grown, folder)
    with pytest.raises(InputError, match="tokenizer_digest"):
        load_hyperlora_adapter(folder)


def test_a_newer_schema_asks_for_an_upgrade(base, tmp_path):
    folder = save(base, tmp_path / "a")
    with pytest.raises(InputError, match=rf"written by a newer version.*schema {SCHEMA_VERSION + 1}.*upgrade"):
        load_hyperlora_adapter(edit(folder, tmp_path / "new", schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(InputError, match="schema_version '2' is not a whole number"):
        load_hyperlora_adapter(edit(folder, tmp_path / "odd", schema_version="2"))


def test_a_pickle_of_anything_else_is_refused(base, tmp_path):
    folder = save(base, tmp_path / "a", pickle=True)
    (folder / WEIGHTS).unlink()
    load_hyperlora_adapter(folder)
    for content in ([torch.zeros(2)], {"a": 1}, {"model": nn.Linear(2, 2)}):
        torch.save(content, folder / PICKLE)
        with pytest.raises(InputError, match="cannot be read"):
            load_hyperlora_adapter(folder)


# --- O24: whole or absent ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it, and with `shutil.rmtree` gone nobody cleans up either."""


def write_points(monkeypatch, stop: int, error: type[BaseException]) -> list[str]:
    """Count every write of a save; the one numbered ``stop`` raises."""
    seen: list[str] = []

    def watch(owner, name: str) -> None:
        original = getattr(owner, name)

        def call(*args, **kwargs):
            seen.append(name)
            if len(seen) - 1 == stop:
                raise error(f"stopped at {name}")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    watch(checkpoint, "save_file")
    watch(torch, "save")
    watch(checkpoint, "save_tokenizer")
    watch(Path, "write_text")
    watch(os, "replace")
    if error is Killed:
        monkeypatch.setattr(bargain_env.files.shutil, "rmtree", lambda *args, **kwargs: None)
    return seen


@pytest.mark.parametrize("error", [OSError, Killed])
def test_a_save_that_stops_anywhere_leaves_the_version_before(base, tmp_path, error):
    before, after = trained(base, 2), trained(base, 3)
    options = {"pickle": True, "files": {"optimizer.safetensors": {"x": torch.zeros(1)}}}
    stop, states = 0, {name: adapter_state(model) for name, (model, _) in (("before", before), ("after", after))}
    while True:
        folder = tmp_path / str(stop) / "a"
        save_hyperlora_adapter(*before, folder, **options)
        with pytest.MonkeyPatch.context() as patch:
            seen = write_points(patch, stop, error)
            try:
                save_hyperlora_adapter(*after, folder, **options)
                break
            except error:
                pass
        found = read_state(adapter_files.adapter_folder(folder))
        assert all(torch.equal(found[name], tensor) for name, tensor in states["before"].items())
        assert load_hyperlora_adapter(folder).config["seed"] == 2
        stop += 1
    assert seen == [
        "save_file",
        "save",
        "save_file",
        "write_text",
        "save_tokenizer",
        "write_text",
        "write_text",
        "replace",
        "replace",
    ]
    assert stop == len(seen)
    found = read_state(folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in states["after"].items())
    if error is OSError:
        assert {path.name for path in folder.parent.iterdir()} == {"a"}
