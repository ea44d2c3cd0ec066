"""Report: a tournament's ``report.html``, made again from its files alone.

    python -m experiments.report DIR

One self-contained HTML file that works offline: the dial's calibration, where it holds and where it breaks, what it
earns and how it bargains. Nothing is played and nothing is asked of a model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a file: this folder's names must not hide the standard library
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pyarrow as pa
import tyro

from bargain_env.files import replacing
from experiments import cli
from experiments.match import results
from experiments.reporting import landmarks, ranking, summary, transcripts
from experiments.reporting.charts import calibration_chart, svg, tradeoff_chart
from experiments.reporting.concession import concession_chart
from experiments.reporting.heatmaps import dial_heatmap, payoff_heatmap
from experiments.reporting.page import figure, folded, page, table, tiles

REPORT = "report.html"
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """Make a tournament's report.html again from its episodes.parquet and summary.json."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a finished tournament."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the path of the report as JSON."""


def run(settings: Settings) -> Path:
    """Write the report and return its path.

    Raises:
        InputError: the folder does not hold a tournament, or cannot be written to.
    """
    episodes, found = results.read(settings.folder), summary.read(settings.folder)
    path = write(found, episodes, cli.output_folder(settings.folder))
    if settings.json:
        print(json.dumps({"report": str(path)}))
    cli.console(settings.quiet or settings.json).print(f"wrote {path}", soft_wrap=True)
    return path


