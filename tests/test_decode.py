"""Constrained decoding against a plain, slow enumeration of the answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyperlora import bind_rho, build_nano_tokenizer, inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.decode import Scorer, compile_grammar
from hyperlora.decode.grammar import ROOT
from hyperlora.decode.head import LegalHead
from hyperlora.decode.price import beam
from hyperlora.decode.tree import PromptTree
from hyperlora.inject import adapter_modules
from hyperlora.prompt import decision_prompt


@pytest.fixture(scope="module")
def tokenizer():
    return build_nano_tokenizer()


@pytest.fixture(scope="module")
def model():
    """A small model with a non-trivial adapter, sharpened so that its distributions are far from uniform."""
    model = inject_hyperlora(nano_model(hidden=32, layers=2, heads=2, intermediate=64, seed=3), dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8.0)
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def prompts(tokenizer, n=5):
    texts = [
        decision_prompt(0.1 * i, i + 1, 20, 700.0 + 31 * i, ["buyer", "seller"] * i, [300.0 + 7 * j for j in range(2 * i)],
                        300.0 + 7 * i if i else None, 200.0, 1500.0)
        for i in range(n)
    ]  # fmt: skip
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def enumerate_children(model, ids, rho):
    """Next-token log-probabilities after ``ids``, by a plain forward pass without cache or padding."""
    with torch.no_grad(), bind_rho(model, rho):
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)


def brute_force(model, tokenizer, prompt, rho, digits=2):
    """P(ACCEPT) and the expected price, walking the first ``digits`` digits one forward pass at a time."""
    grammar = compile_grammar(tokenizer)
    middle = np.nan_to_num(grammar.middle)

    def walk(node, path, probability, depth):
        scores = enumerate_children(model, prompt + path, rho)
        legal = [(c, t) for c, t in zip(grammar.child[node], grammar.token[node], strict=True) if c >= 0]
        p = torch.softmax(torch.stack([scores[t] for _, t in legal]), dim=0).tolist()
        if node == ROOT:
            accept = p[grammar.accept]
            offers = [
                (c, t, q / (1 - accept))
                for i, ((c, t), q) in enumerate(zip(legal, p, strict=True))
                if i != grammar.accept
            ]
            return accept, sum(walk(c, [t], q, 0)[1] for c, t, q in offers)
        if grammar.low[node] == grammar.high[node] or depth == digits:
            return 0.0, probability * middle[node]
        return 0.0, sum(walk(c, [*path, t], probability * q, depth + 1)[1] for (c, t), q in zip(legal, p, strict=True))

    return walk(ROOT, [], 1.0, 0)


def test_every_answer_is_in_the_trie_once(tokenizer):
    grammar = compile_grammar(tokenizer)
    leaves = grammar.is_leaf(np.arange(len(grammar.child)))
    prices = grammar.low[leaves & ~np.isnan(grammar.low)]
    np.testing.assert_allclose(np.sort(prices), np.arange(10_001) / 1e4, atol=1e-12)
    assert (leaves & np.isnan(grammar.low)).sum() == 1


def test_mean_equals_enumeration(model, tokenizer):
    ids = prompts(tokenizer, 4)
    rho = np.array([0.0, 0.4, 0.8, 1.0])
    scorer = Scorer(model, tokenizer, "mean", levels=1, width=10)
    decided = scorer.decide(ids, rho, np.ones(4, dtype=bool))
    expected = [brute_force(model, tokenizer, p, r) for p, r in zip(ids, rho, strict=True)]
    np.testing.assert_allclose(decided.accept_probability, [e[0] for e in expected], atol=1e-5)
    np.testing.assert_allclose(decided.price, [e[1] for e in expected], atol=1e-5)
    assert len({round(float(p), 3) for p in decided.price}) > 1
    np.testing.assert_allclose(decided.covered, 1.0, atol=1e-9)


def test_greedy_follows_the_likeliest_token(model, tokenizer):
    ids, rho = prompts(tokenizer, 4), np.array([0.0, 0.4, 0.8, 1.0])
    decided = Scorer(model, tokenizer, "greedy").decide(ids, rho, np.zeros(4, dtype=bool))
    grammar = compile_grammar(tokenizer)
    for prompt, r, price in zip(ids, rho, decided.price, strict=True):
        node, path = ROOT, []
        while not grammar.is_leaf(np.array(node)):
            scores = enumerate_children(model, prompt + path, r)
            options = [
                (scores[t].item(), t, c)
                for i, (t, c) in enumerate(zip(grammar.token[node], grammar.child[node], strict=True))
                if c >= 0 and not (node == ROOT and i == grammar.accept)
            ]
            _, token, node = max(options)
            path.append(int(token))
        assert price == grammar.low[node]


@pytest.mark.parametrize("mode", ["greedy", "sample", "mean"])
def test_batched_padded_and_permuted_equal_alone(model, tokenizer, mode):
    ids, rho = prompts(tokenizer, 5), np.linspace(0, 1, 5)
    uniforms = np.random.default_rng(1).random((5, 32))
    scorer = Scorer(model, tokenizer, mode)
    together = scorer.decide(ids, rho, np.ones(5, dtype=bool), uniforms)
    order = np.array([3, 0, 4, 1, 2])
    permuted = scorer.decide([ids[i] for i in order], rho[order], np.ones(5, dtype=bool), uniforms[order])
    np.testing.assert_allclose(permuted.price, together.price[order], atol=2e-6)
    for i in range(5):
        alone = scorer.decide([ids[i]], rho[i : i + 1], np.ones(1, dtype=bool), uniforms[i : i + 1])
        np.testing.assert_allclose(alone.price, together.price[i], atol=2e-6)
        np.testing.assert_allclose(alone.accept_probability, together.accept_probability[i], atol=2e-6)


def test_sampling_follows_the_distribution(model, tokenizer):
    prompt, n = prompts(tokenizer, 3)[2], 4000
    uniforms = np.random.default_rng(0).random((n, 32))
    drawn = Scorer(model, tokenizer, "sample", batch_size=1000).decide(
        [prompt] * n, np.full(n, 0.3), np.ones(n, dtype=bool), uniforms
    )
    exact = Scorer(model, tokenizer, "mean", levels=2, width=100).decide(
        [prompt], np.array([0.3]), np.ones(1, dtype=bool)
    )
    assert abs(drawn.accept.mean() - exact.accept_probability[0]) < 4 * 0.5 / np.sqrt(n)
    assert abs(drawn.price.mean() - exact.price[0]) < 4 * drawn.price.std() / np.sqrt(n) + 1e-3


def test_narrow_beam_reports_what_it_covers(model, tokenizer):
    ids, rho = prompts(tokenizer, 3), np.array([0.2, 0.5, 0.9])
    narrow = Scorer(model, tokenizer, "mean", levels=2, width=3).decide(ids, rho, np.ones(3, dtype=bool))
    wide = Scorer(model, tokenizer, "mean", levels=2, width=100).decide(ids, rho, np.ones(3, dtype=bool))
    assert (narrow.covered < 1).all()
    np.testing.assert_allclose(wide.covered, 1.0, atol=1e-9)
    assert (np.abs(narrow.price - wide.price) <= (1 - narrow.covered) * 0.1).all()


def test_accept_is_impossible_where_nothing_stands(model, tokenizer):
    decided = Scorer(model, tokenizer, "mean").decide(
        prompts(tokenizer, 2), np.array([0.1, 0.9]), np.array([False, True])
    )
    assert decided.accept_probability[0] == 0.0
    assert decided.accept_probability[1] > 0.0
    assert not decided.accept[0]


def fresh_tree(model, ids, tokenizer, room=0):
    head = LegalHead(model)
    head.plain = False  # states are logits
    return PromptTree(head, ids, compile_grammar(tokenizer).forced, tokenizer.pad_token_id, room=room)


def test_shared_tokens_can_be_left_early(model, tokenizer):
    """A candidate that follows fewer of the shared tokens sees only those."""
    ids = prompts(tokenizer, 3)[1:]
    token = np.full((2, 1), 20)
    with torch.no_grad(), bind_rho(model, 0.5):
        after = fresh_tree(model, ids, tokenizer).feed(
            token, np.zeros((2, 1), dtype=np.int64), np.zeros(2, dtype=np.int64)
        )
        plain = [model(torch.tensor([[*p, 20]])).logits[0, -1] for p in ids]
        used = fresh_tree(model, ids, tokenizer).feed(token, np.zeros((2, 1), dtype=np.int64))
    torch.testing.assert_close(after[:, 0], torch.stack(plain), atol=2e-5, rtol=1e-4)
    assert (used[:, 0] - after[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("room", [0, 400])
def test_a_beam_stops_at_the_leaves(model, tokenizer, room):
    grammar = compile_grammar(tokenizer)
    with torch.inference_mode(), bind_rho(model, 0.5):
        found = beam(fresh_tree(model, prompts(tokenizer, 2), tokenizer, room), grammar, 9, 20)
    assert ((found.mean(grammar) >= 0) & (found.mean(grammar) <= 1)).all()
    assert ((found.covered > 0) & (found.covered < 1)).all()
    np.testing.assert_allclose(found.probability.sum(axis=1), 1.0, atol=1e-12)
