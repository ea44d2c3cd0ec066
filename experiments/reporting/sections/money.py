"""What agents earn: agreement against surplus, and how far that is from the best anybody could do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape

from .. import frontier, landmarks
from ..heatmaps import heatmap, payoff_grids
from ..page import heading, heat, note, table
from ..plots import Panels, Plot
from .material import Element, Material, text


def surplus(material: Material) -> Iterator[Element]:
    """The frontier at each seat."""
    yield heading("frontier", "What it earns")
    plots = []
    for seat in material.seats:
        data = list(frontier.records(material.found, seat))
        plots.append(Plot(f"frontier-{seat}", partial(frontier.frontier_chart, material.found, seat), data))
    yield Panels(
        plots,
        "Further right: more deals. Higher: a larger share of the ZOPA in a deal. Thin curves join equal utility "
        "with impasses charged as 0. Diamonds are agents without ρ, scripts of the zoo among them; stars are "
        "solutions of theory.",
    )


def payoffs(material: Material) -> Iterator[Element]:
    """Agents without ρ against each opponent."""
    if not any(row["rho_requested"] is None for row in material.found["cells"]):
        return
    yield heading("zoo", "Agents without ρ against each opponent")
    grids = payoff_grids(material.found)
    data = [row for grid in grids for row in grid.records()]
    shown = "".join(heat(grid) for grid in grids)
    yield Panels(
        [Plot("payoffs", partial(heatmap, grids), data, html=f'<div class="heats">{shown}</div>')],
        "Mean utility of each agent (row) against each opponent, impasses charged as 0; orange above one half. "
        "Lines part families; a star marks strategies held out of training data.",
    )


def best_possible(material: Material) -> Iterator[Element]:
    """Landmarks of theory: best responses, and where solutions settle."""
    if "landmarks" not in material.found:
        return
    marks = material.found["landmarks"]
    head, rows = landmarks.table(material.found)
    yield heading("landmarks", "How far from the best anybody could do")
    if rows:
        yield note(
            "Best possible: mean utility of the best response to each opponent, by a player that knows its limit, "
            f"its rule and its luck, in the first {marks['best_response']['games']} scenarios. Reached: the best "
            f"row of this tournament against it, over all {material.settings['games']} scenarios, controls left out."
        )
        yield table(head, rows)
    for reason, names in landmarks.without(material.found).items():
        yield note(f"No figure for {', '.join(names)}: {reason}.")
    perfect, fair = marks["subgame_perfect"], marks["cooperative"]
    solutions = ", ".join(f"{name.replace('_', '-').title()} {text(rho)}" for name, rho in fair.items())
    yield (
        f'<p class="note">Where theory would settle, in ρ: {escape(solutions)}. Between players who know both limits and '
        f"play perfectly, {text(perfect['buyer_starts'])} if the buyer starts and {text(perfect['seller_starts'])} if the "
        "seller does.</p>"
    )
