"""The data card as one HTML file, in the frame of the tournaments' report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from html import escape
from typing import Any

from matplotlib.figure import Figure

from experiments.reporting import charts
from experiments.reporting.heatmaps import heatmap
from experiments.reporting.page import asset, folded, heading, heat, note, page, table, tiles
from experiments.reporting.plots import Element, Panels, Plot, shown
from experiments.reporting.sections.material import definitions, percent, text

from . import pictures
from .games import SEATS
from .verdicts import LEAK, NOTE, OK

Document = Mapping[str, Any]
TOP = "top"
_MANY = 40
"""Rows of a table that are shown unfolded at most."""


def render(card: Document) -> str:
    """The page: a pure function of the card."""
    parts: dict[str, Callable[[Document], Iterator[Element]]] = {
        TOP: _top,
        "checks": _checks,
        "reservation": _reservation,
        "labels": _labels,
        "games": _games,
        "strategies": _strategies,
        "provenance": _provenance,
    }
    body = {anchor: [shown(element) for element in part(card)] for anchor, part in parts.items()}
    links = [(anchor, anchor) for anchor in body if anchor != TOP]
    return page(f"Data card: {card['data']}", [element for some in body.values() for element in some], links)


def said(card: Document) -> str:
    """The verdict in a sentence."""
    counts = {kind: sum(check["verdict"] == kind for check in card["checks"]) for kind in (LEAK, NOTE, OK)}
    if card["verdict"] == LEAK:
        first = next(check for check in card["checks"] if check["verdict"] == LEAK)
        rest = f" {counts[LEAK]} of {len(card['checks'])} checks found a leak." if counts[LEAK] > 1 else ""
        return f"{_capital(first['title'])}: {first['why']}.{rest}"
    if card["verdict"] == NOTE:
        return f"No leak found in {len(card['checks'])} checks; {counts[NOTE]} with something to know."
    return f"No leak found in {len(card['checks'])} checks."


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{verdict}</span>'


def _top(card: Document) -> Iterator[Element]:
    yield f"<style>\n{asset('card.css')}</style><h1>Data card: {escape(card['data'])}</h1>"
    sample = card["sample"]
    fits = (
        f"models fitted to {sample['games']:,} of them" if sample["games"] < card["games"] else "models fitted to all"
    )
    yield note(f"{card['games']:,} games, {card['decisions']:,} decisions; {fits}, seed {sample['seed']}.")
    yield f'<p class="verdict">{_badge(card["verdict"])}{escape(said(card))}</p>'
    strategies = card["strategies"]
    yield tiles(
        [
            (f"{card['games']:,}", "games"),
            (f"{card['decisions']:,}", "decisions"),
            (percent(card["impasse_share"]), "of games end without a deal"),
            (percent(card["accepts"]["share_of_decisions"]), "of decisions accept"),
            (f"{len(strategies['names']):,}", "strategies"),
            (f"{len(strategies['pairs']):,} / {strategies['pairs_possible']:,}", "ordered pairs that met"),
        ]
    )


def _checks(card: Document) -> Iterator[Element]:
    yield heading("checks", "Checks")
    lines = []
    for check in sorted(card["checks"], key=lambda check: (LEAK, NOTE, OK).index(check["verdict"])):
        todo = f'<p class="do">→ {escape(check["action"])}</p>' if check["action"] else ""
        lines.append(
            f"<li>{_badge(check['verdict'])}<b>{escape(check['title'])}</b><div><p>{escape(check['why'])}</p>{todo}</div></li>\n"
        )
    yield f'<ul class="checks">\n{"".join(lines)}</ul>'


def _reservation(card: Document) -> Iterator[Element]:
    """What a seat can know of the other one's limit."""
    yield heading("reservation", "Can the other side's limit be told?")
    yield note(
        "Models that see what a seat sees when it decides (own limit, public range, turn, the offers so far) predict the "
        f"other side's reservation; {percent(1 - card['sample']['test_share'])} of the sampled games fit them, the others "
        "measure. At turn 1 only the generator of scenarios can tell it: what the preset tells by itself is no leak, "
        "anything beyond is. Later, offers disclose limits, as they should. The reference: as many fresh games of the "
        "preset; where none is known, the same games by the own limit without its last digits."
    )
    first = [check for check in card["checks"] if "models" in check["figures"]]
    yield table(
        ["games", "seat", "model", "R² at turn 1", "95 %", "reference", "95 %", "held-out games"], _fits(first), names=3
    )
    plots = []
    for seat in SEATS:
        rows = card["disclosure"][seat]
        if rows:
            draw = partial(pictures.disclosure_chart, rows, seat, list(_references(first, seat)))
            label = f"R² of the other side's limit over turns, as {seat}"
            plots.append(_plot(f"disclosure-{seat}", label, draw, list(pictures.disclosure_records(rows, seat))))
    if plots:
        yield Panels(
            plots,
            "Bands: 95 %, games resampled. Games leave the curves when they end. Least squares is fitted for each turn, "
            "trees for all turns together.",
        )


def _references(checks: list[Document], seat: str) -> Iterator[tuple[str, float]]:
    """Presets, and the R² that the better model gets from fresh games of them."""
    for figures in (check["figures"] for check in checks):
        known = [fit["reference"]["r2"] for fit in figures["models"].values() if fit["reference"]["r2"] is not None]
        if figures["seat"] == seat and figures["preset"] and known:
            yield figures["preset"], max(known)


def _fits(checks: list[Document]) -> Iterator[list[str]]:
    for check in checks:
        f = check["figures"]
        for model, fit in f["models"].items():
            data, reference = fit["data"], fit["reference"]
            figures = [text(data["r2"]), _bounds(data), text(reference["r2"]), _bounds(reference)]
            yield [f["preset"] or "no known preset", f["seat"], model, *figures, f"{data['games']:,}"]


