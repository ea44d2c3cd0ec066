"""The play evaluation against games played and counted by hand; whom it meets; what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

import agents
from agents import JanusAgent
from bargain_env import PRESETS, Seat, play, sample
from bargain_env.errors import InputError
from experiments import play_evaluation
from experiments.match.arena import run_tournament
from experiments.match.results import SCHEMA
from experiments.play_evaluation import OPPONENTS, SEED, evaluate_play
from hyperlora.base import nano_model
from hyperlora.checkpoint import load_hyperlora_adapter
from hyperlora.inject import adapter_modules, inject_hyperlora
from hyperlora.tokens import build_nano_tokenizer

CONFIG = {"k_history": 8, "prompt_format": 2}
RHOS = (0.1, 0.5, 0.9)
PAIR = ("linear_standard", "boulware_conceding")


@pytest.fixture(scope="module")
def tokenizer():
    return build_nano_tokenizer()


@pytest.fixture(scope="module")
def model():
    """A small untrained model whose adapter is awake."""
    model = inject_hyperlora(nano_model(32, 1, 2, 48, seed=4), rank=4, dropout=0.3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def shipped():
    return load_hyperlora_adapter("janus-nano")


@pytest.fixture(scope="module")
def played(shipped):
    """Figures of the shipped adapter, and the episodes that they were made of."""
    tables = []

    def remember(*arguments):
        tables.append(run_tournament(*arguments))
        return tables[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play_evaluation, "run_tournament", remember)
        options = {"rhos": RHOS, "opponents": PAIR, "games": 3}
        return evaluate_play(shipped.model, shipped.tokenizer, shipped.config, **options), tables[0].to_pylist()


@pytest.mark.parametrize("seat", ["buyer", "seller"])
def test_figures_are_those_of_the_episodes(played, seat):
    stats = pytest.importorskip("scipy.stats")
    figures, episodes = played[0][seat], [e for e in played[1] if e["agent_seat"] == seat]
    deals = [e for e in episodes if e["rho_achieved"] is not None]
    asked, achieved = (np.array([e[name] for e in deals]) for name in ("rho_requested", "rho_achieved"))
    assert figures["games"] == len(episodes) == 18
    assert figures["deals"] == len(deals) > 12
    assert figures["agreement_rate"] == pytest.approx(len(deals) / 18, abs=1e-6)
    assert figures["utility"] == pytest.approx(np.mean([e["utility"] for e in episodes]), abs=1e-6)
    assert figures["mae"] == pytest.approx(np.abs(asked - achieved).mean(), abs=1e-6)
    fit = stats.linregress(asked, achieved)
    assert figures["slope"] == pytest.approx(fit.slope, abs=1e-6)
    assert figures["intercept"] == pytest.approx(fit.intercept, abs=1e-6)
    assert figures["spearman_games"] == pytest.approx(stats.spearmanr(asked, achieved).statistic, abs=1e-6)
    assert figures["guard_moves"] == sum(e["guard_moves"] for e in episodes)
    assert figures["invalid_moves"] == 0
    for row, rho in zip(figures["by_rho"], RHOS, strict=True):
        mine = [e for e in episodes if e["rho_requested"] == rho]
        means = [e["rho_achieved"] for e in mine if e["rho_achieved"] is not None]
        assert (row["rho"], row["games"], row["deals"]) == (rho, 6, len(means))
        assert row["achieved"] == pytest.approx(np.mean(means), abs=1e-6)
        assert row["agreement_rate"] == pytest.approx(len(means) / 6, abs=1e-6)
        assert row["utility"] == pytest.approx(np.mean([e["utility"] for e in mine]), abs=1e-6)


@pytest.mark.parametrize("seat", list(Seat))
def test_its_episodes_are_games_played_by_hand(shipped, played, seat):
    games, rho, name = sample("paper", 3, seed=SEED), RHOS[1], PAIR[seat]
    pair = JanusAgent(shipped, rho=rho, raw_dial=True), agents.make_for(PRESETS["paper"], name)
    hand = play(games, *(pair if seat == Seat.BUYER else pair[::-1]))
    cell = [
        e["rho_achieved"]
        for e in sorted(played[1], key=lambda e: e["scenario_id"])
        if (e["agent_seat"], e["rho_requested"], e["opponent"]) == (seat.label, rho, name)
    ]
    np.testing.assert_allclose(np.array(cell, dtype=float), hand.rho, atol=2e-3)
    assert np.ptp(hand.rho[~np.isnan(hand.rho)]) > 1e-3


def test_the_shipped_dial_turns(played):
    for seat in ("buyer", "seller"):
        assert played[0][seat]["slope"] > 0.2
        assert played[0][seat]["spearman"] == 1.0
    assert json.loads(json.dumps(played[0], allow_nan=False)) == played[0]
    assert played[0]["opponents"] == list(PAIR)


def test_again_the_same_and_another_seed_another(shipped):
    options = {"rhos": [0.1], "opponents": PAIR[:1], "games": 1}
    first, again, other = (
        evaluate_play(shipped.model, shipped.tokenizer, shipped.config, **options, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["buyer"]["utility"] != other["buyer"]["utility"]


def test_without_deals_there_are_rates_and_no_figures(model, tokenizer, monkeypatch):
    def all_fail(*arguments):
        episodes = run_tournament(*arguments).to_pydict()
        n = len(episodes["agent"])
        episodes |= {"agreement": [False] * n, "rho_achieved": [None] * n, "utility": [0.0] * n}
        return pa.table(episodes, schema=SCHEMA)

    monkeypatch.setattr(play_evaluation, "run_tournament", all_fail)
    found = evaluate_play(model, tokenizer, CONFIG, rhos=RHOS, opponents=PAIR[:1], games=1)
    for seat in ("buyer", "seller"):
        figures = found[seat]
        assert (figures["games"], figures["deals"], figures["agreement_rate"], figures["utility"]) == (3, 0, 0.0, 0.0)
        assert {figures[n] for n in ("mae", "slope", "intercept", "spearman", "spearman_games")} == {None}
        assert [row["achieved"] for row in figures["by_rho"]] == [None] * 3


def test_a_bare_base_plays_too(tokenizer):
    found = evaluate_play(nano_model(32, 1, 2, 48), tokenizer, {}, rhos=[0.5], opponents=PAIR[:1], games=1)
    assert found["buyer"]["games"] == found["seller"]["games"] == 1
    assert found["buyer"]["slope"] is None


def test_repeats_count_once_and_an_impasse_may_be_asked_for(model, tokenizer):
    found = evaluate_play(model, tokenizer, CONFIG, rhos=(0.5, 0.5, -1), opponents=[PAIR[0]] * 2, games=1)
    assert [row["rho"] for row in found["buyer"]["by_rho"]] == [-1.0, 0.5]
    assert found["buyer"]["games"] == 2


def test_nothing_is_left_behind(model, tokenizer):
    model.train()
    model.model.norm.eval()
    model.current_rho = torch.tensor([[0.25]])
    modes, state, threads = [m.training for m in model.modules()], torch.get_rng_state(), torch.get_num_threads()
    evaluate_play(model, tokenizer, CONFIG, rhos=[0.5], opponents=PAIR[:1], games=1)
    assert [m.training for m in model.modules()] == modes
    assert len(set(modes)) == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert model.current_rho.item() == 0.25
    model.current_rho = None


def test_it_meets_train_split_strategies_only(model, tokenizer, monkeypatch):
    assert all(agents.describe(name).split == "train" for name in OPPONENTS)
    held_out, cheating = agents.list_strategies(split="held_out"), agents.list_strategies(cheating=True)
    assert held_out
    assert cheating
    monkeypatch.setattr(play_evaluation, "run_tournament", lambda *_: pytest.fail("played"))
    for name in (*held_out, *cheating):
        with pytest.raises(InputError, match=f"'{name}' .* may not steer training"):
            evaluate_play(model, tokenizer, CONFIG, opponents=[*OPPONENTS, name])


def test_a_cheat_is_refused_whatever_its_split(model, tokenizer, monkeypatch):
    known = agents.describe(PAIR[0])
    assert (known.split, known.cheating) == ("train", False)
    monkeypatch.setattr(agents, "describe", lambda name: replace(known, cheating=True))
    with pytest.raises(InputError, match="cheats and may not steer"):
        evaluate_play(model, tokenizer, CONFIG, opponents=PAIR[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponents": ["nobody"]}, "unknown strategy"),
        ({"opponents": []}, "at least one"),
        ({"rhos": []}, "at least one"),
        ({"rhos": [1.5]}, "outside"),
        ({"scenario": "market"}, "unknown scenario"),
        ({"games": 0}, "games 0"),
        ({"decode": "beam"}, "decode mode"),
    ],
)
def test_bad_options_are_refused_and_the_mode_restored(model, tokenizer, options, message):
    model.train()
    with pytest.raises(InputError, match=message):
        evaluate_play(model, tokenizer, CONFIG, **options)
    assert model.training


def test_the_scenarios_are_not_those_of_a_tournament():
    assert SEED != 0
    assert not np.array_equal(sample("paper", 8, seed=SEED).buyer_max, sample("paper", 8, seed=0).buyer_max)
