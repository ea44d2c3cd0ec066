"""Janus with opponent models: the lookahead, abstention, batches, what models are asked, and tournaments."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from janus_worlds import small_adapter, write_adapter, write_base

import agents
from agents.janus import JanusAgent
from agents.modelling import Counterpart, ModellingSettings, Pool
from agents.modelling.agent import DIAL, ModellingAgent
from agents.modelling.aims import Aims
from agents.modelling.lookahead import choose, continuation, expected
from agents.modelling.models import OpponentModels, Predicted
from agents.modelling.outside import decision_after, other_seat
from bargain_env import Moves, Seat, play, sample
from bargain_env.errors import InputError
from bargain_env.policy import SeatGames
from experiments import tournament
from experiments.match import contestants
from experiments.match.identity import identify
from experiments.match.modelling import modelling_spec
from experiments.persona.cast import Persona
from experiments.persona.games import play_games, public_limits
from hyperlora.adapters import LoRA, write_peft
from hyperlora.adapters.routing import Scores, chosen, confidences, posteriors
from hyperlora.base import load_base
from hyperlora.data import texts

# ── the lookahead ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trust", [1.0, 0.8])
def test_waiting_is_worth_what_the_best_moment_to_stop_is_worth(trust):
    """Against all ways to hold an offer: take the opponent's first, second, … offer, or none."""
    random = np.random.default_rng(0)
    for _ in range(50):
        k = int(random.integers(1, 5))
        held, accepts, offered = random.uniform(0, 1), random.random(k), random.uniform(-1, 1, k)
        plans = []
        for stop in range(k + 1):
            value, alive = 0.0, 1.0
            for j in range(k):
                value += alive * accepts[j] * held
                alive *= (1 - accepts[j]) * trust
                if j == stop:
                    value += alive * max(offered[j], 0.0)
                    break
            plans.append(value)
        found = continuation(np.array([held]), accepts[None], offered[None], trust)
        assert found[0] == pytest.approx(max(plans))


def test_decisions_that_a_game_does_not_come_to_change_nothing():
    accepts, offered = np.array([[0.3, 0.5]]), np.array([[0.2, -np.inf]])
    longer = np.array([[0.3, 0.5, np.nan]]), np.array([[0.2, -np.inf, -np.inf]])
    held = np.array([0.6])
    assert continuation(held, *longer, 0.9) == continuation(held, accepts, offered, 0.9)


def test_the_best_of_all_answers_is_chosen():
    """Against plain enumeration over candidates, in the worlds that the predictions describe."""
    random = np.random.default_rng(1)
    for _ in range(50):
        worth, chance = random.uniform(0, 1, (1, 4)), random.random((1, 4))
        answer, waiting = random.uniform(-1, 1, (1, 4)), random.uniform(0, 1, 1)
        standing = random.uniform(-0.5, 1, 1)
        values = [
            sum(p * v for p, v in ((a, w), (1 - a, 0.9 * max(q, waiting[0], 0.0))))
            for a, w, q in zip(chance[0], worth[0], answer[0], strict=True)
        ]
        found = choose(standing, expected(worth, chance, answer, waiting, 0.9))
        assert bool(found.accept[0]) == (standing[0] >= max(values) and standing[0] >= 0)
        assert found.offer[0] == int(np.argmax(values))
    nothing = expected(np.array([[np.nan, 0.1]]), np.array([[0.9, 0.1]]), np.full((1, 2), -np.inf), np.zeros(1), 1.0)
    assert choose(np.array([-np.inf]), nothing).offer[0] == 1


