"""The agents' table: everybody ranked, with intervals, tests and ratings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import ranking
from ..heatmaps import Grid
from ..page import folded, heading, heat, note, table
from .material import Document, Element, Material, bounds, p_value, percent, signed, span, text

Names = tuple[str, str | None]
"""Agent and configuration."""


def standings(material: Material) -> Iterator[Element]:
    """Ranked, with the scripts as landmarks; each against the reference, and a rating."""
    found = material.found
    rows = ranking.standings(found)
    if not rows:
        return
    seats = material.seats
    absent = found.get("landmarks", {}).get("scripts", {"rows": []})
    beside = {row["agent"] for row in absent["rows"]}
    tests = {_names(row): row for row in found.get("tests", [])}
    ratings = {_names(row): row for row in found.get("rating", [])}
    yield heading("agents", "Agents, with the scripts as landmarks")
    yield note(
        "Mean utility over seats, opponents and scenarios, impasses charged as 0, in brackets its 95 % interval. A star "
        "marks strategies held out of training data."
    )
    if beside:
        yield note(
            "Scripts with a † were no agents of this tournament: they were played beside it, in its first "
            f"{absent['games']} scenarios, and so have neither test nor rating."
        )
    head = ["", "agent", "utility", "minus reference", "p (Holm)", "won / tied / lost", "rating", "deals", "turns"]
    head += [part for seat in seats for part in (f"as {seat}", "its ρ")]
    yield table(
        [*head, "family"], (_standing(row, seats, row["agent"] in beside, tests, ratings) for row in rows), names=2
    )
    yield from _explained(found, rows)
    yield from _duels(found)


def _names(row: Document) -> Names:
    return row["agent"], row["configuration"]


def _standing(
    row: Document, seats: list[str], beside: bool, tests: dict[Names, Any], ratings: dict[Names, Any]
) -> list[str]:
    name = f"{ranking.title(row)}{' *' if row['split'] == 'held_out' else ''}{' †' if beside else ''}"
    by_seat = [text(row["seats"][seat][figure]) for seat in seats for figure in ("utility", "rho_achieved")]
    compared = _compared(_names(row), tests, ratings)
    played = [percent(row["agreement_rate"]), f"{row['turns']:.1f}" if "turns" in row else "–"]
    return [str(row["rank"]), name, span(row, "utility"), *compared, *played, *by_seat, row["family"] or "–"]


def _compared(names: Names, tests: dict[Names, Any], ratings: dict[Names, Any]) -> list[str]:
    rated, tested = ratings.get(names), tests.get(names)
    rating = "–"
    if rated:
        spread = "" if rated["low"] is None else f" [{rated['low']:.0f}, {rated['high']:.0f}]"
        rating = f"{rated['rating']:.0f}{spread}"
    if tested is None:
        return ["reference" if rated else "–", "", "", rating]
    difference = f"{signed(tested['difference'])} {bounds(tested['low'], tested['high'], '+')}".strip()
    counts = f"{tested['wins']:,} / {tested['ties']:,} / {tested['losses']:,}"
    return [difference, p_value(tested["p_holm"]), counts, rating]


def _explained(found: Document, rows: list[Any]) -> Iterator[str]:
    tests = found.get("tests", [])
    if not tests:
        return
    first = tests[0]
    name = next(
        (ranking.title(row) for row in rows if _names(row) == (first["against"], first["against_configuration"])),
        first["against"],
    )
    yield note(
        f"Reference: {name}. Minus reference: mean difference in utility over paired games (same scenario, "
        "opponent, seat and luck), with a 95 % interval over scenarios; p from a paired t-test on scenario means, "
        "Holm's correction over all rows. Won, tied, lost: these games. Rating: Bradley–Terry on all paired games, "
        "on the Elo scale about a mean of 0."
    )


def _duels(found: Document) -> Iterator[str]:
    """Who earned more in how many of the paired games, everybody against everybody."""
    duels = found.get("duels") or {}
    entries = duels.get("entries", [])
    if len(entries) < 2:
        return
    wins, ties = (np.array(duels[name], dtype=np.float64) for name in ("wins", "ties"))
    games = wins + wins.T + ties
    share_won = np.divide(wins + ties / 2, games, out=np.full_like(wins, np.nan), where=games > 0)
    np.fill_diagonal(share_won, np.nan)
    names = [_short(entry) for entry in entries]
    grid = Grid(
        "share of paired games that the row won, ties as half", names, names, share_won, (share_won - 0.5) / 0.5
    )
    yield folded(f"everybody against everybody: {len(entries)} x {len(entries)}", heat(grid))


def _short(entry: Document) -> str:
    agent = str(entry["agent"]).removeprefix("script:")
    return agent if entry["configuration"] is None else f"{agent}, {entry['configuration']}"
