"""Does each trajectory id hold one episode that the rules allow, and do its labels follow from its moves?

Rows that cannot be read come first, then players who never train, then ids with more than one episode, then the rules of
the game, and last what the file claims of a sound game: its history, success, ρ and length. A claim that is wrong can be
computed again from the moves; an id whose rows are not one game has no right label.

Where two rows contradict each other and nothing says which is wrong, both are marked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents import is_held_out

from .claims import FAULT_CODE
from .decisions import Corpus, values
from .hashing import Words, mixed
from .kinds import HELD_OUT, NARROWEST_RANGE, STRAY
from .step_rows import StepRows, history

Mask = NDArray[np.bool_]
_CENT = 0.01
"""The seed's logs round prices to cents and ρ to four decimals."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One of `experiments.corpus.kinds.KINDS`; ``steps`` ``[N]`` marks the rows that show it."""

    kind: str
    steps: Mask

    def ids(self, rows: StepRows) -> Mask:
        """``[E]`` the ids that it touches."""
        touched = np.zeros(len(rows.ids), dtype=bool)
        touched[rows.episode[self.steps]] = True
        return touched


def check_faults(corpus: Corpus) -> list[Finding]:
    """Rows that could not be read."""
    fault = corpus.column("fault")
    if not fault.any():
        return []
    return [Finding(kind, fault == code) for kind, code in FAULT_CODE.items() if (fault == code).any()]


def check_held_out(corpus: Corpus) -> list[Finding]:
    """Rows that name a strategy which never trains; names that are not registered here are left alone."""
    never = np.array([is_held_out(name) for name in corpus.names] + [False], dtype=bool)
    return _findings({HELD_OUT: np.any(never[corpus.players], axis=1)}) if never.any() else []


def find_repeated_turns(rows: StepRows) -> Mask:
    """``[E]`` ids under which some turn occurs more than once."""
    found = np.zeros(len(rows.ids), dtype=bool)
    found[rows.episode[_follows(rows) & (rows.turn == _before(rows.turn))]] = True
    return found


def find_strays(corpus: Corpus) -> Mask:
    """``[N]`` rows without which their id is sound: one of two with the same turn, or the only one after an ACCEPT."""
    rows, n = corpus.rows, len(corpus.rows.ids)
    again = _follows(rows) & (rows.turn == _before(rows.turn))
    after = _follows(rows) & _before(rows.accept)
    twice, ended = (np.bincount(rows.episode[mask], minlength=n) for mask in (again, after))
    last = np.zeros(len(rows), dtype=bool)
    last[rows.last] = True
    later = again & (twice == 1)[rows.episode] | after & last & ((twice == 0) & (ended == 1))[rows.episode]
    earlier = np.append((again & later)[1:], False)[: len(rows)]
    sound_without = [_sound_without(corpus, mask) for mask in (later, earlier)]
    only = [mine & ~other for mine, other in (sound_without, sound_without[::-1])]
    return later & only[0][rows.episode] | earlier & only[1][rows.episode]


def _sound_without(corpus: Corpus, rows: Mask) -> Mask:
    """``[E]`` ids that one of these rows belongs to, and that are sound without it."""
    concerned = Finding(STRAY, rows).ids(corpus.rows)
    if not concerned.any():
        return concerned
    rest = corpus.take(concerned).without(rows[concerned[corpus.rows.episode]])
    bad = np.zeros(len(rest.rows.ids), dtype=bool)
    for finding in (*check_structure(rest), *check_labels(rest)):
        bad |= finding.ids(rest.rows)
    concerned[concerned] = ~bad
    return concerned


def find_copies(corpus: Corpus) -> Mask:
    """``[N]`` rows that say all that an earlier row of the same id says."""
    order = np.lexsort((sums := _digests(corpus), corpus.rows.turn, corpus.rows.episode))
    same = np.ones(len(order), dtype=bool)
    for column in (sums, corpus.rows.turn, corpus.rows.episode):
        same[1:] &= column[order][1:] == column[order][:-1]
    same[:1] = False
    copies = np.zeros(len(order), dtype=bool)
    copies[order] = same
    return copies