def test_a_settlement_is_worth_what_was_asked_for():
    games = SeatGames.of(sample("paper", 3, seed=0), Seat.BUYER)
    aims = Aims(games, np.array([0.0, 0.5, -1.0]), 500.0)
    middle, dear = games.reservation - 250.0, games.reservation + 10.0
    worth = aims.worth(np.stack([middle, games.reservation - 350.0, dear], axis=1))
    assert aims.known.tolist() == [True, True, False]
    assert worth[0, 1] > worth[0, 0] > 0
    assert worth[1, 0] == pytest.approx(1.0)
    assert worth[1, 1] == pytest.approx(0.8)
    assert (worth[:, 2] == -np.inf).all()
    assert Aims(games, np.array([0.0, 0.5, 0.5]), None).known.tolist() == [True, False, False]
    seller = SeatGames.of(sample("paper", 1, seed=0), Seat.SELLER)
    assert Aims(seller, np.array([0.9]), 500.0).worth(seller.reservation + 450.0)[0] == pytest.approx(1.0)


# ── the player ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Ladder:
    """A Janus that offers a share of the way from its best price to its limit, as far as its dial says."""

    name, guard, scenario = "ladder", "monotone", None

    def __init__(self, rho):
        self.rho = np.asarray(rho, dtype=float)

    def reset(self, games):
        self.own = np.broadcast_to(self.rho, len(games)).astype(float)

    def internal(self, seat, rho):
        return rho

    def offers(self, view, rhos):
        g = view.games
        best = g.price_low if g.seat == Seat.BUYER else g.price_high
        give = [rho if g.seat == Seat.BUYER else 1.0 - rho for rho in rhos]
        return [np.round(best + share * (g.reservation - best), 2) for share in give]

    def act(self, view):
        price = self.offers(view, [self.own[view.rows]])[0]
        return Moves(np.zeros(len(view), dtype=bool), price)


class Known:
    """An opponent that is known: it accepts what is as good as its floor, and offers what it always offers."""

    counterparts = (Counterpart("amy", None, "a", "paper", "seller"), Counterpart("bob", None, "b", "paper", "seller"))

    def __init__(self, floor, offer, likes=0):
        self.floor, self.offer, self.likes, self.heard = floor, offer, likes, 0

    def log_likelihoods(self, view, offered):
        self.heard += len(view)
        found = np.full((len(view), 3), -5.0)
        found[:, self.likes] = -1.0
        return found

    def predict(self, view, which):
        assert set(which.tolist()) <= {0, 1}
        return Predicted((view.standing >= self.floor).astype(float), np.full(len(view), self.offer))


class Seller:
    """Plays `Known`."""

    name = "seller"

    def __init__(self, floor, offer):
        self.floor, self.offer = floor, offer

    def reset(self, games):
        pass

    def act(self, view):
        return Moves(np.nan_to_num(view.standing, nan=-1.0) >= self.floor, np.full(len(view), self.offer))


def player(oracle, rho=0.0, janus=None, **settings):
    pool = Pool("none", "none", 4, ())
    return ModellingAgent(janus or Ladder(rho), pool, ModellingSettings(**settings), oracle=oracle)


def played(games, agent, floor=600.0, offer=1400.0):
    return play(games, agent, Seller(floor, offer))


def test_it_offers_the_least_that_a_known_opponent_accepts():
    games = sample("paper", 12, seed=5)
    oracle = Known(600.0, 1400.0)
    result = played(games, player(oracle))
    prices = np.array([trace[-1] for trace in offers(result)])
    best = []
    for limit in games.buyer_max:
        ladder = [round(200.0 + share * (limit - 200.0), 2) for share in (0.0, *DIAL)]
        best.append(min(price for price in ladder if price >= 600.0))
    np.testing.assert_allclose(prices, best, atol=0.011)
    assert (result.price == prices).all()
    assert oracle.heard <= 12 * 2, "an offer is scored once"


def offers(result):
    return [row[~np.isnan(row)] for row in result.prices]


def test_it_takes_what_stands_where_nothing_better_is_to_come():
    games = sample("paper", 6, seed=5)
    result = played(games, player(Known(1e9, 500.0)), floor=1e9, offer=500.0)
    assert (result.price == 500.0).all()
    unsure = played(games, player(Known(1e9, 500.0, likes=2)), floor=1e9, offer=500.0)
    assert np.isnan(unsure.price).all(), "the ladder never accepts"
    oracle = Known(1e9, 500.0, likes=2)
    told = played(games, player(oracle, threshold=0.4, handicap=10.0), floor=1e9, offer=500.0)
    assert (told.price == 500.0).all(), "that nobody fits is 4 nats likelier, and 10 behind"


