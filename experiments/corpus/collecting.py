"""What a collection shows while it is made, and the figures of the whole, from those of its parts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .parts import Played

PLAIN_LINE_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal for a bar."""


class _Rate(ProgressColumn):
    """Games a second."""

    def render(self, task: Task) -> Text:
        """The rate of the last while."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} games/s")


def progress(parts: Iterable[Played], total: int, done: int, console: Console) -> Iterator[Played]:
    """The parts as they come, with a bar, or a line now and then where there is no terminal.

    Args:
        parts: as they are played.
        total: games of the collection.
        done: games of those parts that were there before.
        console: where to.
    """
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    began = told = time.monotonic()
    before = done
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task("collect", total=total, completed=done)
        for played in parts:
            yield played
            done += played.part.games
            bar.update(task, completed=done)
            now = time.monotonic()
            if not console.is_terminal and now - told > PLAIN_LINE_EVERY:
                told, rate = now, (done - before) / (now - began)
                console.out(f"{done:,} of {total:,} games, {rate:,.0f} games/s, {(total - done) / rate:,.0f} s to go")


def summary(entries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and settlements of all parts together.

    Mean and spread are combined part by part in the order of their numbers (T. F. Chan, G. H. Golub, R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979, equation 2.1), so that they are the
    same to the last bit in whatever order the parts were played.

    Args:
        entries: `experiments.corpus.parts.counted` of each part, by its number.
    """
    ordered = [entries[number] for number in sorted(entries)]
    episodes, agreements = (sum(entry[name] for entry in ordered) for name in ("episodes", "agreements"))
    n, mean, squares = 0, 0.0, 0.0
    for count, here, around in (entry["rho"] for entry in ordered):
        if count:
            distance = here - mean
            squares += around + distance**2 * (n * count / (n + count))
            mean += distance * (count / (n + count))
            n += count
    return {
        "episodes": episodes,
        "steps": sum(entry["steps"] for entry in ordered),
        "left_out_for_invalid_moves": sum(entry["left_out"] for entry in ordered),
        "agreement_rate": agreements / episodes if episodes else None,
        "rho_mean": mean if n else None,
        "rho_sd": math.sqrt(squares / n) if n else None,
    }
