"""Janus at the table: its prompts are the training prompts, its ρ goes three ways at once, its guard is counted."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

import agents
from agents.janus import JanusAgent
from bargain_env import MoveKind, Moves, RoutedPolicy, Seat, SeatView, play, sample
from bargain_env.errors import InputError
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table
from hyperlora import Adapter, NegotiationDataset, build_nano_tokenizer, inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.decode import DecodeStats
from hyperlora.inject import adapter_modules
from hyperlora.prompt import decision_prompt
from hyperlora.tokenise import texts


@lru_cache
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
        self.name, self.script, self.janus, self.texts, self.axes = "recorder", script, janus, {}, {}

    def reset(self, games):
        self.script.reset(games)
        self.janus.reset(games)

    def act(self, view):
        axis = self.janus.axis(view.games)
        for i, (row, text) in enumerate(zip(view.rows, self.janus.prompts(view), strict=True)):
            self.texts[int(row), view.turn], self.axes[int(row), view.turn] = text, axis.row(i)
        return self.script.act(view)


def test_a_table_that_does_not_say_whose_decisions_it_holds_has_no_prompts_of_format_4():
    games = sample("paper", 2, seed=2)
    played = play(games, agents.make("boulware_firm"), agents.make("boulware_firm"))
    table = steps_table(rows_of_games(played, "x", ["a"] * 2, ["b"] * 2)).drop_columns("role")
    tokenizer = adapter().tokenizer
    assert len(NegotiationDataset(table, tokenizer)) == table.num_rows
    with pytest.raises(InputError, match=r"needs the column 'role'; .* experiments.prepare"):
        NegotiationDataset(table, tokenizer, prompt_format=4)


@pytest.mark.parametrize(("k_history", "prompt_format"), [(8, 2), (3, 2), (8, 1), (8, 3), (5, 3), (8, 4)])
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


@pytest.mark.parametrize("prompt_format", [2, 4])
def test_answers_at_the_table_mean_what_training_targets_say(prompt_format):
    """Nobody here goes beyond a limit, which answers of format 4 cannot."""
    games = sample("paper", 24, seed=2)
    names = ["boulware_conceding", "linear_standard", "hardliner", "naive_concession"]
    scripts = [RoutedPolicy([agents.make(n) for n in names], (games.id // d) % 4) for d in (1, 4)]
    seats = [Recorder(script, JanusAgent(adapter(8, prompt_format))) for script in scripts]
    result = play(games, *seats)
    table = steps_table(rows_of_games(result, "x", ["a"] * 24, ["b"] * 24))
    _, targets = texts(table, np.full(table.num_rows, 0.5, dtype=np.float32), 8, prompt_format)
    row_of = {name: i for i, name in enumerate(dict.fromkeys(table["trajectory_id"].to_pylist()))}
    shares = set()
    for row, target in zip(table.to_pylist(), targets, strict=True):
        if row["target_action"] == "ACCEPT":
            continue
        game, share = row_of[row["trajectory_id"]], float(target.removeprefix("OFFER "))
        mover = seats[(games.starter[game] + row["turn"] - 1) % 2]
        price = mover.axes[game, row["turn"]].price(share)
        assert price == pytest.approx(row["target_price"], abs=0.5e-4 * (row["price_high"] - row["price_low"]) + 1e-9)
        shares.add(share)
    assert len(shares) > 30


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


def test_keys_and_values_are_used_again_from_turn_to_turn():
    games, rho = sample("paper", 8, seed=3), np.tile([0.2, 0.7], 4)
    loaded, played, fed = adapter(prompt_format=3), {}, {}
    for reuse in (None, True, False):
        janus = JanusAgent(loaded, rho=rho, decode="median", reuse=reuse)
        for _ in range(2):  # the second time nothing of the first is left
            janus.scorer.stats = DecodeStats()
            played[reuse] = play(games, janus, agents.make("hardliner"))
            fed.setdefault(reuse, []).append(janus.scorer.stats.per_decision()["fed_prompt_tokens"])
    assert played[False].turns.max() > 8  # longer than what the history holds
    for name in ("prices", "kinds"):
        np.testing.assert_allclose(getattr(played[True], name), getattr(played[False], name), atol=0.14)
    assert fed[None] == fed[True] == [fed[True][0]] * 2
    assert fed[True][0] < 0.75 * fed[False][0]
    old = JanusAgent(adapter(), rho=0.2)
    assert old.scorer.prefixes is None


def test_dial_moves_the_adapter_and_not_the_base():
    games = sample("paper", 4, seed=3)
    loaded = adapter()

    def first_offers(rho, **options):
        result = play(games, JanusAgent(loaded, rho=rho, guard="none", **options), agents.make("hardliner"))
        return result.prices[games.starter == Seat.BUYER, 0]

    assert np.abs(first_offers(0.0) - first_offers(1.0)).max() > 1.0
    loaded.model.current_rho = torch.tensor([[0.9]])
    bound = first_offers(0.3, base_only=True)
    loaded.model.current_rho = None
    np.testing.assert_array_equal(bound, first_offers(0.3, base_only=True))
    assert np.abs(bound - first_offers(0.3)).max() > 1.0


class Greedy:
    """Offers far beyond anybody's limit and stands there."""

    name = "greedy"

    def reset(self, games):
        pass

    def act(self, view):
        price = 1490.0 if view.games.seat == Seat.SELLER else 210.0
        return Moves(np.zeros(len(view), dtype=bool), np.full(len(view), price))