def _bounds(fit: Document) -> str:
    return "–" if fit["low"] is None else f"[{text(fit['low'])}, {text(fit['high'])}]"


def _plot(name: str, label: str, draw: Callable[[], Figure], data: list[dict[str, Any]]) -> Plot:
    """A chart that says what it is to who cannot see it."""
    picture = f'<div role="img" aria-label="{escape(label)}">{charts.svg(draw(), name)}</div>'
    return Plot(name, draw, data, picture)


def _labels(card: Document) -> Iterator[Element]:
    yield heading("labels", "Labels")
    rows = card["rho"]
    odd = {name: sum(row[name] for row in rows) for name in ("no_label", "below_0", "above_1")}
    beside = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in odd.items() if n)
    yield note(
        "Every decision carries the ρ of its game, as a model is trained on it: by who decides and who moved first."
        + (f" Not drawn: decisions with ρ {beside}." if beside else "")
    )
    plots = [
        _plot(f"rho-{starter}", f"histogram of ρ, {starter} first", partial(pictures.rho_chart, rows, starter),
              list(pictures.rho_records(rows, starter)))
        for starter in SEATS
        if any(row["starter"] == starter and row["decisions"] for row in rows)
    ]  # fmt: skip
    if plots:
        yield Panels(
            plots, "Shares of all decisions of a seat; those in games that end in an impasse are in the legend."
        )


def _games(card: Document) -> Iterator[Element]:
    yield heading("games", "Games")
    head = ["split", "games", "deals", "impasses", "decisions"]
    yield table(head, ([s["split"] or "not split", f"{s['games']:,}", f"{s['deals']:,}",
                        percent(1 - s["deals"] / s["games"]), f"{s['decisions']:,}"] for s in card["splits"]))  # fmt: skip
    ranges, zopa = card["prices"]["ranges"], card["zopa"]
    span = ranges[0]["price_high"] - ranges[0]["price_low"] if card["prices"]["different_ranges"] == 1 else None
    widths = zopa["widths"]
    yield Panels(
        [
            _plot("turns", "games by length", partial(pictures.turns_chart, card["turns"]), list(card["turns"])),
            _plot("widths", "games by width of the ZOPA", partial(pictures.widths_chart, widths, span), list(widths)),
        ],
        f"Widths from {zopa['least']:,.2f} to {zopa['most']:,.2f}, mean {zopa['mean']:,.2f}, sd {zopa['sd']:,.2f}.",
    )
    if any(row["preset"] for row in card["presets"]):
        yield "<h3>Presets</h3>"
        yield table(["preset", "sampled games", "impasses"], ([row["preset"] or "none known", f"{row['sampled_games']:,}",
                    percent(row["impasse_share"])] for row in card["presets"]))  # fmt: skip
    yield "<h3>Public ranges</h3>"
    yield table(
        ["public range", "turns at most", "games"],
        (
            [f"{row['price_low']:,.2f} to {row['price_high']:,.2f}", str(row["max_turns"]), f"{row['games']:,}"]
            for row in ranges
        ),
    )
    more = card["prices"]["different_ranges"] - len(ranges)
    offers = card["prices"]["offers"]
    yield note(
        (f"And {more:,} other ranges. " if more else "")
        + f"Offers go from {offers['least']:,.2f} to {offers['most']:,.2f}; {offers['outside_range']:,} lie outside "
        + "the range. Moved first: "
        + ", ".join(f"{row['starter'] or 'unknown'} {row['games']:,}" for row in card["starters"])
        + "."
    )


def _strategies(card: Document) -> Iterator[Element]:
    s = card["strategies"]
    yield heading("strategies", "Who plays whom")
    most, least = s["most_games"], s["least_games"]
    yield note(
        f"{len(s['pairs']):,} of {s['pairs_possible']:,} ordered pairs met. Most often {most['buyer']} bought from "
        f"{most['seller']} ({most['games']:,} games), most rarely of those that met {least['buyer']} from {least['seller']} "
        f"({least['games']:,}). Strategies with drawn parameters count under their name."
    )
    rows = [[row["strategy"], f"{row['as_buyer']:,}", f"{row['as_seller']:,}",
             *(_share(row[f"impasses_as_{seat}"], row[f"as_{seat}"]) for seat in SEATS)] for row in s["names"]]  # fmt: skip
    body = table(["strategy", "games as buyer", "as seller", "impasses as buyer", "as seller"], rows)
    yield body if len(rows) <= _MANY else folded(f"{len(rows):,} strategies", body)
    grids = pictures.pair_grids(s)
    for name, grid in zip(("coverage", "impasses"), grids, strict=True):
        shown_as = f'<div class="heats">{heat(grid)}</div>'
        plot = Plot(f"pairs-{name}", partial(heatmap, [grid]), list(grid.records()), shown_as)
        left = len(s["names"]) - len(grid.rows)
        yield Panels([plot], "Rows buy, columns sell. Orange: more; blue: fewer games than if all pairs met equally often."
                     if name == "coverage" else "Rows buy, columns sell."
                     + (f" {left:,} strategies that played less are left out." if left else ""))  # fmt: skip


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "–"


def _provenance(card: Document) -> Iterator[Element]:
    yield heading("provenance", "What the folder says of itself")
    entries = dict(card["manifest"])
    yield definitions({**entries.pop("settings", {}), **entries}) if entries else note("Nothing that could be read.")
    files = [name for names in card["files"].values() for name in names]
    listed = definitions(card["files"])
    yield listed if len(files) <= 4 else folded(f"{len(files):,} files", listed)
