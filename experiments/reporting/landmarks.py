"""Landmarks of a tournament: where theory would settle its games, and what the best possible player and the scripts
would earn in them.

They depend on the plan alone, not on how anybody plays; ``summary.json`` keeps them, so that a report can be made again
without the strategies (a plugin may be gone by then).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import agents
from agents.scripted import CATALOGUE
from agents.text.spec import TEXT
from bargain_env import Scenarios, Seat, settlement, theory
from bargain_env.errors import InputError
from experiments.match import contestants, opponents
from experiments.match.arena import Plan, run_tournament
from experiments.match.contestants import Contestant
from experiments.match.results import rho_text

from . import ranking, summary

Document = Mapping[str, Any]

GAMES = 256
"""Best responses are found in at most so many scenarios, the first ones: a game costs some hundred questions."""
USES_PAST = "moves that depend on the past would take a search of every sequence of offers"


def landmarks(plan: Plan) -> dict[str, Any]:
    """What ``summary.json`` holds as ``landmarks``.

    Returns:
        ``cooperative``: mean ρ of each solution over the games with a ZOPA, both sides risk-neutral;
        ``subgame_perfect``: ρ of play with complete information, by starter (None where no offer can be answered);
        ``best_response``: its number of ``games`` and ``rows``, one for each opponent and agent seat, with the mean
        ``utility`` of the best response or, where there is none, the ``reason``.
    """
    games = plan.scenarios(0, plan.games)
    few = games.take(np.arange(min(len(games), GAMES)))
    rows = [_best_response(plan, name, seat, few) for name in plan.opponents for seat in plan.seats]
    return {
        "cooperative": _cooperative(games),
        "subgame_perfect": _subgame_perfect(games),
        "best_response": {"games": len(few), "rows": rows},
    }


def absent_scripts(plan: Plan, players: Sequence[Contestant]) -> dict[str, Any]:
    """What the scripts of the zoo that are no agents of the tournament would have earned in it: they are played here.

    Nothing is played where an opponent is a chat model or a Janus: each of their answers has its price, and nobody asked
    for these.

    Returns:
        ``games``: how many scenarios that were, the first ones; ``rows``: see `experiments.reporting.ranking.ranking`.
    """
    present = {player.label for player in players}
    team = [contestants.script(name) for name in shipped() if f"{contestants.SCRIPT}{name}" not in present]
    few = replace(plan, games=min(plan.games, GAMES))
    if not team or any(name.startswith(TEXT) or opponents.at_rho(name) for name in plan.opponents):
        return {"games": few.games, "rows": []}
    settings = {"agents": [member.label for member in team], "opponents": list(plan.opponents), "seed": plan.seed}
    return {"games": few.games, "rows": summary.ranked(run_tournament(team, few), settings)}


def shipped() -> list[str]:
    """The scripts of the zoo that rankings hold; what a plugin has added is not among them."""
    ours = {entry.name for entry in CATALOGUE}
    return [name for name in agents.list_strategies(evaluable=True) if name in ours]


def strategies(plan: Plan, players: Sequence[Contestant]) -> dict[str, dict[str, Any]]:
    """Family, split and whether it cheats, of every strategy that a report may name, in the order of the registry."""
    wanted = {*plan.opponents, *shipped(), *(p.label.removeprefix(contestants.SCRIPT) for p in players if p.scripted)}
    known = agents.list_strategies()
    names = [name for name in known if name in wanted] + sorted(wanted.difference(known))
    return {name: opponents.about(name) for name in names}


def _cooperative(games: Scenarios) -> dict[str, float | None]:
    some = games.take(np.flatnonzero(games.has_zopa))
    found: dict[str, float | None] = {}
    for solution in (theory.nash, theory.kalai_smorodinsky, theory.egalitarian):
        price = solution(some.buyer_max, some.seller_min)
        rho = settlement(price, some.buyer_max, some.seller_min)
        found[solution.__name__] = float(rho.mean()) if len(some) else None
    return found


def _subgame_perfect(games: Scenarios) -> dict[str, float | None]:
    """All games of a plan have the same deadline and discount."""
    periods, discount = int(games.max_turns[0]) - 1, float(games.discount[0])
    share = float(theory.finite_horizon(periods, discount, discount)) if periods else None
    return {
        "periods": periods,
        "discount": discount,
        "buyer_starts": None if share is None else 1.0 - share,
        "seller_starts": share,
    }


def _best_response(plan: Plan, name: str, seat: Seat, games: Scenarios) -> dict[str, Any]:
    row: dict[str, Any] = {"opponent": name, "agent_seat": seat.label, "utility": None, "reason": None}
    if opponents.at_rho(name) or agents.describe(name).uses_history:
        return row | {"reason": USES_PAST}
    opponent = agents.make_for(plan.preset, name)
    try:
        found = theory.best_response(opponent, games, seat, uses_history=False)
    except InputError as error:
        return row | {"reason": str(error)}
    return row | {"utility": float(found.values.mean())}


def table(found: Document) -> tuple[list[str], list[list[str]]]:
    """Head and rows for a page: against each opponent the best possible, the best reached by an agent under test (and by
    whom, or at which ρ), and, where both are of the same scenarios, how far that is.
    """
    seats = found["settings"]["seats"]
    best = {(r["opponent"], r["agent_seat"]): r["utility"] for r in found["landmarks"]["best_response"]["rows"]}
    same = found["landmarks"]["best_response"]["games"] >= found["settings"]["games"]
    kinds = ("best possible", "reached", "short by")[: 3 if same else 2]
    head = ["opponent", *(f"as {seat}: {what}" for seat in seats for what in kinds)]
    rows = []
    for name in dict.fromkeys(opponent for opponent, _ in best):
        pairs = [(best.get((name, seat)), _reached(found, name, seat)) for seat in seats]
        if any(possible is not None for possible, _ in pairs):
            rows.append([name, *(text for pair in pairs for text in list(_cells(*pair))[: len(kinds)])])
    return head, rows


def _reached(found: Document, opponent: str, seat: str) -> Document | None:
    """The cell with the highest mean utility; controls and those who know both limits do not count."""
    controls = {*found["settings"].get("controls", []), *ranking.cheats(found)}
    cells = [c for c in found["cells"] if (c["opponent"], c["agent_seat"]) == (opponent, seat)]
    return max((c for c in cells if c["agent"] not in controls), key=lambda c: c["utility"], default=None)


def _cells(possible: float | None, cell: Document | None) -> Iterator[str]:
    yield "–" if possible is None else f"{possible:.3f}"
    if cell is None:
        yield from ("–", "–")
        return
    rho = cell["rho_requested"]
    who = cell["agent"].removeprefix("script:") if rho is None else f"ρ {rho_text(rho)}"
    yield f"{cell['utility']:.3f} ({who})"
    yield "–" if possible is None else f"{possible - cell['utility']:.3f}"


def without(found: Document) -> dict[str, list[str]]:
    """Opponents that have no best response, by reason."""
    reasons: dict[str, list[str]] = {}
    for row in found["landmarks"]["best_response"]["rows"]:
        names = reasons.setdefault(row["reason"], []) if row["reason"] else []
        if row["opponent"] not in names:
            names.append(row["opponent"])
    return reasons
