"""The trained janus-nano plays the same games through `hyperlora.decode` and through a plain, slow decoder."""

from __future__ import annotations

import numpy as np
import pytest
from plain_decoder import PlainDecoder

import agents
from agents import JanusAgent
from bargain_env import RoutedPolicy, play, sample
from hyperlora import load_hyperlora_adapter
from hyperlora.decode import Scorer

OPPONENTS = ["boulware_conceding", "hardliner", "linear_standard", "naive_concession"]
WAITING = ["tit_for_tat", "micro_fine", "fair", "charging_boul"]
"""Opponents of whom janus-nano accepts something, which it does not of those above: these accept first."""


@pytest.fixture(scope="module")
def nano():
    return load_hyperlora_adapter("janus-nano")


def games_of(nano, count, max_turns, decode, scorer=None, rho=None, opponents=OPPONENTS):
    """Every second game begins with the other seat; all meet one of four scripts."""
    games = sample("paper", count, seed=11, max_turns=max_turns)
    janus = JanusAgent(nano, rho=np.linspace(0, 1, count) if rho is None else rho, decode=decode)
    if scorer is not None:
        janus.scorer = scorer
    scripts = RoutedPolicy([agents.make(name) for name in opponents], np.arange(count) % 4)
    return play(games, janus, scripts)


def test_the_decoders_do_not_share_their_rules(nano):
    """Control: games at other ρ, or of another mode, are other games."""
    first = games_of(nano, 12, 6, "greedy")
    for other in (games_of(nano, 12, 6, "greedy", rho=0.9), games_of(nano, 12, 6, "mean")):
        assert not np.array_equal(first.prices, other.prices, equal_nan=True)


@pytest.mark.parametrize(("mode", "count", "max_turns"), [("greedy", 12, 8), ("sample", 12, 5), ("mean", 12, 3)])
def test_the_same_games(nano, mode, count, max_turns):
    fast = games_of(nano, count, max_turns, mode)
    slow = games_of(nano, count, max_turns, mode, PlainDecoder(nano.model, nano.tokenizer, mode))
    np.testing.assert_array_equal(fast.kinds, slow.kinds)
    np.testing.assert_array_equal(fast.prices, slow.prices)
    np.testing.assert_array_equal(fast.agreement, slow.agreement)
    assert fast.agreement.any()
    assert len(np.unique(fast.prices[~np.isnan(fast.prices)])) > count


@pytest.fixture(scope="module")
def asked(nano):
    """Prompts, ρ and legality of some decisions of games, every second one an acceptance."""
    seen, scorer = [], Scorer(nano.model, nano.tokenizer, "greedy")
    decide = scorer.decide

    def spy(prompts, rho, legal, *rest):
        decided = decide(prompts, rho, legal, *rest)
        seen.extend(zip(prompts, rho, legal, decided.accept, strict=True))
        return decided

    scorer.decide = spy
    games_of(nano, 96, 20, "greedy", scorer, opponents=WAITING)
    accepted, offered = ([row for row in seen if row[3] == accept] for accept in (True, False))
    assert len(accepted) >= 3, "janus-nano accepts next to nothing of these opponents; choose others"
    rows = [row for pair in zip(accepted[:3], offered[::17], strict=False) for row in pair]
    prompts, rho, legal, _ = zip(*rows, strict=True)
    return list(prompts), np.array(rho), np.array(legal)


@pytest.mark.parametrize("mode", ["mean", "greedy"])
def test_before_rounding_they_differ_by_rounding(nano, asked, mode):
    fast = Scorer(nano.model, nano.tokenizer, mode).decide(*asked)
    slow = PlainDecoder(nano.model, nano.tokenizer, mode).decide(*asked)
    np.testing.assert_allclose(fast.price, slow.price, atol=1e-6)
    np.testing.assert_allclose(fast.log_accept, slow.log_accept, atol=1e-4)
    np.testing.assert_array_equal(fast.accept, slow.accept)
    assert fast.accept.tolist() == [True, False] * 3


def test_few_passes_and_tokens(nano):
    """A pass for the prompt, one for what prompts share, one for each level: however many play."""
    for mode, most, answer in (("mean", 4, 1 + 10 + 12), ("greedy", 5, 4), ("median", 5, 4), ("sample", 5, 4)):
        janus = JanusAgent(nano, rho=np.linspace(0, 1, 44), decode=mode)
        play(sample("paper", 44, seed=1, max_turns=4), janus, agents.make("hardliner"))
        stats = janus.scorer.stats
        figures = stats.per_decision()
        assert stats.decisions >= 44
        assert figures["waits"] <= most
        assert figures["answer_tokens"] <= answer
        assert figures["fed_prompt_tokens"] <= figures["prompt_tokens"]
