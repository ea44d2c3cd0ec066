"""The best that a seat could do against a given policy, if it knew everything: the opponent's limit, rule and luck.

A policy of this project is a function of what it is shown, and its random numbers are a pure function of seed, game id,
seat and turn. So against a memoryless one the other seat faces a deterministic decision problem, solved by dynamic
programming: `history_free` where only the clock and the standing offer matter, else `offer_tree`. It is a ceiling to
measure players against, not a player.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..core import Seat
from ..errors import InputError
from ..outcome import settlement
from ..play import Trajectories, play
from ..policy import Floats, Moves, Policy, SeatGames, SeatView
from ..scenarios import Scenarios
from . import grid, history_free, offer_tree
from .known_games import KnownGames
from .questions import Plan, Reward, worth

MAX_NODES = 200_000
"""Questions that one `best_response` to an opponent with a past may ask; some seconds and 100 MB at most."""
SLACK = 1e-9
"""Utilities closer than this are equal."""


@dataclass(frozen=True, slots=True)
class BestResponse:
    """The best response to one policy in B games.

    Attributes:
        scenarios: the games.
        seat: who plans.
        plan: what it does, turn by turn.
        values: ``[B]`` its utility, as `play` scores it.
        price: ``[B]`` of the deal; NaN at an impasse.
    """

    scenarios: Scenarios
    seat: Seat
    plan: Plan
    values: Floats
    price: Floats

    @property
    def rho(self) -> Floats:
        """``[B]`` settlement of the deal; NaN at an impasse or without a ZOPA."""
        return settlement(self.price, self.scenarios.buyer_max, self.scenarios.seller_min)


def best_response(
    opponent: Policy,
    scenarios: Scenarios,
    seat: Seat,
    prices: ArrayLike | None = None,
    *,
    uses_history: bool,
    max_nodes: int = MAX_NODES,
) -> BestResponse:
    """What ``seat`` earns at most against ``opponent``, and how.

    On each own turn it may accept the standing offer or offer one of ``prices``; of equally good plans it takes the one
    that settles first. The plan is played once before it is handed out, so what is promised is what `play` gives.

    Args:
        opponent: a memoryless policy (``memoryless = True``) at the other seat.
        scenarios: the games.
        seat: who plans.
        prices: ``[K]`` or ``[B, K]`` what it may offer, rounded to the tick. None: `grid.between_limits`, which without
            a history is sharpened to the tick, see `history_free.solve`.
        uses_history: whether the opponent looks at more than the clock and the standing offer. False costs K questions
            a turn, True a tree of K + K² + …
        max_nodes: largest tree to ask for, over all games.

    Raises:
        InputError: the opponent has a memory or does not say that it has none; the tree is too large; a game has no
            price that the seat could offer without harm; or play shows that the opponent uses the past though
            ``uses_history`` is False.
        ValueError: prices as in `grid.checked`.
    """
    if not getattr(opponent, "memoryless", False):
        raise InputError(
            f"policy {opponent.name!r} may keep a memory, so it cannot be asked what it would do; set "
            "memoryless = True on its class if its moves depend on the view alone"
        )
    offers = grid.between_limits(scenarios, seat) if prices is None else grid.checked(prices, scenarios)
    _require_harmless(offers, scenarios, seat)
    if uses_history:
        _require_few(scenarios, seat, offers.shape[1], max_nodes)
        plan = offer_tree.solve(opponent, scenarios, seat, offers)
    else:
        plan = history_free.solve(opponent, scenarios, seat, offers, sharpen=prices is None)
    played = _play(plan, opponent, scenarios, seat)
    wrong = np.flatnonzero(~(np.abs(played.utilities[:, seat] - plan.values) <= SLACK))
    if len(wrong):
        why = "its moves depend on more than the view" if uses_history else "it uses the past: pass uses_history=True"
        raise InputError(
            f"policy {opponent.name!r} did not do in game {scenarios.id[wrong[0]]} what it had answered when asked; {why}"
        )
    return BestResponse(scenarios, seat, plan, played.utilities[:, seat], played.price)


def _play(plan: Plan, opponent: Policy, scenarios: Scenarios, seat: Seat) -> Trajectories:
    planner = BestResponsePolicy(BestResponse(scenarios, seat, plan, plan.values, plan.values))
    return play(scenarios, planner, opponent) if seat == Seat.BUYER else play(scenarios, opponent, planner)


def _require_harmless(offers: Floats, scenarios: Scenarios, seat: Seat) -> None:
    """Without such a price the seat would have to offer itself a loss, and staying away would be better."""
    games = SeatGames.of(scenarios, seat)
    bad = np.flatnonzero((games.sign * (games.reservation[:, None] - offers) < 0).all(axis=1))
    if len(bad):
        raise InputError(
            f"every price is beyond the {seat.label}'s limit {games.reservation[bad[0]]:g} in game {games.id[bad[0]]}; "
            "add one within it, such as the public bound"
        )


def _require_few(scenarios: Scenarios, seat: Seat, width: int, max_nodes: int) -> None:
    needed = offer_tree.count_nodes(scenarios, seat, width)
    if needed > max_nodes:
        count = f"{needed:,}" if needed < 10**9 else f"about 1e{math.log10(needed):.0f}"
        raise InputError(
            f"the tree of {width} prices in {len(scenarios)} games needs {count} nodes, more than max_nodes "
            f"{max_nodes:,}; give a coarser grid of prices, games of fewer turns, or fewer games"
        )


class BestResponsePolicy:
    """Plays a `BestResponse` in the games that it was found for, against the policy that it was found for.

    Args:
        response: what to play.
        reward: what it was found to maximise, if not utility.
    """

    name = "best response (omniscient)"
    memoryless: ClassVar[bool] = True
    mixed_turns: ClassVar[bool] = True

    def __init__(self, response: BestResponse, reward: Reward = worth) -> None:
        self._response, self._known, self._reward = response, KnownGames(response.scenarios), reward

    def reset(self, games: SeatGames) -> None:
        """Refuse games or a seat that were not solved, with a ValueError; there is nothing to forget."""
        if games.seat != self._response.seat:
            raise ValueError(f"this best response was found for the {self._response.seat.label}; seat it there")
        self._known.rows(games)

    def act(self, view: SeatView) -> Moves:
        """Accept what is worth as much as going on, else make the planned offer."""
        rows, turn = self._known.rows(view.games), np.broadcast_to(view.turn, len(view))
        response = self._response
        taking = self._reward(response.scenarios.take(rows), response.seat, view.standing, turn)
        plan = response.plan
        return Moves(taking >= plan.going_on[rows, turn - 1] - SLACK / 1000, plan.offers[rows, turn - 1])
