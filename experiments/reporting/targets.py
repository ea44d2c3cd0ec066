"""Whether a dial does what it says: figures of one agent against one pool, each with its interval and its target.

Games without a ZOPA are left out: there is nothing to settle in them. Intervals allow for what games of one scenario share
(see `experiments.reporting.statistics`). A target is *met* by the figure itself; whether its interval lies on the right side
too is said beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiments.match.configs import KNOWN
from experiments.match.contestants import SCRIPT
from experiments.match.results import rho_text

from . import concession, statistics
from .calibration import calibration
from .columns import READ, Columns, Index, batches
from .duels import Entry, paired_gaps
from .measures import measured, tally
from .significance import difference

Floats = NDArray[np.float64]
SEATS = ("buyer", "seller")
EVEN, NEAR = 0.5, 0.08
"""A deal is an even split if its ρ is no further than this from the middle."""
LOSS = -1e-9
"""A deal is outside one's own reservation if its utility is below this: rounding is no loss."""
SLACK = 1e-9
RETREAT = 0.02
"""Share of the ZOPA by which an offer may be taken back in what is still called steady."""

AT_MOST, AT_LEAST = "≤", "≥"
MEASURES: Mapping[str, tuple[str, str]] = {
    "mae_means": ("calibration MAE of mean ρ", AT_MOST),
    "mae": ("MAE of single games", AT_MOST),
    "spearman": ("Spearman of asked and mean ρ", AT_LEAST),
    "agreement": ("agreement", AT_LEAST),
    "standard": ("Standard: utility", AT_LEAST),
    "gain": ("best ρ pair minus best script", AT_LEAST),
    "gain_pool": ("best ρ pair minus best script that trains", AT_LEAST),
    "neutral": ("Neutral: deals within .08 of even", AT_LEAST),
    "extreme": ("Extreme: games with monotone own offers", AT_LEAST),
    "steady": ("Extreme: the same, but for retreats of .02", AT_LEAST),
    "outside": ("no guard: deals outside the own limit", AT_MOST),
}
"""What each row is called, and which side of its target is good."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        measure: of `MEASURES`.
        seat: ``buyer``, ``seller``, or ``both``.
        value: the figure; NaN where there is nothing to take it from.
        low: lower end of its 95 % interval.
        high: upper end.
        n: games or deals that it is taken from.
        note: what it is of, where the measure does not say it.
    """

    measure: str
    seat: str
    value: float
    low: float
    high: float
    n: int
    note: str = ""

    def verdict(self, target: float | None) -> dict[str, Any]:
        """``met`` by the figure itself and ``clear`` by all of its interval; None without a target. No figure meets none."""
        if target is None:
            return {"met": None, "clear": None}
        sign = 1.0 if MEASURES[self.measure][1] == AT_LEAST else -1.0
        worse = self.low if sign > 0 else self.high
        return {"met": sign * (self.value - target) >= -SLACK, "clear": bool(sign * (worse - target) >= -SLACK)}


def with_zopa(episodes: Path) -> Columns:
    """The games of a tournament's file that have a ZOPA."""
    parts = (part.filter(pc.greater(part["buyer_max"], part["seller_min"])) for part in batches(episodes, READ))
    return Columns.of(part for part in parts if part.num_rows)


def cells(columns: Columns, agent: str, seat: str | None = None, low: float = 0.0, high: float = 1.0) -> Index:
    """Places of an agent's cells whose request lies between ``low`` and ``high``, at one seat or at both."""
    return np.array(
        [
            i
            for i, c in enumerate(columns.cells)
            if c.agent == agent
            and seat in (None, c.agent_seat)
            and c.rho_requested is not None
            and low - SLACK <= c.rho_requested <= high + SLACK
        ],
        dtype=np.intp,
    )


def rows(columns: Columns, episodes: Path, agent: str, within: tuple[float, float], seed: int = 0) -> Iterator[Row]:
    """All figures but that of unguarded play.

    Args:
        columns: of `with_zopa`.
        episodes: the file that they are of.
        agent: takes ρ; the requests of `KNOWN` are among its own, or rows are missing.
        within: requests over which errors and agreement are taken.
        seed: of the resampling.
    """
    calibrated = {seat: calibration(columns, cells(columns, agent, seat, *within), seed=seed) for seat in SEATS}
    for name in ("mae_means", "mae"):
        yield from (_of(name, seat, name, calibrated[seat]) for seat in SEATS)
    for seat in SEATS:
        yield _of("spearman", seat, "spearman", calibration(columns, cells(columns, agent, seat), seed=seed))
    yield from (_of("agreement", seat, "agreement_rate_all", calibrated[seat]) for seat in SEATS)
    standard = _pair(columns, agent, *KNOWN["standard"])
    if len(standard):
        found = measured(tally(columns, [standard]), seed, clustered=True)
        value, low, high = (float(found[f"utility{end}"][0]) for end in ("", "_low", "_high"))
        yield Row("standard", "both", value, low, high, found["n"][0])
    yield from _gains(columns, agent, seed)
    neutral = _pair(columns, agent, *KNOWN["neutral"])
    if len(neutral):
        rho = columns.rho[neutral]
        yield _share("neutral", columns, np.abs(rho - EVEN) <= NEAR + SLACK, ~np.isnan(rho))
    if len(_pair(columns, agent, *KNOWN["extreme"])):
        yield from _extreme(columns, episodes, agent)


