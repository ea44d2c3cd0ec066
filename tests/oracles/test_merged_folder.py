"""A merged model on disk: an ordinary Hugging Face folder whose logits are the live ones."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, load_base
from hyperlora.dense import MERGE_RECORD, save_merged
from hyperlora.merge import adapted_layers, merged

from .models import KINDS, ids, logits
from .test_merge_export import awake, biased_head, close, differ, distance, plain


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_without_us_and_gives_the_live_logits(kind, tmp_path):
    base, model = awake(kind)
    x, live = ids(), logits(model, ids(), 0.3)
    folder = save_merged(model, 0.3, tmp_path / "m", tokenizer=build_nano_tokenizer())
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    differ(live, plain(base, x), 1e-2)
    close(plain(loaded, x), live)
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in base.named_parameters()]
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == (kind == "qwen2")
    with merged(model, 0.9):  # what the live model is merged at is another matter
        save_merged(model, 0.3, folder)
    close(plain(AutoModelForCausalLM.from_pretrained(folder), x), live)
    assert torch.equal(logits(model, x, 0.3), live)
    assert json.loads((folder / MERGE_RECORD).read_text())["rho"] == 0.3
    assert "ρ = 0.3" in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("first", [120, 131])
def test_token_rows_become_rows_of_the_tables(kind, head, first, tmp_path):
    _, model = awake(kind, rows=3, first=first, head=head)
    x, new = ids(), range(first, first + 3)
    x[:, 2], x[:, 5] = first, first + 2
    live = logits(model, x, 0.3)
    folder = save_merged(model, 0.3, tmp_path / "m")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.vocab_size == max(131, first + 3) == len(loaded.get_input_embeddings().weight)
    known = [i for i in range(live.shape[-1]) if head or i not in new]
    close(plain(loaded, x)[..., known], live[..., known])
    assert (plain(loaded, x)[..., list(new)].argmax(-1) >= 0).all()
    assert plain(loaded, x).shape[-1] == loaded.config.vocab_size


def test_an_adapted_head_is_written(tmp_path):
    _, model = awake("llama", target_modules=["lm_head"], rows=2, first=131)
    x, live = ids(), logits(model, ids(), 0.3)
    differ(live, logits(model, x, 0.9))
    close(plain(AutoModelForCausalLM.from_pretrained(save_merged(model, 0.3, tmp_path / "m")), x)[..., :131], live)


def test_a_bias_of_the_head_passes_the_rows_by(tmp_path):
    _, model = awake(base=biased_head(), target_modules=["q_proj", "dense"], rows=3, first=130, head=True)
    x, live = ids(), logits(model, ids(), 0.3)
    differ(live, logits(model, x, 0.9))
    loaded = AutoModelForCausalLM.from_pretrained(save_merged(model, 0.3, tmp_path / "m"))
    assert loaded.lm_head.bias[129] != 0
    assert not loaded.lm_head.bias[130:].any()
    close(plain(loaded, x), live)


def test_a_dtype_is_followed_and_the_folder_is_a_base(tmp_path):
    _, model = awake()
    live = logits(model, ids(), 0.3)
    folder = save_merged(model, 0.3, tmp_path / "m", tokenizer=build_nano_tokenizer(), dtype=torch.bfloat16)
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16
    base, tokenizer = load_base(str(folder))
    assert base.dtype == torch.bfloat16
    assert tokenizer.get_vocab() == build_nano_tokenizer().get_vocab()
    assert distance(logits(model, ids(), 0.9), live) > 0.01
    assert distance(plain(base, ids()), live) < 0.006


def test_what_cannot_be_written_is_refused(tmp_path):
    _, model = awake()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="would be lost"):
        save_merged(model, 0.3, tmp_path / "mine")
    with pytest.raises(InputError, match="rho"):
        save_merged(model, 1.5, tmp_path / "new")
    with torch.no_grad():
        next(adapted_layers(model))[1].lora_B[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"q_proj\.weight merged at rho = 0\.3 holds NaN or infinity"):
        save_merged(model, 0.3, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
