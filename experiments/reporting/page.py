"""The frame of a report: one HTML file with its style inside, light or dark as the reader's system is, no network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --faint: #a9afb9; --paper: #fbfbf9; --card: #ffffff; --line: #e3e4e8;
  --buyer: #2f7ed8; --seller: #e07b1f; --soft: #5d6472; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --faint: #767d8b; --paper: #14171d; --card: #1b1f27;
  --line: #2d323d; --soft: #a2a9b7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
h4 { font-size: .95rem; margin: 0 0 .1rem; } p { margin: .3rem 0 .8rem; max-width: 78ch; }
.note, figcaption { color: var(--soft); font-size: .88rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .75rem .95rem; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .82rem; }
figure { margin: .6rem 0 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; overflow-x: auto; }
figure > svg { width: 100%; height: auto; display: block; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .26rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th.name, td.name { text-align: left; }
.games { display: grid; grid-template-columns: repeat(auto-fit, minmax(255px, 1fr)); gap: .8rem; }
.game { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .95rem;
  font-size: .88rem; }
.game p { margin: .1rem 0 .4rem; } .game ol { margin: .3rem 0; padding-left: 1.8rem; }
.offers { width: 100%; height: auto; } .offers polyline { fill: none; stroke-width: 1.6; }
.offers .limit { stroke-dasharray: 4 4; stroke-width: 1; opacity: .7; }
.offers .buyer { stroke: var(--buyer); } .offers .seller { stroke: var(--seller); }
.offers circle.buyer { fill: var(--buyer); } .offers circle.seller { fill: var(--seller); }
.offers .deal { fill: none; stroke: var(--ink); stroke-width: 1.8; }
.key b { font-weight: 600; } .key .b { color: var(--buyer); } .key .s { color: var(--seller); }
details > summary { cursor: pointer; color: var(--soft); } dl { display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem 1rem; font-size: .88rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole file."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Headline figures, each ``(value, what it is)``."""
    cards = "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>'
        for value, what in figures
    )
    return f'<div class="tiles">{cards}</div>'


def figure(svg: str, caption: str) -> str:
    """A chart with the sentence that says how to read it."""
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table; its first ``names`` columns are text, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        looks = ['class="name"' if i < names else "" for i in range(len(cells))]
        return "".join(f"<{tag} {look}>{html.escape(c)}</{tag}>" for c, look in zip(cells, looks, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>\n{body}</tbody></table></div>'


def folded(summary: str, body: str) -> str:
    """Something that few readers need, one click away."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"
