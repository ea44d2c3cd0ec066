"""The zoo's own documents: for each preset a table of scripts against scripts, ranked, and the whole matrix as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bargain_env import PRESETS
from bargain_env.files import replacing

from . import ranking
from .charts import png
from .heatmaps import payoff_heatmap

TABLE = "zoo.md"
Document = Mapping[str, Any]

_HEAD = (
    "| | strategy | family | split | utility | 95 % | deals | ρ as buyer | ρ as seller |\n"
    "|--:|---|---|---|--:|---|--:|--:|--:|"
)


def write(found: Mapping[str, Document], command: str, folder: Path) -> list[Path]:
    """Write ``zoo.md`` and a picture for each preset, each whole or not at all.

    Args:
        found: the summary of scripts against scripts, by preset.
        command: what made it.
        folder: where to.
    """
    paths = [folder / TABLE, *(folder / _picture(preset) for preset in found)]
    for path, document in zip(paths[1:], found.values(), strict=True):
        with replacing(path) as temporary:
            png(payoff_heatmap(document, seats_together=True), temporary)
    with replacing(paths[0]) as temporary:
        temporary.write_text("\n".join(_lines(found, command)) + "\n", encoding="utf-8")
    return paths


def _picture(preset: str) -> str:
    return f"zoo_{preset}.png"


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
        "hundredths where it is large; lines part families, a star marks what is held out. Both seats apart, with "
        "intervals, are in the `summary.csv` that the command writes for each preset. What a strategy does: "
        "`python -m experiments.strategies show NAME`."
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
