"""What there was to earn for one who knew whom it met: of all players, the best against each opponent.

What selects among algorithms is measured against the virtual best of them, an oracle that picks for each instance (Kerschke,
Hoos, Neumann and Trautmann 2019, "Automated algorithm selection: survey and perspectives"). Here it picks for each opponent
and seat, among scripts and the requests of a dial alike: with nothing new to play, knowing whom one meets earns no more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import Columns, groups_of
from .measures import measured, tally


def virtual_best(columns: Columns, seed: int = 0) -> dict[str, Any]:
    """The mean utility of the best player against each opponent from each seat, impasses charged.

    It is picked by the very games that it is measured in, so what is said of it is too much by what is luck in these.

    Args:
        columns: of games.
        seed: of the resampling.

    Returns:
        JSON-ready: ``value``; ``low`` and ``high``, its 95 % interval over scenarios for the players picked; and
        ``players`` that could be, each agent and request. Without games the first three are NaN.
    """
    players = len({(cell.agent, cell.rho_requested) for cell in columns.cells})
    if not players:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "players": 0}
    means = np.nanmean(columns.utility, axis=1)
    met = groups_of([(cell.opponent, cell.agent_seat) for cell in columns.cells])
    best = np.array([places[means[places].argmax()] for places in met.values()], dtype=np.intp)
    found = measured(tally(columns, [best]), seed, clustered=True)
    figures = {
        name: float(found[f"utility{end}"][0]) for name, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    return {**figures, "players": players}
