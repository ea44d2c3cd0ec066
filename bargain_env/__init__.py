"""A buyer/seller price-bargaining game: pure rules, a lockstep batch engine and the faces that learners expect.

>>> import bargain_env, agents
>>> games = bargain_env.sample("paper", 100, seed=0)
>>> result = bargain_env.play(games, agents.make("boulware_hard"), agents.make("linear_standard"))
>>> result.rho.shape
(100,)
"""

from .core import Move, MoveKind, Scenario, Seat, State, step
from .opponents import Linear, Mixture
from .outcome import IMPASSE_RHO, settlement, utilities
from .play import Trajectories, concatenate, play
from .policy import Moves, Policy, RoutedPolicy, SeatGames, SeatView
from .registration import register as _register
from .scenarios import DEFAULT_PRESET, PRESETS, Preset, Scenarios, preset, sample

_register()

__all__ = [
    "DEFAULT_PRESET",
    "IMPASSE_RHO",
    "PRESETS",
    "Linear",
    "Mixture",
    "Move",
    "MoveKind",
    "Moves",
    "Policy",
    "Preset",
    "RoutedPolicy",
    "Scenario",
    "Scenarios",
    "Seat",
    "SeatGames",
    "SeatView",
    "State",
    "Trajectories",
    "concatenate",
    "play",
    "preset",
    "sample",
    "settlement",
    "step",
    "utilities",
]
