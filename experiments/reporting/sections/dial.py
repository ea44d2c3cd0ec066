"""Does the dial do what it says, and where does it break?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape

from ..dial_charts import SPLITS, calibration_chart, curve_records
from ..heatmaps import MEASURES, dial_grids, heatmap
from ..page import heading, heat, note, table
from ..plots import Folded, Panels, Plot
from .material import Document, Element, Material, percent, share, span, text

_HEAD = [
    "agent", "seat", "opponents", "MAE", "bias", "slope", "intercept", "Spearman", "per game", "falls", "largest fall",
    "agreement", "least", "most",
]  # fmt: skip
_WORDS = (
    "Of deals: MAE is the mean of |achieved − requested| and bias of achieved − requested, both per game; slope "
    "and intercept are of the line through all deals; Spearman is of the grid and its means, and per game. Falls: "
    "neighbouring requests whose means fall though the request rises, and in brackets those whose interval lies "
    "below 0. Agreement: over all games of these requests, then at the request with the fewest and the most deals."
)
_TINTS = {
    "rho_achieved": "Mean achieved ρ of deals. No tint: on target; orange: above the request, blue: below; a dash: no deal.",
    "agreement_rate": "Agreement rate of the same games. Blue: deals are missing.",
    "utility": "Utility, impasses charged as 0. Orange: more than half of the ZOPA; blue: less.",
}


def calibration(material: Material) -> Iterator[Element]:
    """Requested against achieved ρ, kinds of opponents apart, and its figures."""
    if not material.dials:
        return
    yield heading("calibration", "Does the dial do what it says?")
    caption = "Mean achieved ρ of the deals at each requested ρ; bars are 95 % intervals with scenarios resampled. "
    if len(material.found.get("calibration_by_split", {})) > 1:
        caption += "Opponents that training data were made with and held-out ones are apart. "
    caption += "Achieved ρ is defined for deals only: read it with the agreement rate of the same games, below it."
    if material.settings.get("controls"):
        caption += " Controls, whose dial is dead by construction, are muted."
    for i, agent in enumerate(material.tested):
        shown = Panels([_calibration_plot(material, agent, seat) for seat in _seats(material, agent)], caption)
        yield shown if i == 0 else Folded(agent, [Panels(shown.plots, "As above.")])
    yield table(_HEAD, list(_rows(material)), names=3)
    yield note(_WORDS)


def _seats(material: Material, agent: str) -> list[str]:
    return list(material.found["calibration_by_agent"][agent])


def _calibration_plot(material: Material, agent: str, seat: str) -> Plot:
    beside = [agent, *material.settings.get("controls", [])]
    data = list(curve_records(material.found, list(dict.fromkeys(beside)), seat))
    name = material.file_name("calibration", agent, seat)
    return Plot(name, partial(calibration_chart, material.found, agent, [seat]), data)


def _rows(material: Material) -> Iterator[list[str]]:
    splits = material.found.get("calibration_by_split", {})
    for agent in material.dials:
        for seat, whole in material.found["calibration_by_agent"][agent].items():
            apart = [
                (SPLITS.get(s, s), found[agent][seat]) for s, found in splits.items() if seat in found.get(agent, {})
            ]
            for name, figures in ([("all", whole)] if len(apart) != 1 else []) + apart:
                yield [agent, seat, name, *_figures(figures)]


def _figures(c: Document) -> list[str]:
    rates = [rate for rate, rho in zip(c["agreement_rate"], c["rho"], strict=True) if rho >= 0 and rate is not None]
    falls = "–" if c.get("violations") is None else f"{c['violations']} ({c['violations_clear']})"
    return [
        *(span(c, name) for name in ("mae", "bias", "slope")),
        text(c["intercept"]),
        span(c, "spearman"),
        text(c["spearman_games"]),
        falls,
        text(c.get("largest_fall")),
        share(c, "agreement_rate_all"),
        percent(min(rates, default=None)),
        percent(max(rates, default=None)),
    ]


def heatmaps(material: Material) -> Iterator[Element]:
    """ρ x strategy tables; those of the first agent open, the others folded."""
    if not material.dials:
        return
    yield heading("heatmaps", "Where it holds and where it breaks")
    yield note("Every requested ρ against every opponent; a star marks strategies that are in no training data.")
    for i, agent in enumerate(material.dials):
        parts: list[Element] = [Panels([_heat_plot(material, agent, measure)], _TINTS[measure]) for measure in MEASURES]
        if i == 0:
            yield f"<h3>{escape(agent)}</h3>"
            yield from parts
        else:
            yield Folded(agent, parts)


def _heat_plot(material: Material, agent: str, measure: str) -> Plot:
    grids = dial_grids(material.found, agent, measure)
    data = [{"agent": agent, **row} for grid in grids for row in grid.records()]
    tables = "".join(heat(grid) for grid in grids)
    name = material.file_name("heatmap", agent, measure)
    return Plot(name, partial(heatmap, grids), data, html=f'<div class="heats">{tables}</div>')
