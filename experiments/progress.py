"""How far long work is: a bar with rate and time to go, or a plain line now and then where there is no terminal for one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_LINE_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal for a bar."""
Tell = Callable[[int, int], None]
"""Told how much is done and how much there is in all, as far as is known."""


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate of the last while."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self._unit}/s")


@contextlib.contextmanager
def progress(label: str, unit: str, console: Console, total: int | None = None, done: int = 0) -> Iterator[Tell]:
    """Show how far the work in the block is; the block tells it.

    Args:
        label: what is done.
        unit: what is counted, in the plural.
        console: where to.
        total: units in all, where that is known beforehand.
        done: units that were done before.
    """
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    began = told = time.monotonic()
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, completed=done)

        def tell(now_done: int, in_all: int) -> None:
            nonlocal told
            bar.update(task, completed=now_done, total=in_all)
            now = time.monotonic()
            if not console.is_terminal and now - told > PLAIN_LINE_EVERY:
                told, rate = now, (now_done - done) / (now - began)
                left = f", {(in_all - now_done) / rate:,.0f} s to go" if rate > 0 else ""
                console.out(f"{label}: {now_done:,} of {in_all:,} {unit}, {rate:,.0f} {unit}/s{left}")

        yield tell
