"""P(ACCEPT), P(OFFER) and the price distribution against plain enumeration, and what each mode makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_decoder import PRICES, PlainDecoder

from bargain_env.errors import InputError
from hyperlora.decode import Scorer

from .conftest import awake

RHO = np.array([0.0, 0.4, 0.9])
ANY = np.ones(3, dtype=bool)
ALL = {"levels": 3, "width": 1000}
"""A beam that holds the whole tree."""


@pytest.fixture(scope="module")
def ids(prompts):
    return prompts(4)[1:]


@pytest.fixture(scope="module")
def whole(model, tokenizer, ids):
    """Every price's probability, each a leaf of its own."""
    return Scorer(model, tokenizer).distribution(ids, RHO, ANY, **ALL)


def test_all_legal_actions_sum_to_one(whole, model, tokenizer, ids):
    decided = Scorer(model, tokenizer).decide(ids, RHO, ANY)
    for found, log_accept, log_offer in zip(whole, decided.log_accept, decided.log_offer, strict=True):
        assert len(found.price) == 10_001
        np.testing.assert_allclose(found.price, np.arange(10_001) / 1e4, atol=1e-12)
        assert (found.width == 0).all()
        assert found.covered == pytest.approx(1.0, abs=1e-12)
        joint = np.exp(log_offer) * found.probability
        assert np.exp(log_accept) + joint.sum() == pytest.approx(1.0, abs=1e-12)
        assert found.accept_probability == pytest.approx(np.exp(log_accept), abs=1e-6)


def test_probabilities_are_products_over_tokens(whole, model, tokenizer, ids):
    plain = PlainDecoder(model, tokenizer)
    spelled = {price: ids for ids, price in plain.answers.items()}
    for prompt, rho, found in zip(ids, RHO, whole, strict=True):
        accept = plain.probability(prompt, rho, plain.accept)
        assert accept == pytest.approx(found.accept_probability, abs=1e-6)
        likely = np.argsort(-found.probability)[:3]
        for i in [*likely, 0, 1234, 9999, 10_000]:
            expected = plain.probability(prompt, rho, spelled[float(PRICES[i])]) / (1 - accept)
            assert found.probability[i] == pytest.approx(expected, rel=2e-4)
    assert np.abs(whole[0].probability - whole[1].probability).max() > 1e-3


def test_a_coarse_grid_adds_up(whole, model, tokenizer, ids):
    """Intervals of a narrow beam hold what the prices in them hold."""
    coarse = Scorer(model, tokenizer).distribution(ids, RHO, ANY, levels=1, width=10)
    for few, all_ in zip(coarse, whole, strict=True):
        assert len(few.price) == 101
        low, high = few.price - few.width / 2, few.price + few.width / 2
        sums = [
            all_.probability[(all_.price > a - 1e-9) & (all_.price < b + 1e-9)].sum()
            for a, b in zip(low, high, strict=True)
        ]
        np.testing.assert_allclose(few.probability, sums, atol=1e-6)
        assert few.mean == pytest.approx(all_.mean, abs=0.005)
        assert few.quantile(0.5) == pytest.approx(all_.quantile(0.5), abs=0.006)


def test_mean_is_the_expectation(whole, model, tokenizer, ids):
    exact = Scorer(model, tokenizer, "mean", **ALL).decide(ids, RHO, ANY)
    np.testing.assert_allclose(exact.price, [found.mean for found in whole], atol=1e-6)
    default = Scorer(model, tokenizer, "mean").decide(ids, RHO, ANY)
    assert (np.abs(default.price - exact.price) <= (1 - default.covered) * 0.1 + 0.0005).all()