def test_no_deal_and_no_offer_is_beyond_the_own_limit():
    games = sample("paper", 12, seed=7)
    result = played(games, player(Known(1300.0, 1400.0), personas=1), floor=1300.0)
    own = result.prices[:, :]
    sides = np.arange(own.shape[1])[None, :] % 2 == games.starter[:, None]
    buyers = np.where(sides, own, np.nan)
    assert not (buyers > games.buyer_max[:, None] + 1e-9).any()
    assert np.isnan(result.price).all()


@pytest.mark.parametrize("settings", [{"threshold": 0.99}, {"threshold": 2.0}, {}])
def test_where_it_abstains_it_is_plain_janus_move_for_move(settings):
    games, loaded = sample("paper", 6, seed=2), small_adapter()
    likes = () if settings else 2  # nobody more than others, or the null hypothesis
    plain = play(games, JanusAgent(loaded, 0.0), agents.make("linear_standard"))
    agent = player(Known(600.0, 1400.0, likes), janus=JanusAgent(loaded, 0.0), **settings)
    modelled = play(games, agent, agents.make("linear_standard"))
    np.testing.assert_array_equal(plain.prices, modelled.prices)
    np.testing.assert_array_equal(plain.price, modelled.price)
    np.testing.assert_array_equal(plain.raw.price, modelled.raw.price)
    assert agent.decided.sum() > 0
    assert agent.modelled.sum() == 0


def test_known_decides_whether_the_opponent_is_one_of_them():
    games = sample("paper", 6, seed=5)
    for known, modelled in ((0.0, True), (0.999, False)):
        agent = player(Known(1e9, 500.0, ()), known=known)  # as likely one of them as none
        played(games, agent, floor=1e9, offer=500.0)
        assert bool(agent.modelled.sum()) == modelled


def test_a_request_without_a_worth_is_left_to_janus():
    games, loaded = sample("paper", 4, seed=2), small_adapter()
    plain = play(games, JanusAgent(loaded, 0.5), agents.make("linear_standard"))
    oracle = Known(600.0, 1400.0)
    modelled = play(games, player(oracle, janus=JanusAgent(loaded, 0.5)), agents.make("linear_standard"))
    np.testing.assert_array_equal(plain.prices, modelled.prices)
    assert oracle.heard == 0


def test_batch_and_order_change_no_decision():
    games, oracle = sample("paper", 8, seed=3), Known(620.0, 900.0)
    together = played(games, player(oracle), 620.0, 900.0)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    mixed = played(games.take(order), player(oracle), 620.0, 900.0)
    np.testing.assert_array_equal(mixed.price, together.price[order])
    for i in range(8):
        alone = played(games.take(np.array([i])), player(oracle), 620.0, 900.0)
        assert alone.price[0] == together.price[i]
    assert len(set(together.price.tolist())) > 2


# ── routing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_posteriors_are_the_confidences_of_the_router():
    random = np.random.default_rng(0)
    logs, null = random.normal(0, 3, (20, 3)), random.normal(0, 3, 20)
    shares = posteriors(logs, null, 1.7)
    for row, one, none in zip(shares, logs, null, strict=True):
        found, rest = confidences(Scores(dict(zip("abc", one, strict=True)), log=True, null=none), 1.7)
        np.testing.assert_allclose(row, [*found.values(), rest])
    for row, who in zip(shares, chosen(shares, 0.4, 0.5), strict=True):
        best = row[:-1].max()
        assert who == (row[:-1].argmax() if best >= 0.4 and row[-1] <= 0.5 else -1)
    assert chosen(np.array([[0.0, 0.0, 1.0]]), 0.0, 0.0).tolist() == [-1], "nothing speaks for either"


