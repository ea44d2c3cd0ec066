"""What theory says of a game: cooperative solutions, equilibria, and the best anybody could do against a given player.

Everything here sees both limits. It measures players; none of it is a player that a real game could have. Landmarks of
three kinds, each in its own module:

* `cooperative`: where two sides *ought* to settle (Nash, Kalai-Smorodinsky, egalitarian);
* `rubinstein` and `equilibrium`: where two sides that know everything *would* settle, in closed form and on a price grid;
* `best_response`: what a seat could earn at most against one given policy, by dynamic programming.
"""

from .best_response import BestResponse, BestResponsePolicy, best_response
from .cooperative import egalitarian, kalai_smorodinsky, nash
from .equilibrium import Equilibrium, EquilibriumPolicy, solve
from .rubinstein import continuous_time, finite_horizon, infinite_horizon

__all__ = [
    "BestResponse",
    "BestResponsePolicy",
    "Equilibrium",
    "EquilibriumPolicy",
    "best_response",
    "continuous_time",
    "egalitarian",
    "finite_horizon",
    "infinite_horizon",
    "kalai_smorodinsky",
    "nash",
    "solve",
]
