"""Tokenizers of several habits: which can spell the two answers, and what becomes of their tokens."""

from __future__ import annotations

import string

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bargain_env.errors import InputError
from hyperlora.base import nano_model
from hyperlora.decode import Scorer, compile_grammar

DIGITS = list(string.digits)
LETTERS = ["ACC", "EPT", "OFF", "ER", " ", "."]


def wrapped(inner: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def words(vocabulary, pattern, prefix="") -> PreTrainedTokenizerFast:
    """Cuts text by ``pattern``; ``prefix`` is put in front of every text, as SentencePiece does."""
    known = ["<pad>", "<unk>", *([prefix] if prefix else []), *vocabulary]
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    inner.decoder = decoders.Fuse()
    if prefix:
        inner.normalizer = normalizers.Prepend(prefix)
        inner.decoder = decoders.Sequence([decoders.Replace(prefix, " "), decoders.Fuse()])
    return wrapped(inner)


def merged(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Characters, some of which are merged into pairs wherever they meet, as GPT-2 does with digits."""
    characters = ["<pad>", "<unk>", *sorted(set("ACCEPT OFFER.") | set(DIGITS))]
    vocabulary = {token: i for i, token in enumerate([*characters, *(a + b for a, b in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    return wrapped(inner)


def three_digits() -> PreTrainedTokenizerFast:
    groups = [f"{i:0{n}d}" for n in (1, 2, 3) for i in range(10**n)]
    return words([*LETTERS, *groups], r"ACC|EPT|OFF|ER|\d{1,3}| |\.")


PLAYABLE = {
    "digit by digit": (words([*LETTERS, *DIGITS], r"ACC|EPT|OFF|ER|\d| |\."), True),
    "a space in front": (words([*LETTERS, *DIGITS], r"▁|ACC|EPT|OFF|ER|\d| |\.", "▁"), True),
    "three digits": (three_digits(), True),
    "some pairs": (merged(("1", "2"), ("0", "0")), False),
    "single characters": (merged(), True),
}


@pytest.fixture(params=PLAYABLE, scope="module")
def playable(request):
    return PLAYABLE[request.param]


def test_every_answer_is_a_leaf(playable):
    tokenizer, ordered = playable
    grammar = compile_grammar(tokenizer)
    leaves = np.flatnonzero(grammar.is_leaf(np.arange(len(grammar.count))))
    assert len(leaves) == 10_002
    prices = grammar.low[leaves]
    assert np.array_equal(prices, grammar.high[leaves], equal_nan=True)
    np.testing.assert_allclose(np.sort(prices[~np.isnan(prices)]), np.arange(10_001) / 1e4, atol=1e-12)
    assert grammar.ordered is ordered


def test_walking_down_spells_the_answers(playable):
    tokenizer, _ = playable
    grammar = compile_grammar(tokenizer)
    parent = np.zeros(len(grammar.count), dtype=np.int64)
    token = np.zeros_like(parent)
    for node in range(len(parent)):
        own = slice(grammar.start[node], grammar.start[node] + grammar.count[node])
        parent[grammar.children[own]], token[grammar.children[own]] = node, grammar.tokens[own]
    for leaf in np.flatnonzero(grammar.is_leaf(np.arange(len(parent))))[::97]:
        path, node = [], leaf
        while node:
            path, node = [int(token[node]), *path], parent[node]
        price = grammar.low[leaf]
        expected = "ACCEPT" if np.isnan(price) else f"OFFER {price:.4f}"
        assert tokenizer.decode([*grammar.lead, *path]).strip() == expected


def test_forced_runs_and_what_all_answers_begin_with():
    plain, spaced = (compile_grammar(PLAYABLE[name][0]) for name in ("digit by digit", "a space in front"))
    assert plain.lead == ()
    assert len(plain.forced) == 5
    assert len(spaced.lead) == 1
    assert len(spaced.forced) == 5
    assert plain.count[plain.forced_nodes[-1]] == 10
    assert compile_grammar(PLAYABLE["three digits"][0]).child.shape[1] == 1000


def test_children_lie_side_by_side(playable):
    grammar = compile_grammar(playable[0])
    nodes = np.array([[0, grammar.forced_nodes[-1]], [len(grammar.count) - 1, 1]])
    children, tokens = grammar.below(nodes)
    assert children.shape == tokens.shape
    for place in np.ndindex(2, 2):
        node = nodes[place]
        np.testing.assert_array_equal(grammar.child[node][: grammar.count[node]], children[place][children[place] >= 0])
        assert (tokens[place][children[place] < 0] == 0).all()


@pytest.mark.parametrize("mode", ["greedy", "mean", "sample", "median"])
def test_they_all_play(playable, mode):
    """With a model that knows nothing: each answer is legal, and probabilities sum to 1."""
    tokenizer, ordered = playable
    model = nano_model(hidden=16, layers=1, heads=2, intermediate=16)
    model.resize_token_embeddings(len(tokenizer))
    if mode == "median" and not ordered:
        with pytest.raises(InputError, match="digit by digit"):
            Scorer(model, tokenizer, mode)
        return
    scorer = Scorer(model, tokenizer, mode, width=1000)
    ids = tokenizer(["123", "0.4567"], add_special_tokens=False)["input_ids"]
    decided = scorer.decide(ids, None, np.array([True, False]), np.random.default_rng(0).random((2, 32)))
    np.testing.assert_allclose(np.exp(decided.log_accept) + np.exp(decided.log_offer), 1.0, atol=1e-12)
    assert ((decided.price >= 0) & (decided.price <= 1)).all()
    for found in scorer.distribution(ids, None, np.ones(2, dtype=bool), width=40):
        assert found.probability.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (words([*LETTERS, *(d for d in DIGITS if d != "7")], r"ACC|EPT|OFF|ER|\d| |\."), r"spells 'OFFER 0.0007' as"),
        (words([*DIGITS, "OFFER", " ", "."], r"OFFER|\d| |\.|[A-Z]+"), "spells 'ACCEPT' as"),
        (words([*DIGITS, "ACCEPT", "OFFER", "."], r"ACCEPT|OFFER|\d| |\."), "spells 'OFFER 0.0000' as"),
    ],
)
def test_who_cannot_spell_is_refused(tokenizer, message):
    with pytest.raises(InputError, match=message):
        compile_grammar(tokenizer)


class Scripted:
    """Spells each answer as it is told."""

    def __init__(self, spell):
        self.spell = spell

    def __len__(self):
        return 1

    def __call__(self, texts, **_):
        return {"input_ids": [self.spell(text) for text in texts]}

    def batch_decode(self, spelled):
        return ["ACCEPT", *(f"OFFER {i / 1e4:.4f}" for i in range(10_001))]


@pytest.mark.parametrize(
    ("spell", "message"),
    [
        (lambda text: [5, *map(ord, text)] if text < "OFFER 0.5" else [6, *map(ord, text)], "the same token"),
        (
            lambda text: [*map(ord, text[:-1])] if text == "OFFER 0.1234" else [*map(ord, text)],
            "the beginning of another",
        ),
        (lambda text: [*map(ord, text.replace("0.9", "0.8"))], "the beginning of another"),
        (lambda text: [5] if text == "ACCEPT" else [5, *map(ord, text)], "'ACCEPT' is the beginning of another"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(spell, message):
    with pytest.raises(InputError, match=message):
        compile_grammar(Scripted(spell))


def test_compiled_once_and_again_after_learning():
    tokenizer = words([*LETTERS, *DIGITS], r"ACC|EPT|OFF|ER|\d| |\.")
    first = compile_grammar(tokenizer)
    assert compile_grammar(tokenizer) is first
    tokenizer.add_tokens(["0.1"])
    second = compile_grammar(tokenizer)
    assert second is not first
    assert (first.ordered, second.ordered) == (True, False)
