"""Keys and values: the same with room, refused where they do not belong, dropped when there are too many (O12, O13)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from hyperlora import bind_rho
from hyperlora.decode import PrefixCache, Scorer
from hyperlora.decode.cache import Prefix, RoomyLayer, keeps_everything, roomy_cache
from hyperlora.inject import adapter_modules

from .conftest import awake

RHO = np.array([0.2, 0.2, 0.8])
ANY = np.ones(3, dtype=bool)


@pytest.mark.parametrize("room", [0, 5, 100])
def test_with_room_it_holds_the_same(room):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = RoomyLayer(room), DynamicCache().layer_class_to_replicate()
    for size in (7, 1, 4, 20):
        new = [torch.randn(3, 2, size, 5, generator=generator) for _ in range(2)]
        for own, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(own, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
    rows = torch.tensor([2, 0])
    for layer in (ours, theirs):
        layer.batch_select_indices(rows)
        layer.update(*(x[rows] for x in new))
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


def test_a_model_with_a_window_keeps_its_own_cache(tokenizer, prompts):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(
        vocab_size=131, num_hidden_layers=2, **shape, use_sliding_window=True, sliding_window=64, max_window_layers=1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).eval()
    assert not keeps_everything(roomy_cache(model, 10))
    with pytest.raises(ValueError, match="does not keep all"):
        roomy_cache(model, 10, begun=[])
    ids = [[*prompts(1)[0][:20], 20 + i] for i in range(30)]
    decided = Scorer(model, tokenizer, "mean").decide(ids, None, np.ones(30, dtype=bool))
    assert len(np.unique(decided.price)) > 20


# ── what belongs to what ──────────────────────────────────────────────────────────────────────────────────────────────


def kept(scorer, prompt, rho):
    """The beginning of ``prompt`` as a scorer keeps it."""
    scorer.decide([prompt], np.array([rho]), ANY[:1])
    prefix, reach = scorer._beginnings.store.find(scorer.owner(), float(np.float32(rho)), prompt)
    assert reach == len(prompt) // 8 * 8
    return prefix


def test_keys_of_another_rho_differ_and_are_refused(model, tokenizer, prompts):
    prompt = prompts(3)[2]
    scorer = Scorer(model, tokenizer, "mean", prefixes=PrefixCache())
    prefix = kept(scorer, prompt, 0.2)
    owner, rho = scorer.owner(), float(np.float32(0.2))
    layers = prefix.first(20, owner, rho, prompt)

    def logits(at, begun):
        ids = torch.tensor([prompt])
        with torch.inference_mode(), bind_rho(model, at):
            if begun is None:
                return model(ids).logits[0, -1]
            return model(ids[:, 20:], past_key_values=roomy_cache(model, 0, begun)).logits[0, -1]

    torch.testing.assert_close(logits(0.2, layers), logits(0.2, None), atol=1e-5, rtol=1e-5)
    assert (logits(0.8, layers) - logits(0.8, None)).abs().max() > 0.05
    with pytest.raises(ValueError, match=r"computed at rho = 0\.2.*not 0\.8"):
        prefix.first(20, owner, 0.8, prompt)
    with pytest.raises(ValueError, match="not None"):
        prefix.first(20, owner, None, prompt)
    with pytest.raises(ValueError, match="belong to"):
        prefix.first(20, "another", rho, prompt)
    with pytest.raises(ValueError, match="of other tokens"):
        prefix.first(20, owner, rho, [*prompt[:19], 0, *prompt[20:]])
    with pytest.raises(ValueError, match="of other tokens"):
        prefix.first(len(prompt) + 1, owner, rho, [*prompt, 0])


def test_a_store_that_hands_out_another_rho_is_found_out(model, tokenizer, prompts):
    scorer = Scorer(model, tokenizer, "mean", prefixes=PrefixCache())
    store = scorer._beginnings.store
    wrong = kept(scorer, prompts(1)[0], 0.2)
    store.find = lambda owner, rho, tokens: (wrong, 8)
    with pytest.raises(ValueError, match="compute them anew"):
        scorer.decide(prompts(1), np.array([0.8]), ANY[:1])


@pytest.mark.parametrize("mode", ["mean", "greedy"])
def test_kept_beginnings_change_nothing(model, tokenizer, prompts, mode):
    """The same prompts again, and prompts that begin with them."""
    ids = prompts(3)
    longer = [[*p[:-3], 20, 21, 22, 23] for p in ids]
    plain, keeping = Scorer(model, tokenizer, mode), Scorer(model, tokenizer, mode, prefixes=PrefixCache())
    for some in (ids, ids, longer, ids[:1]):
        own, expected = (s.decide(some, RHO[: len(some)], ANY[: len(some)]) for s in (keeping, plain))
        np.testing.assert_allclose(own.price, expected.price, atol=2e-6)
        np.testing.assert_allclose(own.log_accept, expected.log_accept, atol=1e-5)
    assert plain.stats.fed_prompt_tokens == plain.stats.prompt_tokens
    assert keeping.stats.fed_prompt_tokens < 0.6 * keeping.stats.prompt_tokens


def test_another_rho_and_other_weights_compute_anew(tokenizer, prompts):
    model = awake()
    scorer = Scorer(model, tokenizer, "mean", prefixes=PrefixCache())

    def fed(rho):
        before = scorer.stats.fed_prompt_tokens
        found = scorer.decide(prompts(1), np.array([rho]), ANY[:1])
        return scorer.stats.fed_prompt_tokens - before, found.price[0]

    whole, price = fed(0.2)
    assert whole == len(prompts(1)[0])
    assert fed(0.2)[0] < 8 + 1
    assert fed(0.8)[0] == whole
    owner = scorer.owner()
    layer = next(layer for _, layer in adapter_modules(model))
    with torch.no_grad():
        layer.lora_B.mul_(-3.0)
    assert scorer.owner() != owner
    again, changed = fed(0.2)
    assert again == whole
    assert changed != pytest.approx(price, abs=1e-4)


def test_owners(tokenizer):
    model = awake()
    own = Scorer(model, tokenizer).owner()
    assert own == Scorer(awake(), tokenizer).owner()
    assert own != Scorer(model, tokenizer, precision="bf16").owner()
    assert own != Scorer(awake(seed=78), tokenizer).owner()


# ── how much is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def prefix(tokens, owner="x", rho=0.5):
    return Prefix(owner, rho, tuple(tokens), [(torch.zeros(1, len(tokens), 2), torch.zeros(1, len(tokens), 2))])


def test_the_longest_beginning_is_found():
    store = PrefixCache(block=4)
    store.put(prefix(range(10)))
    store.put(prefix([*range(6), 90, 91, 92, 93, 94, 95]))
    assert store.find("x", 0.5, list(range(20)))[1] == 8
    assert store.find("x", 0.5, [*range(6), 90, 91, 92])[1] == 8
    assert store.find("x", 0.5, [0, 1, 2, 3, 9])[1] == 4
    assert store.find("x", 0.5, [0, 1, 2])[1] == 0
    assert store.find("x", 0.6, list(range(20))) == (None, 0)
    assert store.find("y", 0.5, list(range(20))) == (None, 0)


def test_the_least_recently_used_goes_first():
    size = prefix(range(8)).nbytes
    store = PrefixCache(max_bytes=2 * size, block=4)
    a, b, c = ([n, *range(7)] for n in (70, 80, 90))
    for tokens in (a, b):
        store.put(prefix(tokens))
    store.find("x", 0.5, a)
    store.put(prefix(c))
    assert (len(store), store.nbytes) == (2, 2 * size)
    assert [store.find("x", 0.5, tokens)[1] for tokens in (a, b, c)] == [8, 0, 8]
    store.put(prefix(range(100)))
    assert len(store) == 2
    store.put(prefix(c))
    assert store.nbytes == 2 * size
