"""Guards against a player that decides anything: what is played, what is counted, what is remembered of the decision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_worlds import Hostile

from agents.guards import GUARDS, guarded, own_limit, playable
from agents.janus import JanusAgent
from bargain_env import Mixture, MoveKind, Moves, RoutedPolicy, Scenario, Scenarios, Seat, SeatGames, concatenate, play
from bargain_env.core import quantise_array
from bargain_env.errors import InputError
from bargain_env.moves import RawMoves
from hyperlora import Adapter, build_nano_tokenizer
from hyperlora.base import nano_model


class Tempter:
    """Offers any price and accepts nothing."""

    name, memoryless, mixed_turns = "tempter", True, True

    def reset(self, games):
        pass

    def act(self, view):
        games, u = view.games, view.games.uniform(view.turn)[:, 0]
        price = games.price_low + u * (games.price_high - games.price_low)
        return Moves(np.zeros(len(view), dtype=bool), price)


class Diary:
    """A Janus that writes down what its scorer decided, where it should be found again."""

    def __init__(self, janus):
        self.name, self.janus, self.pages = "diary", janus, []

    def reset(self, games):
        self.janus.reset(games)

    def act(self, view):
        moves = self.janus.act(view)
        self.pages.append((view.rows, view.turn - 1, self.janus.scorer.decided))
        return moves


NANO = Adapter(nano_model(32, 1, 2, 48, seed=4).eval(), build_nano_tokenizer(), {})


PLAIN = JanusAgent(NANO, rho=0.5, base_only=True)


def hostile(guard, seed, **options):
    janus = copy.copy(PLAIN)
    janus.guard, janus.scorer = guard, Hostile(seed, **options)
    return janus


def scenarios(seed, tick=0.01, n=12):
    """Games whose reservations mostly lie between two ticks, where these are coarse."""
    random = np.random.default_rng(seed)
    return Scenarios.of(
        Scenario(
            *random.uniform(210, 1490, 2), max_turns=int(random.integers(1, 13)), starter=Seat(i % 2), tick=tick, id=i
        )
        for i in range(n)
    )


def table(guard, games, seat, seed, opponent=None, **options):
    janus, other = hostile(guard, seed, **options), opponent or Tempter()
    return play(games, *((janus, other) if seat == Seat.BUYER else (other, janus)))


def limits(played, seat):
    games = played.scenarios
    return games.buyer_max if seat == Seat.BUYER else games.seller_min


def violations(played, seat):
    """How many deals and offers of ``seat`` are beyond its limit, and how many offers take an earlier one back."""
    sign = 1.0 if seat == Seat.BUYER else -1.0
    mine, limit = played.sides() == seat, limits(played, seat)
    took = ((played.kinds == MoveKind.ACCEPT) & mine).any(axis=1)
    with np.errstate(invalid="ignore"):
        beyond = (took & (sign * (limit - played.price) < 0)).sum()
        beyond += (mine & (sign * (limit[:, None] - played.prices) < 0)).sum()
    rows = [row[side & ~np.isnan(row)] for row, side in zip(played.prices, mine, strict=True)]
    return beyond, sum((sign * np.diff(row) < 0).sum() for row in rows)


def differs(played, seat):
    """``[B, T]`` turns on which ``seat`` told a decision that is not what was played, found by comparing the two."""
    raw, accepts = played.raw, played.kinds == MoveKind.ACCEPT
    same_price = (raw.price == played.prices) | (np.isnan(raw.price) & np.isnan(played.prices))
    return raw.told & ((raw.accept != accepts) | (~accepts & ~same_price))


SEEDS, TICKS, SEATS = st.integers(0, 2**32), st.sampled_from([0.01, 1.0, 7.0]), st.sampled_from(list(Seat))


@settings(max_examples=20, deadline=None)
@given(SEEDS, TICKS, SEATS)
def test_ir_is_never_violated_and_monotone_never_retracts(seed, tick, seat):
    games = scenarios(seed, tick)
    for guard in ("ir", "monotone"):
        beyond, retracted = violations(table(guard, games, seat, seed, illegal=0.2), seat)
        assert beyond == 0
        assert guard == "ir" or retracted == 0


def test_without_its_guard_each_rule_is_broken():
    for seat in Seat:
        games = scenarios(1, n=60)
        assert min(violations(table("none", games, seat, 1), seat)) > 20
        beyond, retracted = violations(table("ir", games, seat, 1), seat)
        assert (beyond, retracted > 20) == (0, True)
        assert violations(table("monotone", games, seat, 1), seat) == (0, 0)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([0.01, 1.0]), SEATS, st.sampled_from(GUARDS))
def test_every_move_that_differs_is_counted_and_no_other(seed, tick, seat, guard):
    played = table(guard, scenarios(seed, tick), seat, seed)
    changed = differs(played, seat)
    np.testing.assert_array_equal(changed & ~played.raw.fallback, played.guarded)
    np.testing.assert_array_equal(played.guards(seat), (changed & ~played.raw.fallback).sum(axis=1))
    np.testing.assert_array_equal(played.fallbacks(seat), (changed & played.raw.fallback).sum(axis=1))
    assert played.guards(seat.other).sum() == played.fallbacks(seat.other).sum() == 0


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("seat", list(Seat))
def test_what_was_decided_is_recorded_to_the_last_digit(guard, seat):
    games = scenarios(5, n=40)
    diary = Diary(hostile(guard, 5))
    played = play(games, *((diary, Tempter()) if seat == Seat.BUYER else (Tempter(), diary)))
    seen = np.zeros(played.kinds.shape, dtype=bool)
    for rows, column, decided in diary.pages:
        price = quantise_array(np.clip(200 + np.rint(decided.price * 1e4) / 1e4 * 1300, 200, 1500), 0.01)
        np.testing.assert_array_equal(played.raw.fallback[rows, column], decided.fallback)
        np.testing.assert_array_equal(played.raw.accept[rows, column], decided.accept & ~decided.fallback)
        np.testing.assert_array_equal(played.raw.price[rows, column], np.where(decided.fallback, np.nan, price))
        seen[rows, column] = True
    np.testing.assert_array_equal(played.raw.told, seen)
    np.testing.assert_array_equal(seen, (played.kinds != MoveKind.NONE) & (played.sides() == seat))
    assert played.raw.accept.any()
    assert played.raw.fallback.any()
    assert not played.raw.accept[~seen].any()
    assert np.isnan(played.raw.price[~seen]).all()


def test_none_plays_what_was_decided():
    played = table("none", scenarios(3, n=40), Seat.BUYER, 3, fallbacks=0.0)
    assert played.guards(Seat.BUYER).sum() == 0
    told = played.raw.told
    np.testing.assert_array_equal(played.kinds[told] == MoveKind.ACCEPT, played.raw.accept[told])
    offers = told & ~played.raw.accept
    np.testing.assert_array_equal(played.prices[offers], played.raw.price[offers])
    assert violations(played, Seat.BUYER)[0] > 5


@pytest.mark.parametrize("guard", GUARDS)
def test_an_answer_that_is_none_plays_the_reservation_and_never_accepts(guard):
    games = scenarios(2, n=40)
    for seat in Seat:
        played = table(guard, games, seat, 2, fallbacks=1.0, illegal=1.0)
        mine = played.raw.told
        np.testing.assert_array_equal(played.fallbacks(seat), mine.sum(axis=1))
        assert (played.kinds[mine] == MoveKind.OFFER).all()
        limit = np.broadcast_to(limits(played, seat)[:, None], mine.shape)[mine]
        assert (np.abs(played.prices[mine] - limit) <= 0.01).all()
        assert violations(played, seat) == (0, 0)
        assert played.guards(seat).sum() == 0


def test_an_illegal_acceptance_is_a_wasted_turn_under_every_guard():
    class Silent(Tempter):
        def act(self, view):
            return Moves(np.zeros(len(view), dtype=bool), np.full(len(view), np.nan))

    for guard in GUARDS:
        played = table(guard, scenarios(1), Seat.SELLER, 1, Silent(), fallbacks=0.0, illegal=1.0)
        assert ((played.kinds == MoveKind.INVALID) == (played.raw.accept | (played.sides() == Seat.BUYER)))[
            played.kinds != MoveKind.NONE
        ].all()


def game(**changes):
    """One seat's view of one decision, and the guard's answer to it."""
    values = {"reservation": 900.0, "price_low": 200.0, "price_high": 1500.0, "tick": 0.01, "max_turns": 20, "starter": 0,
              "discount": 1.0, "id": 0, "seed": 0, **changes}  # fmt: skip
    return SeatGames(Seat.BUYER, {name: np.array([value]) for name, value in values.items()})


def test_a_retraction_becomes_the_earlier_offer_and_a_bad_deal_the_offer():
    from bargain_env import SeatView

    def ask(guard, standing, prices, accept, price):
        view = SeatView(np.arange(1), game(), len(prices) + 1, np.array([standing]), np.array([prices]))
        moves = guarded(guard, view, np.array([accept]), np.array([price]))
        return bool(moves.accept[0]), float(moves.price[0]), bool(moves.guarded[0])

    assert ask("ir", 1000.0, [500.0, 1000.0], False, 450.0) == (False, 450.0, False)
    assert ask("monotone", 1000.0, [500.0, 1000.0], False, 450.0) == (False, 500.0, True)
    assert ask("monotone", 1000.0, [500.0, 1000.0], True, 450.0) == (False, 500.0, True)
    assert ask("monotone", 850.0, [500.0, 850.0], True, 450.0)[0]
    assert not ask("monotone", 850.0, [500.0, 850.0], True, 450.0)[2]
    assert ask("monotone", 1000.0, [500.0, 1000.0, np.nan, 990.0], False, 450.0) == (False, 500.0, True)
    assert ask("monotone", 1000.0, [np.nan, 1000.0], False, 450.0) == (False, 450.0, False)
    assert ask("monotone", 1000.0, [950.0, 1000.0], False, 450.0) == (False, 900.0, True)  # the reservation prevails
    assert ask("none", 1000.0, [500.0, 1000.0], True, 450.0)[::2] == (True, False)
    for guard in ("ir", "monotone"):  # a deal refused by who had nothing else in mind
        assert ask(guard, 1000.0, [500.0, 1000.0], True, np.nan) == (False, 900.0, True)
    assert ask("ir", 850.0, [500.0, 850.0], True, np.nan)[::2] == (True, False)
    assert np.isnan(ask("ir", 850.0, [500.0, 850.0], False, np.nan)[1])


@pytest.mark.parametrize(
    ("reservation", "tick", "limit"), [(900.0, 0.01, 900.0), (900.5, 1.0, 900.0), (905.0, 7.0, 903.0)]
)
def test_the_own_limit_is_on_the_own_side_of_the_reservation(reservation, tick, limit):
    games = game(reservation=reservation, tick=tick)
    assert own_limit(games)[0] == limit
    seller = SeatGames(Seat.SELLER, games._columns)
    assert own_limit(seller)[0] == (limit if limit == reservation else limit + tick)


def test_playable_prices_are_in_the_range_and_on_the_tick():
    games = SeatGames(Seat.BUYER, {name: np.repeat(game(tick=7.0)._columns[name], 6) for name in game()._columns})
    price = np.array([-np.inf, 200.0, 555.0, 1500.0, np.inf, np.nan])
    np.testing.assert_array_equal(playable(price, games), [203.0, 203.0, 553.0, 1498.0, 1498.0, np.nan])
    games.price_low, games.price_high = (
        np.full(6, 199.0),
        np.full(6, 1502.0),
    )  # next to them 196 and 1505, which are outside
    np.testing.assert_array_equal(playable(price, games), [203.0, 203.0, 553.0, 1498.0, 1498.0, np.nan])


def test_an_unknown_guard_is_refused():
    with pytest.raises(InputError, match="unknown guard 'monoton'; did you mean 'monotone'"):
        JanusAgent(NANO, guard="monoton")


# ── raw moves on their way ────────────────────────────────────────────────────────────────────────────────────────────


def test_scripts_tell_nothing():
    played = play(scenarios(1), Tempter(), Tempter())
    assert played.raw is None
    assert played.take(np.arange(3)).raw is None
    assert concatenate([played, played]).raw is None
    assert played.fallbacks(Seat.BUYER).tolist() == [0] * 12


def test_routed_players_tell_for_their_own_rows():
    games = scenarios(4)
    owner = np.arange(12) % 2
    played = play(games, RoutedPolicy([Tempter(), hostile("ir", 4)], owner), Tempter())
    alone = table("ir", games.take(np.flatnonzero(owner == 1)), Seat.BUYER, 4)
    mine = np.flatnonzero(owner == 1)
    assert not played.raw.told[owner == 0].any()
    width = alone.kinds.shape[1]
    for name in ("accept", "price", "fallback", "told"):
        np.testing.assert_array_equal(getattr(played.raw, name)[mine][:, :width], getattr(alone.raw, name))
    np.testing.assert_array_equal(played.guarded[mine][:, :width], alone.guarded)


def test_mixtures_pass_on_what_their_players_tell():
    class Teller(Tempter):
        def act(self, view):
            moves = super().act(view)
            return Moves(moves.accept, moves.price, raw=RawMoves.of(moves.accept, moves.price + 1.0))

    games = scenarios(4, n=40)
    played = play(games, Mixture([Tempter(), Teller()]), Tempter())
    told = played.raw.told.any(axis=1)
    assert 0 < told.sum() < 40
    assert (np.abs(played.raw.price - played.prices - 1.0)[played.raw.told] < 0.01).all()


def test_taken_and_concatenated_games_keep_what_was_told():
    games = scenarios(7)
    played = table("ir", games, Seat.BUYER, 7)
    silent = play(games, Tempter(), Tempter())
    part, joined = played.take(np.array([3, 1])), concatenate([silent, played, silent])
    for name in ("accept", "price", "fallback", "told"):
        whole = getattr(played.raw, name)
        np.testing.assert_array_equal(getattr(part.raw, name), whole[[3, 1]])
        np.testing.assert_array_equal(getattr(joined.raw, name)[12:24], whole)
    assert not joined.raw.told[:12].any()
    assert not joined.raw.told[24:].any()


def test_raw_moves_of_another_length_are_refused():
    with pytest.raises(ValueError, match="1 raw moves for 2 moves"):
        Moves(np.zeros(2, dtype=bool), np.ones(2), raw=RawMoves.blank(1))
