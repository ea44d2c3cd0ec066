"""What an opponent's offers say of its limit and haste: Bayes over the tactics that follow the clock.

Hypotheses are Faratin's polynomial tactics (see `time_dependent`) on a grid of reservation, beta and kappa, all equally
likely before the first offer. In concessions of the observing seat, with r the opponent's reservation, s its start and a
its curve, hypothesis h predicts ``y(t) = r + (s - r)(1 - a(t / T))``; offers are taken to miss it by normal noise. This is
the idea of D. Zeng, K. Sycara, "Bayesian learning in negotiation", International Journal of Human-Computer Studies 48
(1998), pp. 125-141, with the hypotheses of C. Hou, "Predicting agents tactics in automated negotiation", IAT 2004.

Given the reservation and the curve a prediction is linear in (1, 1 - a), so all squared errors follow from five sums over
the offers; nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bargain_env.policy import Floats, Ints

from .anchors import Frame, common
from .history import total


@dataclass(frozen=True)
class TimeModel:
    """The hypotheses.

    Attributes:
        reservations: how many, evenly from what the observer likes best (its own S) to its own reservation R.
        betas: Faratin's beta.
        kappas: the share given at once.
        noise: standard deviation of an offer, in shares of the assumed width.
    """

    reservations: int = 11
    betas: tuple[float, ...] = (0.15, 0.3, 0.5, 1.0, 2.0, 5.0)
    kappas: tuple[float, ...] = (0.0, 0.2)
    noise: float = 0.06

    def posterior(self, frame: Frame) -> Posterior:
        """What is believed after the offers received so far."""
        limit = np.linspace(0.0, 1.0, self.reservations)[:, None] * frame.reach
        span = np.maximum(self._farthest(frame) - limit, 0.0)
        if frame.assumes:
            span = np.minimum(span, frame.width)
        misfit = self._misfit(frame, limit, span)
        return Posterior(self, frame, limit, span, np.exp(misfit.min(axis=(0, 1)) - misfit))

    def _farthest(self, frame: Frame) -> Floats:
        """The public bound that the opponent likes best, as a concession."""
        games = frame.view.games
        return frame.concession(games.price_high if frame.buys else games.price_low)

    def _misfit(self, frame: Frame, limit: Floats, span: Floats) -> Floats:
        """``[K, R, b]``, for K curves and R reservations: half the sum of squared errors, in units of the noise.

        What all hypotheses of a game share is left out.
        """
        unit = self.noise * frame.width
        limit, span, offers = limit / unit, span / unit, frame.received / unit
        here = offers == offers
        left = self.left(frame, [frame.view.turn - ago for ago in range(2 * len(offers) - 1, 0, -2)])
        counted = left
        if not here.all():
            offers, counted = np.where(here, offers, 0.0), left * here[:, None]
        y, n, g = total(offers), total(here), total(counted)[:, None]  # sums of y, 1, 1 - a
        gg, yg = total(counted * left)[:, None], total(left * offers[:, None])[:, None]  # of (1 - a)², y(1 - a)
        misfit = limit * g
        misfit += 0.5 * span * gg
        misfit -= yg
        misfit *= span
        misfit += limit * (0.5 * limit * n - y)
        return misfit

    def left(self, frame: Frame, turns: Sequence[int | Ints]) -> Floats:
        """``[n, K, b]``, or ``[n, K, 1]`` if all games are alike: the share of its way left to each curve on n turns."""
        deadline = common(frame.view.games.max_turns)
        past = [common(np.clip(turn, 0, deadline)) for turn in turns]
        if deadline.ndim == 0 and all(turn.ndim == 0 for turn in past):
            return _left(int(deadline), self.betas, self.kappas)[past][..., None]
        deadlines = np.broadcast_to(deadline, len(frame.view))
        out = np.empty((len(past), len(self.betas) * len(self.kappas), len(frame.view)))
        for last in np.unique(deadlines).tolist():
            at, table = np.flatnonzero(deadlines == last), _left(last, self.betas, self.kappas)
            for k, turn in enumerate(past):
                out[k][:, at] = table[np.broadcast_to(turn, len(frame.view))[at]].T
        return out


@lru_cache(maxsize=64)
def _left(deadline: int, betas: tuple[float, ...], kappas: tuple[float, ...]) -> Floats:
    """``[deadline + 1, K]``."""
    clock = np.arange(deadline + 1) / deadline
    return np.stack([(1.0 - kappa) * (1.0 - clock ** (1.0 / beta)) for beta in betas for kappa in kappas], axis=1)


@dataclass(frozen=True)
class Posterior:
    """What is believed of the opponent in b games; concessions are those of the observing seat.

    Attributes:
        model: the hypotheses.
        frame: where they were weighed.
        limit: ``[R, b]`` reservations.
        span: ``[R, b]`` from there to the start that goes with it.
        weight: ``[K, R, b]``, not normalised.
    """

    model: TimeModel
    frame: Frame
    limit: Floats
    span: Floats
    weight: Floats

    def reservation(self) -> tuple[Floats, Floats]:
        """``[b]`` mean and standard deviation of its reservation."""
        return self.offer_on(self.frame.view.games.max_turns)

    def offer_on(self, turn: int | Ints) -> tuple[Floats, Floats]:
        """``[b]`` mean and standard deviation of what it would offer on ``turn``."""
        left = self.model.left(self.frame, [turn])[0][:, None]
        once, twice = self.weight * left, self.weight * left * left
        w, wg, wgg = (total(part) for part in (self.weight, once, twice))
        whole = total(w)
        mean = total(self.limit * w + self.span * wg) / whole
        square = total(self.limit * (self.limit * w + 2.0 * self.span * wg) + self.span * self.span * wgg) / whole
        return mean, np.sqrt(np.maximum(square - mean * mean, 0.0))
