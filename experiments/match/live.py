"""What a tournament shows while it runs: progress and, for each ρ, how the games went so far."""

from __future__ import annotations

import time
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bargain_env import Seat

from .arena import Block
from .results import rho_text

_SEEN = ("games", "deals", "utility", "settled", "rho", "turns")
PLAIN_SECONDS = 5.0
_HEADS = ("games", "deals", "utility", "ρ got", "turns")


class _Rate(ProgressColumn):
    """Games a second since the start."""

    def render(self, task: Task) -> Text:
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:,.0f} games/s")


class Scoreboard:
    """A live table on a terminal, a line for each agent and seat elsewhere, nothing on a quiet console.

    Use as a context manager; give `observe` to `experiments.arena.run_tournament`. A finished agent's table stays.

    Args:
        console: where to show.
        total: games that will be played.
        seats: where agents sit.
    """

    def __init__(self, console: Console, total: int, seats: tuple[Seat, ...]) -> None:
        self._console, self._seats = console, seats
        self._sums: dict[str, dict[tuple[str, Seat], NDArray[np.float64]]] = {}
        self._done, self._total = 0, total
        self._start = self._said = time.monotonic()
        columns = (TextColumn("[bold]games"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._bar = self._progress.add_task("games", total=total)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Scoreboard:
        if self._live and not self._console.quiet:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        for name in self._sums if kind is None else ():
            self._console.print(self._table(name))

    def observe(self, block: Block) -> None:
        """Count a finished block in."""
        contestant, table = block.contestant, block.table
        group = contestant.label if contestant.takes_rho else "scripts"
        sums = self._sums.setdefault(group, {})
        rho = table["rho_requested"].to_numpy()
        achieved = table["rho_achieved"].to_numpy()
        each = [np.ones(len(rho)), table["agreement"].to_numpy(), table["utility"].to_numpy()]
        each += [~np.isnan(achieved), np.nan_to_num(achieved), table["turns"].to_numpy()]
        values = np.stack(each).astype(np.float64)
        for request in np.unique(rho):
            rows = np.isnan(rho) if np.isnan(request) else rho == request
            key = (rho_text(request) if contestant.takes_rho else contestant.label.removeprefix("script:"), block.seat)
            sums[key] = sums.get(key, np.zeros(len(_SEEN))) + values[:, rows].sum(axis=1)
        self._show(group, len(rho))

    def _show(self, group: str, games: int) -> None:
        self._done += games
        self._progress.update(self._bar, completed=self._done)
        if self._live:
            height = max(4, self._console.height - 8)
            self._live.update(Group(self._table(group, height), self._progress))
        else:
            seconds = max(time.monotonic() - self._start, 1e-9)
            rate, left = self._done / seconds, (self._total - self._done) * seconds / self._done
            line = f"{self._done:,} of {self._total:,} games, {rate:,.0f} games/s, {left:,.0f} s left ({group})"
            now = time.monotonic()
            if self._done == self._total or now - self._said >= PLAIN_SECONDS:
                self._said = now
                self._console.print(line)

    def _table(self, group: str, height: int = 10**6) -> Table:
        sums = self._sums[group]
        table = Table(
            title=group, title_justify="left", title_style="bold", box=None, pad_edge=False, collapse_padding=True
        )
        table.add_column(
            "agent" if group == "scripts" else "ρ", justify="left" if group == "scripts" else "right", no_wrap=True
        )
        for seat in self._seats:
            for head in _HEADS:
                table.add_column(f"{seat.label}\n{head}" if head == _HEADS[0] else f"\n{head}", justify="right")
        names = list(dict.fromkeys(name for name, _ in sums))
        if group == "scripts":
            names.sort(key=lambda name: -_mean_utility([s for (n, _), s in sums.items() if n == name]))
        else:
            names.sort(key=float)
        for name in names[:height]:
            table.add_row(name, *(text for seat in self._seats for text in _cells(sums.get((name, seat)))))
        return table


def _mean_utility(sums: list[NDArray[np.float64]]) -> float:
    return float(np.mean([s[2] / s[0] for s in sums]))


def _cells(sums: NDArray[np.float64] | None) -> list[str]:
    if sums is None:
        return ["", "", "", "", ""]
    games, deals, utility, settled, rho, turns = sums
    achieved = f"{rho / settled:.3f}" if settled else "–"
    return [f"{games:.0f}", f"{100 * deals / games:.1f}%", f"{utility / games:.3f}", achieved, f"{turns / games:.1f}"]
