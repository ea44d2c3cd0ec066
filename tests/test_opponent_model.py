"""Opponent models: they find what generated the offers, whoever looks, and say how sure they are."""

from dataclasses import replace

import numpy as np
import pytest
from zoo import Erratic, Stuck, make, position, same

import bargain_env as be
from agents.scripted import Frame
from agents.scripted.behaviour import Behaviour, behaviour
from agents.scripted.components import Composed
from agents.scripted.modelling import STAKES, BestReply, Counter
from agents.scripted.opponent_model import TimeModel
from agents.scripted.time_dependent import Polynomial
from bargain_env import Seat, SeatView


class Watcher:
    """Plays as ``player`` and keeps what ``look`` says of the frame of each turn."""

    memoryless = True

    def __init__(self, look, player, width):
        self.name, self.look, self.player, self.width, self.seen = "watcher", look, player, width, {}

    def reset(self, games):
        self.player.reset(games)

    def act(self, view):
        self.seen[view.turn] = view.rows, self.look(Frame.of(view, self.width))
        return self.player.act(view)


def watched(look, opponent, seat, width, preset="hidden", n=200, player="boulware_hard"):
    """Games, and what was seen in them: ``{turn: (rows, look)}``."""
    games = be.sample(preset, n, seed=3)
    watcher = Watcher(look, make(player, width), width)
    be.play(games, *((watcher, opponent) if seat == Seat.BUYER else (opponent, watcher)))
    return games, watcher.seen


