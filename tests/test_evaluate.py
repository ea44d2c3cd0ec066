"""Evaluation on decisions against plain recounts; what it leaves behind (nothing)."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from oracles.models import tiny

from bargain_env.errors import InputError
from hyperlora import evaluate
from hyperlora.base import nano_model
from hyperlora.binding import bind_rho
from hyperlora.data import HyperLoRACollator, NegotiationDataset
from hyperlora.decode import Decisions, Scorer
from hyperlora.evaluate import DecisionFacts, decision_facts, evaluate_decisions, evaluate_loss, sample_rows
from hyperlora.inject import adapter_modules, inject_hyperlora
from hyperlora.losses import target_loss
from hyperlora.prompt import normalize_price
from hyperlora.tokens import build_nano_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_nano_tokenizer()


@pytest.fixture(scope="module")
def table(steps):
    """Some 300 decisions of whole episodes, impasses among them."""
    ids = steps["trajectory_id"].to_pylist()
    return steps.slice(0, max(i for i in range(260, 300) if ids[i] != ids[i - 1]))


@pytest.fixture(scope="module")
def dataset(table, tokenizer):
    return NegotiationDataset(table, tokenizer)


@pytest.fixture(scope="module")
def facts(table):
    return decision_facts(table)


def janus(dropout: float = 0.3, seed: int = 4):
    """A small untrained model whose adapter is awake, with dropout that must not be seen."""
    model = inject_hyperlora(nano_model(32, 1, 2, 48, seed=seed), rank=4, dropout=dropout)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8.0)
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 1.0, generator=generator)
    return model


@pytest.fixture(scope="module")
def model():
    return janus()


def row_loss(model, dataset, row):
    """Summed target loss and number of target tokens of one row, by one plain forward pass over all positions."""
    item = dataset[row]
    with torch.no_grad(), bind_rho(model, item["rho"]):
        logits = model.eval()(item["input_ids"][None]).logits[0].double()
    wanted = item["labels"][1:] != -100
    scores = torch.log_softmax(logits[:-1], dim=-1)[wanted]
    return -scores.gather(1, item["labels"][1:][wanted, None]).sum().item(), int(wanted.sum())


# --- which rows ---------------------------------------------------------------------------------------------------


def test_all_rows_where_they_fit():
    np.testing.assert_array_equal(sample_rows(7, 7), np.arange(7))
    np.testing.assert_array_equal(sample_rows(7, 100, np.arange(7) // 3), np.arange(7))


@pytest.mark.parametrize(("count", "most"), [(1000, 64), (97, 96), (150, 100), (5, 1)])
def test_rows_are_spread_evenly(count, most):
    rows = sample_rows(count, most)
    assert len(rows) == most
    assert (np.diff(rows) > 0).all()
    stretch = np.searchsorted(np.arange(most + 1) * count // most, rows, side="right") - 1
    np.testing.assert_array_equal(stretch, np.arange(most))
    np.testing.assert_array_equal(rows, sample_rows(count, most))


def test_rows_do_not_beat_with_what_alternates():
    """A constant stride of 10 would see one seat, one starter and one turn only."""
    rows = sample_rows(10_000, 1_000)
    assert len(set(np.arange(0, 10_000, 10) % 2)) == 1
    for period in (2, 4, 10, 20):
        share = np.bincount(rows % period, minlength=period) / len(rows) * period
        assert (np.abs(share - 1) < 0.5).all(), period


def test_episodes_are_whole_and_from_the_whole_table():
    random = np.random.default_rng(0)
    episode = np.repeat(np.arange(400), random.integers(1, 21, 400))
    rows = sample_rows(len(episode), 500, episode)
    chosen = np.unique(episode[rows])
    assert 400 < len(rows) <= 500
    np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(episode, chosen)))
    assert (np.histogram(chosen, 4, (0, 400))[0] > len(chosen) / 5).all()
    assert set(chosen) != set(episode[:500])


def test_one_episode_is_the_least():
    episode = np.repeat([0, 1], 20)
    assert len(sample_rows(40, 3, episode)) == 20
    with pytest.raises(InputError, match="at least 1"):
        sample_rows(40, 0)


def test_a_shuffled_table_gives_the_same_sample(table, facts):
    order = np.random.default_rng(1).permutation(table.num_rows)
    shuffled = decision_facts(table.take(order))
    rows, others = (sample_rows(table.num_rows, 60, f.episode) for f in (facts, shuffled))
    assert not np.array_equal(rows, others)
    assert sorted(rows) == sorted(order[others])


# --- facts --------------------------------------------------------------------------------------------------------


def test_facts_are_those_of_the_prompts(table, dataset, facts, tokenizer):
    texts = [tokenizer.decode(dataset.ids[a:b]) for a, b in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)]
    np.testing.assert_array_equal(facts.may_accept, ["<LAST_OFFER_NORM> NA" not in text for text in texts])
    assert 0 < facts.may_accept.sum() < len(texts)
    for row, record in enumerate(table.to_pylist()):
        offers = zip(record["history_roles"], record["history_prices"], strict=True)
        own = [normalize_price(p, 200.0, 1500.0) for role, p in offers if role == record["role"]]
        assert facts.last_offer[row] == pytest.approx(own[-1]) if own else math.isnan(facts.last_offer[row])
    ids = table["trajectory_id"].to_pylist()
    assert len({*zip(ids, facts.episode, strict=True)}) == len(set(ids)) == len(set(facts.episode))


def test_facts_drop_what_the_dataset_drops(table, tokenizer):
    low = table["price_high"].to_numpy().copy()
    low[::2] = 200.0
    changed = table.set_column(table.column_names.index("price_high"), "price_high", pa.array(low))
    dropped, whole = decision_facts(changed), decision_facts(table)
    assert len(dropped.may_accept) == len(NegotiationDataset(changed, tokenizer)) == table.num_rows // 2
    np.testing.assert_array_equal(dropped.may_accept, whole.may_accept[1::2])
    np.testing.assert_array_equal(dropped.last_offer, whole.last_offer[1::2])
    assert len(dropped.episode) == len(dropped.may_accept)


def test_own_offers_are_counted_as_the_prompt_counts_them(table, facts):
    found = decision_facts(table, prompt_format=4)
    own, low, high, limit = (table[c].to_numpy() for c in ("role", "price_low", "price_high", "reservation_price"))
    price = low + facts.last_offer * (high - low)
    demand = np.where(own == "buyer", limit - price, price - limit) / (high - low)
    known = ~np.isnan(facts.last_offer)
    assert np.abs(found.last_offer - facts.last_offer)[known].max() > 0.1
    np.testing.assert_allclose(found.last_offer, np.where(known, np.maximum(demand, 0.0), np.nan), atol=1e-9)


def test_nan_stands_for_no_offer_and_roles_may_be_unknown(table, facts):
    column = table.column_names.index("last_offer_price")
    spelled = pa.array(table["last_offer_price"].to_numpy(), from_pandas=False)
    assert spelled.null_count == 0
    bare = table.set_column(column, "last_offer_price", spelled).drop_columns(["role", "trajectory_id"])
    found = decision_facts(bare)
    np.testing.assert_array_equal(found.may_accept, facts.may_accept)
    assert found.last_offer is None
    assert found.episode is None


def test_facts_of_another_dataset_are_refused(model, dataset, facts, tokenizer):
    other = DecisionFacts(facts.may_accept[:-1])
    with pytest.raises(ValueError, match="do not belong"):
        evaluate_loss(model, dataset, facts=other)
    with pytest.raises(ValueError, match="do not belong"):
        evaluate_decisions(model, tokenizer, dataset, other)


# --- loss ---------------------------------------------------------------------------------------------------------


def test_loss_is_that_of_each_row_alone(model, table, dataset, facts):
    found = evaluate_loss(model, dataset, batch_size=16, max_rows=80, facts=facts)
    rows = sample_rows(len(dataset), 80, facts.episode)
    assert found["rows"] == len(rows) < len(dataset)
    loss, n = np.array([row_loss(model, dataset, int(row)) for row in rows]).T
    rho, accept = dataset.rho[rows], np.array(table["target_action"].to_pylist())[rows] == "ACCEPT"

    def mean(of):
        return pytest.approx(loss[of].sum() / n[of].sum(), rel=1e-4) if of.any() else None

    assert found["eval_loss"] == mean(rho > -2)
    assert found["eval_perplexity"] == pytest.approx(math.exp(found["eval_loss"]))
    assert found["eval_loss_success"] == mean(rho >= 0)
    assert found["eval_loss_failure"] == mean(rho < 0)
    assert found["by_action"] == {"ACCEPT": mean(accept), "OFFER": mean(~accept)}
    assert abs(found["by_action"]["ACCEPT"] - found["by_action"]["OFFER"]) > 1e-2
    for k, (name, value) in enumerate(found["rho_bucket_losses"].items()):
        inside = (rho >= k / 10) & ((rho < (k + 1) / 10) | (k == 9))
        assert value == mean(inside)
        assert found["rho_bucket_rows"][name] == inside.sum()
    assert sum(found["rho_bucket_rows"].values()) == (rho >= 0).sum() < len(rows)


def test_loss_with_a_gated_head(dataset):
    model = inject_hyperlora(tiny("llama"), rank=4, target_modules=["v_proj", "lm_head"], dropout=0.0)
    with torch.no_grad():
        model.lm_head.lora_B.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(0))
    found = evaluate_loss(model, dataset, batch_size=8, max_rows=24)
    loss, n = np.array([row_loss(model, dataset, int(row)) for row in sample_rows(len(dataset), 24)]).T
    assert found["eval_loss"] == pytest.approx(loss.sum() / n.sum(), rel=1e-5)


def test_a_deal_beyond_the_zopa_is_a_deal(model, table, tokenizer):
    few = table.slice(0, 3)
    found = evaluate_loss(model, NegotiationDataset(few, tokenizer, rho=np.array([-0.2, 1.3, -1.0])))
    assert [n for n in found["rho_bucket_rows"].values() if n] == [1, 1]
    assert found["rho_bucket_rows"]["0.0-0.1"] == found["rho_bucket_rows"]["0.9-1.0"] == 1
    assert None not in (found["eval_loss_success"], found["eval_loss_failure"])


def test_loss_of_a_bare_base(dataset, facts):
    base = nano_model(32, 1, 2, 48, seed=4)
    found = evaluate_loss(base, dataset, max_rows=40)
    assert found["rows"] == 40
    assert found["eval_loss"] != evaluate_loss(base, dataset, max_rows=40, facts=facts)["eval_loss"]


# --- decisions ----------------------------------------------------------------------------------------------------


def test_decisions_are_those_of_each_row_alone(model, table, dataset, facts, tokenizer):
    found = evaluate_decisions(model, tokenizer, dataset, DecisionFacts(facts.may_accept), max_rows=90, batch_size=13)
    rows = sample_rows(len(dataset), 90)
    scorer, records = Scorer(model.eval(), tokenizer, "greedy"), table.to_pylist()
    errors, others, right = [], [], []
    for row in (int(r) for r in rows if records[r]["rho_train"] >= 0):
        prompt = dataset.ids[dataset.offsets[row] :][: dataset.prompt_lengths[row]].tolist()
        alone = scorer.decide([prompt], np.array([records[row]["rho_train"]]), facts.may_accept[[row]])
        wrong = scorer.decide([prompt], np.array([1.0 - records[row]["rho_train"]]), facts.may_accept[[row]])
        right.append(alone.accept[0] == (records[row]["target_action"] == "ACCEPT"))
        if records[row]["target_action"] == "OFFER" and not alone.accept[0]:
            target = round(normalize_price(records[row]["target_price"], 200.0, 1500.0), 4)
            errors.append(abs(alone.price[0] - target))
            others.append(abs(wrong.price[0] - target))
    assert found["rows"] == len(rows)
    assert found["n"] == len(right) < len(rows)
    assert found["action_accuracy"] == pytest.approx(np.mean(right))
    assert found["price_n"] == len(errors)
    assert abs(np.mean(others) - np.mean(errors)) > 1e-3
    assert found["price_mae"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert found["impasse"]["n"] == len(rows) - len(right)


def answer(monkeypatch, accept, price):
    """Make the scorer answer, whatever it is asked, the next of these."""
    asked = []

    class Fixed:
        def __init__(self, *arguments):
            assert arguments[2] == "greedy"

        def decide(self, prompts, rho, may_accept):
            asked.append((prompts, rho, may_accept))
            n = len(prompts)
            return Decisions(np.zeros(n), np.array(price[:n]), np.ones(n), np.array(accept[:n]))

    monkeypatch.setattr(evaluate, "Scorer", Fixed)
    return asked


def hand_made(table):
    """Six decisions: two acceptances and two offers of deals, two offers of impasses."""
    deal = [r for r in table.to_pylist() if r["rho_train"] >= 0 and r["turn"] >= 5]
    accepts, offers = ([r for r in deal if r["target_action"] == a][:2] for a in ("ACCEPT", "OFFER"))
    failed = [r for r in table.to_pylist() if r["rho_train"] < 0 and r["turn"] >= 5][:2]
    return pa.Table.from_pylist([*accepts, *offers, *failed], schema=table.schema)


def test_figures_by_hand(monkeypatch, table, tokenizer, model):
    few = hand_made(table)
    dataset, facts = NegotiationDataset(few, tokenizer), decision_facts(few)
    monkeypatch.setattr(evaluate, "_rows_by_length", lambda dataset, *_: np.arange(len(dataset)))
    target = [0.0 if p is None else round((p - 200) / 1300, 4) for p in few["target_price"].to_pylist()]
    prices = [0.3, 0.3, target[2] + 0.1, 0.2, target[4] - 0.05, 0.0]
    answer(monkeypatch, [True, True, False, True, False, True], prices)
    found = evaluate_decisions(model, tokenizer, dataset, facts)
    assert (found["n"], found["action_accuracy"], found["majority_baseline"]) == (4, 0.75, 0.5)
    assert (found["accept_targets"], found["accept_answers"]) == (2, 3)
    assert (found["accept_precision"], found["accept_recall"]) == (pytest.approx(2 / 3), 1.0)
    assert found["accept_f1"] == pytest.approx(0.8)
    assert (found["price_n"], found["price_coverage"]) == (1, 0.5)
    assert found["price_mae"] == pytest.approx(0.1)
    assert found["last_offer_baseline"] == pytest.approx(abs(facts.last_offer[2] - target[2]), abs=1e-9)
    assert (found["last_offer_n"], found["price_mae_beside_baseline"]) == (1, found["price_mae"])
    impasse = found["impasse"]
    assert (impasse["n"], impasse["action_accuracy"], impasse["majority_baseline"]) == (2, 0.5, 1.0)
    assert (impasse["accept_precision"], impasse["accept_recall"], impasse["accept_f1"]) == (0.0, None, 0.0)
    assert impasse["price_mae"] == pytest.approx(0.05)
    json.dumps(found, allow_nan=False)


def test_choices_are_rows_where_accepting_is_legal(monkeypatch, table, tokenizer, model):
    few = hand_made(table).slice(0, 4)
    dataset = NegotiationDataset(few, tokenizer)
    monkeypatch.setattr(evaluate, "_rows_by_length", lambda dataset, *_: np.arange(len(dataset)))
    answer(monkeypatch, [True, True, False, False], [0.5] * 4)
    found = evaluate_decisions(model, tokenizer, dataset, DecisionFacts(np.array([True, True, True, False])))
    assert (found["choices"], found["choice_accuracy"]) == (3, 1.0)
    assert (found["majority_baseline"], found["choice_majority_baseline"]) == (0.5, pytest.approx(2 / 3))
    assert (found["last_offer_n"], found["last_offer_baseline"], found["price_mae_beside_baseline"]) == (0, None, None)


def test_the_scorer_is_told_prompt_rho_and_legality(monkeypatch, table, dataset, facts, tokenizer, model):
    asked = answer(monkeypatch, [False] * 999, [0.5] * 999)
    evaluate_decisions(model, tokenizer, dataset, facts, max_rows=10**6)
    prompts, rho, may_accept = asked.pop()
    order = np.argsort(dataset.lengths, kind="stable")
    np.testing.assert_allclose(rho, table["rho_train"].to_numpy()[order], atol=1e-7)
    np.testing.assert_array_equal(may_accept, facts.may_accept[order])
    assert all(tokenizer.decode(p).endswith("<OUTPUT>\n") for p in prompts)
    evaluate_decisions(nano_model(32, 1, 2, 48), tokenizer, dataset, facts)
    assert asked.pop()[1] is None


def test_decisions_of_a_bare_base(dataset, facts, tokenizer):
    found = evaluate_decisions(nano_model(32, 1, 2, 48, seed=4), tokenizer, dataset, facts, max_rows=30)
    assert 0 < found["n"] <= 30
    assert 0.0 <= found["action_accuracy"] <= 1.0


# --- what is left behind ------------------------------------------------------------------------------------------


def gradients(model, dataset, rho=None):
    """Gradients of one training batch, dropout included."""
    batch = HyperLoRACollator(dataset.pad_token_id)([dataset[i] for i in range(6)])
    model.zero_grad()
    with bind_rho(model, batch["rho"] if rho is None else rho):
        loss, n = target_loss(model, batch["input_ids"], batch["labels"])
        (loss / n).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_nothing_is_left_behind(dataset, facts, tokenizer):
    model = janus().train()
    model.model.norm.eval()
    model.current_rho = torch.tensor([[0.25]])
    modes = [m.training for m in model.modules()]
    torch.manual_seed(7)
    noisy = [gradients(model, dataset) for _ in range(2)]
    assert any(not torch.equal(a, b) for a, b in zip(*noisy, strict=True))
    torch.manual_seed(7)
    kept = gradients(model, dataset)
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = (
        evaluate_loss(model, dataset, max_rows=30),
        evaluate_decisions(model, tokenizer, dataset, facts, max_rows=30),
    )
    again = (
        evaluate_loss(model, dataset, max_rows=30),
        evaluate_decisions(model, tokenizer, dataset, facts, max_rows=30),
    )
    assert first == again
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert [m.training for m in model.modules()] == modes
    assert len(set(modes)) == 2
    assert model.current_rho.item() == 0.25
    held = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(held, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, dataset), kept, strict=True))


def test_gradient_checkpointing_changes_nothing(dataset, facts, tokenizer):
    model = janus().train()
    plain = (
        evaluate_loss(model, dataset, max_rows=20),
        evaluate_decisions(model, tokenizer, dataset, facts, max_rows=20),
    )
    model.activation_checkpointing_enable({"use_reentrant": False})
    again = (
        evaluate_loss(model, dataset, max_rows=20),
        evaluate_decisions(model, tokenizer, dataset, facts, max_rows=20),
    )
    assert again == plain
    assert plain[0] != evaluate_loss(janus(seed=5), dataset, max_rows=20)


def test_a_failing_evaluation_restores_the_modes(dataset, facts, tokenizer, monkeypatch):
    model = janus().train()

    def fail(*_):
        assert not model.training
        raise RuntimeError("no memory")

    monkeypatch.setattr(evaluate, "_row_losses", fail)
    monkeypatch.setattr(evaluate.Scorer, "decide", fail)
    for run in (lambda: evaluate_loss(model, dataset), lambda: evaluate_decisions(model, tokenizer, dataset, facts)):
        with pytest.raises(RuntimeError, match="no memory"):
            run()
        assert all(m.training for m in model.modules())
