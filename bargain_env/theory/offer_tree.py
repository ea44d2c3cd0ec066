"""Best response to an opponent that may use the whole past: the tree of everything that one could offer.

The opponent is deterministic once its random numbers are known, so a game is named by the offers made to it so far. The
tree of these is asked about level by level and then folded back. It has K + K² + … + Kᵐ nodes for m own turns that can
still be answered, so it is for coarse grids and short games.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import Seat
from ..policy import Bools, Floats, Policy, SeatGames
from ..scenarios import Scenarios
from .grid import best_first
from .questions import Plan, Rows, ask, choose, worth


def count_nodes(scenarios: Scenarios, seat: Seat, width: int) -> int:
    """How many questions `solve` would ask at most, for ``width`` prices: Σ over games of K + K² + … + Kᵐ."""
    answered = (scenarios.max_turns - (scenarios.starter != seat)) // 2  # own turns before the last turn
    depths, games = (x.tolist() for x in np.unique(answered, return_counts=True))
    series = [depth if width == 1 else (width ** (depth + 1) - width) // (width - 1) for depth in depths]
    return sum(nodes * n for nodes, n in zip(series, games, strict=True))


def solve(opponent: Policy, scenarios: Scenarios, seat: Seat, grid: Floats) -> Plan:
    """The plan for ``seat`` in B games; it may offer ``[B, K]`` prices of ``grid``.

    The plan holds along the path that the two play; after the deal, and on turns that are never reached, it is NaN.
    """
    plan, ordered = Plan.empty(scenarios), best_first(grid, seat)
    for rows in _alike(scenarios):
        games = scenarios.take(rows)
        turns = _own_turns(games, seat)
        if turns:
            levels = _grow(opponent, games, seat, ordered[rows], turns)
            values = _fold(levels)
            plan.values[rows] = values[0]
            _follow(plan, rows, levels, values, turns)
    return plan


def _alike(scenarios: Scenarios) -> Iterator[Rows]:
    """Rows of games with the same starter and ``max_turns``: in these everybody moves on the same turns."""
    kinds, of = np.unique(np.stack([scenarios.starter, scenarios.max_turns]), axis=1, return_inverse=True)
    for kind in range(kinds.shape[1]):
        yield np.flatnonzero(of.ravel() == kind)


def _own_turns(games: Scenarios, seat: Seat) -> range:
    """Turns of ``seat`` in games that are alike."""
    return range(1 if games.starter[0] == seat else 2, int(games.max_turns[0]) + 1, 2)


@dataclass(frozen=True, slots=True)
class _Level:
    """The N positions of one own turn, and the K offers in each.

    Attributes:
        accepting: ``[N]`` utility of accepting the standing offer; ``-inf`` where there is none.
        prices: ``[N, K]`` what may be offered.
        accepted: ``[N, K]`` whether the opponent takes it.
        value: ``[N, K]`` utility where the game ends with it; 0 where the game goes on.
        child: ``[N, K]`` its position on the next level; -1 where the game ends.
    """

    accepting: Floats
    prices: Floats
    accepted: Bools
    value: Floats
    child: NDArray[np.intp]


def _grow(opponent: Policy, games: Scenarios, seat: Seat, grid: Floats, turns: range) -> list[_Level]:
    """All levels, from the first own turn to the last."""
    n, deadline = len(games), int(games.max_turns[0])
    game, history = np.arange(n), np.empty((n, 0))
    if turns[0] == 2:
        nothing = np.full(n, np.nan)
        history = ask(opponent, SeatGames.of(games, seat.other), 1, nothing, history)[1][:, None]
    levels = []
    for turn in turns:
        here, prices = games.take(game), grid[game]
        standing = history[:, -1] if turn > 1 else np.full(n, np.nan)
        accepting = worth(here, seat, standing, turn)
        each = np.repeat(np.arange(len(game)), prices.shape[1])
        offered, below = prices.ravel(), here.take(each)
        accepted, value = np.zeros(len(each), dtype=bool), np.zeros(len(each))
        child = np.full(len(each), -1, dtype=np.intp)
        if turn < deadline:
            past = np.column_stack([history[each], offered])
            accepted, counter = ask(opponent, SeatGames.of(below, seat.other), turn + 1, offered, past)
            value = np.where(accepted, worth(below, seat, offered, turn + 1), 0.0)
            if turn + 2 <= deadline:
                goes_on = np.flatnonzero(~accepted)
                child[goes_on] = np.arange(len(goes_on))
                history = np.column_stack([past, counter])[goes_on]
                game = game[each][goes_on]
        shape = prices.shape
        levels.append(_Level(accepting, prices, accepted.reshape(shape), value.reshape(shape), child.reshape(shape)))
    return levels


def _fold(levels: list[_Level]) -> list[Floats]:
    """The value ``[N]`` of every position of every level; fills in the values of offers on the way."""
    below, found = np.zeros(0), []
    for level in reversed(levels):
        on = level.child >= 0
        level.value[on] = below[level.child[on]]
        below = np.maximum(level.accepting, level.value.max(axis=1))
        found.append(below)
    return found[::-1]


def _follow(plan: Plan, rows: Rows, levels: list[_Level], values: list[Floats], turns: range) -> None:
    """Write the best path of each game into ``rows`` of the plan."""
    node = np.arange(len(rows))
    for level, turn in zip(levels, turns, strict=True):
        pick = choose(level.value[node], level.accepted[node])
        plan.offers[rows, turn - 1] = level.prices[node, pick]
        plan.going_on[rows, turn - 1] = level.value[node, pick]
        on = (level.child[node, pick] >= 0) & (level.accepting[node] < level.value[node, pick])
        rows, node = rows[on], level.child[node, pick][on]
