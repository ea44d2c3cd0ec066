"""Comparisons by design: the arms of an ablation, and the published protocol."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from experiments.match.arms import ARMS

from .. import published
from ..dial_charts import agents_chart, curve_records
from ..page import heading, note, table
from ..plots import Panels, Plot
from .material import Document, Element, Material, bounds, definitions, share, signed, span, text


def protocol(material: Material) -> Iterator[Element]:
    """Figures beside the published ones."""
    head, rows = published.table(material.found)
    if not rows:
        return
    what = material.found["protocol"]
    yield heading("protocol", f"Protocol {what['name']}, beside what was published")
    yield note(
        f"{what['games']} games a matchup. The published mean utility leaves impasses out, so whoever walks away "
        "from all but the best deals looks good; the column beside it charges them as 0. In brackets: 95 % "
        "intervals over scenarios. What is not as published is listed in docs/evaluation.md."
    )
    yield table(head, rows, names=2)


def ablations(material: Material) -> Iterator[Element]:
    """What each arm of the ablation keeps, and what its dial does then."""
    arms = {agent: arm for agent, arm in material.settings.get("arms", {}).items() if agent in material.dials}
    if len(set(arms.values())) < 2:
        return
    yield heading("ablations", "Which way does ρ go?")
    yield note("Each arm keeps one way for ρ to reach the model, or none, and holds everything else fixed.")
    yield definitions({agent: ARMS[arm] for agent, arm in arms.items()})
    plots = []
    for seat in material.seats:
        draw, data = (
            partial(agents_chart, material.found, list(arms), seat),
            curve_records(material.found, list(arms), seat),
        )
        plots.append(Plot(f"arms-{seat}", draw, list(data)))
    yield Panels(plots, "The dial of each arm over all opponents; bars are 95 % intervals with scenarios resampled.")
    head = ["arm", "seat", "slope", "minus the first", "MAE", "minus the first", "Spearman", "agreement", "utility"]
    yield table(head, list(_rows(material, arms)), names=2)
    yield note(
        "Minus the first: from the same scenarios drawn for both, so that what these have in common drops out. Utility is "
        "over all requests in [0, 1]; of the shuffled control it is that of its agent up to the last digits, since it plays "
        "the same requests in other places."
    )


def _rows(material: Material, arms: dict[str, str]) -> Iterator[list[str]]:
    found = material.found
    contrasts = {(c["agent"], c["agent_seat"]): c for c in found.get("dial_contrasts", [])}
    for agent in arms:
        for seat, c in found["calibration_by_agent"][agent].items():
            rows = [r for r in found["overall"] if (r["agent"], r["agent_seat"]) == (agent, seat)]
            rows = [r for r in rows if r["rho_requested"] is not None and r["rho_requested"] >= 0]
            games = sum(r["n"] for r in rows)
            utility = sum(r["utility"] * r["n"] for r in rows) / games if games else None
            gaps = [_gap(contrasts.get((agent, seat)), name) for name in ("slope", "mae")]
            dial = [span(c, "slope"), gaps[0], span(c, "mae"), gaps[1], span(c, "spearman")]
            yield [agent, seat, *dial, share(c, "agreement_rate_all"), text(utility)]


def _gap(contrast: Document | None, name: str) -> str:
    if contrast is None or contrast[f"{name}_difference"] is None:
        return "–"
    interval = bounds(contrast[f"{name}_low"], contrast[f"{name}_high"], "+")
    return f"{signed(contrast[f'{name}_difference'])} {interval}".strip()
