"""Who the opponent is, as far as its offers tell: likelihoods of each game, offer by offer."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bargain_env.policy import Floats, Ints, SeatGames, SeatView
from hyperlora.adapters.routing import chosen, posteriors

from .outside import decision_after, other_seat
from .settings import ModellingSettings

LIKELIHOOD_DIGITS = 3
"""Decimals that log-likelihoods are summed with: the rest is rounding of float32."""


class Witness(Protocol):
    """What is asked how likely an offer was; `agents.modelling.models.OpponentModels` is one."""

    def log_likelihoods(self, view: SeatView, offered: Floats) -> Floats:
        """``[n, P + 1]``, see there."""
        ...


class Recognition:
    """The posterior over personas in each of B games.

    An offer is scored once, when it is first seen; what was seen before is a sum. At first the opponent is as likely one of
    them as none, and each of them equally likely, so that it does not matter how many there are.

    Args:
        witness: of the offers.
        personas: P.
        settings: `ModellingSettings.threshold`, ``known``, ``temperature`` and ``handicap``.
    """

    def __init__(self, witness: Witness, personas: int, settings: ModellingSettings) -> None:
        self._witness, self._personas, self.settings = witness, personas, settings
        self._logs, self._heard = np.zeros((0, personas + 1)), np.zeros(0, dtype=np.int64)

    def reset(self, games: SeatGames) -> None:
        """Forget, and start B games of the own seat."""
        self._logs = np.zeros((len(games), self._personas + 1))
        self._heard = np.zeros(len(games), dtype=np.int64)  # turns that have been looked at

    def hear(self, view: SeatView) -> None:
        """Score the opponent's offers in ``view`` that are new."""
        prices, past = view.prices, view.prices.shape[1]
        theirs = other_seat(view.games)
        for turn in range((past + 1) % 2, past, 2):
            new = np.flatnonzero((self._heard[view.rows] <= turn) & ~np.isnan(prices[:, turn]))
            if len(new):
                found = self._witness.log_likelihoods(
                    decision_after(theirs, prices[new, :turn], new), prices[new, turn]
                )
                found = np.round(found, LIKELIHOOD_DIGITS)
                found[:, -1] -= self.settings.handicap
                self._logs[view.rows[new]] += found
        self._heard[view.rows] = past

    def of(self, rows: Ints) -> Ints:
        """Number of the persona that each of these games' opponent is taken for; -1 for none."""
        logs, settings = self._logs[rows], self.settings
        shares = posteriors(logs[:, :-1], logs[:, -1], settings.temperature)
        found = chosen(np.round(shares, 6), settings.threshold, settings.known)
        return np.where((logs != 0.0).any(axis=1), found, -1)  # before its first offer it is nobody