def outside(columns: Columns, agent: str) -> Row:
    """Share of an agent's deals, at any request in [0, 1], that are beyond its own limit; of games without a guard."""
    mine = cells(columns, agent)
    agreed, utility = columns.agreement[mine], columns.utility[mine]
    return _share("outside", columns, agreed & (utility < LOSS), agreed)


def _of(measure: str, seat: str, name: str, figures: Mapping[str, Any]) -> Row:
    value, low, high = (float(figures[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return Row(measure, seat, value, low, high, int(figures["deals"].sum()))


def _pair(columns: Columns, agent: str, buyer: float, seller: float) -> Index:
    """The cells of a request for each seat; none where one of them is missing."""
    both = [cells(columns, agent, seat, rho, rho) for seat, rho in zip(SEATS, (buyer, seller), strict=True)]
    return np.concatenate(both) if all(len(some) for some in both) else both[0][:0]


def _share(measure: str, columns: Columns, good: NDArray[Any], of: NDArray[Any]) -> Row:
    """The share of games ``[C, S]`` in ``of`` that are ``good``; either flags or counts."""
    k, n = (columns.pooled(counts.sum(axis=0))[:, None] for counts in (good, of))
    low, high = statistics.rate_intervals(k, n)
    rate = float(statistics.safe_ratio(k.sum(), n.sum()))
    return Row(measure, "both", rate, float(low[0]), float(high[0]), int(n.sum()))


def _gains(columns: Columns, agent: str, seed: int) -> Iterator[Row]:
    """The best request for each seat against the best script: of all that played, and of those that train.

    Both are chosen by their mean over the games that they are then compared in, paired by scenario, opponent and seat.
    """
    requests = {seat: sorted({columns.cells[i].rho_requested for i in cells(columns, agent, seat)}) for seat in SEATS}
    if not all(requests.values()):
        return
    best = {seat: max(asked, key=lambda r: _utility(columns, cells(columns, agent, seat, r, r)))
            for seat, asked in requests.items()}  # fmt: skip
    mine = Entry(agent, "best", dict(best), _pair(columns, agent, *best.values()))
    for measure, scripts in (("gain", _scripts(columns)), ("gain_pool", _scripts(columns, trained=True))):
        if scripts:
            rival = max(scripts, key=lambda entry: _utility(columns, entry.cells))
            found = difference(*paired_gaps(columns, mine, rival), seed)
            asked = "/".join(rho_text(rho) for rho in best.values())
            note = (
                f"ρ {asked}: {_utility(columns, mine.cells):.3f}; {rival.agent.removeprefix(SCRIPT)}: "
                f"{_utility(columns, rival.cells):.3f}"
            )
            yield Row(
                measure, "both", found["difference"], found["low"], found["high"], _games(columns, mine.cells), note
            )


def _scripts(columns: Columns, *, trained: bool = False) -> list[Entry]:
    """Scripts that played as agents, or those of them that train."""
    import agents

    names = dict.fromkeys(c.agent for c in columns.cells if c.agent.startswith(SCRIPT))
    if trained:
        names = {name: None for name in names if agents.describe(name.removeprefix(SCRIPT)).may_train}
    of = {name: [i for i, c in enumerate(columns.cells) if c.agent == name] for name in names}
    return [Entry(name, None, {}, np.array(places, dtype=np.intp)) for name, places in of.items()]


def _utility(columns: Columns, places: Index) -> float:
    return float(np.nanmean(columns.utility[places]))


def _games(columns: Columns, places: Index) -> int:
    return int((~np.isnan(columns.utility[places])).sum())


def _extreme(columns: Columns, episodes: Path, agent: str) -> Iterator[Row]:
    """Share of games at `KNOWN`'s extreme whose own offers never turn back: at all, and by more than `RETREAT`."""
    held = {"extreme": 0.0, "steady": RETREAT}
    falls, games = np.zeros((len(held), len(columns.scenarios))), np.zeros((1, len(columns.scenarios)))
    for seat, rho, sign in zip(SEATS, KNOWN["extreme"], (1.0, -1.0), strict=True):
        wanted = [("agent", "==", agent), ("agent_seat", "==", seat), ("rho_requested", "==", rho)]
        names = [*concession.COLUMNS, "scenario_id"]
        for part in pq.read_table(episodes, columns=names, filters=wanted).combine_chunks().to_batches():
            part = part.filter(pc.greater(part["buyer_max"], part["seller_min"]))
            row, _, position = concession.own_offers(part)
            place = np.searchsorted(columns.scenarios, part["scenario_id"].to_numpy())
            np.add.at(games[0], place, 1)
            for count, allowed in zip(falls, held.values(), strict=True):
                back = (np.diff(row) == 0) & (sign * np.diff(position) < -allowed - SLACK)
                np.add.at(count, place, np.bincount(row[1:][back], minlength=part.num_rows) > 0)
    for measure, count in zip(held, falls, strict=True):
        yield _share(measure, columns, games - count, games)


def verdicts(found: Sequence[Row], targets: Mapping[str, float]) -> list[dict[str, Any]]:
    """The rows as dictionaries, with ``name``, ``side``, ``target``, ``met`` and ``clear``."""
    return [
        {
            "measure": row.measure, "name": MEASURES[row.measure][0], "seat": row.seat, "value": row.value, "low": row.low,
            "high": row.high, "n": row.n, "note": row.note, "side": MEASURES[row.measure][1],
            "target": targets.get(row.measure), **row.verdict(targets.get(row.measure)),
        }
        for row in found
    ]  # fmt: skip
