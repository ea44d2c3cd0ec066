"""Acceptance conditions: each accepts exactly what its definition in utilities says, and never a loss."""

import numpy as np
import pytest
from zoo import Erratic, Stuck, make, offers, one, position, same

import agents
import bargain_env as be
from agents.scripted import CATALOGUE
from agents.scripted.acceptance import (
    AcAsp,
    AcBest,
    AcChance,
    AcConst,
    AcMean,
    AcNext,
    AcPrev,
    AcTime,
    ac_combi,
    ac_gap,
)
from agents.scripted.components import Composed, Proposal
from agents.scripted.time_dependent import Exponential, Noisy, Polynomial
from bargain_env import MoveKind, Seat
from bargain_env.errors import InputError

T = 20


class Row:
    """One game of a frame, in utilities: 0 at the reservation, a share of the assumed width."""

    def __init__(self, frame, k, offer):
        view = frame.view
        sign, limit = view.games.sign, view.games.reservation[k]

        def u(price):
            return sign * (limit - price) / frame.width[k]

        self.turn, self.received = view.turn, [u(p) for p in view.opponent_offers[k]]
        self.u, self.made = u(view.standing[k]), [u(p) for p in view.own_offers[k]]
        self.best = frame.reach[k] / frame.width[k]
        self.next = self.best - offer[k] / frame.width[k]

    def window(self):
        """Utilities received in the last T - turn + 1 turns."""
        return [u for k, u in enumerate(self.received[::-1]) if 2 * k + 1 <= T - self.turn + 1]


CONDITIONS = {
    "const": (AcConst(0.4), lambda r: r.u >= 0.4),
    "const beyond S": (AcConst(7.0), lambda r: r.u >= r.best),
    "next": (AcNext(), lambda r: r.u >= r.next),
    "next(1.2, 0)": (AcNext(1.2), lambda r: 1.2 * r.u >= r.next),
    "next(.9, .1)": (AcNext(0.9, 0.1), lambda r: 0.9 * r.u + 0.1 >= r.next),
    "prev": (AcPrev(), lambda r: r.u >= (r.made or [r.best])[-1]),
    "prev(1.1, .05)": (AcPrev(1.1, 0.05), lambda r: 1.1 * r.u + 0.05 >= (r.made or [r.best])[-1]),
    "gap(.2)": (ac_gap(0.2), lambda r: r.u + 0.2 >= (r.made or [r.best])[-1]),
    "time(.7)": (AcTime(0.7), lambda r: r.turn / T >= 0.7),
    "MAX^W": (AcBest(), lambda r: r.u >= max(r.window())),
    "MAX^T": (AcBest(window=False), lambda r: r.u >= max(r.received)),
    "AVG^W": (AcMean(), lambda r: r.u >= sum(r.window()) / len(r.window())),
    "combi(.7, MAX^W)": (
        ac_combi(0.7, AcBest()),
        lambda r: r.u >= r.next or (r.turn / T >= 0.7 and r.u >= max(r.window())),
    ),
    "combi(.5, .3)": (ac_combi(0.5, AcConst(0.3)), lambda r: r.u >= r.next or (r.turn / T >= 0.5 and r.u >= 0.3)),
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize("width", [500.0, 300.0, None])
def test_conditions_mean_what_they_say(name, seat, width):
    condition, definition = CONDITIONS[name]
    outcomes = set()
    for turn in (2, 3, 9, 14, 17, 20):
        frame = position(turn, 120, seat, width, seed=turn)
        offer = np.random.default_rng(turn).uniform(0, 1, 120) * frame.reach
        accepted = frame.accepts(condition.worst(frame, Proposal(offer, offer)))
        for k, answer in enumerate(accepted.tolist()):
            row = Row(frame, k, offer)
            assert answer == (row.u >= 0 and definition(row)), (turn, k)
        outcomes |= set(accepted.tolist())
    assert outcomes == {True, False} or name == "const beyond S"


@pytest.mark.parametrize("name", CONDITIONS)
def test_nothing_standing_is_not_accepted(name):
    frame = position(1)
    assert not frame.accepts(CONDITIONS[name][0].worst(frame, Proposal(frame.zero, frame.zero))).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONDITIONS)
