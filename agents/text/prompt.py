"""A decision in natural language: the rules, what this seat knows, and the two forms of an answer.

The published baseline's prompt was stateless, in one user message, with the last eight offers; so is this one, in our own
words. It leaves out what was an oracle (the seller was told 80–95 % of the true ZOPA as its opening) and what was not true
(that an impasse pays the reservation and that any agreement is better than none, even a loss).

Static text comes first and the clock last, so that a server's prefix cache serves most of a game.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.core import Seat
from bargain_env.errors import unknown
from bargain_env.policy import SeatView

STYLES = ("plain", "coached")
"""``plain`` states the rules; ``coached`` adds the advice of the published baseline, without its oracle."""
HISTORY = 8
"""Offers shown, the latest ones: as many as Janus sees (``k_history`` of the seed)."""
OPENINGS = {Seat.BUYER: (0.5, 0.7), Seat.SELLER: (1.3, 1.5)}
"""``coached`` only: opening offers that are advised, as shares of the own reservation (the published figures)."""
LATE = 5
"""``coached`` only: the deadline is urged from this many turns left, the present one included (the published figure)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One decision: all that a prompt may depend on. Prices in currency units.

    Attributes:
        seat: who decides.
        reservation: its own limit.
        low: lower end of the public range.
        high: upper end.
        tick: prices are multiples of this.
        discount: factor of a deal's gain for each turn before the accepted offer.
        turn: about to be played, from 1.
        max_turns: moves of both seats together.
        standing: the offer that it may accept, or None.
        offers: ``(turn, seat, price)`` of the latest `HISTORY` offers, oldest first.
    """

    seat: Seat
    reservation: float
    low: float
    high: float
    tick: float
    discount: float
    turn: int
    max_turns: int
    standing: float | None
    offers: tuple[tuple[int, Seat, float], ...]


def facts_of(view: SeatView) -> list[Facts]:
    """What each decision of a view may depend on, row by row; turns may be mixed."""
    games, seat = view.games, view.games.seat
    turns = np.broadcast_to(view.turn, len(view)).tolist()
    columns = zip(*(getattr(games, name).tolist() for name in _KNOWN), strict=True)
    found = []
    for turn, known, standing, prices in zip(turns, columns, view.standing.tolist(), view.prices.tolist(), strict=True):
        ago = range(len(prices), 0, -1)  # histories are aligned at their end
        past = [(turn - n, Seat((seat + n) % 2), price) for n, price in zip(ago, prices, strict=True) if price == price]
        limit, low, high, tick, discount, max_turns = known
        stands = standing if standing == standing else None
        shown = tuple(past[-HISTORY:])
        found.append(Facts(seat, limit, low, high, tick, discount, turn, max_turns, stands, shown))
    return found


_KNOWN = ("reservation", "price_low", "price_high", "tick", "discount", "max_turns")


def check_style(name: str) -> str:
    """``name``.

    Raises:
        InputError: there is no such style.
    """
    if name not in STYLES:
        raise unknown("prompt style", name, STYLES)
    return name


def build_text_prompt(now: Facts, style: str = "plain") -> str:
    """The user's message for one decision.

    Args:
        now: the decision.
        style: one of `STYLES`.
    """
    parts = [_rules(now), _interest(now)]
    if style == "coached":
        parts.append(_advice(now))
    parts += [_past(now), _present(now)]
    if style == "coached" and now.max_turns - now.turn < LATE:
        parts.append(_urge(now))
    parts.append(_forms(now))
    return "\n\n".join(parts)


def _money(now: Facts, price: float) -> str:
    """A price in currency, with two decimals or as many as the tick has."""
    places = len(f"{now.tick:.10f}".rstrip("0").partition(".")[2])
    return f"${price:.{max(2, places)}f}"


def _rules(now: Facts) -> str:
    me, other = now.seat.label, now.seat.other.label
    rules = [
        f"You are the {me} in a negotiation with a {other} over one price.",
        f"You and the {other} move in turn, {now.max_turns} turns in all. On your turn you either accept the {other}'s "
        "latest offer, which ends the negotiation with a deal at that price, or make an offer of your own.",
        f"Offers must lie between {_money(now, now.low)} and {_money(now, now.high)}.",
        f"If nobody has accepted by the end of turn {now.max_turns} there is no deal, and both of you gain nothing.",
    ]
    if now.discount != 1.0:
        rules.append(f"Every turn before the accepted offer multiplies what a deal is worth by {now.discount:g}.")
    return "\n".join(rules)


def _interest(now: Facts) -> str:
    limit, other = _money(now, now.reservation), now.seat.other.label
    if now.seat == Seat.BUYER:
        gain = f"You may pay at most {limit}. A deal gains you {limit} minus its price, so you want it low."
    else:
        gain = f"You may take no less than {limit}. A deal gains you its price minus {limit}, so you want it high."
    return f"{gain}\nThe {other} has a limit too. You do not know it, and the {other} does not know yours."


def _advice(now: Facts) -> str:
    buying, other = now.seat == Seat.BUYER, now.seat.other.label
    low, high = (min(max(share * now.reservation, now.low), now.high) for share in OPENINGS[now.seat])
    return "\n".join(
        [
            "Advice",
            f"- Open {'low' if buying else 'high'}, at about {_money(now, low)} to {_money(now, high)}.",
            f"- Then {'raise' if buying else 'lower'} your offer slowly, over many turns, "
            f"and stay {'below' if buying else 'above'} the {other}'s offers.",
            f"- Never offer {'more' if buying else 'less'} than {_money(now, now.reservation)}.",
            f"- Accept when the {other}'s offer is good for you.",
        ]
    )


def _past(now: Facts) -> str:
    if not now.offers:
        return "No offers have been made yet."
    lines = [f"turn {turn}, {seat.label}: {_money(now, price)}" for turn, seat, price in now.offers]
    return "\n".join(["The latest offers, oldest first:", *lines])


def _present(now: Facts) -> str:
    left, other = now.max_turns - now.turn, now.seat.other.label
    clock = f"Now it is turn {now.turn} of {now.max_turns}, and your move."
    if not left:
        clock += " This is the last turn: an offer made now can no longer be accepted."
    if now.standing is None:
        return f"{clock}\nThere is no offer of the {other} that you could accept."
    return f"{clock}\nThe {other} offers {_money(now, now.standing)}."


def _urge(now: Facts) -> str:
    left = now.max_turns - now.turn + 1
    return f"Time is short, {left} {'turn' if left == 1 else 'turns'} left. Any deal within your limit is better than none."


def _forms(now: Facts) -> str:
    offer = "OFFER followed by a price in dollars"
    if now.standing is None:
        return f"Reply with one line and nothing else: {offer}."
    return f"Reply with one line and nothing else: either ACCEPT, or {offer}."
