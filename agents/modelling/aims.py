"""What a settlement is worth to a player that is asked for ρ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.core import Seat
from bargain_env.policy import Bools, Floats, SeatGames


@dataclass(frozen=True, slots=True)
class Aims:
    """How b games are valued.

    Whoever is asked for its own end of ρ (a buyer for 0, a seller for 1) wants its own surplus, in shares of the public
    range. Any other request in [0, 1] is a settlement to be met: worth is 1 - |ρ - ρ*|, which needs the width of the ZOPA,
    so it is known only where a preset makes that common knowledge. An impasse is worth 0 to both. A request for an impasse
    has no value of this kind.

    Attributes:
        games: of the seat.
        rho: ``[b]`` requested.
        width: of the ZOPA; None where nobody may know it.
    """

    games: SeatGames
    rho: Floats
    width: float | None = None

    @property
    def selfish(self) -> Bools:
        """``[b]`` asked for the own end."""
        return np.asarray(self.rho == (0.0 if self.games.seat == Seat.BUYER else 1.0))

    @property
    def known(self) -> Bools:
        """``[b]`` where `worth` says anything."""
        return self.selfish | (np.full(len(self.rho), self.width is not None) & (self.rho >= 0.0))

    def worth(self, price: Floats) -> Floats:
        """``[b, …]`` v of each price; -∞ beyond the own limit, NaN where there is no price or no value."""
        games = self.games
        shape = (-1, *[1] * (price.ndim - 1))
        limit, low, high, rho = (
            np.reshape(a, shape) for a in (games.reservation, games.price_low, games.price_high, self.rho)
        )
        surplus = games.sign * (limit - price)
        value = surplus / (high - low)
        if self.width is not None:
            share = surplus / self.width  # of the ZOPA
            settled = 1.0 - share if games.seat == Seat.BUYER else share
            value = np.where(np.reshape(self.selfish, shape), value, 1.0 - np.abs(settled - rho))
        value = np.where(np.reshape(self.known, shape), value, np.nan)
        with np.errstate(invalid="ignore"):
            return np.where(surplus < 0.0, -np.inf, value)