def test_guard_is_counted_and_none_lets_it_happen():
    games = sample("paper", 40, seed=9)
    guarded = play(games, JanusAgent(adapter(), rho=0.5), Greedy())
    offers = guarded.prices[(guarded.sides() == Seat.BUYER) & ~np.isnan(guarded.prices)]
    limits = np.broadcast_to(games.buyer_max[:, None], guarded.prices.shape)[
        (guarded.sides() == Seat.BUYER) & ~np.isnan(guarded.prices)
    ]
    assert (offers <= limits).all()
    assert not guarded.agreement.any()
    assert not (guarded.kinds == MoveKind.INVALID).any()  # who may not accept has an offer to make
    free = play(games, JanusAgent(adapter(), rho=0.5, guard="none"), Greedy())
    assert free.guards(Seat.BUYER).sum() == 0
    beyond = (free.prices[:, :2] > games.buyer_max[:, None]) & (free.sides()[:, :2] == Seat.BUYER)
    assert (guarded.guards(Seat.BUYER) > 0).sum() >= beyond.any(axis=1).sum()


@pytest.mark.parametrize("seat", list(Seat))
def test_monotone_takes_nothing_back_where_ir_does(seat):
    games, loaded, sign = sample("paper", 20, seed=9), adapter(), 1 if seat == Seat.BUYER else -1
    played, retracted = {}, {}
    for guard in ("ir", "monotone"):
        pair = JanusAgent(loaded, rho=0.5, decode="sample", guard=guard), Greedy()
        played[guard] = play(games, *(pair if seat == Seat.BUYER else pair[::-1]))
        mine = (played[guard].sides() == seat) & ~np.isnan(played[guard].prices)
        rows = [row[here] for row, here in zip(played[guard].prices, mine, strict=True)]
        retracted[guard] = sum((sign * np.diff(row) < 0).sum() for row in rows)
    assert (retracted["ir"] > 20, retracted["monotone"]) == (True, 0)
    assert (played["monotone"].guards(seat) >= played["ir"].guards(seat)).all()
    assert played["monotone"].guards(seat.other).sum() == 0


def test_its_own_decisions_go_along_with_its_moves():
    games, loaded = sample("paper", 12, seed=9), adapter()
    guarded, free = (play(games, JanusAgent(loaded, rho=0.5, guard=guard), Greedy()) for guard in ("ir", "none"))
    told = free.raw.told
    np.testing.assert_array_equal(told, (free.sides() == Seat.BUYER) & (free.kinds != 0))
    offers = told & ~free.raw.accept
    np.testing.assert_array_equal(free.raw.price[offers], free.prices[offers])
    rows, first = np.arange(12), np.argmax(guarded.raw.told, axis=1)  # where both are still in the same situation
    assert guarded.guarded[rows, first].any()
    np.testing.assert_array_equal(guarded.raw.price[rows, first], free.raw.price[rows, first])
    np.testing.assert_array_equal(guarded.raw.accept[rows, first], free.raw.accept[rows, first])


@pytest.mark.parametrize("guard", ["ir", "monotone", "none"])
def test_offers_are_computed_for_those_who_will_need_one(guard):
    games, janus, asked = sample("paper", 12, seed=9), JanusAgent(adapter(), rho=0.5, decode="sample", guard=guard), []
    decide = janus.scorer.decide

    def spy(prompts, rho, may_accept, uniforms, offers):
        decided = decide(prompts, rho, may_accept, uniforms, offers)
        asked.append((may_accept, offers, decided))
        return decided

    janus.scorer.decide = spy
    played = play(games, janus, Greedy())
    accepted = np.concatenate([decided.accept for _, _, decided in asked])
    price = np.concatenate([decided.price for _, _, decided in asked])
    for may_accept, offers, _ in asked:  # all that stands is beyond the limit
        np.testing.assert_array_equal(offers, may_accept & (guard != "none"))
    assert accepted.any()
    assert not np.isnan(price[~accepted]).any()
    assert np.isnan(price[accepted]).all() == (guard == "none")
    assert (played.kinds[played.raw.told] != MoveKind.INVALID).all()


def test_mixed_turns_are_the_turns_one_by_one():
    games, loaded, views = sample("paper", 8, seed=3), adapter(), []

    class Spy:
        name = "spy"

        def __init__(self):
            self.janus = JanusAgent(loaded, rho=0.4, decode="sample")

        def reset(self, games):
            self.games = games
            self.janus.reset(games)

        def act(self, view):
            moves = self.janus.act(view)
            views.append((view, moves))
            return moves

    spy = Spy()
    play(games, spy, agents.make("hardliner"))
    early, late = views[0], views[4]
    assert early[0].turn != late[0].turn
    width, parts = late[0].prices.shape[1], (early, late)
    prices = np.concatenate(
        [np.pad(v.prices, ((0, 0), (width - v.prices.shape[1], 0)), constant_values=np.nan) for v, _ in parts]
    )
    rows = np.concatenate([v.rows for v, _ in parts])
    turn = np.concatenate([np.full(len(v), v.turn) for v, _ in parts])
    standing = np.concatenate([v.standing for v, _ in parts])
    mixed = spy.janus.act(SeatView(rows, spy.games.take(rows), turn, standing, prices))
    assert len(np.unique(mixed.price)) > 2
    np.testing.assert_array_equal(mixed.accept, np.concatenate([m.accept for _, m in parts]))
    np.testing.assert_allclose(mixed.price, np.concatenate([m.price for _, m in parts]), atol=0.14)


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