def test_a_capped_pool_has_as_many_styles_as_it_can():
    families = ["a", "a", "a", "b", "c"]
    some = tuple(Counterpart(f"p{k}", None, f, "paper", "seller") for k, f in enumerate(families))
    pool = Pool("x", "y", 4, (*some, Counterpart("q", None, "d", "hidden", "buyer")))
    assert [one.name for one in pool.suited(Seat.SELLER, "paper", 3)] == ["p0", "p3", "p4"]
    assert len(pool.suited(Seat.SELLER, "hidden")) == 5, "of any preset where there is none of this one"
    assert [one.name for one in pool.suited(Seat.BUYER, "paper")] == ["q"]


@pytest.mark.parametrize(
    "settings",
    [{"personas": 0}, {"threshold": -0.1}, {"known": 1.1}, {"trust": 0.0}, {"temperature": 0.0}, {"handicap": -1.0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        ModellingSettings(**settings)


# ── what the models are asked ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seat", ["buyer", "seller"])
def test_models_are_asked_in_the_words_of_their_training(seat):
    table = public_limits(play_games([Persona("p", "tit_for_tat", "tit_for_tat", "hidden", seat)], 3, 0, 20))
    trained, _ = texts(table, np.full(table.num_rows, 0.5, dtype=np.float32), 8, 4)
    asks = SimpleNamespace(pool=SimpleNamespace(prompt_format=4))
    own = Seat.SELLER if seat == "buyer" else Seat.BUYER
    for row, text in zip(table.to_pylist(), trained, strict=True):
        columns = {name: np.array([row[name]]) for name in ("price_low", "price_high", "max_turns")}
        columns |= {name: np.zeros(1) for name in ("starter", "discount", "id", "seed")}
        games = SeatGames(own, columns | {"tick": np.array([0.01]), "reservation": np.array([777.0])})
        prices = np.full((1, row["turn"] - 1), np.nan)  # a table keeps the last offers, which is all that prompts show
        prices[0, prices.shape[1] - len(row["history_prices"]) :] = row["history_prices"]
        view = decision_after(other_seat(games), prices)
        assert OpponentModels.prompts(asks, view) == [text]


# ── from disk, and in tournaments ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Janus and, on another small base, three personas with adapters that differ."""
    root = tmp_path_factory.mktemp("modelling")
    janus = write_adapter(root / "janus", write_base(root / "base"))
    home = root / "personas"
    model, _ = load_base(str(root / "base"))
    names = [n for n, m in model.named_modules() if n.endswith(("q_proj", "v_proj"))]
    cast = [("persona_000", "a", "seller"), ("persona_001", "b", "seller"), ("persona_002", "a", "buyer")]
    for seed, (name, _, _) in enumerate(cast):
        draw = torch.Generator().manual_seed(seed)
        layers = {}
        for n in names:
            out, into = model.get_submodule(n).weight.shape
            layers[n] = (torch.randn(2, into, generator=draw), torch.randn(out, 2, generator=draw))
        lora = LoRA.of(layers, alpha=2.0)
        meta = {"base_digest": model.base_digest}
        write_peft(home / "lora_per_user" / name, lora, base_model=None, metadata=meta)
    personas = [
        {"id": n, "strategy": f, "family": f, "preset": "paper", "seat": s, "unseen": False} for n, f, s in cast
    ]
    about = {"schema_version": 1, "settings": {"limit": "public"}, "files": {}, "personas": personas}
    (home / "personas.json").write_text(json.dumps(about))
    train = {"model_name": str(root / "base"), "prompt_format": 4, "base_digest": model.base_digest}
    (home / "train.json").write_text(json.dumps(train))
    return janus, home


def spec_of(world, extra="threshold=0"):
    janus, home = world
    return f"modelling:{home / 'lora_per_user'}?janus={janus}&{extra}"


def test_rows_run_under_their_own_adapters_whatever_else_is_in_the_batch(world):
    pool = modelling_spec(spec_of(world)).pool()
    models = OpponentModels(pool, pool.suited(Seat.SELLER, "paper"))
    games = SeatGames.of(sample("paper", 3, seed=0), Seat.BUYER)
    prices = np.array([[300.0, 1200.0, 350.0]] * 3)
    view, offered = decision_after(other_seat(games), prices), np.array([1100.0, 900.0, 1190.0])
    found = models.log_likelihoods(view, offered)
    assert found.shape == (3, 3)
    assert len(np.unique(found.round(3))) == 9
    for i, k in itertools.product(range(3), range(2)):
        at = np.array([i])
        alone = models.log_likelihoods(view.take(at), offered[at])
        np.testing.assert_allclose(alone[0], found[i], atol=1e-3)
        together, single = models.predict(view, np.array([0, 1, 0])), models.predict(view.take(at), np.array([k]))
        if k == i % 2:
            assert single.accepts[0] == pytest.approx(together.accepts[i], abs=2e-4)
            assert single.price[0] == pytest.approx(together.price[i], abs=0.3)


def settings(world, out, **changes):
    told = {"agents": f"janus:{world[0]},{spec_of(world)}", "rho": "0,1", "opponents": "linear_standard", "games": 2,
            "scenario": "paper", "threads": 1, "quiet": True, "out": out, "max_turns": 8}  # fmt: skip
    return tournament.Settings(**{**told, **changes})


def test_a_tournament_beside_plain_janus(world, tmp_path):
    found = tournament.run(settings(world, tmp_path / "one"))
    assert found["settings"]["agents"] == [f"janus:{world[0]}", spec_of(world)]
    tournament.run(settings(world, tmp_path / "two"))
    first, second = (pq.read_table(tmp_path / name / "episodes.parquet") for name in ("one", "two"))
    assert first.equals(second)
    games = {
        name: [row["offers"] for row in first.to_pylist() if row["agent"] == name]
        for name in set(first["agent"].to_pylist())
    }
    assert len(games[spec_of(world)]) == 8
    assert games[spec_of(world)] != games[f"janus:{world[0]}"], "somebody was recognised"
    both = [row for row in first.to_pylist() if row["agent"] == spec_of(world) and row["agreement"]]
    assert all(row["utility"] >= -1e-9 for row in both)


def test_adapters_are_part_of_what_a_tournament_is(world, tmp_path):
    told = settings(world, tmp_path)
    players, plan = tournament.prepared(told)
    before = identify({}, players, plan).document
    record = world[1] / "lora_per_user" / "persona_001" / "note.txt"
    record.write_text("another")
    try:
        changed = [name for name, digest in identify({}, players, plan).document["files"].items()
                   if before["files"].get(name) != digest]  # fmt: skip
    finally:
        record.unlink()
    assert changed == [str(record.parent)]
    assert {str(world[0]), str(world[1] / "train.json")} <= set(before["files"])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("modelling:", "give the folder"),
        ("modelling:nowhere", "no persona adapters at 'nowhere'.*experiments.personas make"),
        ("modelling:{home}?trust=2", r"trust 2 must lie in \(0, 1\]"),
        ("modelling:{home}?personas=many", "personas cannot be 'many'"),
        ("modelling:{home}?persona=3", "unknown option 'persona'.*personas"),
        ("modelling:{home}?janus=base", "no Janus with a dial"),
        ("modelling:{home}/..", "holds personas.json"),
        ("modelling", "modelling:ADAPTERS_DIR"),
    ],
)
def test_specs_that_cannot_be_are_refused(world, spec, match):
    with pytest.raises(InputError, match=match):
        contestants.resolve_agents(spec.format(home=world[1]))


@pytest.mark.parametrize(
    ("file", "key", "value", "match"),
    [
        ("train.json", "base_digest", "0" * 64, "trained on another base"),
        ("personas.json", "settings", {"limit": "own"}, "made with --limit own"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_before_anything_is_played(world, tmp_path, file, key, value, match):
    path = world[1] / file
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), key: value}))
    try:
        with pytest.raises(InputError, match=match):
            tournament.run(settings(world, tmp_path / "out"))
        assert not (tmp_path / "out" / "episodes.parquet").exists()
    finally:
        path.write_text(before)
