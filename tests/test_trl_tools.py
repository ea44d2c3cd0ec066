"""The environment for TRL, without TRL: the game is the one that `play` plays, told in words and fixed by the row."""

import copy
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import bargain_env
from agents.trl import TASK, BargainTools, settlement_reward, tasks, utility_reward
from bargain_env import MoveKind, Moves, Seat
from bargain_env.errors import InputError

ROOT = Path(__file__).parents[1]


def played(opponent, seat, game, prices, accept_at=None, **options):
    """A game in which the model offers ``prices`` in turn and accepts on its move number ``accept_at``."""
    table = BargainTools(opponent, **options)
    told = [table.reset(seed=7, game=game, seat=seat)]
    for move, price in enumerate(prices):
        if table.over:
            break
        told.append(table.accept() if move == accept_at else table.offer(price))
    return table, told


class Scripted:
    """The moves of a model, as a `Policy`."""

    name = "scripted"

    def __init__(self, prices, accept_at):
        self.prices, self.accept_at = prices, accept_at

    def reset(self, games):
        self.moves = 0

    def act(self, view):
        move, self.moves = self.moves, self.moves + 1
        return Moves(accept=np.array([move == self.accept_at]), price=np.array([float(self.prices[move])]))


@pytest.mark.parametrize("opponent", ["boulware_hard", "random_zopa", "tit_for_tat", ["fair", "linear_standard"], None])
def test_the_game_is_the_one_that_play_plays(opponent):
    prices, ends = [400.0, 1900.0, 520.5, 610.0, 700.0, 760.0, 800.0, 820.0, 830.0, 840.0], set()
    for seat in ("buyer", "seller"):
        for game in range(12):
            accept_at = [None, 0, 4][game % 3]
            table, _ = played(opponent, seat, game, prices, accept_at, scenario="no_deal")
            games = bargain_env.sample("no_deal", seed=7, ids=np.array([game]))
            other = bargain_env.opponents.opponent_of(opponent, bargain_env.preset("no_deal"))
            both = [Scripted(prices, accept_at), other]
            result = bargain_env.play(games, *(both if seat == "buyer" else both[::-1]))
            n = int(result.turns[0])
            assert table.over
            assert [MoveKind(k) for k in result.kinds[0, :n]] == list(table.state.kinds)
            np.testing.assert_array_equal(
                [np.nan if p is None else p for p in table.state.prices], result.prices[0, :n]
            )
            assert table.utility == result.utilities[0, Seat[seat.upper()]]
            assert table.rho == (None if np.isnan(result.rho[0]) else result.rho[0])
            assert table.invalid_moves == result.count(MoveKind.INVALID, Seat[seat.upper()])[0]
            ends.add((table.state.agreement, table.invalid_moves > 0))
    assert len(ends) >= 3


def test_a_row_fixes_the_game_and_rows_differ():
    prices = [500.0] * 10
    tables = [played("random_zopa", "buyer", game, prices)[0] for game in (3, 3, 5)]
    assert tables[0].state == tables[1].state != tables[2].state
    reused = tables[2]
    reused.reset(seed=7, game=3, seat="buyer")
    for price in prices:
        if not reused.over:
            reused.offer(price)
    assert reused.state == tables[0].state
    other = BargainTools("random_zopa")
    other.reset(seed=8, game=3)
    assert other.scenario != tables[0].scenario


def test_a_policy_with_memory_is_not_shared_by_rollouts():
    memory, none = Scripted([700.0] * 10, None), bargain_env.Linear()
    assert BargainTools(none)._opponent is none
    tables = [BargainTools(memory) for _ in range(2)]
    for table in tables:
        table.reset(seed=7)
    answers = [[table.offer(500) for _ in range(9)] for table in tables]
    assert answers[0] == answers[1]
    assert not hasattr(memory, "moves")


