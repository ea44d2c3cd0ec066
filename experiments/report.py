"""Report: a tournament's ``report.html``, made again from its files alone; or a comparison of two tournaments.

    python -m experiments.report DIR                   # --plots: every chart as PNG, SVG and CSV too
    python -m experiments.report --compare DIR1 DIR2

One self-contained HTML file that works offline: the dial's calibration, where it holds and where it breaks, what it
earns and how it bargains. Nothing is played and nothing is asked of a model.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments import cli
from experiments.match import results
from experiments.reporting import compare, compare_page, plots, summary
from experiments.reporting.games import Games, Source
from experiments.reporting.page import page
from experiments.reporting.plots import Element
from experiments.reporting.sections import arms, dial, money, opening, play, standings, tables
from experiments.reporting.sections.material import Material

REPORT, COMPARISON = "report.html", "comparison.html"
Document = Mapping[str, Any]
TOP = "top"
PARTS: tuple[tuple[str, Callable[[Material], Iterator[Element]]], ...] = (
    (TOP, opening.opening),
    ("calibration", dial.calibration),
    ("heatmaps", dial.heatmaps),
    ("concessions", play.concessions),
    ("frontier", money.surplus),
    ("agents", standings.standings),
    ("protocol", arms.protocol),
    ("ablations", arms.ablations),
    ("zoo", money.payoffs),
    ("landmarks", money.best_possible),
    ("outcomes", tables.outcomes),
    ("games", play.transcripts),
    ("figures", tables.figures),
    ("settings", tables.settings),
)
"""Parts of a report in order, by their anchors; a part that has nothing to say is left out."""


@dataclass(frozen=True)
class Settings:
    """Make a tournament's report.html again from its episodes.parquet and summary.json, or compare two tournaments."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """The --out folder of a finished tournament."""
    compare: tuple[Path, Path] | None = None
    """Two such folders: what changed from the first to the second, paired where they played the same scenarios."""
    out: Path = Path(COMPARISON)
    """File for the comparison."""
    plots: bool = False
    """Write every chart of the report as PNG, SVG and CSV into DIR/plots, too."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the paths of what was written as JSON."""


def run(settings: Settings) -> list[Path]:
    """Write the report, or the comparison, and return the paths of what was written.

    Raises:
        InputError: a folder does not hold a tournament, or cannot be written to.
    """
    if settings.compare is not None and settings.folder is None:
        return _compare(settings, *settings.compare)
    if settings.folder is None or settings.compare is not None:
        raise InputError("give the folder of one tournament, or --compare and two of them; see --help")
    episodes, found = results.located(settings.folder), summary.read(settings.folder)
    folder = cli.output_folder(settings.folder)
    body = dict(_parts(found, episodes))
    paths = [_written(_page(found, body), folder / REPORT)]
    if settings.plots:
        paths += plots.write((plot for parts in body.values() for plot in plots.drawn(parts)), folder / plots.FOLDER)
    return _told(settings, paths)


def _compare(settings: Settings, one: Path, two: Path) -> list[Path]:
    if settings.plots:
        raise InputError("--plots is of one tournament; leave it out with --compare")
    if settings.out.is_dir():
        raise InputError(f"--out {settings.out} is a folder; name the file that the comparison shall be")
    document = compare.compare(one, two)
    cli.output_folder(settings.out.parent)
    path = _written(compare_page.compare_page(document), settings.out)
    console = cli.console(settings.quiet or settings.json)
    console.print(compare_page.compare_table(document))
    console.print(compare.verdict(document), soft_wrap=True, markup=False)
    return _told(settings, [path])


def _told(settings: Settings, paths: list[Path]) -> list[Path]:
    if settings.json:
        print(json.dumps({"report": str(paths[0]), "files": [str(path) for path in paths]}))
    shown = f"wrote {paths[0]}" + (f" and {len(paths) - 1} files in {paths[-1].parent}" if len(paths) > 1 else "")
    cli.console(settings.quiet or settings.json).print(shown, soft_wrap=True)
    return paths


def write(found: Document, episodes: Source, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``, whole or not at all."""
    return _written(render(found, episodes), folder / REPORT)


def _written(page: str, path: Path) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(found: Document, episodes: Source) -> str:
    """The report's HTML: a pure function of its two arguments.

    Args:
        found: the summary.
        episodes: sorted by ``episode_id``; of those in a file only a part is in memory.
    """
    return _page(found, dict(_parts(found, episodes)))


def elements(found: Document, episodes: Source) -> list[Element]:
    """What the page holds, in order; the arguments are those of `render`."""
    return [element for some in dict(_parts(found, episodes)).values() for element in some]


def _parts(found: Document, episodes: Source) -> Iterator[tuple[str, list[Element]]]:
    """The parts of a report that have something to say, by their anchors."""
    material = Material(found, Games.of(episodes, found["settings"]))
    for anchor, part in PARTS:
        elements = list(part(material))
        if elements:
            yield anchor, elements


def _page(found: Document, body: Mapping[str, list[Element]]) -> str:
    shown = [plots.shown(element) for some in body.values() for element in some]
    links = [(anchor, anchor) for anchor in body if anchor != TOP]
    return page(opening.title(found), shown, links)


if __name__ == "__main__":
    cli.main(Settings, run)
