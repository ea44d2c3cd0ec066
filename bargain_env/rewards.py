"""What a move pays, for one game or for many.

With u_i the utility of seat i when the game ends (`bargain_env.outcome`: its share of the ZOPA, discounted; 0 before the end
and at an impasse), c the cost of a move and w the weight of the other seat:

    v_i = u_i - c · [i made this move]        r_i = v_i + w · v_j

w = 0 is general-sum, w = -1 zero-sum (r_i = -r_j), w = 1 common interest. Units are shares of the ZOPA: without costs the
two u_i of a deal sum to 1 (times the discount), each lies in [0, 1] inside the ZOPA and below 0 beyond one's own
reservation. So r_i of a rational deal lies in [0, 1] for w = 0 and in [-1, 1] for w = -1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .settings import GameSettings


def rewards(utilities: NDArray[np.float64], mover: NDArray[np.int8], settings: GameSettings) -> NDArray[np.float64]:
    """``[B, 2]`` what one move pays both seats.

    Args:
        utilities: ``[B, 2]`` buyer's and seller's, 0 unless the move ended the game.
        mover: ``[B]`` who moved.
        settings: gives c and w.
    """
    own = np.array(utilities, dtype=np.float64)
    if settings.turn_cost:
        own[np.arange(len(own)), mover] -= settings.turn_cost
    return own + settings.opponent_weight * own[:, ::-1] if settings.opponent_weight else own