def test_greedy_is_the_likeliest_answer_where_one_is_likely(tokenizer, ids):
    """More than half of all mass on a price means that each of its tokens is the likeliest."""
    sure, tried = awake(sharp=40.0), 0
    scorer = Scorer(sure, tokenizer, "greedy")
    rhos = np.linspace(0, 1, 3 * len(ids))
    many = [ids[i % 3] for i in range(len(rhos))]
    decided = scorer.decide(many, rhos, np.ones(len(rhos), dtype=bool))
    for i, found in enumerate(scorer.distribution(many, rhos, np.ones(len(rhos), dtype=bool), **ALL)):
        best = found.probability.argmax()
        if found.probability[best] > 0.5:
            assert decided.price[i] == pytest.approx(found.price[best])
            tried += 1
        assert decided.accept[i] == (found.accept_probability > 0.5)
    assert tried >= 3


def test_greedy_takes_the_likeliest_token_of_a_form(model, tokenizer, ids, monkeypatch):
    """As free text would: ACCEPT at .4 wins over two beginnings of an offer at .3 each, and loses in mode mean."""
    from hyperlora.decode import scorer

    chosen = scorer.root_choice

    def shifted(*arguments):
        root = chosen(*arguments)
        return scorer.Root(*(np.full_like(root.log_accept, np.log(p)) for p in (0.4, 0.6, 0.3)))

    monkeypatch.setattr(scorer, "root_choice", shifted)
    assert Scorer(model, tokenizer, "greedy").decide(ids, RHO, ANY).accept.all()
    assert not Scorer(model, tokenizer, "mean").decide(ids, RHO, ANY).accept.any()


@pytest.mark.parametrize("q", [0.003, 0.25, 0.5, 0.9, 0.999])
def test_quantiles_invert_the_distribution(whole, model, tokenizer, ids, q):
    found = Scorer(model, tokenizer).price_quantile(ids, RHO, q)
    for price, all_ in zip(found, whole, strict=True):
        cumulative = np.cumsum(all_.probability)
        at = int(np.rint(price * 1e4))
        assert price == pytest.approx(at / 1e4, abs=1e-12)
        assert cumulative[at] >= q - 1e-6
        assert at == 0 or cumulative[at - 1] < q + 1e-6
        assert all_.quantile(q) == pytest.approx(price, abs=2e-4)


def test_quantiles_as_a_mode_and_row_by_row(model, tokenizer, ids):
    scorer = Scorer(model, tokenizer, "quantile:0.3")
    lower = scorer.decide(ids, RHO, ANY).price
    np.testing.assert_array_equal(lower, scorer.price_quantile(ids, RHO, 0.3))
    upper = Scorer(model, tokenizer, "quantile:0.8").decide(ids, RHO, ANY).price
    assert (lower < upper).all()
    mixed = scorer.price_quantile(ids, RHO, np.array([0.3, 0.8, 0.3]))
    np.testing.assert_array_equal(mixed, np.where([True, False, True], lower, upper))
    np.testing.assert_array_equal(
        Scorer(model, tokenizer, "median").decide(ids, RHO, ANY).price, scorer.price_quantile(ids, RHO, 0.5)
    )


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, np.array([0.5, np.nan, 0.5])])
def test_a_quantile_lies_between_0_and_1(model, tokenizer, ids, q):
    with pytest.raises(InputError, match="between 0 and 1"):
        Scorer(model, tokenizer).price_quantile(ids, RHO, q)


def test_where_nothing_stands_only_offers_count(model, tokenizer, ids):
    scorer = Scorer(model, tokenizer)
    stands, nothing = scorer.decide(ids, RHO, ANY), scorer.decide(ids, RHO, ~ANY)
    assert (stands.accept_probability > 0).all()
    assert (nothing.accept_probability == 0).all()
    assert (nothing.log_accept == -np.inf).all()
    assert (nothing.log_offer == 0).all()
    np.testing.assert_allclose(nothing.price, stands.price, atol=1e-6)
    assert [found.accept_probability for found in scorer.distribution(ids, RHO, ~ANY, 1, 10)] == [0.0] * 3


