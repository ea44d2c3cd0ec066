"""O25: checkpoints written by every past release load and do what they did."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from bargain_env.errors import InputError
from hyperlora import bind_rho, load_hyperlora_adapter, save_hyperlora_adapter
from hyperlora.adapter_files import CONFIG, SCHEMA_VERSION, WEIGHTS, read_config
from hyperlora.base import load_base

from .saved import GOLDEN, write_base


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.iterdir() if (p / CONFIG).is_file()))
def test_golden_checkpoints_load_and_do_what_they_did(name, tmp_path):
    expected = load_file(GOLDEN / name / "expected.safetensors")
    adapter = load_hyperlora_adapter(GOLDEN / name)
    rho, x = expected["rho"].unsqueeze(1), expected["input_ids"]

    def last(model, values):
        with torch.no_grad(), bind_rho(model, values):
            return model(x.expand(len(rho), -1)).logits[:, -1]

    assert (last(adapter.model, rho) - last(adapter.model, None)).abs().max() > 1e-2
    assert (last(adapter.model, rho) - last(adapter.model, rho.flip(0))).abs().max() > 1e-2
    torch.testing.assert_close(last(adapter.model, rho), expected["logits"], atol=1e-5, rtol=0)
    again = save_hyperlora_adapter(adapter.model, adapter.tokenizer, tmp_path / "again")
    assert read_config(again)["schema_version"] == SCHEMA_VERSION
    torch.testing.assert_close(last(load_hyperlora_adapter(again).model, rho), expected["logits"], atol=1e-5, rtol=0)


def test_the_goldens_are_what_their_releases_wrote():
    assert "schema_version" not in read_config(GOLDEN / "seed")
    assert not (GOLDEN / "seed" / WEIGHTS).exists()
    assert read_config(GOLDEN / "schema-1")["schema_version"] == 1
    assert "weights_digest" not in read_config(GOLDEN / "schema-1")
    assert read_config(GOLDEN / "schema-1")["token_rows"] == 11
    assert sum(p.stat().st_size for p in (GOLDEN / "base").iterdir()) < 12_000


def test_the_seed_s_layout_without_its_tokenizer_gets_the_base_s(tmp_path):
    shutil.copytree(GOLDEN / "base", tmp_path / "base")
    shutil.copytree(GOLDEN / "seed", tmp_path / "seed")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "seed" / name).unlink()
    adapter = load_hyperlora_adapter(tmp_path / "seed")
    assert len(adapter.tokenizer) == len(load_hyperlora_adapter(GOLDEN / "seed").tokenizer) == 94
    assert len(load_base(str(GOLDEN / "base"))[1]) == 83


def test_an_older_config_is_still_held_against_its_base(tmp_path):
    write_base(tmp_path / "base")
    shutil.copytree(GOLDEN / "schema-1", tmp_path / "schema-1")
    with pytest.raises(InputError, match=r"trained on \.\./base \(base_digest "):
        load_hyperlora_adapter(tmp_path / "schema-1")
