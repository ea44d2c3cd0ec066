"""Decisions do not depend on their company: any batch, any order, padded, halved, with beginnings shared or not."""

from __future__ import annotations

import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bargain_env.errors import InputError
from hyperlora.decode import Scorer, beginnings
from hyperlora.decode.batches import PASS_TOKENS, Halving, micro_batches, out_of_memory, share

N = 9
MODES = ["greedy", "sample", "mean", "median"]


@pytest.fixture(scope="module")
def asked(prompts):
    """Nine prompts of seven lengths at nine ρ, two of them the same."""
    ids = [*prompts(7), *prompts(3)[1:]]
    rho = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 0.1, 0.9])
    return ids, rho, np.arange(N) != 4, np.random.default_rng(0).random((N, 32))


@pytest.fixture(scope="module")
def alone(model, tokenizer, asked):
    """Each decided for itself."""
    ids, rho, legal, uniforms = asked

    def one(mode):
        scorer = Scorer(model, tokenizer, mode)
        found = [scorer.decide([ids[i]], rho[[i]], legal[[i]], uniforms[[i]]) for i in range(N)]
        return {name: np.concatenate([getattr(d, name) for d in found]) for name in ("price", "log_accept", "accept")}

    return {mode: one(mode) for mode in MODES}


def same(decided, expected):
    np.testing.assert_allclose(decided.price, expected["price"], atol=2e-6)
    np.testing.assert_allclose(decided.log_accept, expected["log_accept"], atol=1e-5)
    np.testing.assert_array_equal(decided.accept, expected["accept"])


def test_the_questions_differ(alone):
    for found in alone.values():
        assert len(np.unique(found["price"].round(5))) > 4
        assert len(np.unique(found["log_accept"].round(3))) > 5
    assert alone["greedy"]["accept"].any()
    assert not alone["greedy"]["accept"].all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_size": 4}, {"max_tokens": 250}, {"max_tokens": 1}])
def test_any_batch_gives_what_each_gives_alone(model, tokenizer, asked, alone, mode, options):
    same(Scorer(model, tokenizer, mode, **options).decide(*asked), alone[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_and_company(model, tokenizer, asked, alone, mode, seed):
    order = np.random.default_rng(seed).permutation(N)[: N - 2 * seed]
    ids, rho, legal, uniforms = asked
    decided = Scorer(model, tokenizer, mode).decide([ids[i] for i in order], rho[order], legal[order], uniforms[order])
    same(decided, {name: values[order] for name, values in alone[mode].items()})


@pytest.mark.parametrize("mode", MODES)
def test_shared_beginnings_change_nothing(model, tokenizer, prompts, mode, monkeypatch):
    """Forty games on one turn at two ρ: their prompts begin alike, and are also fed whole."""
    monkeypatch.setattr("hyperlora.decode.batches.PASS_TOKENS", 0)
    base = prompts(3)[2]
    ids = [[*base[:-6], 20 + i % 7, *base[-5:]] for i in range(40)]
    rho, legal, uniforms = (
        np.where(np.arange(40) % 3, 0.2, 0.7),
        np.ones(40, dtype=bool),
        np.random.default_rng(0).random((40, 32)),
    )
    sharing, whole = Scorer(model, tokenizer, mode), Scorer(model, tokenizer, mode)
    decided = sharing.decide(ids, rho, legal, uniforms)
    monkeypatch.setattr(beginnings, "share", lambda prompts, keys: None)
    expected = whole.decide(ids, rho, legal, uniforms)
    np.testing.assert_allclose(decided.price, expected.price, atol=2e-6)
    np.testing.assert_allclose(decided.log_accept, expected.log_accept, atol=1e-5)
    assert len(np.unique(expected.log_accept.round(4))) > 10
    assert sharing.stats.fed_prompt_tokens < 0.4 * whole.stats.fed_prompt_tokens
    assert sharing.stats.passes == whole.stats.passes + 1


def test_no_beginning_is_shared_across_rho(prompts):
    ids = [prompts(2)[1]] * 50
    assert share(ids, [0.5] * 50).length == len(ids[0]) - 1
    assert share(ids, list(range(50))) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(1, 2), min_size=1, max_size=6)), min_size=1, max_size=12)
)
def test_what_sharing_saves_by_enumeration(rows):
    keys, prompts = [key for key, _ in rows], [tokens * 40 for _, tokens in rows]
    found = share(prompts, keys)
    shortest = min(map(len, prompts))

    def saved(length):
        return (len(rows) - len({(k, tuple(p[:length])) for k, p in zip(keys, prompts, strict=True)})) * length

    best = max(saved(length) for length in range(shortest))
    if best <= PASS_TOKENS:
        assert found is None
        return
    assert saved(found.length) == best
    assert 1 <= found.length < shortest
    for row, group in enumerate(found.which):
        first = found.first[group]
        assert keys[row] == keys[first]
        assert prompts[row][: found.length] == prompts[first][: found.length]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 120),
    st.integers(0, 5),
)
def test_micro_batches_hold_every_row_once_and_their_budget(rows, max_rows, max_tokens, extra):
    prompts, keys = [[1] * length for length, _ in rows], [key for _, key in rows]
    found = [batch.tolist() for batch in micro_batches(prompts, keys, max_rows, max_tokens, extra)]
    assert sorted(chain.from_iterable(found)) == list(range(len(rows)))
    lengths = [len(prompts[i]) for i in chain.from_iterable(found)]
    assert lengths == sorted(lengths)
    for batch in found:
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * (max(len(prompts[i]) for i in batch) + extra) <= max_tokens


