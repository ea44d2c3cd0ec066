"""A chart of a report: on its page, and as PNG, SVG and CSV files beside it."""

from __future__ import annotations

import base64
import csv
import functools
import html
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.figure import Figure

from bargain_env.files import replacing

from . import charts
from .page import folded

FOLDER = "plots"


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart.

    Attributes:
        name: of its files; unique in a report.
        draw: makes the picture.
        data: what it shows, a row for each mark.
        html: how it stands on the page, if not as the picture.
    """

    name: str
    draw: Callable[[], Figure]
    data: Sequence[Mapping[str, Any]]
    html: str = ""

    def shown(self) -> str:
        """As an element of a page."""
        return f'<div data-plot="{self.name}">{self.html or charts.svg(self.draw(), self.name)}</div>'

    def csv(self) -> str:
        """The data as the text of a CSV file."""
        written = io.StringIO()
        if self.data:
            writer = csv.DictWriter(written, fieldnames=list(self.data[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.data)
        return written.getvalue()


@dataclass(frozen=True, slots=True)
class Panels:
    """Charts that belong together: side by side where there is room.

    Attributes:
        plots: the charts.
        caption: how to read them.
    """

    plots: Sequence[Plot]
    caption: str

    def shown(self) -> str:
        """As an element of a page, with their data to be saved."""
        links = " ".join(
            f'<a class="data" download="{plot.name}.csv" href="data:text/csv;charset=utf-8;base64,'
            f'{base64.b64encode(plot.csv().encode()).decode()}">{plot.name}.csv</a>'
            for plot in self.plots
        )
        panels = "".join(plot.shown() for plot in self.plots)
        return (
            f'<figure><div class="panels">{panels}</div><figcaption>{html.escape(self.caption)}'
            f'<div class="data">data: {links}</div></figcaption></figure>'
        )


@dataclass(frozen=True, slots=True)
class Folded:
    """Something that few readers need, one click away.

    Attributes:
        title: what it is.
        parts: HTML and charts.
    """

    title: str
    parts: Sequence[Element]

    def shown(self) -> str:
        """As an element of a page."""
        return folded(self.title, "".join(shown(part) for part in self.parts))


Element: TypeAlias = str | Panels | Folded
"""A part of a page: HTML, or charts, which become HTML and files."""


def shown(part: Element) -> str:
    """As HTML."""
    return part if isinstance(part, str) else part.shown()


def drawn(parts: Iterable[Element]) -> Iterator[Plot]:
    """All charts of some parts."""
    for part in parts:
        if isinstance(part, Panels):
            yield from part.plots
        elif isinstance(part, Folded):
            yield from drawn(part.parts)


def write(plots: Iterable[Plot], folder: Path) -> list[Path]:
    """Write every chart as ``NAME.png``, ``NAME.svg`` and ``NAME.csv``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for plot in plots:
        picture = plot.draw()
        files: list[tuple[str, Callable[[Path], object]]] = [
            ("png", functools.partial(charts.png, picture)),
            ("svg", functools.partial(charts.svg_file, picture, name=plot.name)),
            ("csv", functools.partial(Path.write_text, data=plot.csv(), encoding="utf-8")),
        ]
        for ending, save in files:
            path = folder / f"{plot.name}.{ending}"
            with replacing(path) as temporary:
                save(temporary)
            paths.append(path)
    return paths
