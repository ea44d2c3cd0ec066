"""Does each trajectory id hold one episode that the rules allow, and do its labels follow from its moves?

Structure comes first: an id whose rows are not one game has no right label. A label (history, success, ρ) that is wrong
over a sound game can be computed again from the rows. Before either: did somebody play who is held out of training data?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents import is_held_out

from .reading import Corpus
from .step_rows import ROLES, StepRows, history

Mask = NDArray[np.bool_]
MERGED = "merged_episodes"
HELD_OUT = "held_out_strategy"
_HELD_OUT_MEANING = "a player is a strategy that is held out of training data, or one that is told both limits"
NARROWEST_RANGE = 1e-6
_CENT = 0.01
"""The seed's logs round prices to cents and ρ to four decimals."""

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
    "last_offer": "last_offer_price is not the offer of the turn before",
    "unfinished": "no ACCEPT, yet fewer than max_turns turns",
    "no_zopa": "a deal where the seller's limit is not below the buyer's: rho is undefined",
    "outside_zopa": "a deal beyond a seat's reservation: its rho lies outside [0, 1] and cannot be requested",
}
LABELS = {
    "history": "the history is not the last offers before the step",
    "success": "success does not say whether there was an ACCEPT",
    "rho": "rho does not follow from the price and the two reservations",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem: ``steps`` ``[N]`` marks the rows that show it."""

    kind: str
    meaning: str
    steps: Mask

    def episodes(self, rows: StepRows) -> Mask:
        """``[E]`` the ids that it touches."""
        touched = np.zeros(len(rows.ids), dtype=bool)
        touched[rows.episode[self.steps]] = True
        return touched


def check_held_out(corpus: Corpus) -> Finding | None:
    """Rows that name a strategy which never trains; names that are not registered here are left alone."""
    named = pa.array(corpus.players.ravel(), pa.string()).dictionary_encode()
    never = np.array([name is not None and is_held_out(name) for name in named.dictionary.to_pylist()], dtype=bool)
    if not never.any():
        return None
    code = named.indices.fill_null(-1).to_numpy().reshape(-1, 2)
    return Finding(HELD_OUT, _HELD_OUT_MEANING, (np.append(never, False)[code]).any(axis=1))


def find_merged(rows: StepRows) -> Mask:
    """``[E]`` ids under which some turn occurs more than once."""
    merged = np.zeros(len(rows.ids), dtype=bool)
    again = _same_episode(rows) & (rows.turn == _before(rows.turn))
    merged[rows.episode[again]] = True
    return merged


def check_structure(rows: StepRows) -> list[Finding]:
    """What breaks the rules in ids that are not merged."""
    follows, last = _same_episode(rows), np.zeros(len(rows), dtype=bool)
    last[rows.last] = True
    limits, first = rows.limits, rows.first[rows.episode]
    settings = [getattr(rows, name) for name in ("max_turns", "price_low", "price_high")]
    expected = np.where(follows, _before(rows.price), np.nan)
    inside = (rows.price >= rows.price_low) & (rows.price <= rows.price_high)
    broken = {
        "turns": rows.turn != np.where(follows, _before(rows.turn) + 1, 1),
        "past_deadline": rows.turn > rows.max_turns,
        "roles": follows & (rows.role == _before(rows.role)),
        "reservation": rows.reservation != limits[rows.episode, rows.role],
        "settings": np.any([column != column[first] for column in settings], axis=0),
        "price_range": ~(rows.price_high - rows.price_low > NARROWEST_RANGE),
        "offer_price": ~rows.accept & ~inside,
        "accept_not_last": rows.accept & ~last,
        "accept_of_nothing": rows.accept & np.isnan(rows.last_offer),
        "last_offer": ~_equal(rows.last_offer, expected),
        "unfinished": last & ~rows.accept & (rows.turn < rows.max_turns),
        "no_zopa": last & rows.accept & ~(limits[:, 0] > limits[:, 1])[rows.episode],
        "outside_zopa": last & rows.accept & _outside(rows)[rows.episode],
    }
    return [Finding(kind, STRUCTURE[kind], mask) for kind, mask in broken.items() if mask.any()]


def _outside(rows: StepRows) -> Mask:
    """``[E]`` deals more than a cent beyond a reservation, where there is a ZOPA."""
    limits, price = rows.limits, rows.deal_price
    beyond = (price > limits[:, 0] + _CENT) | (price < limits[:, 1] - _CENT)
    return beyond & (limits[:, 0] > limits[:, 1])


def check_labels(corpus: Corpus) -> list[Finding]:
    """Which claims of the file differ from what the moves of a structurally sound corpus say."""
    rows = corpus.rows
    limits, rho = rows.limits, rows.rho[rows.episode]
    width = np.abs(limits[:, 0] - limits[:, 1])[rows.episode]
    tolerance = 1e-4 + np.where(rows.agreement[rows.episode], 2 * _CENT / np.maximum(width, _CENT), 0.0)
    broken = {
        "history": ~_history_agrees(corpus),
        "success": corpus.success != rows.agreement[rows.episode],
        "rho": ~(np.abs(corpus.rho - rho) <= tolerance),
    }
    return [Finding(kind, LABELS[kind], mask) for kind, mask in broken.items() if mask.any()]


def _same_episode(rows: StepRows) -> Mask:
    """``[N]`` whether the row above belongs to the same id."""
    return rows.episode == _before(rows.episode, fill=-1)


def _before(column: np.ndarray, fill: float = 0) -> np.ndarray:
    return np.concatenate([np.full(1, fill, dtype=column.dtype), column[:-1]])[: len(column)]


def _equal(a: np.ndarray, b: np.ndarray) -> Mask:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _history_agrees(corpus: Corpus) -> Mask:
    offsets, source = history(corpus.rows)
    claimed = corpus.history_prices.offsets.to_numpy()
    agrees = np.diff(offsets) == np.diff(claimed)
    agrees &= np.diff(corpus.history_roles.offsets.to_numpy()) == np.diff(claimed)
    comparable = np.repeat(agrees, np.diff(offsets))
    row = np.repeat(np.arange(len(corpus.rows)), np.diff(offsets))[comparable]
    shift = (claimed[:-1] - offsets[:-1])[row]
    at = pa.array(np.flatnonzero(comparable) + shift)
    prices, roles = corpus.history_prices.values.take(at), corpus.history_roles.values.take(at)
    right = _equal(prices.to_numpy(zero_copy_only=False).astype(float), corpus.rows.price[source[comparable]])
    right &= roles.to_numpy(zero_copy_only=False) == ROLES[corpus.rows.role[source[comparable]]].astype(object)
    agrees[row[~right]] = False
    return agrees
