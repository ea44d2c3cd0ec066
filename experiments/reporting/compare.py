"""Two tournaments side by side: what was asked for otherwise, and what came out otherwise.

Figures are those of `experiments.reporting.summary`, but over the opponents, requests and seats that both have, so that
nothing but what differs in their settings tells them apart. Whether they are paired is seen in the games themselves: if
every scenario id that both have stands for the same limits and starter, the scenarios that both have are compared, pair by
pair; if one does not, all of either are, as independent samples. Nothing but the two folders decides what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bargain_env.errors import InputError
from experiments.match.contestants import SCRIPT
from experiments.match.results import rho_text

from . import summary
from .calibration import calibration
from .columns import Index
from .differences import SEEDS, Sides, differences
from .matched import SIDES, Pair, agents_of, in_scenarios, names_of, only, pairing, read, require_opponents
from .measures import Row
from .ranking import named
from .significance import corrected

CALIBRATION = ("slope", "mae", "spearman", "agreement_rate_all")
"""Figures of the dial that are set side by side."""
ALPHA = 0.05
"""A row is clear where its corrected p is below."""


def compare(one: Path, two: Path) -> dict[str, Any]:
    """The comparison of two tournament folders, ready for JSON.

    Returns:
        ``names`` of the folders; ``paired``, and ``scenarios`` in ``one``, in ``two``, ``shared`` and ``compared``;
        ``agents``: pairs of labels that are compared; ``opponents``: those that both have; ``only``: of agents, rho,
        opponents and seats what one alone has; ``settings`` and ``versions`` that differ; ``rows``: first the named
        configurations of both seats, then agent, seat and rho, with the figures of
        `experiments.reporting.differences.differences`, ``p_holm`` over all rows and whether the row is ``clear``;
        ``calibration``: figures of the dial in either, by agent and seat, and their ``difference``; all settings of
        either as ``settings_one`` and ``settings_two``.

    Raises:
        InputError: a folder holds no tournament, or they have nothing in common that could be compared.
    """
    sides = read(one), read(two)
    names = names_of(one, two)
    require_opponents(sides, names)
    paired, shared = pairing(sides)
    counts = {side: len(t.columns.scenarios) for side, t in zip(SIDES, sides, strict=True)}
    agents = agents_of(sides)
    first, second = (in_scenarios(t.columns, shared if paired else t.columns.scenarios) for t in sides)
    columns = first, second
    rows = _rows(sides, columns, agents, paired)
    if not rows:
        said = ", ".join(a if a == b else f"{a} and {b}" for a, b in agents)
        raise InputError(
            f"{names[0]} and {names[1]} have no seat and rho in common in which {said} could be compared; play "
            "one of them again with the --rho and --seats of the other"
        )
    found = {
        "names": names,
        "paired": paired,
        "scenarios": {**counts, "shared": len(shared), "compared": [len(c.scenarios) for c in columns]},
        "agents": [list(pair) for pair in agents],
        "opponents": [name for name in sides[0].played("opponent") if name in sides[1].played("opponent")],
        "only": only(sides),
        "settings": _unlike(*(t.settings for t in sides)),
        "versions": _unlike(*(t.document.get("versions", {}) for t in sides)),
        "rows": rows,
        "calibration": _calibrations(columns, agents),
        **{f"settings_{side}": dict(t.settings) for side, t in zip(SIDES, sides, strict=True)},
    }
    return {key: summary.clean(value) for key, value in found.items()}


def _unlike(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[Row]:
    """Entries in which two documents differ; None where one lacks it."""
    names = [*one, *(name for name in two if name not in one)]
    rows = [{"name": name, "one": one.get(name), "two": two.get(name)} for name in names]
    return [row for row in rows if row["one"] != row["two"]]


# ── what came out ─────────────────────────────────────────────────────────────────────────────────────────────────────

_Places = dict[tuple[str, float | None], tuple[Index, Index]]


def _places(columns: Sides, agents: tuple[str, str]) -> _Places:
    """Cells of either by seat and rho, those against opponents that both have there, in the same order."""
    one, two = (
        {(c.agent_seat, c.rho_requested, c.opponent): i for i, c in enumerate(side.cells) if c.agent == agent}
        for side, agent in zip(columns, agents, strict=True)
    )
    found: dict[tuple[str, float | None], list[tuple[int, int]]] = {}
    for key in (key for key in one if key in two):
        found.setdefault(key[:2], []).append((one[key], two[key]))
    ordered = sorted(found, key=lambda key: (key[0], -2.0 if key[1] is None else key[1]))
    return {key: (_index(a for a, _ in found[key]), _index(b for _, b in found[key])) for key in ordered}


def _index(values: Iterable[int]) -> Index:
    return np.array(list(values), dtype=np.intp)


def _rows(sides: Pair, columns: Sides, agents: Sequence[tuple[str, str]], paired: bool) -> list[Row]:
    """The rows of all agents, configurations before single requests; one family of tests."""
    one, two = (named(t.settings) for t in sides)
    configurations = {name: pair for name, pair in one.items() if two.get(name) == pair}
    heads: list[Row] = []
    groups: list[tuple[Index, Index]] = []
    places = {pair: _places(columns, pair) for pair in agents}
    for pair in agents:
        for name, asked in configurations.items():
            seats = [places[pair].get(key) for key in zip(("buyer", "seller"), asked, strict=True)]
            known = [cells for cells in seats if cells is not None]
            if len(known) == 2:
                heads.append(_head(pair, name, "both", None))
                groups.append((np.concatenate([a for a, _ in known]), np.concatenate([b for _, b in known])))
    for pair in agents:
        for (seat, rho), both in places[pair].items():
            heads.append(_head(pair, None, seat, rho))
            groups.append(both)
    found = differences(columns, groups, paired=paired)
    for head, row, (mine, _) in zip(heads, found, groups, strict=True):
        head["opponents"] = len({columns[0].cells[i].opponent for i in mine})
        if head["configuration"]:  # a mean of prices asked for at two seats says nothing
            row |= {name: float("nan") for name in row if name.startswith("rho_achieved")}
    rows = corrected([head | row for head, row in zip(heads, found, strict=True)])
    return [row | {"clear": bool(row["p_holm"] < ALPHA)} for row in rows]


def _head(pair: tuple[str, str], configuration: str | None, seat: str, rho: float | None) -> Row:
    names = dict(zip(("agent_one", "agent_two"), pair, strict=True))
    return {**names, "configuration": configuration, "agent_seat": seat, "rho_requested": rho}


def _calibrations(columns: Sides, agents: Sequence[tuple[str, str]]) -> list[Row]:
    """Calibration of the dials in either, over the requests and opponents that both have."""
    rows = []
    for pair in agents:
        places = {key: cells for key, cells in _places(columns, pair).items() if key[1] is not None}
        for seat in dict.fromkeys(seat for seat, _ in places):
            mine = [cells for key, cells in places.items() if key[0] == seat]
            figures = [
                calibration(side, np.concatenate([cells[k] for cells in mine]), seed=SEEDS[0])
                for k, side in enumerate(columns)
            ]
            gaps = {name: figures[1][name] - figures[0][name] for name in CALIBRATION}
            names = dict(zip(("agent_one", "agent_two"), pair, strict=True))
            rows.append({**names, "agent_seat": seat, **dict(zip(SIDES, figures, strict=True)), "difference": gaps})
    return rows


# ── in a sentence ─────────────────────────────────────────────────────────────────────────────────────────────────────


def who(row: Mapping[str, Any]) -> str:
    """The agent of a row, or both where their labels differ."""
    one, two = (str(row[f"agent_{side}"]).removeprefix(SCRIPT) for side in SIDES)
    return one if one == two else f"{one} / {two}"


def title(row: Mapping[str, Any]) -> str:
    """How a row is called in a sentence."""
    if row["configuration"]:
        return f"{who(row)}, {row['configuration']}"
    rho = "" if row["rho_requested"] is None else f" at ρ {rho_text(row['rho_requested'])}"
    return f"{who(row)} as {row['agent_seat']}{rho}"


def verdict(document: Mapping[str, Any]) -> str:
    """One sentence: how many utilities differ clearly, and the largest change."""
    rows = [row for row in document["rows"] if row["utility_difference"] is not None]
    if all(row["utility_difference"] == 0 for row in rows):
        return f"All {len(rows)} mean utilities are the same in both."
    clear = [row for row in rows if row["clear"]]
    up = sum(row["utility_difference"] > 0 for row in clear)
    count = f"{len(clear)} of {len(rows)} mean utilities differ clearly"
    split = f": {up} higher and {len(clear) - up} lower in {document['names'][1]}" if clear else ""
    most = max(clear or rows, key=lambda row: abs(row["utility_difference"]))
    low, high = most["utility_low"], most["utility_high"]
    interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    kind = "clear change" if clear else "change, which is not clear,"
    return f"{count}{split}; the largest {kind} is {most['utility_difference']:+.3f}{interval}, of {title(most)}."