def check_signs(corpus: Corpus) -> list[Finding]:
    """What else shows that ids hold more than one episode, in a corpus of such ids."""
    rows, episode = corpus.rows, corpus.rows.episode
    count = np.bincount(episode, minlength=len(rows.ids))[episode]
    histories = corpus.table["history_prices"].chunk(0)
    offsets, prices = histories.offsets.to_numpy(), histories.values.to_numpy(zero_copy_only=False)
    last = np.where(np.diff(offsets) > 0, np.append(prices, np.nan)[offsets[1:] - 1], np.nan)
    broken = {
        "two_limits": _whole(rows, rows.reservation != rows.limits[episode, rows.role]),
        "overlong": count > rows.max_turns,
        "standing_offer": np.abs(last - rows.last_offer) > _CENT,
    }
    return _findings(broken)


def check_structure(corpus: Corpus) -> list[Finding]:
    """What breaks the rules, in ids whose turns occur once."""
    rows = corpus.rows
    if not len(rows):
        return []
    episode, follows, last = rows.episode, _follows(rows), np.zeros(len(rows), dtype=bool)
    last[rows.last] = True
    limits, first = rows.limits, rows.first[episode]
    settings = [getattr(rows, name) for name in ("max_turns", "price_low", "price_high")]
    expected = np.where(follows, _before(rows.price), np.nan)
    claimed = corpus.column("price")
    inside = (rows.price >= rows.price_low) & (rows.price <= rows.price_high)
    broken = {
        "turns": _both(rows.turn != np.where(follows, _before(rows.turn) + 1, 1), follows),
        "past_deadline": rows.turn > rows.max_turns,
        "roles": follows & (rows.role == _before(rows.role)),
        "reservation": _whole(rows, rows.reservation != limits[episode, rows.role]),
        "settings": _whole(rows, np.any([column != column[first] for column in settings], axis=0)),
        "price_range": ~(rows.price_high - rows.price_low > NARROWEST_RANGE),
        "offer_price": ~rows.accept & ~inside,
        "accept_not_last": rows.accept & ~last,
        "accept_of_nothing": rows.accept & np.isnan(rows.last_offer),
        "accept_price": rows.accept & (np.abs(claimed - rows.last_offer) > _CENT),
        "last_offer": _both(~_equal(rows.last_offer, expected), follows),
        "unfinished": last & ~rows.accept & (rows.turn < rows.max_turns),
        "zopa": _wrong_zopa(rows),
        "players": _whole(rows, _changed_players(corpus)),
        "no_zopa": last & rows.accept & ~(limits[:, 0] > limits[:, 1])[episode],
        "outside_zopa": last & rows.accept & _outside(rows)[episode],
    }
    return _findings(broken)


def check_labels(corpus: Corpus) -> list[Finding]:
    """Which claims of the file differ from what the moves of a structurally sound corpus say."""
    rows = corpus.rows
    if not len(rows):
        return []
    limits, rho, agreement = rows.limits, rows.rho[rows.episode], rows.agreement
    width = np.abs(limits[:, 0] - limits[:, 1])
    tolerance = (1e-4 + np.where(agreement, 2 * _CENT / np.maximum(width, _CENT), 0.0))[rows.episode]
    turns = corpus.column("turns")
    broken = {
        "history": ~_history_agrees(corpus),
        "success": corpus.column("success") != agreement[rows.episode],
        "rho": ~(np.abs(corpus.column("rho") - rho) <= tolerance),
        "num_turns": ~np.isnan(turns) & (turns != rows.turn[rows.last][rows.episode]),
    }
    return _findings(broken)


def _findings(broken: dict[str, Mask]) -> list[Finding]:
    return [Finding(kind, mask) for kind, mask in broken.items() if mask.any()]


def _outside(rows: StepRows) -> Mask:
    """``[E]`` deals more than a cent beyond a reservation, where there is a ZOPA."""
    limits, price = rows.limits, rows.deal_price
    beyond = (price > limits[:, 0] + _CENT) | (price < limits[:, 1] - _CENT)
    return beyond & (limits[:, 0] > limits[:, 1])