def limits(seen, turn):
    """Rows, mean and deviation of the reservation, of all games seen on ``turn`` or the one before."""
    parts = [(seen[t][0], *seen[t][1]) for t in (turn - 1, turn)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("width", [500.0, None])
def test_the_reservation_is_found(seat, beta, width):
    """Of opponents that start at the public bound, and of some that start a known distance from their limit."""
    opponent = Composed(offering=Polynomial(beta=beta, head_start=1), assumed_zopa_width=width)
    games, seen = watched(lambda f: TimeModel().posterior(f).reservation(), opponent, seat, width)
    truth = np.abs((games.buyer_max, games.seller_min)[seat] - start(games, seat, width))
    truth = truth - (games.buyer_max - games.seller_min)  # the opponent's limit, as a concession of the observer
    errors, doubts = [], []
    for turn in (2, 14):
        rows, mean, deviation = limits(seen, turn)
        errors.append(np.abs(mean - truth[rows]).mean())
        doubts.append(deviation.mean())
    assert len(rows) > 150, "few have settled yet"
    assert errors[1] < 0.7 * errors[0]
    assert doubts[1] < 0.8 * doubts[0]
    sure = np.abs(mean - truth[rows]) < 2.5 * deviation + 15
    assert sure[truth[rows] >= 0].mean() > 0.9, "it knows how sure it may be, where the truth is a hypothesis"


def start(games, seat, width):
    """S of ``seat``."""
    if seat == Seat.BUYER:
        return games.price_low if width is None else np.maximum(games.buyer_max - width, games.price_low)
    return games.price_high if width is None else np.minimum(games.seller_min + width, games.price_high)


def test_the_next_offer_is_foreseen():
    opponent = make("boulware_firm")

    def look(frame):
        mean, _ = TimeModel().posterior(frame).offer_on(frame.view.turn + 1)
        return frame.start + mean

    games, seen = watched(look, opponent, Seat.BUYER, None)
    result = be.play(games, make("boulware_hard"), opponent)
    for turn in (9, 10):
        rows, forecast = seen[turn]
        came = result.prices[rows, turn]
        assert np.abs(came - forecast)[~np.isnan(came)].mean() < 25
    rows, forecast = seen[1]
    assert np.abs(result.prices[rows, 1] - forecast).mean() > 50, "negative control: nothing was known then"


@pytest.mark.parametrize("lengths", [15, 15 + np.arange(700) % 3], ids=["alike", "of many lengths"])
@pytest.mark.parametrize("wasted", [False, True])
def test_a_game_is_judged_alone(lengths, wasted):
    """The same bits in any company and in any block."""
    frame = position(9, 700, wasted=wasted, max_turns=np.broadcast_to(lengths, 700).astype(np.int64))

    def judge(part):
        return *TimeModel().posterior(part).offer_on(15), behaviour(part)

    whole = judge(frame)
    for row in (0, 301, 699):
        alone = judge(Frame.of(frame.view.take(np.array([row])), 500.0))
        assert [x.tobytes() for x in alone] == [x[[row]].tobytes() for x in whole]
    pieces = [judge(part) for part in frame.blocks(64)]
    assert [np.concatenate(x).tobytes() for x in zip(*pieces, strict=True)] == [x.tobytes() for x in whole]


EXPECTED = {
    "boulware_very_conceding": Behaviour.CONCEDER,
    "boulware_conceding": Behaviour.CONCEDER,
    "linear_standard": Behaviour.LINEAR,
    "fair": Behaviour.LINEAR,
    "micro_coarse": Behaviour.LINEAR,  # equal steps, whatever their reason
    "boulware_firm": Behaviour.BOULWARE,
    "boulware_hard": Behaviour.BOULWARE,
    "tit_for_tat": Behaviour.IMITATES,
    "hardliner": Behaviour.HOLDS,
    "fair_fast": Behaviour.HOLDS,
    "random_zopa": Behaviour.ERRATIC,
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("seat", list(Seat))
def test_families_are_recognised(name, seat):
    _, seen = watched(behaviour, make(name), seat, None, player="linear_standard")
    found = np.concatenate([seen[turn][1] for turn in (11, 12)])
    assert (found == EXPECTED[name]).mean() > 0.9
    early = np.concatenate([seen[turn][1] for turn in (4, 5)])
    assert (early == Behaviour.UNKNOWN).all()


def test_best_reply_waits_for_the_best_of_those_that_follow_the_clock():
    games = be.sample("paper", 300, seed=5)
    for rival in ("boulware_conceding", "linear_standard", "boulware_firm", "boulware_hard"):
        best = be.play(games, make("modelling_best_reply", 500.0), make(rival, 500.0)).utilities[:, 0].mean()
        most = {"boulware_hard": 0.8145, "boulware_firm": 0.9025}.get(rival, 0.95)
        firm = be.play(games, make("boulware_hard", 500.0), make(rival, 500.0)).utilities[:, 0].mean()
        assert firm < best < most + 0.03
        assert best > most - 0.13


def test_best_reply_offers_its_stake_while_it_can_be_answered_for_the_last_time():
    """On turn 19 of 20 the offer itself is the one whose expected surplus it counts on; before, a share of it."""
    chances = np.array([chance for _, chance in STAKES])
    for turn, whole in ((19, True), (17, False)):
        frame = position(turn, 400, seed=turn)
        target, offer = BestReply().propose(frame)
        open_ones = offer < frame.reach - 1e-6
        chance = ((frame.reach - target) / (frame.reach - offer))[open_ones]
        known = np.abs(chance[:, None] - chances).min(axis=1) < 1e-9
        assert known.all() if whole else not known.all()
        assert open_ones.sum() > 100


@pytest.mark.parametrize("tactic", [BestReply(), Counter()])
def test_modellers_hold_to_their_word(tactic):
    """Believing the same, they never refuse a better standing offer where they take a worse one, nor what they offer.

    An offer is evidence as well: after another one they believe something else, so the histories must be the same here.
    """
    taken = 0
    for turn in (4, 9, 14, 17, 18, 19, 20):
        frame = position(turn, 150, seed=turn)
        standing = [frame.start + share * frame.reach for share in np.linspace(0.0, 1.0, 21)]  # better first
        views = [SeatView(frame.view.rows, frame.view.games, turn, price, frame.view.prices) for price in standing]
        frames = [Frame.of(view, 500.0) for view in views]
        accepts = np.array([f.accepts(tactic.propose(f).target) for f in frames])
        assert (accepts[1:] <= accepts[:-1]).all()
        taken += accepts.sum()
        target, offer = tactic.propose(frame)
        assert (target >= frame.within(offer) - 1e-9).all()
    assert 0 < taken < 7 * 150 * 21, "some are taken and some refused"


@pytest.mark.parametrize("tactic", [BestReply(), Counter()])
def test_modellers_keep_no_memory_and_counter_never_retreats(tactic):
    player = Composed(offering=tactic, assumed_zopa_width=500.0)
    games = be.sample("paper", 80, seed=6)
    for rival in (Erratic(), make("micro_coarse", 500.0), Stuck(1500.0)):
        result = be.play(games, player, rival)
        own = np.where(result.sides() == Seat.BUYER, result.prices, np.nan)
        if isinstance(tactic, Counter):
            for row in own:
                assert (np.diff(row[~np.isnan(row)]) >= 0).all()
    assert same(result, be.play(games, player, rival)), "no memory"


def test_a_hypothesis_that_is_true_wins():
    """Exactly the model's own curves: the true cell has the greatest weight."""
    model = TimeModel(kappas=(0.0,))
    opponent = Composed(offering=Polynomial(beta=0.5, head_start=1))

    def look(frame):
        curve, limit, _ = np.unravel_index(model.posterior(frame).weight.argmax(axis=None), (6, 11, len(frame.view)))
        return curve, limit

    games = replace(be.sample("hidden", 1, seed=1), buyer_max=np.array([1200.0]), seller_min=np.array([700.0]))
    watcher = Watcher(look, make("boulware_hard"), None)
    be.play(games, watcher, opponent)
    curve, limit = watcher.seen[15][1]
    assert model.betas[curve] == 0.5
    assert limit == 5, "700 is half of the way from 200 to 1200"
