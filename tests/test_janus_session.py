"""`Janus.decide`: the same decisions as at the table, from every way to describe one; and what explains them."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from janus_worlds import BESIDE, OFFERS, STEP, TABLE, small_adapter

import agents
from agents import janus_session
from agents.janus import JanusAgent
from agents.janus_session import Janus, JanusDecision
from agents.situations import Situation, situation_of
from bargain_env import Moves, RoutedPolicy, Seat, bargain_v0, play, sample
from bargain_env.errors import InputError
from bargain_env.observation import observe_view


@pytest.fixture(scope="module")
def adapter():
    return small_adapter()


@pytest.fixture(scope="module")
def janus(adapter):
    return Janus(JanusAgent(adapter))


class Witness:
    """A Janus that keeps every view it was shown, and its moves."""

    def __init__(self, janus):
        self.name, self.janus, self.seen = "witness", janus, []

    def reset(self, games):
        self.janus.reset(games)

    def act(self, view):
        moves = self.janus.act(view)
        self.seen.append((view, moves, self.janus._rho[view.rows], self.janus.prompts(view)))
        return moves


class Waster:
    """Wastes a third of its turns, so that histories have holes, and asks so much that nobody accepts."""

    name = "waster"

    def reset(self, games):
        pass

    def act(self, view):
        wasted = (view.turn + view.games.id) % 6 < 2
        price = view.games.reservation - view.games.sign * (1.0 + 3.0 * (20 - view.turn))
        return Moves(np.zeros(len(view), dtype=bool), np.where(wasted, np.nan, price))


def played(adapter, **options):
    """What was seen and decided in 12 games at 12 ρ, from both seats."""
    games, rho, seen = sample("paper", 12, seed=3), np.linspace(0, 1, 12), []
    for seat in Seat:
        witness = Witness(JanusAgent(adapter, rho=rho, **options))
        other = RoutedPolicy([agents.make("linear_standard"), Waster()], np.arange(12) % 2)
        play(games, *((witness, other) if seat == Seat.BUYER else (other, witness)))
        seen += witness.seen
    return seen


def situations(view):
    """The rows of a view, described by hand."""
    games, described = view.games, []
    for i in range(len(view)):
        offers = [
            (Seat(int(side)).label, None if np.isnan(price) else float(price))
            for side, price in zip(view.sides[i], view.prices[i], strict=True)
        ]
        described.append(
            Situation(
                seat=games.seat.label,
                reservation=float(games.reservation[i]),
                price_low=200.0,
                price_high=1500.0,
                max_turns=int(games.max_turns[i]),
                offers=offers,
                id=int(games.id[i]),
                seed=int(games.seed[i]),
            )
        )
    return described


def assert_same(decisions, view, moves):
    for i, decision in enumerate(decisions):
        assert decision.action == ("ACCEPT" if moves.accept[i] else "OFFER")
        assert decision.price == (view.standing[i] if moves.accept[i] else moves.price[i])
        assert decision.guarded == moves.guarded[i]
        raw = moves.raw
        assert decision.raw_action == ("ACCEPT" if raw.accept[i] else "OFFER")
        assert decision.raw_price == (view.standing[i] if raw.accept[i] else raw.price[i])


@pytest.mark.parametrize(
    "options", [{"guard": "ir"}, {"guard": "monotone", "decode": "sample"}, {"guard": "none", "decode": "greedy"}]
)
def test_decides_what_it_plays_at_the_table(adapter, options):
    janus, seen = Janus(JanusAgent(adapter, **options)), played(adapter, **options)
    prices = np.concatenate([moves.price for _, moves, _, _ in seen])
    assert len(np.unique(prices)) > 10
    assert options["guard"] == "none" or any(moves.guarded.any() for _, moves, _, _ in seen)
    for view, moves, rho, texts in seen:
        assert_same(janus.decide(view, rho), view, moves)
        from_situations = janus.decide(situations(view), rho)
        assert_same(from_situations, view, moves)
        assert [d.prompt for d in from_situations] == texts
        assert [(d.seat, d.turn, d.max_turns) for d in from_situations] == [
            (view.games.seat.label, view.turn, 20)
        ] * len(view)


def test_a_batch_of_both_seats_and_all_turns_is_its_situations_alone(adapter, janus):
    seen = played(adapter)[::3]
    many = [one for view, *_ in seen for one in situations(view)]
    rho = np.concatenate([rho for _, _, rho, _ in seen])
    assert {s.seat for s in many} == set(Seat)
    assert len({s.turn for s in many}) > 2
    together = janus.decide(many, rho)
    order = np.random.default_rng(0).permutation(len(many))
    shuffled = janus.decide([many[i] for i in order], rho[order])
    moves = [m.price[i] for _, m, _, _ in seen for i in range(len(m.price))]
    for at, i in enumerate(order):
        assert_close(shuffled[at], together[i])
    for i in range(0, len(many), 7):
        assert_close(janus.decide(many[i], float(rho[i])), together[i])
        assert together[i].action == "ACCEPT" or abs(together[i].price - moves[i]) <= STEP
    assert janus.decide(many, rho) == together
    assert janus.decide([]) == []


def assert_close(a: JanusDecision, b: JanusDecision):
    assert (a.action, a.prompt, a.seat, a.turn, a.rho) == (b.action, b.prompt, b.seat, b.turn, b.rho)
    assert abs(a.price - b.price) <= STEP
    assert abs(a.accept_probability - b.accept_probability) < 1e-5


def test_what_an_environment_shows_gives_the_same_prompt(adapter, janus):
    compared, refused = 0, 0
    for view, _, rho, texts in played(adapter):
        for i, numbers in enumerate(observe_view(view)):
            hole = view.turn > 9 and np.isnan(view.prices[i, -8:]).any()
            if hole:  # an offer from before what it shows may belong into the prompt
                with pytest.raises(InputError, match="last 8 turns"):
                    situation_of({"observation": numbers, **BESIDE}, 8)
                refused += 1
            elif i % 3 == 0:
                decision = janus.decide({"observation": numbers, "action_mask": None, **BESIDE}, float(rho[i]))
                assert decision.prompt == texts[i]
                compared += 1
    assert compared > 30
    assert refused > 10


@pytest.mark.parametrize("mode", ["grid", "box"])
def test_it_reads_what_the_environments_give(janus, mode):
    env = bargain_v0.raw_env(action_mode=mode)
    env.reset(seed=5)
    for action in (5, 9, 3) if mode == "grid" else ([-0.5], [0.4], [-0.4]):
        env.step(action if mode == "grid" else np.array(action, dtype=np.float32))
    shown = env.observe(env.agent_selection)
    decision = janus.decide({**shown, **BESIDE} if mode == "grid" else {"observation": shown, **BESIDE}, 0.2)
    assert (decision.turn, decision.seat) == (4, env.agent_selection.removesuffix("_0"))
    assert decision.prompt.count("buyer:") + decision.prompt.count("seller:") == 3
    waiting = env.observe(next(agent for agent in env.agents if agent != env.agent_selection))
    numbers = waiting["observation"] if mode == "grid" else waiting
    with pytest.raises(InputError, match="not to move"):
        janus.decide({"observation": numbers, **BESIDE})


def test_the_five_lines_of_its_docstring_work():
    assert doctest.testmod(janus_session).failed == 0
    assert doctest.testmod(janus_session).attempted >= 4


def test_a_dict_and_a_situation_are_one(janus):
    said = {**TABLE, "offers": OFFERS}
    assert janus.decide(said, 0.3) == janus.decide(Situation(**said), 0.3)
    assert janus.decide(said, 0.3) != janus.decide(said, 0.9)
    assert janus.decide([said], 0.3) == [janus.decide(said, 0.3)]
    numpyish = {
        **said,
        "reservation": np.float32(900),
        "max_turns": np.int64(20),
        "offers": (["buyer", 450], ("seller", 1150)),
    }
    assert janus.decide(numpyish, np.float64(0.3)).prompt == janus.decide(said, 0.3).prompt


def test_wasted_turns_may_be_said_or_counted(janus):
    said = janus.decide(
        {**TABLE, "offers": [("buyer", 450.0), ("seller", 1150.0), ("buyer", None), ("seller", None)]}, 0.3
    )
    counted = janus.decide({**TABLE, "offers": OFFERS, "turn": 5}, 0.3)
    assert said == counted
    assert said.prompt != janus.decide({**TABLE, "offers": OFFERS}, 0.3).prompt
    own_stands = Situation(**TABLE, offers=[("seller", 1150.0), ("buyer", 500.0)], turn=4)
    assert np.isnan(own_stands.prices()[2])
    assert "<LAST_OFFER_NORM> NA" in janus.decide(own_stands).prompt  # nobody accepts their own offer


BROKEN = {
    "nothing": ({}, "the situation lacks seat, reservation, price_low, price_high, max_turns; given: nothing"),
    "no_limit": ({k: v for k, v in TABLE.items() if k != "reservation"}, "lacks reservation"),
    "typo": ({**TABLE, "offer": []}, "no field 'offer'; did you mean 'offers'"),
    "seat": ({**TABLE, "seat": "byer"}, "did you mean 'buyer'"),
    "limit": ({**TABLE, "reservation": 1600}, "reservation 1600 is outside the public range"),
    "limit_nan": ({**TABLE, "reservation": float("nan")}, "reservation nan must be a finite number"),
    "limit_text": ({**TABLE, "reservation": "900"}, "reservation '900' must be a finite number"),
    "range": ({**TABLE, "price_low": 1500}, "price_low 1500 must be below price_high 1500"),
    "tick": ({**TABLE, "tick": 0}, "tick 0 must be positive"),
    "turns": ({**TABLE, "max_turns": 0}, "max_turns 0 must be an integer, at least 1"),
    "turns_float": ({**TABLE, "max_turns": 20.0}, "max_turns 20.0 must be an integer"),
    "over": ({**TABLE, "max_turns": 2, "offers": OFFERS}, "turn 3 is after the last one, max_turns 2"),
    "offer_shape": ({**TABLE, "offers": [450.0]}, r"offers\[0\] is 450.0; give \(seat, price\)"),
    "offer_seat": ({**TABLE, "offers": [("bob", 450.0)]}, r"offers\[0\]: unknown seat 'bob'"),
    "offer_price": ({**TABLE, "offers": [("seller", 50.0)]}, r"offers\[0\] price 50 is outside"),
    "own_move": ({**TABLE, "offers": [("buyer", 450.0)]}, "do not alternate up to a move of the buyer"),
    "too_many": ({**TABLE, "offers": OFFERS, "turn": 2}, "offers: 2 do not fit into the 1 turns before turn 2"),
    "too_many_gaps": ({**TABLE, "offers": [("buyer", 450.0)] * 2, "turn": 4}, "do not fit"),
    "text": ("buyer at 900", "cannot read a str"),
    "none": (None, "cannot read a NoneType"),
    "bare": (np.zeros(22, dtype=np.float32), "leave out max_turns, price_low, price_high"),
    "bare_list": ([0.0] * 22, "leave out max_turns, price_low, price_high"),
    "env_alone": ({"observation": np.zeros(22)}, "lacks max_turns, price_low, price_high; given: observation"),
    "env_extra": ({"observation": np.zeros(22), "offers": []}, "no field 'offers'"),
    "env_shape": ({"observation": np.zeros(21), **BESIDE}, "22 finite"),
    "env_clock": ({"observation": np.full(22, 0.03), **BESIDE}, "clock"),
    "in_a_list": ([TABLE, {**TABLE, "seat": "x"}], "situation 1: unknown seat 'x'"),
}  # fmt: skip


@pytest.mark.parametrize(("observation", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_situations_name_the_field(janus, observation, message):
    with pytest.raises(InputError, match=message) as caught:
        janus.decide(observation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rho", "message"),
    [(1.5, "outside"), ([0.1, 0.2], "2 values of rho for 1 situations"), ("high", "must be a number")],
)
def test_bad_rho_is_refused(janus, rho, message):
    with pytest.raises(InputError, match=message):
        janus.decide(TABLE, rho)


def test_a_longer_memory_than_the_environments(adapter):
    long = Janus(JanusAgent(small_adapter(k_history=9)))
    late = next(view for view, *_ in played(adapter) if view.turn > 10)
    row = next(i for i in range(len(late)) if not np.isnan(late.prices[i, -9:]).any())
    with pytest.raises(InputError, match="last 8 turns"):
        long.decide({"observation": observe_view(late)[row], **BESIDE})