def _wrong_zopa(rows: StepRows) -> Mask:
    high, low = rows.limits.T
    return (np.abs(rows.zopa_high - high[rows.episode]) > _CENT) | (np.abs(rows.zopa_low - low[rows.episode]) > _CENT)


def _changed_players(corpus: Corpus) -> Mask:
    """Rows that do not name the players whom the last row of the id to name them names."""
    role, episode, changed = corpus.rows.role, corpus.rows.episode, np.zeros(len(corpus.rows), dtype=bool)
    for column, seat in ((0, role), (1, 1 - role)):
        named = corpus.players[:, column]
        changed |= (named >= 0) & (named != corpus.seats[episode, seat])
    return changed


def _follows(rows: StepRows) -> Mask:
    """``[N]`` whether the row above belongs to the same id."""
    return rows.episode == _before(rows.episode, fill=-1)


def _both(wrong: Mask, follows: Mask) -> Mask:
    """Rows that do not go with the one above, and that one."""
    return wrong | np.append((wrong & follows)[1:], False)[: len(wrong)] if wrong.any() else wrong


def _whole(rows: StepRows, wrong: Mask) -> Mask:
    """All rows of the ids that have a wrong one."""
    if not wrong.any():
        return wrong
    touched = np.zeros(len(rows.ids), dtype=bool)
    touched[rows.episode[wrong]] = True
    return touched[rows.episode]


def _before(column: np.ndarray, fill: float = 0) -> np.ndarray:
    return np.concatenate([np.full(1, fill, dtype=column.dtype), column[:-1]])[: len(column)]


def _equal(a: np.ndarray, b: np.ndarray) -> Mask:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _history_agrees(corpus: Corpus) -> Mask:
    rows = corpus.rows
    offsets, source = history(rows)
    roles, prices = (corpus.table[name].chunk(0) for name in ("history_roles", "history_prices"))
    starts, n = prices.offsets.to_numpy(), np.diff(offsets)
    agrees = (np.diff(starts) == n) & (np.diff(roles.offsets.to_numpy()) == n)
    if not agrees.all():
        kept = np.repeat(agrees, n)
        prices, roles = (_only(lists, agrees) for lists in (prices, roles))
        source, n = source[kept], np.where(agrees, n, 0)
    right = prices.flatten().to_numpy(zero_copy_only=False) == rows.price[source]
    right &= roles.flatten().to_numpy(zero_copy_only=False) == rows.role[source]
    if not right.all():
        agrees[np.repeat(np.arange(len(rows)), n)[~right]] = False
    return agrees


def _only(lists: pa.ListArray, rows: Mask) -> pa.ListArray:
    return lists.filter(pa.array(rows))


def _digests(corpus: Corpus) -> Words:
    """``[N]`` a hash of all that a row says, but for its place."""
    table = corpus.table
    found = np.zeros(len(table), dtype=np.uint64)
    for field in table.schema:
        if field.name in ("place", "trajectory_id"):
            continue
        column = table[field.name].chunk(0)
        if pa.types.is_list(field.type):
            found = mixed(found ^ _list_digests(column))
        elif pa.types.is_dictionary(field.type):
            found = mixed(found ^ column.indices.fill_null(-1).to_numpy().astype(np.uint64))
        else:
            number = values(table, field.name).astype(np.float64) + 0.0
            found = mixed(found ^ np.where(np.isnan(number), np.nan, number).view(np.uint64))
    return found


def _list_digests(lists: pa.ListArray) -> Words:
    offsets = lists.offsets.to_numpy()
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64).view(np.uint64)
    position = np.arange(len(flat)) - np.repeat(offsets[:-1] - offsets[0], np.diff(offsets))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed(flat ^ mixed(position.astype(np.uint64) + np.uint64(1))))])
    ends = offsets - offsets[0]
    return mixed(sums[ends[1:]] - sums[ends[:-1]] + np.diff(offsets).astype(np.uint64))
