"""Janus at the table: its prompts are the training prompts, its ρ goes three ways at once, its guard is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import agents
from agents.janus import JanusAgent
from bargain_env import Moves, RoutedPolicy, Seat, play, sample
from bargain_env.errors import InputError
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table
from hyperlora import Adapter, NegotiationDataset, build_nano_tokenizer, inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.inject import adapter_modules
from hyperlora.prompt import decision_prompt


def adapter(k_history: int = 8, prompt_format: int = 2) -> Adapter:
    """A small untrained model whose adapter is awake."""
    model = inject_hyperlora(nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=4), dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.5, generator=generator)
    return Adapter(model.eval(), build_nano_tokenizer(), {"k_history": k_history, "prompt_format": prompt_format})


class Recorder:
    """A scripted player that also asks Janus what it would have read."""

    def __init__(self, script, janus):
        self.name, self.script, self.janus, self.texts = "recorder", script, janus, {}

    def reset(self, games):
        self.script.reset(games)
        self.janus.reset(games)

    def act(self, view):
        for row, text in zip(view.rows, self.janus.prompts(view), strict=True):
            self.texts[int(row), view.turn] = text
        return self.script.act(view)


@pytest.mark.parametrize(("k_history", "prompt_format"), [(8, 2), (3, 2), (8, 1)])
def test_prompts_at_the_table_are_the_training_prompts(k_history, prompt_format):
    games = sample("hidden", 24, seed=2)
    loaded = adapter(k_history, prompt_format)
    names = ["boulware_conceding", "tit_for_tat", "hardliner", "naive_concession"]
    probe = play(games, *(RoutedPolicy([agents.make(n) for n in names], (games.id // d) % 4) for d in (1, 4)))
    rho = np.where(probe.agreement, probe.rho, -1.0)
    seats = [
        Recorder(
            RoutedPolicy([agents.make(n) for n in names], (games.id // d) % 4), JanusAgent(loaded, rho=rho.round(12))
        )
        for d in (1, 4)
    ]
    result = play(games, *seats)
    table = steps_table(rows_of_games(result, "x", ["a"] * 24, ["b"] * 24))
    dataset = NegotiationDataset(table, loaded.tokenizer, k_history, prompt_format=prompt_format)
    turns, row_of = (
        table["turn"].to_pylist(),
        {name: i for i, name in enumerate(dict.fromkeys(table["trajectory_id"].to_pylist()))},
    )
    assert result.turns.max() > k_history
    for i, name in enumerate(table["trajectory_id"].to_pylist()):
        text = loaded.tokenizer.decode(dataset[i]["input_ids"][: dataset.prompt_lengths[i]])
        game = row_of[name]
        mover = seats[(games.starter[game] + turns[i] - 1) % 2]
        assert mover.texts[game, turns[i]] == text


def test_rho_reaches_text_flag_and_gates_together():
    games = sample("paper", 6, seed=1)
    rho = np.array([0.0, 0.2, 0.5, 0.8, 1.0, -1.0])
    janus = JanusAgent(adapter(), rho=rho)
    seen = {}
    decide = janus.scorer.decide

    def spy(prompts, bound, *rest):
        seen["texts"], seen["bound"] = [janus.adapter.tokenizer.decode(p) for p in prompts], bound
        return decide(prompts, bound, *rest)

    janus.scorer.decide = spy
    play(games.take(np.flatnonzero(games.starter == 0).repeat(6)[:6]), janus, agents.make("hardliner"))
    np.testing.assert_array_equal(seen["bound"], rho[: len(seen["bound"])])
    for text, value in zip(seen["texts"], seen["bound"], strict=True):
        assert ("<RHO_FAIL>" in text) == (value < 0)
        assert f"<SUCCESS> {int(value >= 0)}" in text
        assert value < 0 or f"<RHO> {value:.4f}" in text


def test_games_do_not_depend_on_their_company():
    games = sample("paper", 12, seed=3)
    rho = np.linspace(0, 1, 12)
    loaded = adapter()
    together = play(games, JanusAgent(loaded, rho=rho), agents.make("linear_standard"))
    assert len(np.unique(together.prices[:, :2])) > 6
    for i in (0, 5, 11):
        row = np.array([i])
        alone = play(games.take(row), JanusAgent(loaded, rho=rho[i]), agents.make("linear_standard"))
        np.testing.assert_allclose(alone.prices[0], together.prices[i], atol=0.14)  # one step of 1e-4 of the range


def test_dial_moves_the_adapter_and_not_the_base():
    games = sample("paper", 4, seed=3)
    loaded = adapter()

    def first_offers(rho, **options):
        result = play(games, JanusAgent(loaded, rho=rho, **options), agents.make("hardliner"))
        return result.prices[games.starter == Seat.BUYER, 0]

    assert np.abs(first_offers(0.0) - first_offers(1.0)).max() > 1.0
    loaded.model.current_rho = torch.tensor([[0.9]])
    bound = first_offers(0.3, base_only=True)
    loaded.model.current_rho = None
    np.testing.assert_array_equal(bound, first_offers(0.3, base_only=True))


class Greedy:
    """Offers far beyond anybody's limit and stands there."""

    name = "greedy"

    def reset(self, games):
        pass

    def act(self, view):
        return Moves(np.zeros(len(view), dtype=bool), np.full(len(view), 1490.0))


def test_guard_is_counted_and_none_lets_it_happen():
    games = sample("paper", 40, seed=9)
    guarded = play(games, JanusAgent(adapter(), rho=0.5), Greedy())
    offers = guarded.prices[(guarded.sides() == Seat.BUYER) & ~np.isnan(guarded.prices)]
    limits = np.broadcast_to(games.buyer_max[:, None], guarded.prices.shape)[
        (guarded.sides() == Seat.BUYER) & ~np.isnan(guarded.prices)
    ]
    assert (offers <= limits).all()
    assert not guarded.agreement.any()
    free = play(games, JanusAgent(adapter(), rho=0.5, guard="none"), Greedy())
    assert free.guards(Seat.BUYER).sum() == 0
    beyond = (free.prices[:, :2] > games.buyer_max[:, None]) & (free.sides()[:, :2] == Seat.BUYER)
    assert (guarded.guards(Seat.BUYER) > 0).sum() >= beyond.any(axis=1).sum()


def test_sampling_is_a_function_of_the_seed_and_the_game():
    loaded = adapter()

    def prices(seed):
        games = sample("paper", 8, seed=seed)
        return play(games, JanusAgent(loaded, rho=0.5, decode="sample"), agents.make("hardliner")).prices

    np.testing.assert_array_equal(prices(1), prices(1))
    assert not np.array_equal(prices(1), prices(2), equal_nan=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 1.2}, "outside"),
        ({"rho": np.array([0.5, -0.3])}, "outside"),
        ({"decode": "beam"}, "decode mode"),
        ({"guard": "all"}, "guard"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        JanusAgent(adapter(), **options)


def test_one_rho_a_game():
    with pytest.raises(ValueError, match="2 values of rho for 3 games"):
        play(sample("paper", 3), JanusAgent(adapter(), rho=np.array([0.1, 0.9])), agents.make("hardliner"))


def test_prompt_helper_is_the_one_used():
    games = sample("paper", 1, seed=0)
    janus = JanusAgent(adapter(), rho=0.25)
    texts = []
    original = janus.prompts
    janus.prompts = lambda view: texts.extend(original(view)) or original(view)
    play(games, janus, agents.make("hardliner", assumed_zopa_width=500.0))
    first = decision_prompt(0.25, 1, 20, float(games.buyer_max[0]), [], [], None, 200.0, 1500.0)
    assert texts[0] == first
