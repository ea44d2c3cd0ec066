"""Guards: what keeps a player that decides for itself from moves that no bargainer would make. Each is counted.

``none``
    every move is played as decided.
``ir``
    individual rationality: no deal and no offer beyond the own reservation. Such an acceptance becomes the offer that the
    player would have made otherwise, or of its reservation if it has none to make; such an offer becomes the reservation.
``monotone``
    ``ir``, and no retraction: an offer that is worse for the opponent than this seat's latest one becomes that one again.
    Acceptances are no retractions. Where earlier offers were themselves beyond the reservation (a guard had no part in
    them) the reservation prevails.

A guard changes nothing else, so whether it acted can be seen by comparing what was decided with what was played; `Moves`
carries both.
"""

from __future__ import annotations

import numpy as np

from bargain_env.core import quantise_array
from bargain_env.errors import unknown
from bargain_env.moves import Bools, Floats, Moves, RawMoves
from bargain_env.policy import SeatGames, SeatView

GUARDS = ("ir", "monotone", "none")


def check_guard(name: str) -> str:
    """``name``.

    Raises:
        InputError: there is no such guard.
    """
    if name not in GUARDS:
        raise unknown("guard", name, GUARDS)
    return name


def guarded(guard: str, view: SeatView, accept: Bools, price: Floats, fallback: Bools | None = None) -> Moves:
    """The moves to play in place of what a player decided.

    Args:
        guard: one of `GUARDS`.
        view: what the player was shown.
        accept: ``[b]`` it decided to accept the standing offer.
        price: ``[b]`` what it would offer otherwise, `playable`; NaN for nothing, which wastes the turn unless it accepts.
        fallback: ``[b]`` where it gave no answer that the game knows: its reservation is offered, whatever the guard.

    Returns:
        The moves; ``raw`` holds the arguments, ``guarded`` is True where the guard, not the fallback, changed the move.
    """
    limit = own_limit(view.games)
    decided = accept, price
    if fallback is not None:
        decided = accept & ~fallback, np.where(fallback, np.nan, price)
        accept, price = decided[0], np.where(fallback, limit, price)
    played = (accept, price) if guard == "none" else _rational(view, accept, price, limit, guard == "monotone")
    changed = (played[0] != accept) | (~played[0] & (played[1] != price) & ~np.isnan(price))
    return Moves(*played, changed, RawMoves.of(*decided, fallback))


def own_limit(games: SeatGames) -> Floats:
    """``[b]`` the best offer that a seat can make for the opponent: its reservation, on the tick that it can be played at.

    Presets draw reservations on the tick. One between two ticks is rounded to the seat's own side: to the nearest tick it
    could be the worse one.
    """
    nearest = quantise_array(games.reservation, games.tick)
    beyond = games.sign * (games.reservation - nearest) < 0
    return np.where(beyond, quantise_array(nearest - games.sign * games.tick, games.tick), nearest)


def playable(price: Floats, games: SeatGames) -> Floats:
    """``[b]`` the nearest prices on the tick and in the public range; NaN stays."""
    low, high, tick = games.price_low, games.price_high, games.tick
    nearest = quantise_array(np.clip(price, low, high), tick)
    inside = np.where(nearest > high, nearest - tick, np.where(nearest < low, nearest + tick, nearest))
    return np.where(inside == nearest, nearest, quantise_array(inside, tick))


def beyond_limit(view: SeatView) -> Bools:
    """``[b]`` where the standing offer is worse than the reservation; False where nothing stands."""
    return np.asarray(view.games.sign * (view.games.reservation - view.standing) < 0)  # NaN compares False


def _rational(view: SeatView, accept: Bools, price: Floats, limit: Floats, monotone: bool) -> tuple[Bools, Floats]:
    """Acceptances and offers within the reservation and, if ``monotone``, none that takes back an earlier offer.

    Times ``sign``, every price is one that this seat wants low and the opponent high.
    """
    sign = view.games.sign
    refused = accept & beyond_limit(view)
    accept, price = accept & ~refused, np.where(refused & np.isnan(price), limit, price)
    if monotone:
        latest = _latest_own_offer(view)
        price = np.where(sign * (price - latest) < 0, latest, price)
    return accept, np.where(sign * (limit - price) < 0, limit, price)


def _latest_own_offer(view: SeatView) -> Floats:
    """``[b]`` NaN where this seat has offered nothing yet."""
    own = view.own_offers
    if not own.shape[1]:
        return np.full(len(view), np.nan)
    newest = own.shape[1] - 1 - np.argmax(~np.isnan(own[:, ::-1]), axis=1)
    return np.asarray(np.take_along_axis(own, newest[:, None], axis=1)[:, 0])