def test_a_temperature_is_applied_at_each_choice(model, tokenizer, ids):
    n, prompt = 3000, ids[1]
    uniforms = np.random.default_rng(0).random((n, 32))
    drawn = Scorer(model, tokenizer, "sample:0.5", batch_size=1000)
    decided = drawn.decide([prompt] * n, np.full(n, 0.4), np.ones(n, dtype=bool), uniforms)
    plain = PlainDecoder(model, tokenizer)
    root = plain.following(prompt, 0.4, ())
    tempered = {path: p**2 for path, p in root.items()}
    accept = tempered[plain.accept[:1]] / sum(tempered.values())
    assert abs(accept - root[plain.accept[:1]]) > 0.02
    assert abs(decided.accept.mean() - accept) < 4 * 0.5 / np.sqrt(n)
    np.testing.assert_allclose(decided.accept_probability, root[plain.accept[:1]], atol=1e-6)
    below_one = next(path for path in root if path != plain.accept[:1])
    first = np.array(list(plain.offers(prompt, 0.4, below_one).values())) ** 2
    digits = np.bincount((decided.price * 10).astype(int), minlength=11)[:10]
    assert np.abs(digits / digits.sum() - first / first.sum()).max() < 4 * 0.5 / np.sqrt(digits.sum())


def test_cold_samples_are_greedy(model, tokenizer, ids):
    uniforms = np.random.default_rng(1).random((3, 32))
    cold = Scorer(model, tokenizer, "sample:0.001").decide(ids, RHO, ANY, uniforms)
    greedy = Scorer(model, tokenizer, "greedy").decide(ids, RHO, ANY)
    hot = Scorer(model, tokenizer, "sample").decide(ids, RHO, ANY, uniforms)
    np.testing.assert_array_equal(cold.price, greedy.price)
    np.testing.assert_array_equal(cold.accept, greedy.accept)
    assert not np.array_equal(hot.price, greedy.price)


def test_draws_need_their_numbers(model, tokenizer, ids):
    with pytest.raises(ValueError, match="needs uniforms"):
        Scorer(model, tokenizer, "sample").decide(ids, RHO, ANY)


@pytest.mark.parametrize("mode", ["greedy", "mean"])
def test_offers_on_request(model, tokenizer, ids, mode):
    """Who accepts gets no price; the others get the price that they would have had."""
    with torch.no_grad():
        rows = [*ids, *ids]
        rho, legal = np.tile(RHO, 2), np.arange(6) < 3
        scorer = Scorer(model, tokenizer, mode)
        scorer._accepts = lambda tree, root, some: np.ones(len(some), dtype=bool)
        every, needed = scorer.decide(rows, rho, legal), scorer.decide(rows, rho, legal, offers=False)
    np.testing.assert_array_equal(needed.accept, legal)
    assert np.isnan(needed.price[legal]).all()
    assert np.isnan(needed.covered[legal]).all()
    np.testing.assert_allclose(needed.price[~legal], every.price[~legal], atol=1e-6)
    assert not np.isnan(every.price).any()
    some = scorer.decide(rows, rho, legal, offers=np.arange(6) == 1)
    np.testing.assert_array_equal(np.isnan(some.price), legal & (np.arange(6) != 1))
    np.testing.assert_allclose(some.price[1], every.price[1], atol=1e-6)


def test_an_acceptance_takes_one_pass(model, tokenizer, ids):
    scorer = Scorer(model, tokenizer, "greedy")
    scorer._accepts = lambda tree, root, some: np.ones(len(some), dtype=bool)
    scorer.decide(ids, RHO, ANY, offers=False)
    assert scorer.stats.per_decision()["waits"] == 1
    scorer.decide(ids, RHO, ANY)
    assert scorer.stats.per_decision()["waits"] == (1 + 4) / 2
    scorer.decide(ids, RHO, ANY, offers=np.array([True, False, False]))
    assert scorer.stats.passes == 1 + 4 + 4
