"""Janus with a model of its opponent."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from agents.guards import beyond_limit, guarded
from agents.janus import JanusAgent, check_rho
from bargain_env.core import Seat
from bargain_env.moves import Moves, RawMoves
from bargain_env.policy import Floats, Ints, SeatGames, SeatView

from .aims import Aims
from .lookahead import choose, continuation, expected
from .models import Predicted, shared_models
from .outside import decision_after, other_seat
from .pool import Counterpart, Pool
from .recognition import Recognition, Witness
from .settings import ModellingSettings

DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Internal ρ at which Janus is asked for candidate offers, beside the one that it is asked for itself."""


class Oracle(Witness, Protocol):
    """What the player asks about its opponent; `agents.modelling.models.OpponentModels` answers."""

    counterparts: tuple[Counterpart, ...]

    def predict(self, view: SeatView, which: Ints) -> Predicted:
        """What persona ``which`` ``[n]`` would do in each row of ``view``, a view of the opponent's seat."""
        ...


class ModellingAgent:
    """A `bargain_env.Policy`: Janus, and where it recognises its opponent, one step of lookahead over Janus's offers.

    After each of the opponent's offers the persona adapters of the other seat say how likely it was (`Recognition`). Where
    the opponent is likely enough one of them, the likeliest predicts from public information what it would answer to each of
    some offers of Janus's, at the request and at each ρ of `DIAL`, and what it would go on to offer if Janus's own offer
    were held until the deadline. The answer with the greatest expected worth is played (`lookahead`); what worth is depends
    on the request (`Aims`). No offer or deal is beyond the own limit, whatever the guard.

    Everywhere else plain Janus plays, move for move: before the first offer, where the opponent is likely none of them, and
    where a settlement has no worth (`Aims.known`).

    Args:
        janus: who offers; its ρ, guard and decoding hold for both.
        pool: persona adapters.
        settings: see there.
        width: of the ZOPA; None where it is nobody's to know.
        oracle: predicts in place of the adapters of ``pool``.

    Attributes:
        modelled: ``[B]`` decisions of each game in which an opponent was recognised.
        decided: ``[B]`` decisions of each game.

    Raises:
        InputError: the adapters cannot be loaded.
    """

    name = "modelling"

    def __init__(
        self,
        janus: JanusAgent,
        pool: Pool,
        settings: ModellingSettings | None = None,
        *,
        width: float | None = None,
        oracle: Oracle | None = None,
    ) -> None:
        self.janus, self.pool, self.width = janus, pool, width
        self.settings = settings or ModellingSettings()
        self._given = oracle
        self._rho = np.zeros(0)
        self._oracle: Oracle | None = None
        self._recognition: Recognition | None = None
        self.modelled = self.decided = np.zeros(0, dtype=np.int64)

    def reset(self, games: SeatGames) -> None:
        """Start B games; raises `InputError` where no adapter suits their seat."""
        self.janus.reset(games)
        self._rho = np.broadcast_to(check_rho(self.janus.rho), len(games)).astype(np.float64)
        self._oracle = self._given or self._models(games.seat)
        self._recognition = Recognition(self._oracle, len(self._oracle.counterparts), self.settings)
        self._recognition.reset(games)
        self.modelled, self.decided = np.zeros((2, len(games)), dtype=np.int64)

    def load(self) -> None:
        """Load the adapters for both seats, as far as there are any: what cannot be loaded is known before a game.

        Raises:
            InputError: they are damaged, or of another base.
        """
        for seat in Seat:
            if self._suited(seat):
                self._models(seat)

    def _suited(self, seat: Seat) -> tuple[Counterpart, ...]:
        return self.pool.suited(seat.other, self.janus.scenario, self.settings.personas)

    def _models(self, seat: Seat) -> Oracle:
        some = self._suited(seat)
        return shared_models(self.pool, some, stamp(some))

    def act(self, view: SeatView) -> Moves:
        """Recognise, predict, choose."""
        assert self._recognition is not None
        plain = self.janus.act(view)
        self.decided[view.rows] += 1
        aims = Aims(view.games, self._rho[view.rows], self.width)
        if self.settings.threshold > 1.0 or not aims.known.any():
            return plain
        self._recognition.hear(view)
        who = np.where(aims.known, self._recognition.of(view.rows), -1)
        at = np.flatnonzero(who >= 0)
        self.modelled[view.rows[at]] += 1
        return _replaced(plain, at, self._best(view.take(at), who[at])) if len(at) else plain

    def _best(self, view: SeatView, who: Ints) -> Moves:
        """The best answers in b games whose opponents are taken for the personas ``who``."""
        aims, trust = Aims(view.games, self._rho[view.rows], self.width), self.settings.trust
        offers = self._candidates(view)  # the first is Janus's own
        chance, answer = self._answers(view, who, offers)
        waiting = self._waiting(view, who, aims, offers[:, 0], answer[:, 0])
        taken = self._takeable(view, 2, aims.worth(answer))
        worth = aims.worth(offers)
        values = expected(worth, chance, taken, waiting, trust)
        now = aims.worth(view.standing)
        found = choose(np.where(np.isnan(now), -np.inf, now), values)
        price = offers[np.arange(len(view)), found.offer]
        accept = found.accept & ~beyond_limit(view)
        return Moves(accept, np.where(accept, np.nan, price), raw=RawMoves.of(accept, price))

    def _candidates(self, view: SeatView) -> Floats:
        """``[b, C]`` offers of Janus's, playable, within the own limit and, with guard ``monotone``, none taken back."""
        own = self.janus.internal(view.games.seat, self._rho[view.rows])
        asked = [own, *(np.full(len(view), rho) for rho in DIAL)]
        offers = self.janus.offers(view, asked)
        guard = "ir" if self.janus.guard == "none" else self.janus.guard
        refused = np.zeros(len(view), dtype=bool)
        return np.stack([guarded(guard, view, refused, price).price for price in offers], axis=1)

    def _answers(self, view: SeatView, who: Ints, offers: Floats) -> tuple[Floats, Floats]:
        """``[b, C]`` the chance that each offer is accepted, and what is offered instead; NaN and NaN past the deadline."""
        assert self._oracle is not None
        chance, answer = np.full(offers.shape, np.nan), np.full(offers.shape, np.nan)
        asked = (view.turn + 1 <= view.games.max_turns)[:, None] & ~np.isnan(offers)
        row, which = np.nonzero(asked)
        if len(row):
            prices = np.concatenate([view.prices[row], offers[row, which][:, None]], axis=1)
            theirs = decision_after(other_seat(view.games), prices, row)
            found = self._oracle.predict(theirs, who[row])
            chance[row, which], answer[row, which] = found.accepts, found.price
        return chance, answer

    def _waiting(self, view: SeatView, who: Ints, aims: Aims, held: Floats, answer: Floats) -> Floats:
        """``[b]`` what it is worth to hold an offer after the answer to it: W of `lookahead`.

        Args:
            view, who, aims: of the b games.
            held: ``[b]`` the offer.
            answer: ``[b]`` what the opponent is predicted to offer after it the first time.
        """
        assert self._oracle is not None
        theirs, prices = other_seat(view.games), view.prices
        accepts, offered = [], []
        for ahead in range(2, self.settings.horizon + 1):
            prices = np.concatenate([prices, held[:, None], answer[:, None]], axis=1)
            past = prices.shape[1] + 1  # with the offer held once more
            at = np.flatnonzero((past + 1 <= view.games.max_turns) & ~np.isnan(answer) & ~np.isnan(held))
            if not len(at):
                break
            seen = np.concatenate([prices[at], held[at, None]], axis=1)
            found = self._oracle.predict(decision_after(theirs, seen, at), who[at])
            chance, answer = np.full(len(view), np.nan), np.full(len(view), np.nan)
            chance[at], answer[at] = found.accepts, found.price
            accepts.append(chance)
            offered.append(self._takeable(view, 2 * ahead, aims.worth(answer)))
        if not accepts:
            return np.zeros(len(view))
        worth = aims.worth(held)
        worth = np.where(np.isfinite(worth), worth, 0.0)
        return continuation(worth, np.stack(accepts, axis=1), np.stack(offered, axis=1), self.settings.trust)

    @staticmethod
    def _takeable(view: SeatView, turns: int, worth: Floats) -> Floats:
        """``worth`` of an offer that could be accepted ``turns`` turns from now; -∞ past the deadline, or for none."""
        late = view.turn + turns > view.games.max_turns
        return np.where(np.reshape(late, (-1, *[1] * (worth.ndim - 1))) | np.isnan(worth), -np.inf, worth)


def stamp(some: tuple[Counterpart, ...]) -> tuple[int, ...]:
    """Changes when one of these adapters is written again."""
    return tuple(one.folder.stat().st_mtime_ns if one.folder.is_dir() else 0 for one in some)


def _replaced(plain: Moves, at: Ints, best: Moves) -> Moves:
    """``plain`` with the rows ``at`` of another player's moves."""
    accept, price, moved = plain.accept.copy(), plain.price.copy(), plain.guarded.copy()
    accept[at], price[at], moved[at] = best.accept, best.price, best.guarded
    raw = None
    if plain.raw is not None:
        raw = plain.raw.take(np.arange(len(accept)))
        raw.put(at, best.raw)
    return Moves(accept, price, moved, raw)