def test_the_model_is_told_what_it_needs_and_not_the_others_limit():
    for game in range(4):
        for seat in ("buyer", "seller"):
            table, told = played("linear_standard", seat, game, [700.0] * 10)
            mine, other = (table.scenario.reservation(s) for s in (table.seat, table.seat.other))
            assert mine != other
            assert f"${mine:.2f}" in told[0]
            assert not any(f"{other:.2f}" in text for text in told)
            assert ("No offer of the" in told[0]) == (table.scenario.starter == table.seat)
            assert told[-1].endswith("The negotiation is over.")
    table, told = played("linear_standard", "buyer", 0, [700.0, 700.0, 0.0], accept_at=1)
    assert told[1].startswith("The seller offers $")
    assert told[2].startswith(f"You accept: a deal at {told[1].split()[3].rstrip('.')}")
    assert "settlement of 0.30" in BargainTools().reset(seed=0, rho=0.3)
    assert "multiplies" in BargainTools(discount=0.9).reset(seed=0)


def test_what_the_rules_do_not_allow_wastes_a_turn_and_what_is_no_move_does_not():
    table = BargainTools("linear_standard")
    table.reset(seed=7, game=0, seat="buyer")
    assert table.accept().startswith("Your turn was wasted: there was no offer to accept.\nThe seller offers")
    assert table.offer(99).startswith("Your turn was wasted: 99 is outside the range of prices.")
    assert table.offer(float("nan")).startswith("Your turn was wasted: nan is outside")
    assert (table.invalid_moves, table.state.turn) == (3, 7)
    for nothing in ("cheap", None, [700]):
        with pytest.raises(InputError, match="is not a number"):
            table.offer(nothing)
    assert table.state.turn == 7
    assert "offers" in table.offer("700")
    table.accept()
    assert table.over
    for call in (table.accept, lambda: table.offer(700)):
        with pytest.raises(InputError, match="the negotiation is over"):
            call()


def test_what_cannot_be_played_is_refused():
    with pytest.raises(InputError, match="unknown strategy"):
        BargainTools("linear_standrad")
    with pytest.raises(InputError, match="max_turns 1"):
        BargainTools(max_turns=1)
    with pytest.raises(InputError, match="no column 'seed'"):
        BargainTools().reset(prompt=[])
    with pytest.raises(InputError, match="unknown seat"):
        BargainTools().reset(seed=0, seat="broker")
    with pytest.raises(InputError, match="no game has been started"):
        BargainTools().utility  # noqa: B018
    with pytest.raises(InputError, match="unknown seat"):
        tasks(1, seed=0, seat="broker")
    with pytest.raises(InputError, match="seed -1"):
        tasks(1, seed=-1)


def test_tasks_cover_seats_starters_and_requests():
    rows = tasks(16, seed=4, seat="both", first=2, rho=(0.2, 0.8))
    assert [row["game"] for row in rows] == list(range(2, 18))
    assert {(row["seat"], row["game"] % 2, row["rho"]) for row in rows} == {
        (seat, odd, rho) for seat in ("buyer", "seller") for odd in (0, 1) for rho in (0.2, 0.8)
    }
    assert all(row["prompt"] == [{"role": "user", "content": TASK}] for row in rows)
    assert "rho" not in tasks(1, seed=0)[0]


def test_rewards_are_zero_without_a_deal_and_fall_with_the_distance():
    deal, _ = played("linear_standard", "buyer", 1, [700.0] * 10, accept_at=6)
    failed, _ = played("linear_standard", "buyer", 1, [200.0] * 10)
    unfinished = BargainTools("linear_standard")
    unfinished.reset(seed=7)
    assert deal.state.agreement
    assert failed.over
    assert not failed.state.agreement
    tables = [deal, failed, unfinished]
    assert utility_reward(tables, prompts=[]) == [deal.utility, 0.0, 0.0]
    assert deal.utility == pytest.approx(1.0 - deal.rho)
    near, far = (settlement_reward(tables, rho=[deal.rho + d] * 3) for d in (0.1, 0.3))
    assert near == [pytest.approx(0.9), 0.0, 0.0]
    assert far == [pytest.approx(0.7), 0.0, 0.0]
    assert settlement_reward([deal], rho=[deal.rho - 5.0]) == [0.0]


def test_environments_can_be_sent_to_other_processes():
    make = pickle.loads(pickle.dumps(partial(BargainTools, opponent=["fair", "linear_standard"], max_turns=8)))
    table = make()
    table.reset(seed=1)
    assert copy.deepcopy(table).offer(700) == table.offer(700)


@pytest.mark.parametrize("module", ["agents", "agents.trl"])
def test_importing_does_not_load_trl_or_torch(module):
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers', 'trl', 'datasets'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
