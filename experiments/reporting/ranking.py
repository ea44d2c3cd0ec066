"""Who earns what from both seats: named settings of a dial, and everybody ranked.

Here an agent sits in either seat equally often and every impasse is charged as 0, which is how the scripts' own table is
read: the best script is the landmark that a dial has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import agents
from bargain_env.errors import InputError
from experiments.match.configs import KNOWN
from experiments.match.contestants import SCRIPT
from experiments.match.results import rho_text

from .columns import Columns, Index
from .duels import Entry
from .measures import Key, Row, grouping, measured, tally

Asked = tuple[float | None, float | None]
"""Requests as buyer and as seller."""
AT = "ρ "
"""What the configuration of a dial that was asked for the same at all seats begins with."""
SEAT_FIGURES = ("rho_requested", "utility", "utility_deals", "agreement_rate", "rho_achieved")
_FIGURES = (
    "n",
    *(f"{name}{bound}" for name in ("utility", "agreement_rate") for bound in ("", "_low", "_high")),
    "turns",
)


def named(settings: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Settings of the dial by name: those that the tournament was given as ``configurations``, else the published ones."""
    given = settings.get("configurations")
    return {name: (float(buyer), float(seller)) for name, (buyer, seller) in (given or KNOWN).items()}


def configurations(overall: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    """Those `named` that the grid holds: agent -> name -> seat -> row of ``overall``, and the mean over ``both``."""
    at = {(row["agent"], row["agent_seat"], row["rho_requested"]): row for row in overall}
    found: dict[str, dict[str, Row]] = {}
    for agent in dict.fromkeys(row["agent"] for row in overall):
        for name, (buyer, seller) in named(settings).items():
            seats = {"buyer": at.get((agent, "buyer", buyer)), "seller": at.get((agent, "seller", seller))}
            rows = {seat: _without_keys(row) for seat, row in seats.items() if row is not None}
            if len(rows) == 2:
                mean = {k: (rows["buyer"][k] + rows["seller"][k]) / 2 for k in ("utility", "agreement_rate")}
                found.setdefault(agent, {})[name] = {**rows, "both": mean}
    return found


def _without_keys(row: Row) -> Row:
    return {k: v for k, v in row.items() if k not in ("agent", "agent_seat")}


def entries(columns: Columns, settings: Mapping[str, Any]) -> list[Entry]:
    """Who is ranked, in the order of the settings: everybody who played all seats that were played, without controls and
    without who is told both limits.

    An agent that takes ρ is there once for each of its configurations (see `named`) that the grid holds; without any, once
    for each ρ in [0, 1] that it was asked for at all seats, as the configuration ``ρ 0.30``.
    """
    keys, groups = grouping(columns, ("agent", "agent_seat", "rho_requested"), settings)
    at = dict(zip(keys, groups, strict=True))
    seats = [seat for seat in ("buyer", "seller") if any(s == seat for _, s, _ in keys)]
    found = []
    for agent in dict.fromkeys(agent for agent, _, _ in keys):
        if agent in settings.get("controls", []) or _cheats(agent):
            continue
        wanted: dict[str | None, Asked] = {None: (None, None)}
        wanted.update(named(settings))
        mine = _entries(agent, seats, at, wanted)
        if not mine:
            asked = dict.fromkeys(rho for who, _, rho in keys if who == agent and rho is not None and rho >= 0)
            mine = _entries(agent, seats, at, {f"{AT}{rho_text(rho)}": (rho, rho) for rho in asked})
        found += mine
    return found


def _entries(
    agent: str,
    seats: Sequence[str],
    at: Mapping[Key, Index],
    wanted: Mapping[str | None, Asked],
) -> list[Entry]:
    """Those of the ``wanted`` configurations that ``agent`` played at all seats."""
    found = []
    for name, (buyer, seller) in wanted.items():
        requests = {seat: {"buyer": buyer, "seller": seller}[seat] for seat in seats}
        cells = [at.get((agent, seat, rho)) for seat, rho in requests.items()]
        played = [some for some in cells if some is not None]
        if len(played) == len(seats):
            found.append(Entry(agent, name, requests, np.concatenate(played)))
    return found


def ranking(
    columns: Columns, ranked: Sequence[Entry], overall: Sequence[Row], settings: Mapping[str, Any]
) -> list[Row]:
    """Utility of all `entries` over all seats, opponents and scenarios, the best first.

    Args:
        columns: the episodes.
        ranked: see `entries`.
        overall: the rows of ``columns`` by agent, seat and ρ, for the figures of each seat.
        settings: see `experiments.reporting.summary.summarise`.

    Returns:
        ``agent``; ``configuration`` (None without ρ); ``n``; ``utility`` and ``agreement_rate``, each with an interval that
        allows for what games of one scenario share; ``turns``; ``seats``: of each seat `SEAT_FIGURES`.
    """
    if not ranked:
        return []
    found = measured(tally(columns, [e.cells for e in ranked]), int(settings.get("seed", 0)), clustered=True)
    by_key = {(r["agent"], r["agent_seat"], r["rho_requested"]): r for r in overall}
    rows = []
    for i, entry in enumerate(ranked):
        seats = {
            seat: {k: by_key[entry.agent, seat, rho][k] for k in SEAT_FIGURES} for seat, rho in entry.requests.items()
        }
        rows.append({**entry.names, **{k: found[k][i] for k in _FIGURES}, "seats": seats})
    return sorted(rows, key=lambda row: -row["utility"])


def standings(found: Mapping[str, Any]) -> list[Row]:
    """The ranking of a summary with the landmark scripts among it, without who cheats; ``rank``, ``family`` and ``split``
    are added.

    Agents that are no scripts of the zoo have no family and no split. Summaries of earlier versions have no rows.
    """
    rows = [*found.get("ranking", []), *found.get("landmarks", {}).get("scripts", {}).get("rows", [])]
    cheating = cheats(found)
    ranked = sorted((row for row in rows if row["agent"] not in cheating), key=lambda row: -row["utility"])
    known = found.get("strategies", {})
    unknown = {"family": None, "split": None}
    return [
        {"rank": i, **row, **known.get(row["agent"].removeprefix(SCRIPT), unknown)} for i, row in enumerate(ranked, 1)
    ]


def _cheats(agent: str) -> bool:
    """Whether an agent is a script that the registry says to cheat."""
    if not agent.startswith(SCRIPT):
        return False
    try:
        return agents.describe(agent.removeprefix(SCRIPT)).cheating
    except InputError:  # of a plugin that is not loaded
        return False


def cheats(found: Mapping[str, Any]) -> set[str]:
    """Agents of a summary that are told the other seat's limit."""
    return {f"{SCRIPT}{name}" for name, info in found.get("strategies", {}).items() if info["cheating"]}


def is_script(row: Mapping[str, Any]) -> bool:
    """Whether a row is a script's."""
    return str(row["agent"]).startswith(SCRIPT)


def title(row: Mapping[str, Any]) -> str:
    """How a table names a row: a script by its name, a dial with the ρ that it was set to in each seat."""
    name = str(row["agent"]).removeprefix(SCRIPT)
    if row["configuration"] is None:
        return name
    if row["configuration"].startswith(AT):
        return f"{name}, {row['configuration']}"
    rho = " / ".join(rho_text(seat["rho_requested"]) for seat in row["seats"].values())
    return f"{name}, {row['configuration']} (ρ {rho})"
