"""Figures in full: how games ended, every row of the summary, settings and versions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from experiments.match import results

from .. import causes
from ..page import folded, heading, note, table
from ..plots import Panels, Plot
from .material import Document, Element, Material, bounds, definitions, p_value, percent, share, signed, span, text

_BARS = 24
"""Agents and seats in the chart of outcomes at most; the table has all."""
_CELLS = 6000
"""Rows of the table of cells at most: more would make the page too heavy to open."""


def outcomes(material: Material) -> Iterator[Element]:
    """Games by how they ended, and what went wrong in them."""
    rows = material.found.get("outcomes", [])
    if not rows:
        return
    yield heading("outcomes", "How games ended")
    order = [*material.dials, *(r["agent"] for r in rows)]
    first = sorted(rows, key=lambda row: order.index(row["agent"]))[:_BARS]
    caption = (
        "Every game ends in one of these ways. Diamonds: the share of games in which something else was played than "
        "decided, or a turn was wasted."
    )
    yield Panels([Plot("outcomes", partial(causes.outcome_chart, first), list(causes.records(rows)))], caption)
    head = ["agent", "seat", "games", *(name for name, *_ in causes.ENDS.values()), *causes.TROUBLES.values()]
    body = [
        [r["agent"], r["agent_seat"], f"{r['n']:,}", *(_count(r, name) for name in (*causes.ENDS, *causes.TROUBLES))]
        for r in rows
    ]
    whole = table(head, body, names=2)
    yield whole if len(body) <= _BARS else folded(f"{len(body)} rows", whole)


def _count(row: Document, name: str) -> str:
    return f"{row[name]:,} ({percent(row[name] / row['n'])})" if row[name] else "0"


_MEASURES = ["games", "deals", "utility", "deals only", "opponent", "achieved ρ", "sd", "share of surplus", "efficiency",
             "from Nash", "turns", "invalid", "guard", "fallback"]  # fmt: skip


def figures(material: Material) -> Iterator[Element]:
    """All rows over all opponents, all cells, and paired differences."""
    found = material.found
    yield heading("figures", "All figures")
    yield note(
        "Utility charges every impasse as 0; brackets: 95 % intervals with scenarios resampled. Share of surplus: "
        "the own part of what both took from a deal. Efficiency: of the surplus that was there, what both took "
        "home. From Nash: distance of a deal from the Nash solution, in widths of the ZOPA. Invalid, guard and "
        "fallback: of the agent's own moves."
    )
    rows = ([r["agent"], r["agent_seat"], _rho(r), *_measures(r)] for r in found["overall"])
    yield table(["agent", "seat", "ρ", *_MEASURES], rows, names=2)
    if found["contrasts"]:
        yield "<h3>Paired differences in utility, over all ρ</h3>"
        body = table(["agent", "minus", "seat", "difference", "95 %", "p", "p (Holm)"], _contrasts(found), names=3)
        few = len(found["contrasts"]) <= 12
        yield body if few else folded(f"{len(found['contrasts'])} comparisons", body)
    cells = found["cells"]
    body = table(
        ["agent", "seat", "ρ", "opponent", *_MEASURES],
        ([r["agent"], r["agent_seat"], _rho(r), r["opponent"], *_measures(r)] for r in cells[:_CELLS]),
        names=2,
    )
    left = f"the first {_CELLS:,} of {len(cells):,}" if len(cells) > _CELLS else f"all {len(cells):,}"
    yield folded(f"{left} cells (agent, seat, ρ, opponent); summary.csv beside this page has all of them", body)


def _rho(row: Document) -> str:
    return "–" if row["rho_requested"] is None else results.rho_text(row["rho_requested"])


def _measures(row: Document) -> list[str]:
    return [
        f"{row['n']:,}",
        share(row, "agreement_rate"),
        span(row, "utility"),
        text(row["utility_deals"]),
        text(row["opponent_utility"]),
        span(row, "rho_achieved"),
        text(row["rho_achieved_sd"]),
        *(text(row.get(name)) for name in ("surplus_share", "efficiency", "nash_distance")),
        f"{row['turns']:.1f}",
        *(percent(row.get(name)) for name in ("invalid_rate", "guard_rate", "fallback_rate")),
    ]


def _contrasts(found: Document) -> Iterator[list[str]]:
    for c in found["contrasts"]:
        gap = [signed(c["utility_difference"]), bounds(c["low"], c["high"], "+")]
        yield [c["agent"], c["against"], c["agent_seat"], *gap, p_value(c.get("p")), p_value(c.get("p_holm"))]


def settings(material: Material) -> Iterator[Element]:
    """What was asked for, and what it was made with."""
    yield heading("settings", "Settings")
    yield definitions(material.settings)
    versions = material.found.get("versions")
    if versions:
        yield "<h3>Versions</h3>"
        yield definitions(versions)
