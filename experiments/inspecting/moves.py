"""One pass over the table of steps: what is counted of decisions, and a digest of what was played in each game."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO
from experiments.corpus.hashing import text_hashes

from .digests import Digests, digest, distinct
from .games import SEATS
from .source import Source, coded, numbers, recoded

COLUMNS = (
    *("trajectory_id", "turn", "role", "starter", "split", "max_turns", "price_low", "price_high"),
    *("zopa_low", "zopa_high", "target_action", "target_price", "rho_train"),
)
BINS = 20
"""Classes of ρ from 0 to 1."""
IMPASSE, NO_LABEL, BELOW, ABOVE = BINS, BINS + 1, BINS + 2, BINS + 3
"""Where decisions are counted whose ρ is none of [0, 1]."""


@dataclass(slots=True)
class Decisions:
    """Counts over all decisions; digests take 17 bytes a game.

    Attributes:
        rows: decisions.
        splits: decisions by split.
        rho: ``[seat, starter, class]`` decisions by who decides, who moved first, and ρ: `BINS` classes, then
            `IMPASSE`, `NO_LABEL`, `BELOW` 0 and `ABOVE` 1.
        accepts: ``[seat]`` decisions that accept.
        offers: least and greatest offer.
        outside: offers outside the public range.
        torn: games whose rows do not stand together.
        two_splits: games with rows in several splits.
        names: ``[games]`` digest of the trajectory id.
        played: ``[games]`` digest of limits, range and every move.
        split_of: ``[games]`` place of the game's split in `split_names`.
    """

    rows: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    rho: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2, BINS + 4), dtype=np.int64))
    accepts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, dtype=np.int64))
    offers: list[float] = field(default_factory=lambda: [np.inf, -np.inf])
    outside: int = 0
    two_splits: int = 0
    split_names: list[str] = field(default_factory=list)
    names: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    played: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    split_of: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    def __len__(self) -> int:
        """Games: stretches of rows under one id."""
        return len(self.names)

    @property
    def torn(self) -> int:
        """Stretches of rows beyond the first of their id."""
        return len(self.names) - len(distinct(self.names))


def tally(source: Source) -> Decisions:
    """Count all decisions of a data set."""
    found = Decisions()
    stretches: list[tuple[Digests, Digests, NDArray[np.uint8]]] = []
    for batch in source.batches("steps", COLUMNS):
        if batch.num_rows:
            split = _count(found, batch)
            names, starts = _stretches(batch)
            played = np.add.reduceat(_played(batch), starts)  # a sum: the same however rows are cut into batches
            _join(stretches, names, played, split[starts])
            within = np.diff(split) != 0
            within[starts[1:] - 1] = False
            found.two_splits += int(within.sum())
    if stretches:
        found.names, found.played, found.split_of = (np.concatenate(c) for c in zip(*stretches, strict=True))
    return found


def _count(found: Decisions, batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """Count a batch; returns ``[n]`` its splits."""
    found.rows += batch.num_rows
    role, starter = (recoded(batch.column(name), SEATS) for name in ("role", "starter"))
    known = (role >= 0) & (starter >= 0)
    np.add.at(found.rho, (role[known], starter[known], rho_class(numbers(batch.column("rho_train")))[known]), 1)
    accepts = recoded(batch.column("target_action"), ("ACCEPT",)) == 0
    found.accepts += np.bincount(role[accepts & (role >= 0)], minlength=2)
    price, low, high = (numbers(batch.column(name)) for name in ("target_price", "price_low", "price_high"))
    offers = price[~np.isnan(price)]
    if len(offers):
        found.offers = [min(found.offers[0], offers.min()), max(found.offers[1], offers.max())]
    found.outside += int(((price < low) | (price > high)).sum())
    places, names = coded(batch.column("split"))
    for name, n in zip(names, np.bincount(places, minlength=len(names)).tolist(), strict=True):
        if n:
            found.splits[name or ""] = found.splits.get(name or "", 0) + n
            if (name or "") not in found.split_names:
                found.split_names.append(name or "")
    lookup = [found.split_names.index(name or "") if (name or "") in found.split_names else 0 for name in names]
    return np.array(lookup, dtype=np.uint8)[places]


def rho_class(rho: NDArray[np.float64]) -> NDArray[np.intp]:
    """``[n]`` the class of each label; see `Decisions.rho`."""
    inner = np.minimum(np.floor(np.nan_to_num(rho) * BINS), BINS - 1).astype(np.intp)
    outer = [np.isnan(rho), rho == IMPASSE_RHO, rho < 0, rho > 1]
    return np.select(outer, [NO_LABEL, IMPASSE, BELOW, ABOVE], inner)


def _stretches(batch: pa.RecordBatch) -> tuple[Digests, NDArray[np.intp]]:
    """Digest of the id of each stretch of rows under one id, and where it begins."""
    places, names = coded(batch.column("trajectory_id"))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(places) != 0]))
    return hashed(names)[places[starts]], starts


def hashed(names: list[str | None]) -> Digests:
    """``[n]`` one digest a name."""
    return text_hashes(pa.array(names, pa.string()))


def _played(batch: pa.RecordBatch) -> Digests:
    seat = recoded(batch.column("role"), SEATS)
    accepts = recoded(batch.column("target_action"), ("ACCEPT",))
    columns = ("turn", "max_turns", "price_low", "price_high", "zopa_low", "zopa_high", "target_price")
    return digest([seat, accepts, *(numbers(batch.column(name)) for name in columns)])


def _join(
    stretches: list[tuple[Digests, Digests, NDArray[np.uint8]]],
    names: Digests,
    played: Digests,
    split: NDArray[np.uint8],
) -> None:
    """Add the games of a batch; its first may go on with the last of the batch before."""
    if stretches and stretches[-1][0][-1] == names[0]:
        stretches[-1][1][-1:] += played[:1]
        names, played, split = names[1:], played[1:], split[1:]
    if len(names):
        stretches.append((names, played, split))