def test_no_condition_accepts_a_loss_or_nothing(name):
    games = be.sample("no_deal", 150, seed=4)
    for width in (500.0, None):
        tactic = Polynomial(beta=0.5)
        seller = Composed(offering=tactic, acceptance=CONDITIONS[name][0], assumed_zopa_width=width)
        result = be.play(games, Erratic(), seller)
        taken = result.agreement & ((games.starter + result.turns - 1) % 2 == Seat.SELLER)
        assert (result.price >= games.seller_min)[taken].all()
        assert not ((result.kinds == MoveKind.INVALID) & (result.sides() == Seat.SELLER)).any()


@pytest.mark.parametrize("tactic", [Polynomial(beta=0.25), Polynomial(beta=3.0, kappa=0.2), Exponential(beta=1.0)])
@pytest.mark.parametrize("width", [500.0, None])
def test_aspiration_is_next_for_a_tactic_that_offers_its_target(tactic, width):
    games, rivals = be.sample("hidden", 400, seed=6), ["micro_coarse", "boulware_firm", "charging_boul", "tit_for_tat"]

    def played(offering, condition):
        rival = be.RoutedPolicy([make(name, width) for name in rivals], games.id % 4)
        return be.play(games, Composed(offering=offering, acceptance=condition, assumed_zopa_width=width), rival)

    assert same(played(tactic, AcAsp()), played(tactic, AcNext()))
    noisy = Noisy(tactic=tactic)
    assert not same(played(noisy, AcAsp()), played(noisy, AcNext())), "negative control: noise tells them apart"
    assert not same(played(tactic, AcNext()), played(tactic, AcNext(1.1))), "and so does alpha"


MEMBERS = [entry.name for entry in CATALOGUE if entry.name != "random_zopa"]  # its acceptance is a chance


def refusals(result, seat):
    """Of every turn on which ``seat`` refused an offer that was no loss: what stood, and what it offered instead."""
    games, sign = result.scenarios, 1 if seat == Seat.BUYER else -1
    limit = (games.buyer_max, games.seller_min)[seat]
    mine = result.sides()[:, 1:] == seat
    stood, made = result.prices[:, :-1], result.prices[:, 1:]
    rows, turns = np.nonzero(mine & ~np.isnan(stood) & ~np.isnan(made) & (sign * (stood - limit[:, None]) <= 0))
    return sign * stood[rows, turns], sign * made[rows, turns]


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("seat", list(Seat))
def test_next_never_refuses_what_it_then_offers(name, seat):
    games = be.sample("paper", 60, seed=3, tick=50.0)
    offering, usual = make(name).offering, make(name).acceptance
    conditions = [AcNext(), ac_combi(0.6, AcMean())] + ([usual] if name == "combi_max_window" else [])
    for width in (500.0, 333.0, None):
        for condition in conditions:
            player = Composed(offering=offering, acceptance=condition, assumed_zopa_width=width)
            for rival in (make("boulware_firm", 500.0), make("micro_coarse", 500.0), Erratic()):
                result = be.play(games, *((player, rival) if seat == Seat.BUYER else (rival, player)))
                refused, offered = refusals(result, seat)
                assert (offered < refused).all(), "less is better, for either seat in its own sign"


