"""How agents bargain: how they give way, and single games."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path

from experiments.match.recorded import replay_command

from .. import concession, ranking
from ..games import standing_out
from ..page import heading, note
from ..plots import Folded, Panels, Plot
from ..transcripts import card, explorer
from .material import Element, Material

_HERE = Path()
"""The folder of the report, whatever it is called: a page should not depend on where it stands."""
_SHOWN = 4
"""Agents, the best ones, whose curves are drawn where nobody takes ρ."""


def concessions(material: Material) -> Iterator[Element]:
    """Offers over own turns at each ρ, with both reservations."""
    counted = material.games.concessions
    best = dict.fromkeys(row["agent"] for row in ranking.standings(material.found) if row["agent"] in counted.agents())
    shown = material.tested or list(best)[:_SHOWN]
    if not any(len(curve) for a in shown for s in material.seats for curve in counted.curves(a, s).values()):
        return
    yield heading("concessions", "How it gives way")
    caption = (
        "Median of the offers still being made at each of the agent's own turns, between the two reservations. "
        "Games leave a curve when they are settled, so its right end shows the slow games only."
    )
    for i, agent in enumerate(shown):
        plots = []
        for seat in material.seats:
            data = list(concession.records(counted, agent, seat))
            name, draw = (
                material.file_name("concession", agent, seat),
                partial(concession.concession_chart, counted, agent, seat),
            )
            if data:
                plots.append(Plot(name, draw, data))
        if plots:
            yield Panels(plots, caption) if i == 0 else Folded(agent, [Panels(plots, "As above.")])


def transcripts(material: Material) -> Iterator[Element]:
    """Games worth reading of the first agent, and those of any cell."""
    games, seed = material.games, int(material.settings.get("seed", 0))
    replay = partial(replay_command, _HERE)
    agent = (material.dials or list(material.settings["agents"]))[0]
    yield heading("games", "Games")
    yield (
        '<p class="key note">Offers over turns: <b class="b">● buyer</b> and <b class="s">■ seller</b>, '
        "dashed at their limits; the ring is the deal. The command below each game replays it, run in the folder "
        "of this report.</p>"
    )
    for seat in material.seats:
        cards = "".join(card(name, game, replay) for name, game in standing_out(games, agent, seat, seed))
        if cards:
            yield f'<h3>{escape(agent)} as {seat}</h3><div class="games">{cards}</div>'
    yield "<h3>Any cell</h3>"
    left = games.cells - len(games.shown)
    yield note(
        "The best and the worst game of a cell by the agent's utility, and one at random: the same scenario in "
        "every cell." + (f" {left:,} cells have no room here; experiments.replay shows any game." if left else "")
    )
    yield explorer(games, replay)
