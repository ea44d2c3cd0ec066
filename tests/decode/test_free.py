"""The seed's contract: free text, read by rule, counted where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyperlora import load_hyperlora_adapter
from hyperlora.decode import Scorer
from hyperlora.decode.free import MAX_NEW_TOKENS, read_answer

from .conftest import awake, texts_of


@pytest.mark.parametrize(
    ("text", "accept", "price"),
    [
        ("ACCEPT", True, None),
        (" I ACCEPT the OFFER 0.5", True, None),
        ("OFFER 0.4123", False, 0.4123),
        ("OFFER  0.41 or OFFER 0.7", False, 0.41),
        ("OFFER\n.5", False, 0.5),
        ("OFFER 1", False, 1.0),
        ("OFFER -0.2", False, -0.2),
        ("OFFER 7.25", False, 7.25),
        ("OFFER 0.41230000", False, 0.4123),
        ("OFFER0.5", False, None),
        ("OFFER x", False, None),
        ("offer 0.5", False, None),
        ("0.5", False, None),
        ("", False, None),
    ],
)
def test_texts_are_read_by_the_seeds_rule(text, accept, price):
    answer = read_answer(text)
    assert (answer.accept, answer.price, answer.understood) == (accept, price, accept or price is not None)


@pytest.fixture(scope="module")
def nano():
    return load_hyperlora_adapter("janus-nano")


def asked(nano, count):
    ids = nano.tokenizer(texts_of(count), add_special_tokens=False)["input_ids"]
    return ids, np.linspace(0, 1, count), np.arange(count) > 0


def test_it_agrees_with_greedy_wherever_it_is_legal(nano):
    free, greedy = (Scorer(nano.model, nano.tokenizer, mode).decide(*asked(nano, 14)) for mode in ("free", "greedy"))
    assert not free.fallback.all()
    legal = ~free.fallback
    np.testing.assert_array_equal(free.accept[legal], greedy.accept[legal])
    offers = legal & ~free.accept
    np.testing.assert_allclose(free.price[offers], greedy.price[offers], atol=1e-12)
    assert len(np.unique(free.price[offers])) > 3
    for text, accept, price in zip(free.text, free.accept, free.price, strict=True):
        assert text.strip() == ("ACCEPT" if accept else f"OFFER {price:.4f}")


def test_batched_and_padded_equals_alone(nano):
    ids, rho, legal = asked(nano, 6)
    scorer = Scorer(nano.model, nano.tokenizer, "free")
    together = scorer.decide(ids, rho, legal)
    assert len({len(p) for p in ids}) > 3
    for i in range(6):
        assert scorer.decide([ids[i]], rho[[i]], legal[[i]]).text == together.text[i : i + 1]
    assert Scorer(nano.model, nano.tokenizer, "free").decide(ids, 1 - rho, legal).text != together.text


def test_it_is_what_one_by_one_generation_writes(nano):
    ids, rho, legal = asked(nano, 3)
    found = Scorer(nano.model, nano.tokenizer, "free").decide(ids, rho, legal)
    for prompt, value, text in zip(ids, rho, found.text, strict=True):
        nano.model.current_rho = torch.tensor([[value]], dtype=torch.float32)
        out = nano.model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
        nano.model.current_rho = None
        assert nano.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True) == text


def test_what_is_no_answer_is_counted(tokenizer, prompts):
    """An untrained model babbles."""
    scorer = Scorer(awake(), tokenizer, "free")
    decided = scorer.decide(prompts(4), np.linspace(0, 1, 4), np.ones(4, dtype=bool))
    assert decided.fallback.all()
    assert np.isnan(decided.price).all()
    assert not decided.accept.any()
    assert np.isnan(decided.accept_probability).all()
    assert np.isnan(decided.log_accept).all()
    assert any(decided.text)
    figures = scorer.stats.per_decision()
    assert figures["answer_tokens"] <= MAX_NEW_TOKENS
    assert figures["waits"] == MAX_NEW_TOKENS


def test_accepting_nothing_is_no_answer(nano, monkeypatch):
    from hyperlora.decode import free

    monkeypatch.setattr(
        free, "write", lambda model, prompts, *_: [nano.tokenizer("ACCEPT")["input_ids"]] * len(prompts)
    )
    ids, rho, _ = asked(nano, 2)
    decided = Scorer(nano.model, nano.tokenizer, "free").decide(ids, rho, np.array([True, False]))
    assert decided.accept.tolist() == [True, False]
    assert decided.fallback.tolist() == [False, True]
    assert np.isnan(decided.price).all()


def test_the_models_own_settings_do_not_count(nano):
    """Sampling and a repetition penalty, which would punish the only legal answers."""
    ids, rho, legal = asked(nano, 4)
    scorer = Scorer(nano.model, nano.tokenizer, "free")
    before = scorer.decide(ids, rho, legal).text
    own = nano.model.generation_config
    kept = own.to_dict()
    try:
        own.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, max_new_tokens=2)
        assert scorer.decide(ids, rho, legal).text == before
        assert nano.model.generation_config is own
    finally:
        own.update(**kept)