def test_who_asks_the_same_is_answered_once(model, tokenizer, prompts):
    ids, rho = prompts(2) * 10, np.tile([0.3, 0.8], 10)
    scorer = Scorer(model, tokenizer, "mean")
    decided = scorer.decide(ids, rho, np.ones(20, dtype=bool))
    assert (scorer.stats.decisions, scorer.stats.repeated) == (20, 18)
    assert scorer.stats.fed_prompt_tokens == sum(map(len, prompts(2)))
    assert decided.price[0] != decided.price[1]
    np.testing.assert_array_equal(decided.price, np.tile(decided.price[:2], 10))
    other = scorer.decide(ids, np.linspace(0, 1, 20), np.arange(20) < 10)
    assert scorer.stats.repeated == 18
    assert len(np.unique(other.price)) == 20


def test_drawn_ones_are_not_the_same(model, tokenizer, prompts):
    scorer = Scorer(model, tokenizer, "sample")
    ids, uniforms = [prompts(1)[0]] * 8, np.random.default_rng(3).random((8, 32))
    decided = scorer.decide(ids, np.full(8, 0.3), np.ones(8, dtype=bool), uniforms)
    assert scorer.stats.repeated == 0
    assert len(np.unique(decided.price)) > 1


def test_nobody_asks(model, tokenizer):
    nobody = np.zeros(0)
    for mode in (*MODES, "free"):
        decided = Scorer(model, tokenizer, mode).decide([], nobody, nobody.astype(bool), np.zeros((0, 32)))
        assert (len(decided.price), decided.accept.dtype, decided.text) == (0, bool, ())
    assert Scorer(model, tokenizer).distribution([], nobody, nobody.astype(bool)) == []


def test_every_prompt_has_its_rho(model, tokenizer, prompts):
    scorer = Scorer(model, tokenizer)
    for rho, legal in ((np.zeros(2), np.ones(3, dtype=bool)), (np.zeros(3), np.ones(1, dtype=bool))):
        with pytest.raises(ValueError, match="rows for 3 prompts"):
            scorer.decide(prompts(3), rho, legal)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        scorer.decide([[3], []], np.zeros(2), np.ones(2, dtype=bool))


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Cramped:
    """A model's states, as long as no more than ``most`` rows are asked for at once."""

    def __init__(self, states, most, error):
        self.states, self.most, self.error, self.refused = states, most, error, 0

    def __call__(self, keep, **inputs):
        if len(inputs["input_ids"]) > self.most:
            self.refused += 1
            raise self.error
        return self.states(keep, **inputs)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_halves_and_goes_on(model, tokenizer, asked, alone, error):
    scorer = Scorer(model, tokenizer, "mean")
    scorer.head.states = cramped = Cramped(scorer.head.states, 2, error)
    with pytest.warns(RuntimeWarning, match="out of memory with 8 prompts in a forward pass; going on with 4") as said:
        same(scorer.decide(*asked), alone["mean"])
    assert len(said) == 1
    assert cramped.refused == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(scorer.decide(*asked), alone["mean"])
    assert cramped.refused == 2


def test_other_errors_are_not_swallowed(model, tokenizer, asked):
    scorer = Scorer(model, tokenizer, "mean")
    scorer.head.states = Cramped(scorer.head.states, 2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        scorer.decide(*asked)
    assert not out_of_memory(KeyError("out of memory"))


def test_a_prompt_that_does_not_fit_is_refused(model, tokenizer, asked):
    scorer = Scorer(model, tokenizer, "mean")
    scorer.head.states = Cramped(scorer.head.states, 0, MemoryError())
    with pytest.warns(RuntimeWarning), pytest.raises(InputError, match="out of memory with a single prompt"):
        scorer.decide(*asked)


def test_halving_keeps_every_row():
    done, halving = [], Halving()

    def work(rows):
        if len(rows) > 3:
            raise MemoryError
        done.extend(rows.tolist())

    with pytest.warns(RuntimeWarning):
        halving.run(np.arange(50), work)
    assert done == list(range(50))
    assert halving.limit == 3
