"""A decision tells what the guard made of it, explains itself, and is the same whichever thread asks."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from janus_worlds import OFFERS, STEP, TABLE, Fixed, Hostile, small_adapter

from agents.janus import JanusAgent
from agents.janus_explain import gate_summaries
from agents.janus_session import Janus
from hyperlora import bind_rho
from hyperlora.decode import Decisions
from hyperlora.inject import adapter_modules
from hyperlora.layer import HyperLoRALinear


@pytest.fixture(scope="module")
def adapter():
    return small_adapter()


@pytest.fixture(scope="module")
def janus(adapter):
    return Janus(JanusAgent(adapter))


# ── guards and fallbacks, as a decision tells them ────────────────────────────────────────────────────────────────────


def made_up(adapter, scorer, **options):
    agent = JanusAgent(adapter, **options)
    agent.scorer = scorer
    return Janus(agent)


class Writer(Fixed):
    """A scorer in mode ``free`` that writes the same to everybody."""

    def decide(self, prompts, rho, may_accept, uniforms=None, offers=True):
        decided = super().decide(prompts, rho, may_accept)
        return Decisions(np.full(len(prompts), np.nan), decided.price, decided.covered, decided.accept,
                         fallback=decided.fallback, text=("so be it",) * len(prompts))  # fmt: skip


def test_a_guarded_decision_says_what_it_replaced(adapter):
    said = {**TABLE, "offers": OFFERS}
    deal = made_up(adapter, Fixed(1.0, accept=True)).decide(said)
    assert (deal.action, deal.price, deal.raw_action, deal.raw_price, deal.guarded) == (
        "OFFER",
        900.0,
        "ACCEPT",
        1150.0,
        True,
    )
    assert str(deal).startswith("OFFER 900.00  (buyer, turn 3 of 20, ρ 0.7; P(ACCEPT) 0.250)")
    assert str(deal).endswith("the guard replaced ACCEPT 1150.00")
    lower = made_up(adapter, Fixed(0.1), guard="monotone").decide(said)
    assert (lower.price, lower.raw_price, lower.guarded) == (450.0, 330.0, True)
    free = made_up(adapter, Fixed(1.0, accept=True), guard="none").decide(said)
    assert (free.action, free.price, free.guarded) == ("ACCEPT", 1150.0, False)
    assert "guard" not in str(free)


def test_a_fallback_offers_the_reservation(adapter):
    for guard in ("ir", "none"):
        decision = made_up(adapter, Fixed(0.1, accept=True, fallback=True), guard=guard).decide(
            {**TABLE, "offers": OFFERS}
        )
        assert (decision.action, decision.price, decision.fallback, decision.guarded) == ("OFFER", 900.0, True, False)
        assert (decision.raw_action, decision.raw_price) == ("NONE", None)
        assert "no answer" in str(decision)


def test_free_text_has_no_probability_and_an_acceptance_of_it_no_offer(adapter):
    said = {**TABLE, "offers": OFFERS}
    accepts = made_up(adapter, Writer(np.nan, accept=True), guard="none").decide(said)
    assert (accepts.action, accepts.price, accepts.accept_probability, accepts.written) == (
        "ACCEPT",
        1150.0,
        None,
        "so be it",
    )
    assert str(accepts) == "ACCEPT 1150.00  (buyer, turn 3 of 20, ρ 0.7)"
    for guard in ("ir", "monotone"):
        refused = made_up(adapter, Writer(np.nan, accept=True), guard=guard).decide(said)
        assert (refused.action, refused.price, refused.guarded, refused.raw_price) == ("OFFER", 900.0, True, 1150.0)
    far = made_up(adapter, Writer(905.5)).decide({**TABLE, "seat": "seller", "offers": [("buyer", 450.0)]})
    assert (far.action, far.price) == ("OFFER", 1500.0)  # a price that is no share of the range
    assert json.loads(json.dumps(accepts.as_dict(), allow_nan=False)) == accepts.as_dict()


def test_a_decision_is_json(adapter):
    for decision in made_up(adapter, Hostile(0)).decide([{**TABLE, "offers": OFFERS}] * 20):
        assert json.loads(json.dumps(decision.as_dict(), allow_nan=False)) == decision.as_dict()


# ── explanations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def enumerated(janus, decision, digits):
    """Middles and probabilities of all prices by their first ``digits`` digits, by plain forward passes without a cache."""
    model, tokenizer, grammar = janus.agent.adapter.model, janus.agent.adapter.tokenizer, janus.agent.scorer.grammar
    prompt = tokenizer(decision.prompt, add_special_tokens=False)["input_ids"]
    found = {}

    def walk(node, path, p, depth):
        if grammar.low[node] == grammar.high[node] or depth > digits:
            found[round(float(grammar.low[node]), 4)] = p
            return
        with torch.no_grad(), bind_rho(model, decision.rho):
            scores = model(torch.tensor([prompt + path])).logits[0, -1].double()
        legal = [
            (int(c), int(t))
            for i, (c, t) in enumerate(zip(grammar.child[node], grammar.token[node], strict=True))
            if c >= 0 and not (node == 0 and i == grammar.accept)
        ]
        for (child, token), q in zip(legal, torch.softmax(scores[[t for _, t in legal]], 0).tolist(), strict=True):
            walk(child, [*path, token], p * q, depth + 1)

    walk(0, [], 1.0, 0)
    return found


def test_the_distribution_is_that_of_every_price(janus):
    decision = janus.decide({**TABLE, "offers": OFFERS}, 0.3)
    prices, expected = decision.prices(), enumerated(janus, decision, 2)
    edges = np.array([*sorted(expected), 2.0]) * 1300 + 200 - 1e-6
    found = np.histogram(prices.price - prices.width / 2, edges, weights=prices.probability)[0]
    wanted = np.array([expected[low] for low in sorted(expected)])
    assert wanted.max() > 3 * wanted.mean()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert prices.probability.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(prices.price) > (prices.width[1:] + prices.width[:-1]) / 2).all()
    assert 0.3 < prices.covered <= 1.0
    assert prices.probability[prices.width == 0].sum() == pytest.approx(prices.covered)


def test_its_figures_are_those_of_the_distribution(janus):
    prices = janus.decide({**TABLE, "offers": OFFERS}, 0.3).prices()
    draws = np.random.default_rng(0).choice(prices.price, 200_000, p=prices.probability)
    assert prices.mean == pytest.approx(draws.mean(), abs=4 * prices.sd / 400)
    assert prices.sd == pytest.approx(draws.std(), rel=0.02)
    for q in (0.05, 0.5, 0.95):
        assert (draws <= prices.quantile(q)).mean() >= q - 0.01
        assert (draws < prices.quantile(q)).mean() <= q + 0.01
    edges, share = prices.histogram()
    assert share.sum() == pytest.approx(1.0, abs=0.011)
    assert len(edges) == len(share) + 1
    assert str(prices).count("█") > 10
    assert prices.quantile(1.0) == prices.price[-1]


def test_what_is_explained_is_what_was_decided(adapter):
    exact = Janus(JanusAgent(adapter, decode="mean", guard="none"))
    exact.agent.scorer.levels, exact.agent.scorer.width = 3, 100
    decision = exact.decide({**TABLE, "offers": []}, 0.3)  # nothing to accept
    explained = decision.explain()
    assert explained.prices.mean == pytest.approx(decision.raw_price, abs=STEP)
    assert (explained.rho, explained.prompt) == (0.3, decision.prompt)
    assert explained.accept_probability == decision.accept_probability == 0.0
    chance = exact.decide({**TABLE, "offers": OFFERS}, 0.3)
    assert chance.explain().accept_probability == pytest.approx(chance.accept_probability, abs=1e-6)
    assert chance.accept_probability > 0.01
    assert json.loads(json.dumps(explained.as_dict(), allow_nan=False)) == explained.as_dict()
    text = str(explained)
    for part in (
        str(decision),
        "P(ACCEPT)",
        "price of an offer",
        "gates at ρ = 0.3",
        "q_proj",
        "<RESERVATION_NORM> 0.5385",
    ):
        assert part in text
    other = exact.decide({**TABLE, "offers": []}, 0.9).explain()
    assert other.prices.mean != explained.prices.mean


def test_gates_are_those_of_the_networks(adapter):
    found = {gate.projection: gate for gate in gate_summaries(adapter.model, 0.9)}
    layers = [(n.split(".")[-1], m) for n, m in adapter_modules(adapter.model) if isinstance(m, HyperLoRALinear)]
    assert set(found) == {name for name, _ in layers} | {"all"}
    for name, gate in found.items():
        nets = [m.hyper_net for n, m in layers if name in (n, "all")]
        here = torch.cat([net(torch.tensor([[0.9]])) for net in nets]).detach()
        half = torch.cat([net(torch.tensor([[0.5]])) for net in nets]).detach()
        expected = (len(nets), here.mean(), here.min(), here.max(), (here - half).square().mean().sqrt())
        assert (gate.layers, gate.mean, gate.low, gate.high, gate.from_neutral) == pytest.approx(
            [float(x) for x in expected], abs=1e-6
        )
        assert gate.from_neutral > 1e-3
    assert all(gate.from_neutral == 0 for gate in gate_summaries(adapter.model, 0.5))


def test_without_the_adapter_nothing_depends_on_the_gates(adapter):
    bare = Janus(JanusAgent(adapter, base_only=True))
    said = {**TABLE, "offers": OFFERS}
    explained = bare.decide(said, 0.3).explain()
    assert explained.gates == []
    assert "the adapter is off" in str(explained)
    adapter.model.current_rho = torch.tensor([[0.9]])
    try:
        again = bare.decide(said, 0.3).explain()
    finally:
        adapter.model.current_rho = None
    assert again.prices.mean == explained.prices.mean
    assert again.prices.mean != Janus(JanusAgent(adapter)).decide(said, 0.3).explain().prices.mean


# ── threads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Crowd:
    """A scorer that notes how many threads were inside it at once, and holds them up to meet."""

    def __init__(self):
        self.inside = self.most = 0

    def decide(self, prompts, rho, may_accept, uniforms=None, offers=True):
        self.inside += 1
        self.most = max(self.most, self.inside)
        threading.Event().wait(0.02)
        self.inside -= 1
        return Fixed(0.2).decide(prompts, rho, may_accept)


def run_threads(work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_take_turns(adapter):
    alone, crowd = Crowd(), Crowd()
    run_threads(lambda _: alone.decide(["x"], None, np.zeros(1, dtype=bool)))
    assert alone.most > 1  # they would meet
    shared = made_up(adapter, crowd)
    run_threads(lambda _: shared.decide(TABLE))
    assert crowd.most == 1


def test_threads_decide_what_one_decides(janus):
    rhos = [0.0, 0.3, 0.6, 0.9]
    expected = [janus.decide({**TABLE, "offers": OFFERS}, rho) for rho in rhos]
    assert len({decision.accept_probability for decision in expected}) == 4
    found = [[] for _ in rhos]
    run_threads(lambda i: found[i].extend(janus.decide({**TABLE, "offers": OFFERS}, rhos[i]) for _ in range(5)))
    assert found == [[decision] * 5 for decision in expected]
