"""Which solved game is on the table: a view shows its id, and what was solved for it is a row of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import Seat
from ..policy import SeatGames
from ..scenarios import Scenarios

Rows = NDArray[np.intp]

_KEYS = ("id", "seed", "buyer_max", "seller_min", "max_turns", "starter")


class KnownGames:
    """Rows of ``scenarios`` by game id. An id may repeat if its games are the same.

    Raises:
        ValueError: two different games of one id.
    """

    def __init__(self, scenarios: Scenarios) -> None:
        self._scenarios = scenarios
        self._ids, self._rows, of = np.unique(scenarios.id, return_index=True, return_inverse=True)
        for key in _KEYS:
            column = getattr(scenarios, key)
            if (column != column[self._rows][of]).any():
                raise ValueError(f"games of one id differ in {key}; give every game an id of its own")

    def rows(self, games: SeatGames) -> Rows:
        """``[b]`` the row of each game shown.

        Raises:
            ValueError: a game that was not among those solved.
        """
        at = np.searchsorted(self._ids, games.id)
        at[at == len(self._ids)] = 0
        rows: Rows = self._rows[at]
        known = self._scenarios
        limit = known.buyer_max if games.seat == Seat.BUYER else known.seller_min
        same = (known.id[rows] == games.id) & (known.seed[rows] == games.seed) & (limit[rows] == games.reservation)
        same &= (known.max_turns[rows] == games.max_turns) & (known.starter[rows] == games.starter)
        if not same.all():
            raise ValueError(
                f"game {games.id[~same][0]} is not one that this policy was solved for; solve it for these"
            )
        return rows