def write(found: Document, episodes: pa.Table, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``, whole or not at all."""
    path = folder / REPORT
    with replacing(path) as temporary:
        temporary.write_text(render(found, episodes), encoding="utf-8")
    return path


def render(found: Document, episodes: pa.Table) -> str:
    """The report's HTML: a pure function of its two arguments."""
    return page(_title(found), _sections(found, episodes))


def _sections(found: Document, episodes: pa.Table) -> Iterator[str]:
    dials = list(found["calibration_by_agent"])
    yield from _header(found, episodes)
    if dials:
        yield from _calibration(found)
        yield from _heatmaps(found, dials)
    if any(row["rho_requested"] is None for row in found["cells"]):
        yield "<h2>Scripts against the zoo</h2>"
        text = (
            "Mean utility of each agent (row) against each opponent, impasses charged as 0; orange above one half. Large "
            "tables are in hundredths. Lines part families; a star marks strategies held out of training data."
        )
        yield figure(svg(payoff_heatmap(found), "payoff"), text)
    yield "<h2>What it earns</h2>"
    text = "Further right: more deals. Higher: better deals. Thin curves join equal utility with impasses charged as 0."
    yield figure(svg(tradeoff_chart(found), "tradeoff"), text)
    yield from _ranking(found)
    if "landmarks" in found:
        yield from _landmarks(found)
    if dials:
        yield "<h2>How it gives way</h2>"
        text = (
            "Median of the offers still being made at each of the agent's own turns. Games leave a curve when they are "
            "settled, so its right end shows the slow games only."
        )
        yield figure(svg(concession_chart(episodes, dials[0]), "concession"), text)
    yield from _tables(found)
    yield from _games(found, episodes)
    yield from _settings(found)


def _title(found: Document) -> str:
    agents = found["settings"]["agents"]
    return f"Tournament: {', '.join(agents[:3])}{f' and {len(agents) - 3} more' if len(agents) > 3 else ''}"


def _header(found: Document, episodes: pa.Table) -> Iterator[str]:
    s = found["settings"]
    yield f"<h1>{escape(_title(found))}</h1>"
    yield (
        f'<p class="note">{episodes.num_rows:,} games: {s["games"]} scenarios of <b>{escape(s["scenario"])}</b>, '
        f"{len(s['opponents'])} opponents, as {' and '.join(s['seats'])}, at most {s['max_turns']} turns, "
        f"seed {s['seed']}. Every agent, ρ and opponent met the same scenarios with the same luck.</p>"
    )
    verdict = _verdict(found)
    if verdict:
        yield f"<p>{escape(verdict)}</p>"
    yield tiles(_headline(found))


def _verdict(found: Document) -> str:
    """One sentence on the first agent's dial; empty where no agent takes ρ."""
    parts = []
    agent = next(iter(found["calibration_by_agent"]), None)
    for seat, c in found["calibration_by_agent"].get(agent, {}).items():
        rates = [rate for rate, rho in zip(c["agreement_rate"], c["rho"], strict=True) if rho >= 0]
        if rates and c["mae"] is not None:
            parts.append(
                f"as {seat} its deals miss the request by {c['mae']:.3f} on average, "
                f"Spearman {_text(c['spearman'])}, slope {_text(c['slope'])}, "
                f"with {_percent(min(rates))} to {_percent(max(rates))} agreement"
            )
    return f"{agent}: {'; '.join(parts)}." if parts else ""


def _headline(found: Document) -> Iterator[tuple[str, str]]:
    for seat, c in found["calibration"].items():
        if c:
            yield _text(c["spearman"]), f"Spearman of requested and achieved ρ, {seat}"
            yield _text(c["mae"]), f"mean |achieved − requested| of deals, {seat}"
    first = found["settings"]["agents"][0]
    for name, seats in found["configurations"].get(first, {}).items():
        buyer, seller = (results.rho_text(seats[s]["rho_requested"]) for s in ("buyer", "seller"))
        deals = _percent(seats["both"]["agreement_rate"])
        yield _text(seats["both"]["utility"]), f"utility, {name} (ρ {buyer} / {seller}), {deals} deals"
    scripts = [row for row in ranking.standings(found) if ranking.is_script(row)]
    if scripts:
        yield _text(scripts[0]["utility"]), f"utility, {ranking.title(scripts[0])}, the best script"
    if not found["calibration_by_agent"]:
        for row in sorted(found["overall"], key=lambda r: -r["utility"])[:4]:
            yield _text(row["utility"]), f"utility, {row['agent']} as {row['agent_seat']}"


def _calibration(found: Document) -> Iterator[str]:
    yield "<h2>Does the dial do what it says?</h2>"
    yield figure(
        svg(calibration_chart(found), "calibration"),
        "Mean achieved ρ of the deals at each requested ρ; bars are 95 % intervals with scenarios resampled. Achieved "
        "ρ is defined for deals only: read it with the agreement rate of the same games, below it. Controls are muted.",
    )
    head = ["agent", "seat", "Spearman", "per game", "MAE", "slope", "intercept", "agreement"]
    rows = []
    for agent, seats in found["calibration_by_agent"].items():
        for seat, c in seats.items():
            spans = [_span(c, name) for name in ("spearman", "mae", "slope")]
            rates = [r for r in c["agreement_rate"] if r is not None]
            rate = f"{_percent(min(rates))} – {_percent(max(rates))}"
            rows.append([agent, seat, spans[0], _text(c["spearman_games"]), *spans[1:], _text(c["intercept"]), rate])
    yield table(head, rows, names=2)


def _heatmaps(found: Document, dials: list[str]) -> Iterator[str]:
    yield "<h2>Where it holds and where it breaks</h2>"
    for i, agent in enumerate(dials):
        target = figure(
            svg(dial_heatmap(found, agent, "rho_achieved"), f"rho-{i}"),
            "Mean achieved ρ of deals. No tint: on target; orange: above the request, blue: below; a dash: no deal.",
        )
        rate = figure(
            svg(dial_heatmap(found, agent, "agreement_rate"), f"rate-{i}"),
            "Agreement rate of the same games. Blue: deals are missing.",
        )
        yield f"<h3>{escape(agent)}</h3>{target}{rate}" if i == 0 else folded(agent, target + rate)


def _ranking(found: Document) -> Iterator[str]:
    rows = ranking.standings(found)
    if not rows:
        return
    seats = found["settings"]["seats"]
    yield "<h2>Ranked, with the scripts as landmarks</h2>"
    note = "Mean utility over seats, opponents and scenarios, impasses charged as 0, in brackets its 95 % interval."
    absent = found.get("landmarks", {}).get("scripts", {"rows": []})
    if absent["rows"]:
        note += (
            f" Scripts with a † were no agents of this tournament: they were played beside it, in its first "
            f"{absent['games']} scenarios."
        )
    yield f'<p class="note">{escape(note)}</p>'
    head = ["", "agent", "family", "split", "utility", "deals"]
    head += [head for seat in seats for head in (f"as {seat}", "its ρ")]
    beside = {row["agent"] for row in absent["rows"]}
    yield table(head, (_standing(row, seats, row["agent"] in beside) for row in rows), names=4)


def _standing(row: Document, seats: list[str], beside: bool) -> list[str]:
    name = f"{ranking.title(row)}{' †' if beside else ''}"
    by_seat = [_text(row["seats"][seat][figure]) for seat in seats for figure in ("utility", "rho_achieved")]
    strategy = [row["family"] or "–", (row["split"] or "–").replace("_", " ")]
    return [str(row["rank"]), name, *strategy, _span(row, "utility"), _percent(row["agreement_rate"]), *by_seat]


def _landmarks(found: Document) -> Iterator[str]:
    marks = found["landmarks"]
    head, rows = landmarks.table(found)
    yield "<h2>How far from the best anybody could do</h2>"
    if rows:
        yield (
            '<p class="note">Best possible: mean utility of the best response to each opponent, by a player that knows its '
            f"limit, its rule and its luck, in the first {marks['best_response']['games']} scenarios. Reached: the best "
            "row of this tournament against it, controls left out.</p>"
        )
        yield table(head, rows)
    for reason, names in landmarks.without(found).items():
        yield f'<p class="note">No figure for {escape(", ".join(names))}: {escape(reason)}.</p>'
    perfect, fair = marks["subgame_perfect"], marks["cooperative"]
    solutions = ", ".join(f"{name.replace('_', '-').title()} {_text(rho)}" for name, rho in fair.items())
    yield (
        f'<p class="note">Where theory would settle, in ρ: {solutions}. Between players who know both limits and play '
        f"perfectly, {_text(perfect['buyer_starts'])} if the buyer starts and {_text(perfect['seller_starts'])} if the "
        "seller does.</p>"
    )


def _tables(found: Document) -> Iterator[str]:
    yield "<h2>All figures, over all opponents</h2>"
    yield '<p class="note">Utility charges every impasse as 0; brackets: 95 % intervals with scenarios resampled.</p>'
    head = ["agent", "seat", "ρ", "games", "deals", "utility", "deals only", "opponent", "achieved ρ", "sd", "turns",
            "invalid", "guard", "fallback"]  # fmt: skip
    yield table(head, ([r["agent"], r["agent_seat"], *_overall(r)] for r in found["overall"]), names=2)
    if found["contrasts"]:
        yield "<h3>Paired differences in utility</h3>"
        rows = [
            [
                c["agent"],
                c["against"],
                c["agent_seat"],
                f"{c['utility_difference']:+.3f}",
                _bounds(c["low"], c["high"], "+"),
            ]
            for c in found["contrasts"]
        ]
        body = table(["agent", "minus", "seat", "difference", "95 %"], rows, names=3)
        yield (
            body if len(rows) <= 12 else folded(f"{len(rows)} comparisons with {found['contrasts'][0]['agent']}", body)
        )


def _overall(row: Document) -> list[str]:
    rho = "–" if row["rho_requested"] is None else results.rho_text(row["rho_requested"])
    measured = [_percent(row["agreement_rate"]), _span(row, "utility"), _text(row["utility_deals"])]
    measured += [_text(row["opponent_utility"]), _span(row, "rho_achieved"), _text(row["rho_achieved_sd"])]
    return [
        rho,
        f"{row['n']:,}",
        *measured,
        f"{row['turns']:.1f}",
        _percent(row["invalid_rate"]),
        _percent(row["guard_rate"]),
        "–" if "fallback_rate" not in row else _percent(row["fallback_rate"]),
    ]


def _games(found: Document, episodes: pa.Table) -> Iterator[str]:
    agent = next(iter(found["calibration_by_agent"]), found["settings"]["agents"][0])
    yield "<h2>Games</h2>"
    yield (
        '<p class="key note">Offers over turns: <b class="b">buyer</b> and <b class="s">seller</b>, '
        "dashed at their limits; the ring is the deal.</p>"
    )
    for seat in found["settings"]["seats"]:
        cards = "".join(transcripts.card(name, game) for name, game in transcripts.choose(episodes, agent, seat))
        yield f'<h3>as {seat}</h3><div class="games">{cards}</div>'


def _settings(found: Document) -> Iterator[str]:
    def shown(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(shown(v))}</dd>" for k, v in found["settings"].items())
    yield f"<h2>Settings</h2><dl>{entries}</dl>"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _bounds(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _span(row: Document, name: str) -> str:
    return f"{_text(row[name])} {_bounds(row.get(f'{name}_low'), row.get(f'{name}_high'))}".strip()


if __name__ == "__main__":
    cli.main(Settings, run)
