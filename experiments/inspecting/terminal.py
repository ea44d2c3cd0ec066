"""The data card in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .html import said
from .models import BOOSTED, LINEAR
from .verdicts import LEAK, NOTE, OK

Document = Mapping[str, Any]
_STYLES = {OK: "green", NOTE: "yellow", LEAK: "bold white on red"}
_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#@"
_TURNS = 8
"""Turns of a curve that are written."""


def print_card(card: Document, console: Console) -> None:
    """All of it, in a screen or two."""
    console.print(Group(*_parts(card, plain=not console.is_terminal)))


def _parts(card: Document, *, plain: bool) -> Iterator[RenderableType]:
    yield Text.assemble((f"\nData card: {card['data']}  ", "bold"), (f" {card['verdict']} ", _STYLES[card["verdict"]]))
    yield Text(said(card))
    s, offers, zopa = card["strategies"], card["prices"]["offers"], card["zopa"]
    splits = ", ".join(f"{row['split'] or 'not split'} {row['games']:,}" for row in card["splits"])
    facts = {
        "games": f"{card['games']:,} ({splits})",
        "decisions": f"{card['decisions']:,}, {card['accepts']['share_of_decisions']:.1%} of them accept",
        "impasses": f"{card['impasse_share']:.1%} of games",
        "strategies": f"{len(s['names']):,}; {len(s['pairs']):,} of {s['pairs_possible']:,} ordered pairs met, "
        f"{s['least_games']['games']:,} to {s['most_games']['games']:,} games each",
        "ZOPA": f"{zopa['least']:,.2f} to {zopa['most']:,.2f} wide, mean {zopa['mean']:,.2f}",
        "offers": f"{offers['least']:,.2f} to {offers['most']:,.2f}",
        "models": f"fitted to {card['sample']['games']:,} games, {card['sample']['decisions']:,} decisions",
    }
    grid = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        grid.add_row(Text(name, style="dim"), Text(fact))
    yield grid
    yield _histograms(card, _PLAIN_BARS if plain else _BARS)
    yield _curves(card)
    yield _checks(card)


def _histograms(card: Document, bars: str) -> Table:
    table = Table(title="ρ of the game, over decisions", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("who decides", "moved first", "decisions", "impasse", "0          ρ          1"):
        table.add_column(name, justify="right" if name in ("decisions", "impasse") else "left")
    for row in card["rho"]:
        if row["decisions"]:
            drawn = _drawn(row["counts"], bars)
            share = f"{row['impasse'] / row['decisions']:.1%}"
            table.add_row(row["seat"], row["starter"], f"{row['decisions']:,}", share, drawn)
    return table


def _drawn(counts: list[int], bars: str) -> str:
    most = max(*counts, 1)
    return "".join(bars[-(-count * (len(bars) - 1) // most)] for count in counts)


def _curves(card: Document) -> Table:
    table = Table(title="R² of the other side's reservation, by turn", title_justify="left", box=box.SIMPLE_HEAD)
    turns = sorted({row["turn"] for rows in card["disclosure"].values() for row in rows})
    picked = [turns[round(k * (len(turns) - 1) / (_TURNS - 1))] for k in range(_TURNS)] if turns else []
    chosen = list(dict.fromkeys(picked))
    for name in ("seat", "model"):
        table.add_column(name)
    for turn in chosen:
        table.add_column(f"turn {turn}", justify="right")
    for seat, rows in card["disclosure"].items():
        by_turn = {row["turn"]: row for row in rows}
        for model in (LINEAR, BOOSTED):
            if rows and model in rows[0]:
                table.add_row(seat, model, *(_value(by_turn.get(turn), model) for turn in chosen))
    return table


def _value(row: Document | None, model: str) -> str:
    return "–" if row is None or row[model]["r2"] is None else f"{row[model]['r2'] + 0.0:.3f}"


def _checks(card: Document) -> Table:
    table = Table(title="checks", title_justify="left", box=box.SIMPLE_HEAD, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(ratio=2)
    table.add_column(ratio=5)
    for check in sorted(card["checks"], key=lambda check: (LEAK, NOTE, OK).index(check["verdict"])):
        why = Text(check["why"])
        if check["action"]:
            why.append(f"\n-> {check['action']}", style="dim")
        table.add_row(Text(f" {check['verdict']} ", style=_STYLES[check["verdict"]]), Text(check["title"]), why)
    return table