def test_next_counts_the_offer_as_it_is_made():
    """The tactic means 640; on a grid of 50 that is an offer of 650, so 650 must do."""
    game, tactic = one(tick=50.0, max_turns=6), Polynomial(beta=0.3)
    results = {
        condition: be.play(
            game, Composed(offering=tactic, acceptance=condition, assumed_zopa_width=500.0), Stuck(650.0)
        )
        for condition in (AcNext(), AcAsp())
    }
    assert offers(results[AcAsp()], Seat.BUYER) == [400.0, 400.0, 650.0], (
        "negative control: published, refuses and offers"
    )
    assert not results[AcAsp()].agreement[0]
    assert offers(results[AcNext()], Seat.BUYER) == [400.0, 400.0]
    assert (results[AcNext()].price[0], results[AcNext()].turns[0]) == (650.0, 5)


def test_time_alone_takes_anything_at_the_end():
    frame = position(20)
    anything = frame.accepts(AcTime(1.0).worst(frame, Proposal(frame.zero, frame.zero)))
    assert (anything == (frame.view.standing <= frame.limit)).all()
    frame = position(19)
    assert not frame.accepts(AcTime(1.0).worst(frame, Proposal(frame.zero, frame.zero))).any()


def test_conditions_combine():
    frame = position(12, 300)
    nothing = Proposal(frame.zero, frame.zero)

    def accepted(condition):
        return frame.accepts(condition.worst(frame, nothing))

    a, b = AcConst(0.3), AcMean(window=False)
    np.testing.assert_array_equal(accepted(a | b), accepted(a) | accepted(b))
    np.testing.assert_array_equal(accepted(a & b), accepted(a) & accepted(b))
    assert 0 < accepted(a & b).sum() < accepted(a | b).sum() < 300


def test_a_strategy_takes_another_condition():
    games = be.sample("paper", 200, seed=2)
    usual = be.play(games, make("boulware_hard", 500.0), make("linear_standard", 500.0))
    content = agents.make("boulware_hard", assumed_zopa_width=500.0, acceptance=AcConst(0.5))
    result = be.play(games, content, make("linear_standard", 500.0))
    assert not same(result, usual)
    assert result.utilities[:, 0].min() >= 0.5 - 1e-9
    assert result.turns.mean() < usual.turns.mean()


def test_chance_is_a_chance():
    frame = position(8, 4000)
    accepted = frame.accepts(AcChance(0.3).worst(frame, Proposal(frame.zero, frame.zero)))
    acceptable = frame.view.standing <= frame.limit
    assert accepted[acceptable].mean() == pytest.approx(0.3, abs=0.03)
    assert not accepted[~acceptable].any()


@pytest.mark.parametrize("condition", [AcBest(), AcMean()])
def test_what_stands_is_in_the_window_after_a_wasted_turn_too(condition):
    for wasted, since in ((False, -1), (True, -2)):
        frame = position(20, 50, wasted=wasted)
        worst = condition.worst(frame, Proposal(frame.zero, frame.zero))
        np.testing.assert_allclose(worst, frame.received[since])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AcNext(alpha=0.0), "alpha 0.0 must be a positive number"),
        (lambda: AcPrev(alpha=-1.0), "alpha -1.0"),
        (lambda: AcNext(beta=float("nan")), "beta nan must be a finite number"),
        (lambda: ac_gap(float("inf")), "beta inf"),
        (lambda: AcConst(float("nan")), "least nan must be a finite number"),
        (lambda: AcConst("half"), "least 'half'"),
        (lambda: AcTime(1.5), "since 1.5 must be a number from 0 to 1"),
        (lambda: ac_combi(float("nan"), AcBest()), "since nan"),
        (lambda: AcChance(-0.1), "chance -0.1 must be a number from 0 to 1"),
        (lambda: agents.make("combi_max_window", since=2), "since 2 must be a number from 0 to 1"),
        (lambda: agents.make("random_zopa", acceptance=1.2), "acceptance 1.2 must be a number from 0 to 1"),
        (lambda: agents.make("boulware_hard", acceptance=0.5), "acceptance 0.5 must be an acceptance condition"),
        (lambda: agents.make("boulware_hard", acceptance=AcNext), "must be an acceptance condition"),
        (lambda: Composed(offering=AcNext()), "must be an offering tactic"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
