"""Single games on a page: cards that are drawn, and the games of every cell for the script that draws them on demand."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from typing import Any

from experiments.match.results import rho_text

from .games import KINDS, Game, Games
from .page import asset

WIDTH, HEIGHT, MARGIN = 320, 132, 12
Replay = Callable[[str], str]
"""From the id of an episode to the command that replays it."""


def card(title: str, game: Game, replay: Replay) -> str:
    """One game as an HTML element: what was at stake, its offers as a picture and as text, how it ended, how to see it."""
    end = f"deal at {game['price']:.2f}" if game["agreement"] else "no deal"
    asked = "" if game["rho_requested"] is None else f"ρ {rho_text(game['rho_requested'])} "
    who = html.escape(f"{game['agent']} as {game['agent_seat']}")
    against = html.escape(game["opponent"])
    lines = "".join(f"<li>{line}</li>" for line in _moves(game))
    return (
        f'<article class="game"><h4>{html.escape(title)}: {end}</h4><p>{who} {asked}against <b>{against}</b></p>'
        f'{picture(game)}<p class="note">{html.escape(facts(game))}</p>'
        f"<details><summary>every offer</summary><ol>{lines}</ol></details>"
        f"<code>{html.escape(replay(game['episode_id']))}</code></article>"
    )


def facts(game: Game) -> str:
    """What is to be known of a game beside its offers."""
    found = [f"scenario {game['scenario_id']}", f"{game['turns']} turns", f"utility {game['utility']:.3f}"]
    if game["rho_achieved"] is not None:
        found.insert(0, f"settled at ρ {game['rho_achieved']:.3f}")
    for name, what in (("guard_moves", "replaced by the guard"), ("fallback_moves", "not understood")):
        if game[name]:
            found.append(f"{game[name]} {what}")
    if game["invalid_moves"]:
        found.append(f"{game['invalid_moves']} invalid")
    return ", ".join(found)


def explorer(games: Games, replay: Replay) -> str:
    """The games of every shown cell, to be chosen: empty lists that the page's script fills from the data beside them."""
    data = [
        {
            "agent": cell.agent,
            "seat": cell.agent_seat,
            "rho": "–" if cell.rho_requested is None else rho_text(cell.rho_requested),
            "opponent": cell.opponent,
            "games": [_record(kind, places[kind], replay) for kind in KINDS],
        }
        for cell, places in games.shown.items()
    ]
    # A '<' cannot end the element that the data stand in if there is none.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    picks = "".join(
        f'<label>{name} <select id="pick-{field}"></select></label>'
        for field, name in (("agent", "agent"), ("seat", "as"), ("rho", "ρ"), ("opponent", "against"))
    )
    return (
        f'<div class="pick">{picks}</div><div class="games" id="picked"></div>'
        f'<script type="application/json" id="cells">{text}</script>\n<script>\n{asset("report.js")}</script>'
    )


def _record(kind: str, game: Game, replay: Replay) -> dict[str, Any]:
    return {
        "what": kind,
        "facts": facts(game),
        "starter": game["starter"],
        "turns": game["turns"],
        "price": game["price"] if game["agreement"] else None,
        "low": game["seller_min"],
        "high": game["buyer_max"],
        "offers": [list(offer) for offer in zip(game["offer_turns"], game["offers"], strict=True)],
        "replay": replay(game["episode_id"]),
    }


def _mover(game: Game, turn: int) -> str:
    other = "seller" if game["starter"] == "buyer" else "buyer"
    return str(game["starter"] if turn % 2 else other)


def _moves(game: Game) -> list[str]:
    offered = dict(zip(game["offer_turns"], game["offers"], strict=True))
    lines = []
    for turn in range(1, game["turns"] + 1):
        if turn in offered:
            lines.append(f"{_mover(game, turn)} offers {offered[turn]:.2f}")
        elif turn == game["turns"] and game["agreement"]:
            lines.append(f"{_mover(game, turn)} <b>accepts</b>")
        else:
            lines.append(f"{_mover(game, turn)} wastes the turn (invalid move)")
    return lines


def picture(game: Game) -> str:
    """Offers over turns as a small SVG: the buyer's line (dots) and the seller's (squares), both limits, and the deal."""
    limits = (game["seller_min"], game["buyer_max"])
    low, high = min(*limits, *game["offers"]), max(*limits, *game["offers"])
    last = max(2, game["turns"])

    def x(turn: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (turn - 1) / (last - 1)

    def y(price: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (price - low) / max(high - low, math.ulp(1.0))

    parts = [
        f'<line class="limit {seat}" x1="0" x2="{WIDTH}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
        for seat, limit in zip(("seller", "buyer"), limits, strict=True)
    ]
    made = list(zip(game["offer_turns"], game["offers"], strict=True))
    for seat in ("buyer", "seller"):
        points = [(x(turn), y(price)) for turn, price in made if _mover(game, turn) == seat]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="{seat}" points="{line}"/>')
        parts += [_mark(seat, a, b) for a, b in points]
    if game["agreement"]:
        parts.append(f'<circle class="deal" cx="{x(game["turns"]):.1f}" cy="{y(game["price"]):.1f}" r="5"/>')
    label = html.escape(f"offers of the game {game['episode_id']}")
    return f'<svg class="offers" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _mark(seat: str, x: float, y: float) -> str:
    if seat == "buyer":
        return f'<circle class="buyer" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
    return f'<rect class="seller" x="{x - 2.3:.1f}" y="{y - 2.3:.1f}" width="4.6" height="4.6"/>'
