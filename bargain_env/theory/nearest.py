"""How near to a requested settlement a game against a given opponent can end, if one knew everything: a ceiling for dials.

The dynamic program of `history_free` with another reward: not one's own utility but how close the deal is to the request,
1 - |ρ - ρ*|, and 0 for an impasse, which so counts as an error of 1, the whole width of the ZOPA. No player, whatever it
knows, is on average nearer to ρ* than this, up to the grid of prices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import Seat, quantise_array
from ..errors import InputError
from ..outcome import settlement
from ..play import play
from ..policy import Floats, Ints, Policy
from ..scenarios import Scenarios
from . import grid, history_free
from .best_response import SLACK, BestResponse, BestResponsePolicy
from .questions import Reward

IMPASSE = 1.0
"""The error that an impasse counts as."""


def nearest(opponent: Policy, scenarios: Scenarios, seat: Seat, rho: float) -> Floats:
    """The settlement closest to ``rho`` that ``seat`` can reach against ``opponent``.

    Each own turn it may accept, or offer the request itself, an even step between the limits, or what lies at the edge of
    what the opponent takes; never beyond its own limit. The plan is played before it is reported.

    Args:
        opponent: a memoryless policy at the other seat whose moves depend on the clock and the standing offer alone. That is
            for the caller to know (`agents.describe(name).uses_history`): play finds out only some that are not.
        scenarios: B games, each with a ZOPA.
        seat: who plans.
        rho: in [0, 1].

    Returns:
        ``[B]`` achieved ρ; NaN where nothing but an impasse can be reached.

    Raises:
        InputError: the opponent may keep a memory or was seen to use the past, or a game has no ZOPA.
    """
    if not getattr(opponent, "memoryless", False):
        raise InputError(f"policy {opponent.name!r} may keep a memory, so it cannot be asked what it would do")
    if not scenarios.has_zopa.all():
        raise InputError("a game without a ZOPA has no settlement; leave it out")
    reward = closeness(rho)
    wanted = scenarios.seller_min + rho * (scenarios.buyer_max - scenarios.seller_min)
    offers = np.concatenate(
        [grid.between_limits(scenarios, seat), quantise_array(wanted, scenarios.tick)[:, None]], axis=1
    )
    plan = history_free.solve(opponent, scenarios, seat, offers, sharpen=True, reward=reward)
    planner = BestResponsePolicy(BestResponse(scenarios, seat, plan, plan.values, plan.values), reward)
    played = play(scenarios, planner, opponent) if seat == Seat.BUYER else play(scenarios, opponent, planner)
    got: NDArray[np.float64] = np.where(np.isnan(played.rho), 0.0, IMPASSE - np.abs(played.rho - rho))
    wrong = np.flatnonzero(~(np.abs(got - plan.values) <= SLACK))
    if len(wrong):
        raise InputError(
            f"policy {opponent.name!r} did not do in game {scenarios.id[wrong[0]]} what it had answered when asked; it uses "
            "the past"
        )
    return played.rho


def closeness(rho: float) -> Reward:
    """1 - |ρ of a deal - ``rho``|; ``-inf`` where there is no price, or one beyond the planner's own limit."""

    def reward(games: Scenarios, seat: Seat, price: Floats, turns: int | Ints) -> Floats:
        achieved = settlement(price, games.buyer_max, games.seller_min)
        loss = achieved > 1.0 + SLACK if seat == Seat.BUYER else achieved < -SLACK
        return np.where(np.isnan(price) | loss, -np.inf, IMPASSE - np.abs(achieved - rho))

    return reward
