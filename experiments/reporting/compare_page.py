"""The comparison of two tournaments as people read it: one HTML page, or a table in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure
from rich.markup import escape as plain
from rich.table import Table

from experiments.match.results import rho_text

from . import page as frame
from .charts import new_figure, short, style, svg
from .compare import CALIBRATION, verdict, who
from .dial_charts import column
from .matched import SIDES
from .sections.material import bounds, definitions, p_value, percent, shown, signed, span, text

Row = Mapping[str, Any]

LOOKS: Mapping[str, Mapping[str, Any]] = {
    "one": {"color": "#009e73", "linestyle": "-", "marker": "o"},
    "two": {"color": "#cc79a7", "linestyle": "--", "marker": "s"},
}
"""Of either tournament; the colours differ for the colour-blind too (M. Okabe and K. Ito, Color Universal Design, 2008)."""
_NAMES = {"slope": "slope", "mae": "MAE", "spearman": "Spearman", "agreement_rate_all": "agreement"}
_HEAD = ["agent", "seat", "ρ"]
_MANY = 24
"""Rows of a table that is shown unfolded."""


def compare_page(document: Row) -> str:
    """The whole HTML of a comparison, of `experiments.reporting.compare.compare`: a function of the document alone."""
    return frame.page(_title(document), _sections(document))


def compare_table(document: Row) -> Table:
    """Utilities of either and their differences for a terminal, clear ones bold; `verdict` says it in a sentence."""
    one, two = document["names"]
    table = Table(box=None, pad_edge=False)
    for head in (*_HEAD, plain(short(one)), plain(short(two)), "difference", "95 %", "p (Holm)"):
        table.add_column(head, justify="left" if head in ("agent", "seat") else "right", no_wrap=head != "agent")
    for row in document["rows"]:
        figures = [text(row["utility_one"]), text(row["utility_two"]), _signed(row["utility_difference"])]
        cells = [
            *map(plain, _names(row)),
            *figures,
            _bounds(row, "utility").replace("[", r"\["),
            p_value(row["p_holm"]),
        ]
        table.add_row(*cells, style="bold" if row["clear"] else "")
    return table


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _title(document: Row) -> str:
    return "Compared: {} and {}".format(*document["names"])


def _sections(document: Row) -> Iterator[str]:
    yield f"<h1>{escape(_title(document))}</h1>"
    yield f"<p><b>{escape(verdict(document))}</b></p>"
    yield "".join(f'<p class="note">{escape(text)}</p>' for text in _how(document))
    yield from _dials(document)
    named = [row for row in document["rows"] if row["configuration"]]
    if named:
        yield "<h2>Named configurations, both seats together</h2>"
        yield _utilities(document, named)
    yield "<h2>By seat and request</h2>"
    single = [row for row in document["rows"] if not row["configuration"]]
    for heading, make in (("Utility", _utilities), ("Agreement", _agreements), ("Achieved ρ of deals", _settlements)):
        body = make(document, single)
        yield f"<h3>{heading}</h3>{body if len(single) <= _MANY else frame.folded(f'{len(single)} rows', body)}"
    yield from _settings(document)


def _how(document: Row) -> Iterator[str]:
    """What is compared with what, in sentences."""
    (one, two), counts = document["names"], document["scenarios"]
    if document["paired"]:
        yield (
            f"Paired: both played the same {counts['shared']:,} scenarios (equal limits and starters), of "
            f"{counts['one']:,} in {one} and {counts['two']:,} in {two}; only these are compared. Intervals are 95 %, with "
            "scenarios resampled for both at once."
        )
    else:
        yield (
            f"Independent: the scenarios are not the same games ({counts['one']:,} in {one}, {counts['two']:,} in {two}). "
            "Intervals are 95 %, with the scenarios of either resampled on their own; those of agreement are Newcombe's."
        )
    alone = zip((one, two), document["only"]["opponents"].values(), strict=True)
    left = "; ".join(f"left out: {len(opponents)} that {name} alone has" for name, opponents in alone if opponents)
    yield f"Opponents: {len(document['opponents'])} that both have{f' ({left})' if left else ''}."
    yield (
        f"Differences are {two} minus {one}. Utility charges every impasse as 0. p-values are corrected by Holm's method "
        f"over the {len(document['rows'])} utilities of this page; a clear difference has a corrected p below .05."
    )
    if any(a != b for a, b in document["agents"]):
        yield "No agent has the same label in both, so the first agents under test are compared: " + ", ".join(
            f"{a} of {one} with {b} of {two}" for a, b in document["agents"]
        )


def _dials(document: Row) -> Iterator[str]:
    rows = document["calibration"]
    if not rows:
        return
    yield "<h2>Does the dial do what it says?</h2>"
    for i, (one, two) in enumerate(document["agents"]):
        mine = [row for row in rows if (row["agent_one"], row["agent_two"]) == (one, two)]
        if mine:
            caption = (
                "Mean achieved ρ of the deals at each request, bars 95 % intervals, and the agreement rate of the same "
                f"games below. Solid: {document['names'][0]}. Dashed: {document['names'][1]}."
            )
            drawn = frame.figure(svg(overlay_chart(document, mine), f"compared-{i}"), caption)
            label = one if one == two else f"{one} and {two}"
            yield f"<h3>{escape(label)}</h3>{drawn}" if i == 0 else frame.folded(label, drawn)
    head = ["agent", "seat", "figure", *document["names"], "difference"]
    body = [
        [who(row), row["agent_seat"], _NAMES[name], *(span(row[side], name) for side in SIDES),
         _signed(row["difference"][name])]
        for row in rows
        for name in CALIBRATION
    ]  # fmt: skip
    yield frame.table(head, body, names=3)


def overlay_chart(document: Row, rows: Sequence[Row]) -> Figure:
    """Calibration of one pair of dials, one panel a seat: the first tournament solid, the second dashed."""
    with style():
        figure = new_figure(4.6 * len(rows), 5.4)
        axes = figure.subplots(2, len(rows), sharex=True, sharey="row", squeeze=False, height_ratios=(3.2, 1))
        for place, row in enumerate(rows):
            names = zip(SIDES, document["names"], strict=True)
            curves = [
                (short(name), row[side], {**LOOKS[side], "markersize": 4.6, "linewidth": 1.7}) for side, name in names
            ]
            column(axes[0, place], axes[1, place], f"as {row['agent_seat']}", curves, first=place == 0)
        return figure


def _utilities(document: Row, rows: Sequence[Row]) -> str:
    one, two = document["names"]
    head = [*_HEAD, one, two, "difference", "95 %", "p (Holm)", "", f"deals {one}", f"deals {two}"]
    body = []
    for row in rows:
        figures = [text(row["utility_one"]), text(row["utility_two"]), _signed(row["utility_difference"])]
        rates = [percent(row[f"agreement_rate_{side}"]) for side in SIDES]
        body.append(
            [
                *_names(row),
                *figures,
                _bounds(row, "utility"),
                p_value(row["p_holm"]),
                "clear" if row["clear"] else "",
                *rates,
            ]
        )
    return frame.table(head, body, names=2)


def _agreements(document: Row, rows: Sequence[Row]) -> str:
    head = [*_HEAD, *document["names"], "difference", "95 %"]
    return frame.table(head, ([*_names(row), *_pair(row, "agreement_rate")] for row in rows), names=2)


def _settlements(document: Row, rows: Sequence[Row]) -> str:
    head = [*_HEAD, *document["names"], "difference", "95 %"]
    return frame.table(head, ([*_names(row), *_pair(row, "rho_achieved")] for row in rows), names=2)


def _pair(row: Row, name: str) -> list[str]:
    values = [text(row[f"{name}_{side}"]) for side in SIDES]
    return [*values, _signed(row[f"{name}_difference"]), _bounds(row, name)]


def _settings(document: Row) -> Iterator[str]:
    one, two = document["names"]
    yield "<h2>What differs in what was asked for</h2>"
    unlike = [*document["settings"], *document["versions"]]
    if unlike:
        rows = [[row["name"], shown(row["one"]), shown(row["two"])] for row in unlike]
        yield frame.table(["setting", one, two], rows, names=3)
    else:
        yield '<p class="note">Nothing: all settings are the same.</p>'
    alone = [
        [subject, *(shown(sides[side]) if sides[side] else "–" for side in SIDES)]
        for subject, sides in document["only"].items()
        if any(sides.values())
    ]
    if alone:
        yield f"<h3>In one alone</h3>{frame.table(['', one, two], alone, names=3)}"
    for side, name in zip(SIDES, (one, two), strict=True):
        yield frame.folded(f"all settings of {name}", definitions(document[f"settings_{side}"]))


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _names(row: Row) -> list[str]:
    """Agent, seat, and ρ or the name of the configuration."""
    rho = "–" if row["rho_requested"] is None else rho_text(row["rho_requested"])
    return [who(row), row["agent_seat"], row["configuration"] or rho]


def _signed(value: float | None) -> str:
    return "–" if value is None else signed(value)


def _bounds(row: Row, name: str) -> str:
    return bounds(row[f"{name}_low"], row[f"{name}_high"], "+")
