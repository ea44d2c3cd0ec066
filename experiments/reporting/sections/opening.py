"""The top of a report: what was played, the verdict on the dial, and headline figures."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from experiments.match import results
from experiments.match.contestants import SCRIPT

from .. import ranking
from ..page import tiles
from .material import Document, Material, percent, text


def title(found: Document) -> str:
    """Of the report."""
    agents = [agent.removeprefix(SCRIPT) for agent in found["settings"]["agents"]]
    return f"Tournament: {', '.join(agents[:3])}{f' and {len(agents) - 3} more' if len(agents) > 3 else ''}"


def opening(material: Material) -> Iterator[str]:
    """Title, design, verdict, tiles."""
    found, s = material.found, material.settings
    games = sum(row["n"] for row in found["overall"])
    protocol = f" Protocol: <b>{escape(s['protocol'])}</b>." if s.get("protocol") else ""
    yield f"<h1>{escape(title(found))}</h1>"
    yield (
        f'<p class="note">{games:,} games: {s["games"]} scenarios of <b>{escape(s["scenario"])}</b>, '
        f"{len(s['opponents'])} opponents, as {' and '.join(s['seats'])}, at most {s['max_turns']} turns, "
        f"seed {s['seed']}. Every agent, ρ and opponent met the same scenarios with the same luck.{protocol}</p>"
    )
    said = verdict(material)
    if said:
        yield f"<p>{escape(said)}</p>"
    yield tiles(_headline(material))


def verdict(material: Material) -> str:
    """One sentence on the dial of the first agent under test; empty where no agent takes ρ."""
    parts = []
    agent = next(iter(material.tested), "")
    for seat, c in material.found["calibration_by_agent"].get(agent, {}).items():
        rates = [rate for rate, rho in zip(c["agreement_rate"], c["rho"], strict=True) if rho >= 0]
        if rates and c["mae"] is not None:
            parts.append(
                f"as {seat} its deals miss the request by {c['mae']:.3f} on average, "
                f"Spearman {text(c['spearman'])}, slope {text(c['slope'])}, "
                f"with {percent(min(rates))} to {percent(max(rates))} agreement"
            )
    return f"{agent}: {'; '.join(parts)}." if parts else ""


def _headline(material: Material) -> Iterator[tuple[str, str]]:
    found = material.found
    for seat, c in found["calibration"].items():
        if c:
            yield text(c["spearman"]), f"Spearman of requested and achieved ρ, {seat}"
            yield text(c["mae"]), f"mean |achieved − requested| of deals, {seat}"
    first = (material.tested or material.settings["agents"])[0]
    for name, seats in found["configurations"].get(first, {}).items():
        buyer, seller = (results.rho_text(seats[s]["rho_requested"]) for s in ("buyer", "seller"))
        deals = percent(seats["both"]["agreement_rate"])
        yield text(seats["both"]["utility"]), f"utility, {name} (ρ {buyer} / {seller}), {deals} deals"
    scripts = [row for row in ranking.standings(found) if ranking.is_script(row)]
    if scripts:
        yield text(scripts[0]["utility"]), f"utility, {ranking.title(scripts[0])}, the best script"
    if not found["calibration_by_agent"]:
        for row in sorted(found["overall"], key=lambda r: -r["utility"])[:4]:
            yield text(row["utility"]), f"utility, {row['agent'].removeprefix(SCRIPT)} as {row['agent_seat']}"
