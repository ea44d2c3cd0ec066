"""What was wrong with an input: counted over any number of batches, and told the same however they were cut."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table

from .checks import Finding
from .claims import FAULT_CODE
from .decisions import Corpus
from .kinds import KINDS
from .reading import Reader

Places = NDArray[np.int64]
DROPPED, LEFT_OUT, KEPT_ONCE = "dropped", "the row left out", "kept once"
RELINKED, RECOMPUTED = "split into its episodes", "recomputed from the moves"
EXAMPLES = 5
MOST_NUMBERS = 100_000
"""Rows of one kind whose numbers are kept: the first ones of the input."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem.

    Attributes:
        kind: one of `experiments.corpus.kinds.KINDS`.
        meaning: one line.
        trajectories: ids that show it.
        steps: rows that show it.
        action: what was done to those ids.
        examples: the first ids, up to five.
        first: where it is found first, ``FILE:row 12`` or ``FILE:line 12``.
        rows: for each file, runs ``[first, last]`` of the rows that show it: rows of a table are counted from 0, lines of a
            log from 1.
        rows_left_out: how many rows are not among these runs, which are of the first `MOST_NUMBERS` rows.
    """

    kind: str
    meaning: str
    trajectories: int
    steps: int
    action: str
    examples: list[str]
    first: str
    rows: dict[str, list[list[int]]]
    rows_left_out: int


@dataclass(slots=True)
class _Count:
    action: str
    trajectories: int = 0
    steps: int = 0
    places: list[Places] = field(default_factory=list)
    kept: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    def add(self, places: Places) -> None:
        """Rows that show it."""
        self.steps += len(places)
        self.places.append(np.sort(places)[:MOST_NUMBERS])
        self.kept += len(self.places[-1])
        if self.kept > 2 * MOST_NUMBERS:
            self.places = [self.numbers()]
            self.kept = len(self.places[0])

    def numbers(self) -> Places:
        """The places of the first rows of the input that show it."""
        return np.sort(np.concatenate(self.places))[:MOST_NUMBERS]


class Report:
    """Problems as they are found."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, finding: Finding, corpus: Corpus, action: str) -> None:
        """A finding in ``corpus`` and what is done to the ids that it touches."""
        count = self._counts.setdefault(finding.kind, _Count(action))
        touched = finding.ids(corpus.rows)
        count.trajectories += int(touched.sum())
        count.add(corpus.column("place")[finding.steps])
        first = np.flatnonzero(touched)
        first = first[np.argsort(corpus.first[first], kind="stable")[:EXAMPLES]]
        found = zip(corpus.first[first].tolist(), corpus.rows.ids[first].tolist(), strict=True)
        count.examples = sorted([*count.examples, *found])[:EXAMPLES]

    def add_nameless(self, rows: pa.Table) -> None:
        """Rows (`experiments.corpus.claims.CLAIMS`) that cannot be read and do not say whose they are."""
        fault, place = (rows[name].to_numpy() for name in ("fault", "place"))
        for kind, code in FAULT_CODE.items():
            if (fault == code).any():
                self._counts.setdefault(kind, _Count(DROPPED)).add(place[fault == code])

    def problems(self, reader: Reader) -> list[Problem]:
        """All of them, in the order of `KINDS`."""
        return [_problem(kind, self._counts[kind], reader) for kind in KINDS if kind in self._counts]


def _problem(kind: str, count: _Count, reader: Reader) -> Problem:
    places = count.numbers()
    file, number = reader.locate(places)
    rows = {reader.names[i]: _runs(number[file == i]) for i in np.unique(file).tolist()}
    return Problem(
        kind=kind,
        meaning=KINDS[kind],
        trajectories=count.trajectories,
        steps=count.steps,
        action=count.action,
        examples=[name for _, name in count.examples],
        first=f"{reader.names[file[0]]}:{reader.counted} {number[0]}",
        rows=rows,
        rows_left_out=count.steps - len(places),
    )


def _runs(numbers: Places) -> list[list[int]]:
    """Ascending numbers as ``[first, last]`` of each run without a gap."""
    begins = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    ends = np.append(begins[1:], len(numbers)) - 1
    return np.stack([numbers[begins], numbers[ends]], axis=1).tolist()


def summary(problems: list[Problem]) -> str:
    """All problems in one line."""
    return "; ".join(f"{p.kind} in {_extent(p)}, such as {_such_as(p)}" for p in problems)


def _extent(problem: Problem) -> str:
    if not problem.trajectories:
        return f"{problem.steps:,} rows"
    return f"{problem.trajectories:,} ids, {problem.steps:,} steps"


def _such_as(problem: Problem) -> str:
    return f"{problem.examples[0]} ({problem.first})" if problem.examples else problem.first


def as_table(problems: list[Problem]) -> Table:
    """Problems for the terminal."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("problem", "left"), ("ids", "right"), ("rows", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for name in ("first", "such as", "what was done", "what it means"):
        table.add_column(name, overflow="fold")
    for p in problems:
        example = p.examples[0] if p.examples else ""
        table.add_row(p.kind, f"{p.trajectories:,}", f"{p.steps:,}", p.first, example, p.action, p.meaning)
    return table
