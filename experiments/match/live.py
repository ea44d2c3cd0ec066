"""What a tournament shows while it runs: progress and, for each ρ, how the games went so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bargain_env import Seat

from .contestants import SCRIPT
from .results import rho_text

_SEEN = ("games", "deals", "utility", "settled", "rho", "turns")
PLAIN_SECONDS = 5.0
SCRIPTS, OTHERS = "scripts", "agents without ρ"
"""Tables of agents that take no ρ."""
_HEADS = ("games", "deals", "utility", "ρ got", "turns")


class Tally(NamedTuple):
    """Sums over the games of one agent at one seat and ρ; small, so that workers can send it.

    Attributes:
        agent: label.
        seat: where it sat.
        rho: requested; None where it takes none.
        sums: games, deals, utility, games that settled at some ρ, that ρ, turns.
    """

    agent: str
    seat: Seat
    rho: float | None
    sums: tuple[float, ...]


def tally(episodes: pa.Table) -> list[Tally]:
    """What a `Scoreboard` counts of finished games."""
    columns = ("agent", "agent_seat", "rho_requested")
    settled = pc.cast(pc.is_valid(episodes["rho_achieved"]), pa.int64())
    seen = [pa.chunked_array([np.ones(len(episodes))]), pc.cast(episodes["agreement"], pa.int64()), episodes["utility"]]
    seen += [settled, pc.fill_null(episodes["rho_achieved"], 0.0), episodes["turns"]]
    few = pa.table([*(episodes[name] for name in columns), *seen], names=[*columns, *_SEEN])
    rows = few.group_by(columns, use_threads=False).aggregate([(name, "sum") for name in _SEEN]).to_pylist()
    return [
        Tally(
            row["agent"], Seat[row["agent_seat"].upper()], row["rho_requested"], tuple(row[f"{n}_sum"] for n in _SEEN)
        )
        for row in rows
    ]


class _Rate(ProgressColumn):
    """Games a second since the start, without those that an earlier run had finished."""

    def render(self, task: Task) -> Text:
        played = (task.completed or 0) - task.fields["kept"]
        return Text(f"{played / task.elapsed if task.elapsed else 0.0:,.0f} games/s")


class Scoreboard:
    """A live table on a terminal, a line for each agent and seat elsewhere, nothing on a quiet console.

    Use as a context manager; give `observe` to `experiments.match.arena.run_tournament`, or call `count`. A finished
    agent's table stays.

    Args:
        console: where to show.
        total: games that will be played.
        seats: where agents sit.
    """

    def __init__(self, console: Console, total: int, seats: tuple[Seat, ...]) -> None:
        self._console, self._seats = console, seats
        self._sums: dict[str, dict[tuple[str, Seat], NDArray[np.float64]]] = {}
        self._done = self._kept = 0
        self._total, self._group = total, ""
        self._start = self._said = time.monotonic()
        columns = (TextColumn("[bold]games"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._bar = self._progress.add_task("games", total=total, kept=0)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Scoreboard:
        if self._live and not self._console.quiet:
            self._live.update(self._progress)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        for name in self._sums if kind is None else ():
            self._console.print(self._table(name))

    def observe(self, episodes: pa.Table) -> None:
        """Count finished games in: rows of the episodes table."""
        self.count(tally(episodes))

    def resume(self, found: Iterable[Sequence[Tally]]) -> None:
        """Count in what an earlier run had finished, which says nothing about the speed of this one."""
        for some in found:
            self._add(some)
        self._kept, self._start = self._done, time.monotonic()
        self._progress.reset(self._bar, completed=self._done, kept=self._kept)

    def count(self, found: Sequence[Tally]) -> None:
        """Count games in that have just finished: what `tally` made of them."""
        self._add(found)
        self._show()

    def _add(self, found: Sequence[Tally]) -> None:
        for row in found:
            unasked = SCRIPTS if row.agent.startswith(SCRIPT) else OTHERS
            self._group = unasked if row.rho is None else row.agent
            name = row.agent.removeprefix(SCRIPT) if row.rho is None else rho_text(row.rho)
            sums = self._sums.setdefault(self._group, {})
            sums[name, row.seat] = sums.get((name, row.seat), np.zeros(len(_SEEN))) + np.array(row.sums)
            self._done += int(row.sums[0])

    def _show(self) -> None:
        self._progress.update(self._bar, completed=self._done)
        if self._live:
            height = max(4, self._console.height - 8)
            self._live.update(Group(self._table(self._group, height), self._progress))
            return
        now = time.monotonic()
        if self._done == self._total or now - self._said >= PLAIN_SECONDS:
            self._said = now
            seconds, played = max(now - self._start, 1e-9), max(self._done - self._kept, 1)
            rate, left = played / seconds, (self._total - self._done) * seconds / played
            self._console.print(
                f"{self._done:,} of {self._total:,} games, {rate:,.0f} games/s, {left:,.0f} s left ({self._group})",
                markup=False,
            )

    def _table(self, group: str, height: int = 10**6) -> Table:
        sums, unasked = self._sums[group], group in (SCRIPTS, OTHERS)
        table = Table(
            title=Text(group), title_justify="left", title_style="bold", box=None, pad_edge=False, collapse_padding=True
        )
        table.add_column("agent" if unasked else "ρ", justify="left" if unasked else "right", no_wrap=True)
        for seat in self._seats:
            for head in _HEADS:
                table.add_column(f"{seat.label}\n{head}" if head == _HEADS[0] else f"\n{head}", justify="right")
        names = list(dict.fromkeys(name for name, _ in sums))
        if unasked:
            names.sort(key=lambda name: -_mean_utility([s for (n, _), s in sums.items() if n == name]))
        else:
            names.sort(key=float)
        for name in names[:height]:
            table.add_row(Text(name), *(text for seat in self._seats for text in _cells(sums.get((name, seat)))))
        return table


def _mean_utility(sums: list[NDArray[np.float64]]) -> float:
    return float(np.mean([s[2] / s[0] for s in sums]))


def _cells(sums: NDArray[np.float64] | None) -> list[str]:
    if sums is None:
        return ["", "", "", "", ""]
    games, deals, utility, settled, rho, turns = sums
    achieved = f"{rho / settled:.3f}" if settled else "–"
    return [f"{games:.0f}", f"{100 * deals / games:.1f}%", f"{utility / games:.3f}", achieved, f"{turns / games:.1f}"]
