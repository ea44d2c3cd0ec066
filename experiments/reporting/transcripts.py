"""Games worth reading: the best, the median and the worst deal and an impasse of an agent, drawn offer by offer."""

from __future__ import annotations

import html
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from experiments.match.results import rho_text

Game = dict[str, Any]
WIDTH, HEIGHT, MARGIN = 320, 132, 12


def choose(episodes: pa.Table, agent: str, seat: str) -> list[tuple[str, Game]]:
    """Up to four games with what makes each worth reading; the same table gives the same games."""
    mine = episodes.filter((pc.field("agent") == agent) & (pc.field("agent_seat") == seat))
    deals = mine.filter(pc.field("agreement"))
    deals = deals.take(pc.sort_indices(deals, [("utility", "descending"), ("episode_id", "ascending")]))
    places = {"best deal": 0, "median deal": deals.num_rows // 2, "worst deal": deals.num_rows - 1}
    found: dict[str, tuple[str, Game]] = {}
    for name, place in places.items():
        if deals.num_rows:
            game = deals.slice(place, 1).to_pylist()[0]
            found.setdefault(game["episode_id"], (name, game))
    impasses = mine.filter(pc.invert(mine["agreement"]))
    if impasses.num_rows:
        game = impasses.slice(impasses.num_rows // 2, 1).to_pylist()[0]
        found[game["episode_id"]] = ("impasse", game)
    return list(found.values())


def card(title: str, game: Game) -> str:
    """One game as an HTML element: what was at stake, its offers as a picture and as text, and how it ended."""
    asked = "" if game["rho_requested"] is None else f"ρ {rho_text(game['rho_requested'])} "
    facts = [f"scenario {game['scenario_id']}", f"{game['turns']} turns", f"utility {game['utility']:.3f}"]
    if game["rho_achieved"] is not None:
        facts.insert(0, f"settled at ρ {game['rho_achieved']:.3f}")
    if game["guard_moves"]:
        facts.append(f"guard replaced {game['guard_moves']}")
    if game["invalid_moves"]:
        facts.append(f"{game['invalid_moves']} invalid")
    end = f"deal at {game['price']:.2f}" if game["agreement"] else "no deal"
    who = html.escape(f"{game['agent']} as {game['agent_seat']}")
    against = html.escape(game["opponent"])
    lines = "".join(f"<li>{line}</li>" for line in _moves(game))
    return (
        f'<article class="game"><h4>{html.escape(title)}: {end}</h4><p>{who} {asked}against <b>{against}</b></p>'
        f'{picture(game)}<p class="note">{", ".join(facts)}</p>'
        f"<details><summary>every offer</summary><ol>{lines}</ol></details></article>"
    )


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
    """Offers over turns as a small SVG: the buyer's and the seller's lines, both limits, and the deal."""
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
        parts += [f'<circle class="{seat}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in points]
    if game["agreement"]:
        parts.append(f'<circle class="deal" cx="{x(game["turns"]):.1f}" cy="{y(game["price"]):.1f}" r="5"/>')
    label = html.escape(f"offers of the game {game['episode_id']}")
    return f'<svg class="offers" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
