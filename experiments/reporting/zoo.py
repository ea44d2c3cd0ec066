"""The zoo's own documents: for each preset a table of scripts against scripts, ranked, and the whole matrix, as a picture
and as a table of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bargain_env import PRESETS
from bargain_env.files import replacing

from . import ranking, statistics
from .charts import png
from .heatmaps import heatmap, payoff_grids
from .measures import Columns, tallied

TABLE = "zoo.md"
Document = Mapping[str, Any]
PAIR_COLUMNS = ("agent", "opponent", "utility", "low", "high", "agreement_rate", "rho_as_buyer", "rho_as_seller")
_DIGITS = 3

_HEAD = (
    "| | strategy | family | split | utility | 95 % | deals | ρ as buyer | ρ as seller |\n"
    "|--:|---|---|---|--:|---|--:|--:|--:|"
)


def write(found: Mapping[str, Document], episodes: Mapping[str, pa.Table], command: str, folder: Path) -> list[Path]:
    """Write ``zoo.md`` and, for each preset, a picture and a table of the whole matrix, each whole or not at all.

    Args:
        found: the summary of scripts against scripts, by preset.
        episodes: the games that it sums up, likewise.
        command: what made it.
        folder: where to.
    """
    paths = [folder / TABLE, *(folder / name(preset) for preset in found for name in (_picture, _matrix))]
    for preset, document in found.items():
        with replacing(folder / _picture(preset)) as temporary:
            png(heatmap(payoff_grids(document, seats_together=True)), temporary)
        _write_pairs(pairs(episodes[preset], document["settings"]), folder / _matrix(preset))
    with replacing(paths[0]) as temporary:
        temporary.write_text("\n".join(_lines(found, command)) + "\n", encoding="utf-8")
    return paths


def _picture(preset: str) -> str:
    return f"zoo_{preset}.png"


def _matrix(preset: str) -> str:
    return f"zoo_{preset}.csv"


# ── the whole matrix ──────────────────────────────────────────────────────────────────────────────────────────────────


def pairs(episodes: pa.Table, settings: Document) -> Iterator[dict[str, Any]]:
    """What each strategy earns against each, both seats together: a row of `PAIR_COLUMNS`, in the order of the registry.

    Args:
        episodes: games of scripts against scripts.
        settings: see `experiments.reporting.summary.summarise`.

    Yields:
        Names as strings, figures as floats: ``utility`` with its interval, for which scenarios are resampled with both
        seats of each, ``agreement_rate``, and the mean ρ of the deals from either seat, NaN where there is none.
    """
    columns = Columns.of(episodes)
    keys, sums = tallied(columns, ("agent", "opponent"), settings)
    total = {name: values.sum(axis=0) for name, values in sums.items()}
    low, high = statistics.ratio_intervals(sums["utility"], sums["n"], seed=int(settings.get("seed", 0)))
    figures = {
        "utility": statistics.safe_ratio(total["utility"], total["n"]),
        "low": low,
        "high": high,
        "agreement_rate": statistics.safe_ratio(total["agreements"], total["n"]),
    }
    rho = _rho_by_seat(columns, settings)
    for i, (agent, opponent) in enumerate(keys):
        names = {"agent": agent.removeprefix(ranking.SCRIPT), "opponent": opponent}
        seats = {f"rho_as_{seat}": rho[agent, seat, opponent] for seat in ("buyer", "seller")}
        yield names | {name: float(column[i]) for name, column in figures.items()} | seats


def _rho_by_seat(columns: Columns, settings: Document) -> dict[Any, float]:
    keys, sums = tallied(columns, ("agent", "agent_seat", "opponent"), settings)
    rho = statistics.safe_ratio(sums["rho"].sum(axis=0), sums["settled"].sum(axis=0))
    return dict(zip(keys, rho.tolist(), strict=True))


def _write_pairs(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=PAIR_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: str | float) -> str:
    """A figure to `_DIGITS`; NaN is left empty, and there is no negative zero."""
    if isinstance(value, str):
        return value
    return "" if value != value else f"{round(value, _DIGITS) + 0.0:.{_DIGITS}f}"


# ── zoo.md ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(found: Mapping[str, Document], command: str) -> Iterator[str]:
    yield "# The zoo against itself\n"
    yield f"Made by `{command}`.\n"
    yield (
        "Every strategy meets every strategy, itself included, from both seats, in the same scenarios with the same luck; "
        "the buyer starts in every other one. Utility is the own share of the ZOPA with every impasse charged as 0, "
        "averaged over seats, opponents and scenarios. Its interval resamples scenarios; the opponents are the ones listed. "
        "ρ is the mean over deals: low is good for the buyer, high for the seller.\n"
    )
    yield (
        "*Held out* strategies are in no training data. The pictures hold the whole matrix, row against column, in "
        "hundredths where it is large; lines part families, a star marks what is held out. The tables beside them hold it "
        "with 95 % intervals, which resample scenarios with both seats of each. Both seats apart are in the `summary.csv` "
        "that the command writes for each preset. What a strategy does: `python -m experiments.strategies show NAME`."
    )
    for preset, document in found.items():
        yield from _preset(preset, document)


def _preset(preset: str, document: Document) -> Iterator[str]:
    rows = [row for row in ranking.standings(document) if ranking.is_script(row)]
    settings = document["settings"]
    games = 2 * len(settings["opponents"]) * settings["games"]
    yield f"\n## {preset}\n"
    yield f"{PRESETS[preset].description}. {settings['games']} scenarios, {games:,} games a strategy.\n"
    yield f"![Utility of each strategy against each, {preset}]({_picture(preset)})\n"
    yield f"Each against each, with intervals: [{_matrix(preset)}]({_matrix(preset)}).\n"
    yield _HEAD
    for row in rows:
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Document) -> Iterator[str]:
    yield from (str(row["rank"]), f"`{ranking.title(row)}`", f"{row['family']}", f"{row['split']}".replace("_", " "))
    yield _figure(row["utility"])
    bounds = (row["utility_low"], row["utility_high"])
    yield "–" if None in bounds else f"{_figure(bounds[0])} – {_figure(bounds[1])}"
    yield f"{100 * row['agreement_rate']:.1f} %"
    for seat in ("buyer", "seller"):
        yield _figure(row["seats"][seat]["rho_achieved"])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("0.", ".", 1)
