"""The frame of a report: one HTML file with its style and its script inside, light or dark as the reader's system is.

Nothing is fetched: the page forbids it to itself (its Content-Security-Policy allows what it holds and nothing else).
"""

from __future__ import annotations

import functools
import html
from collections.abc import Iterable, Sequence
from importlib import resources

from .heatmaps import ABOVE, BELOW, Grid

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_SHADES = 9
"""Steps of a tint on a page, each a class."""


def page(title: str, body: Iterable[str], nav: Iterable[tuple[str, str]] = ()) -> str:
    """The whole file.

    Args:
        title: of the window.
        body: elements, in order.
        nav: links to its parts, each ``(anchor, name)``; they stand behind the first element.
    """
    links = "".join(f'<a href="#{anchor}">{html.escape(name)}</a>' for anchor, name in nav)
    parts = list(body)
    if links:
        parts.insert(1, f"<nav>{links}</nav>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{html.escape(title)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{asset('report.css')}{_shades()}</style></head>\n"
        f"<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


@functools.cache
def asset(name: str) -> str:
    """A file that is put into pages as it is."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _shades() -> str:
    """One class for each tint, above and below."""
    lines = []
    for letter, colour in (("a", ABOVE), ("b", BELOW)):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        for step in range(1, _SHADES + 1):
            lines.append(
                f".{letter}{step} {{ background: rgba({red}, {green}, {blue}, {0.68 * step / _SHADES:.2f}); }}"
            )
    return "\n".join(lines) + "\n"


def heading(anchor: str, text: str) -> str:
    """The title of a part, to which the links at the top lead."""
    return f'<h2 id="{anchor}">{html.escape(text)}</h2>'


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{html.escape(text)}</p>'


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
        looks = [' class="name"' if i < names else "" for i in range(len(cells))]
        return "".join(f"<{tag}{look}>{html.escape(c)}</{tag}>" for c, look in zip(cells, looks, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>\n{body}</tbody></table></div>'


def heat(grid: Grid) -> str:
    """A table with tints: it scrolls under its row names on a small screen, and each square says in full what it is."""
    upright = ' class="upright"' if max(map(len, grid.columns)) > 6 else ""
    head = "".join(
        f'<th{upright} title="{html.escape(name)}">{html.escape(grid.label(name))}</th>' for name in grid.columns
    )
    lines = []
    for i, name in enumerate(grid.rows):
        apart = ' class="apart"' if i in grid.breaks[0] else ""
        squares = "".join(_square(grid, i, j) for j in range(len(grid.columns)))
        label = html.escape(grid.label(name))
        lines.append(f'<tr{apart}><th title="{html.escape(name)}">{label}</th>{squares}</tr>\n')
    return (
        f'<div class="scroll"><table class="heat"><caption>{html.escape(grid.title)}</caption>'
        f"<thead><tr><th>{html.escape(grid.corner)}</th>{head}</tr></thead><tbody>\n{''.join(lines)}</tbody></table></div>"
    )


def _square(grid: Grid, i: int, j: int) -> str:
    tint = grid.tints[i, j]
    step = 0 if tint != tint else round(abs(tint) * _SHADES)  # NaN: nothing to show
    look = f' class="{"a" if tint > 0 else "b"}{step}"' if step else ""
    full = f"{grid.rows[i]}, {grid.columns[j]}: {grid.text(i, j, 3)}"
    return f'<td{look} title="{html.escape(full)}">{grid.text(i, j, 2)}</td>'


def folded(summary: str, body: str) -> str:
    """Something that few readers need, one click away."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"
