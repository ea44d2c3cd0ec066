"""How games ended and what went wrong in them, by agent and seat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .columns import Columns
from .measures import Row, tallied


def outcomes(columns: Columns, settings: Mapping[str, Any]) -> list[Row]:
    """Games of each agent at each seat by how they ended, and how many of them held a move that needs explaining.

    Returns:
        Rows of ``agent``, ``agent_seat`` and counts of games. Every game is one of ``deal`` (with a ZOPA), ``impasse``
        (with a ZOPA: the deadline passed), ``no_zopa`` (no deal, and there was none to be had) and ``no_zopa_deal`` (one
        side agreed to its loss); these four add up to ``n``. Beside that, and of all of them: ``invalid_games``,
        ``guard_games`` and ``fallback_games``, in which the agent made an invalid move, had one replaced by its guard,
        gave an answer that was none; and ``troubled_games``, with one of these at least.
    """
    keys, sums = tallied(columns, ("agent", "agent_seat"), settings)
    t = {name: values.sum(axis=0).astype(int) for name, values in sums.items()}
    counts = {
        "n": t["n"],
        "deal": t["zopa_deals"],
        "impasse": t["zopa"] - t["zopa_deals"],
        "no_zopa": t["n"] - t["zopa"] - (t["agreements"] - t["zopa_deals"]),
        "no_zopa_deal": t["agreements"] - t["zopa_deals"],
        **{name: t[name] for name in ("invalid_games", "guard_games", "fallback_games", "troubled_games")},
    }
    return [
        {"agent": agent, "agent_seat": seat} | {name: int(column[i]) for name, column in counts.items()}
        for i, (agent, seat) in enumerate(keys)
    ]
