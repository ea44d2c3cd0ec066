"""Every kind of problem that a file of decisions can have, and what it means."""

from __future__ import annotations

from .claims import FAULTS

HELD_OUT, DUPLICATE, STRAY, MERGED = "held_out_strategy", "duplicate", "stray", "merged_episodes"
UNLINKABLE, REPEATED_EPISODE = "unlinkable", "repeated"
NARROWEST_RANGE = 1e-6

WHOSE = {HELD_OUT: "a player is a strategy that is held out of training data, or one that is told both limits"}
IDENTITY = {
    DUPLICATE: "the same record is there more than once",
    STRAY: "a row contradicts the other rows of its id, which are a whole episode without it",
    MERGED: "several episodes under one trajectory id: a turn occurs more than once",
}
SIGNS = {
    "two_limits": "of the merged ids: a seat has more than one reservation price",
    "overlong": "of the merged ids: there are more rows than max_turns",
    "standing_offer": "of the merged ids: the history does not end with the offer that stands",
}
LINKING = {
    UNLINKABLE: "the rows of a merged id cannot be told apart into whole episodes in just one way",
    REPEATED_EPISODE: "the same episode is there twice under one merged id; one copy is kept",
}
STRUCTURE = {
    "turns": "turns are not 1, 2, 3, … each once",
    "past_deadline": "a turn is beyond max_turns",
    "roles": "buyer and seller do not alternate",
    "reservation": "a seat has more than one reservation price",
    "settings": "max_turns or the price range changes within the episode",
    "price_range": f"the price range is degenerate (narrower than {NARROWEST_RANGE})",
    "offer_price": "an OFFER has no price, or one outside the price range",
    "accept_not_last": "moves follow an ACCEPT",
    "accept_of_nothing": "an ACCEPT has no standing offer",
    "accept_price": "an ACCEPT names another price than that of the standing offer",
    "last_offer": "last_offer_price is not the offer of the turn before",
    "unfinished": "no ACCEPT, yet fewer than max_turns turns",
    "zopa": "zopa_low or zopa_high changes, or is not the reservation of its seat",
    "players": "a seat is played by more than one strategy",
    "no_zopa": "a deal where the seller's limit is not below the buyer's: rho is undefined",
    "outside_zopa": "a deal beyond a seat's reservation: its rho lies outside [0, 1] and cannot be requested",
}
LABELS = {
    "history": "the history is not the last offers before the step",
    "success": "success does not say whether there was an ACCEPT",
    "rho": "rho does not follow from the price and the two reservations",
    "num_turns": "the number of turns is not how many moves there are",
}
KINDS = {**FAULTS, **WHOSE, **IDENTITY, **SIGNS, **LINKING, **STRUCTURE, **LABELS}
"""Every kind of problem and what it means, in the order of the report."""
