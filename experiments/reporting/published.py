"""Figures of ``--protocol paper`` beside the published ones; see `experiments.match.protocol`.

The published mean utility leaves impasses out, so an agent that rarely agrees looks good. Ours charges them as 0. Both are
given, each with a 95 % interval over scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table

from experiments.match.protocol import PUBLISHED

from . import statistics

Document = Mapping[str, Any]
HEAD = [
    "agent",
    "configuration",
    "utility %, deals only",
    "published",
    "utility %, impasses as 0",
    "agreement %",
    "published",
    "turns",
    "published",
]


def figures(episodes: pa.Table, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``summary.json`` holds as ``protocol``; empty for a tournament of no protocol.

    Args:
        episodes: of the tournament.
        settings: as ``summary.json`` records them: ``protocol``, ``agents``, ``arms``, ``configurations``, ``seed``.

    Returns:
        ``name``, ``games`` (a matchup: one opponent, both seats) and ``rows``, one for each configuration of each Janus and
        for its base: ``utility_deals`` and ``utility`` (shares of the ZOPA, the mean over deals and the mean over games with
        impasses as 0), ``agreement_rate``, each with ``_low`` and ``_high``, ``turns``, ``n``, and ``published``, in the
        same units.
    """
    if not settings.get("protocol"):
        return {}
    asked = [
        (agent, name, pair)
        for agent, arm in settings["arms"].items()
        for name, pair in ({"base": None} if arm == "base" else settings["configurations"]).items()
    ]
    rows = [_row(episodes, *one, seed=int(settings.get("seed", 0))) for one in asked]
    games = len(settings.get("seats", ("buyer", "seller"))) * int(settings["games"])
    return {"name": settings["protocol"], "games": games, "rows": rows}


def _row(episodes: pa.Table, agent: str, name: str, pair: Sequence[float] | None, *, seed: int) -> dict[str, Any]:
    """Figures of one agent at one configuration; ``pair`` is None for the only pass of an agent that is not asked."""
    seat, rho = episodes["agent_seat"].to_numpy(zero_copy_only=False), episodes["rho_requested"].to_numpy()
    mine = episodes["agent"].to_numpy(zero_copy_only=False) == agent
    if pair is not None:
        mine &= rho == np.where(seat == "buyer", *pair)
    games = episodes.filter(pa.array(mine))
    utility, agreed = (
        games[column].to_numpy(zero_copy_only=False).astype(float) for column in ("utility", "agreement")
    )
    cluster = np.unique(games["scenario_id"].to_numpy(), return_inverse=True)[1]
    sums = [_by_cluster(cluster, values) for values in (utility, np.ones(len(utility)), agreed)]
    earned, played, deals = sums  # utility is 0 at an impasse, so its sum over games is that over deals
    above, below = np.stack([earned, earned, deals], axis=1), np.stack([deals, played, played], axis=1)
    low, high = statistics.ratio_intervals(above, below, seed=seed)
    low[2], high[2] = (bound[0] for bound in statistics.rate_intervals(deals[:, None], played[:, None]))
    mean = statistics.safe_ratio(above.sum(axis=0), below.sum(axis=0))
    known = PUBLISHED.get(name)
    found: dict[str, Any] = {"agent": agent, "configuration": name, "n": len(utility)}
    for k, figure in enumerate(("utility_deals", "utility", "agreement_rate")):
        found |= {figure: mean[k], f"{figure}_low": low[k], f"{figure}_high": high[k]}
    found["turns"] = float(games["turns"].to_numpy().mean()) if len(utility) else float("nan")
    if known is None:
        return found | {"published": None}
    shares = {"utility_deals": known.utility / 100, "agreement_rate": known.agreement / 100}
    return found | {"published": {**shares, "turns": known.turns}}


def _by_cluster(cluster: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = np.bincount(cluster, weights=values).astype(np.float64)
    return sums


def table(found: Document) -> tuple[list[str], list[list[str]]]:
    """Head and rows for a page or a terminal, from ``summary.json``; no rows where no protocol was played."""
    rows = []
    for row in found.get("protocol", {}).get("rows", []):
        known = row["published"] or {}
        rows.append(
            [
                row["agent"],
                row["configuration"],
                _with_interval(row, "utility_deals"),
                _percent(known.get("utility_deals")),
                _with_interval(row, "utility"),
                _with_interval(row, "agreement_rate"),
                _percent(known.get("agreement_rate")),
                _number(row["turns"]),
                _number(known.get("turns")),
            ]
        )
    return HEAD, rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share)


def _with_interval(row: Document, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _percent(row[name]) if low is None else f"{_percent(row[name])} [{_percent(low)}, {_percent(high)}]"


def shown(found: Document) -> Table:
    """`table` for a terminal or a log."""
    head, rows = table(found)
    what = found["protocol"]
    drawn = Table(
        title=f"protocol {what['name']}: {what['games']} games a matchup, {len(found['settings']['opponents'])} opponents, "
        f"guard {found['settings']['guard']}, decoding {found['settings']['decode']}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for i, name in enumerate(head):
        drawn.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn
