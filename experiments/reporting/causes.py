"""How games ended, and what went wrong in them, as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .charts import INK, new_figure, short, style

Row = Mapping[str, Any]

ENDS = {
    "deal": ("deal", "#2b74c9", ""),
    "no_zopa_deal": ("deal without a ZOPA", "#9cc3ec", ".."),
    "impasse": ("deadline, though there was a ZOPA", "#d9541e", "//"),
    "no_zopa": ("deadline, no ZOPA", "#b9bec7", "\\\\"),
}
"""Ways to end, which part all games: what they are called, and how their bars are drawn."""
TROUBLES = {
    "invalid_games": "with an invalid move",
    "guard_games": "with a move that the guard replaced",
    "fallback_games": "with an answer that was not understood",
}
"""What may have happened in a game, however it ended."""


def outcome_chart(rows: Sequence[Row]) -> Figure:
    """Shares of all games by how they ended, a bar for each agent and seat."""
    with style():
        figure = new_figure(5.6, 1.3 + 0.26 * len(rows))
        axes = figure.subplots()
        left = np.zeros(len(rows))
        places = np.arange(len(rows))
        games = np.array([row["n"] for row in rows], dtype=np.float64)
        for end, (name, colour, hatch) in ENDS.items():
            share = np.array([row[end] for row in rows]) / games
            if share.any():
                axes.barh(
                    places, share, left=left, height=0.72, color=colour, hatch=hatch, edgecolor="#ffffff", label=name
                )
                left += share
        troubled = np.array([row["troubled_games"] for row in rows]) / games
        if troubled.any():
            marks = np.flatnonzero(troubled)
            axes.scatter(troubled[marks], marks, marker="D", s=18, color=INK, zorder=3,
                         label="games with an invalid, guarded or unread move")  # fmt: skip
        names = [f"{short(row['agent'].removeprefix('script:'))}, {row['agent_seat']}" for row in rows]
        axes.set_yticks(places, names, fontsize=8.5)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 % of games"])
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
        return figure


def records(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """What the chart draws, as rows of data."""
    for row in rows:
        counts = {name: row[name] for name in (*ENDS, *TROUBLES, "troubled_games")}
        yield {"agent": row["agent"], "seat": row["agent_seat"], "games": row["n"], **counts}
