"""From ids as they were found to sound episodes: what was wrong is reported, and what can be mended may be."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .checks import (
    Finding,
    check_faults,
    check_held_out,
    check_labels,
    check_signs,
    check_structure,
    find_copies,
    find_repeated_turns,
    find_strays,
)
from .decisions import Corpus
from .kinds import DUPLICATE, MERGED, REPEATED_EPISODE, STRAY, UNLINKABLE
from .linking import REPEATED, UNLINKED, Widths, link
from .report import DROPPED, KEPT_ONCE, LEFT_OUT, RECOMPUTED, RELINKED, Report
from .step_rows import StepRows

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sound:
    """Episodes that keep to the rules.

    Attributes:
        rows: their decisions.
        first: ``[E]`` where each comes in the input: the least place of its id.
    """

    rows: StepRows
    first: NDArray[np.int64]


class Sieve:
    """Keeps sound episodes of batches of whole ids; a batch may be cut anywhere between two ids.

    Args:
        repair: take merged ids apart (new ids ``ID/0``, ``ID/1``, …), keep one copy of a repeated record, and keep episodes
            whose labels are wrong, since labels are computed from the moves anyway. Otherwise the episodes concerned are
            dropped. In either case an episode with a row that cannot be read, that breaks the rules, or whose players never
            train, is dropped, and a row that strayed into another episode is left out of it.
        report: hears of every problem.
    """

    def __init__(self, repair: bool, report: Report) -> None:
        self._repair, self._report, self._widths = repair, report, Widths()

    def sift(self, corpus: Corpus) -> tuple[Sound, Corpus | None]:
        """The sound episodes, and the merged ids if there are any and they are to be taken apart, see `part`."""
        corpus = self._drop(corpus, check_faults(corpus))
        corpus = self._drop(corpus, check_held_out(corpus))
        corpus = self._without_strays(corpus)
        corpus, merged = self._single(corpus)
        self._widths.add(corpus.rows)
        return self._sound(corpus), merged

    def part(self, merged: Corpus) -> Sound:
        """The episodes under merged ids, once all batches were sifted: only then is known whether all ZOPAs are as wide."""
        part = link(merged.rows, self._widths.constant)
        for kind, mark, action in ((UNLINKABLE, UNLINKED, DROPPED), (REPEATED_EPISODE, REPEATED, KEPT_ONCE)):
            if (part == mark).any():
                self._report.add(Finding(kind, part == mark), merged, action)
        return self._sound(_split(merged, part))

    def _drop(self, corpus: Corpus, findings: list[Finding]) -> Corpus:
        bad = np.zeros(len(corpus.rows.ids), dtype=bool)
        for finding in findings:
            self._report.add(finding, corpus, DROPPED)
            bad |= finding.ids(corpus.rows)
        return corpus.take(~bad)

    def _without_strays(self, corpus: Corpus) -> Corpus:
        strays = find_strays(corpus)
        if strays.any():
            self._report.add(Finding(STRAY, strays), corpus, LEFT_OUT)
        return corpus.without(strays)

    def _single(self, corpus: Corpus) -> tuple[Corpus, Corpus | None]:
        """Ids under which no turn occurs twice, and those that hold several episodes."""
        suspects = find_repeated_turns(corpus.rows)
        if not suspects.any():
            return corpus, None
        copies = np.zeros(len(corpus.rows), dtype=bool)
        suspected = corpus.take(suspects)
        copies[suspects[corpus.rows.episode]] = find_copies(suspected)
        merged = np.zeros(len(suspects), dtype=bool)
        merged[suspects] = find_repeated_turns(suspected.without(copies[suspects[corpus.rows.episode]]).rows)
        copies &= ~merged[corpus.rows.episode]
        if copies.any():
            self._report.add(Finding(DUPLICATE, copies), corpus, KEPT_ONCE if self._repair else DROPPED)
        single = corpus.take(~merged & (~suspects | self._repair))
        if self._repair:
            single = single.without(copies[~merged[corpus.rows.episode]])
        return single, self._merged(corpus.take(merged))

    def _merged(self, corpus: Corpus) -> Corpus | None:
        if not len(corpus.rows):
            return None
        everything = Finding(MERGED, np.ones(len(corpus.rows), dtype=bool))
        for finding in (everything, *check_signs(corpus)):
            self._report.add(finding, corpus, RELINKED if self._repair else DROPPED)
        return corpus if self._repair else None

    def _sound(self, corpus: Corpus) -> Sound:
        corpus = self._drop(corpus, check_structure(corpus))
        wrong = np.zeros(len(corpus.rows.ids), dtype=bool)
        for finding in check_labels(corpus):
            self._report.add(finding, corpus, RECOMPUTED if self._repair else DROPPED)
            wrong |= finding.ids(corpus.rows) & (not self._repair)
        corpus = corpus.take(~wrong)
        return Sound(corpus.rows, corpus.first)


def _split(corpus: Corpus, part: NDArray[np.intp]) -> Corpus:
    """Each (id, part) as an id of its own, rows sorted again; rows without a part left out."""
    rows = corpus.rows
    order = np.lexsort((rows.turn, part, rows.episode))
    order = order[part[order] >= 0]
    old, piece = rows.episode[order], part[order]
    begins = (np.diff(old, prepend=-1) != 0) | (np.diff(piece, prepend=-1) != 0)
    starts = np.flatnonzero(begins)
    parent, n = old[starts], len(starts)
    names = [f"{rows.ids[e]}/{k}" for e, k in zip(parent, piece[starts], strict=True)]
    split = StepRows(
        ids=np.array(names, dtype=object),
        strategies=np.full((n, 2), None, dtype=object),  # the file says of an id, not of its parts, who played
        seeds=np.full(n, np.nan),  # and with which seed
        episode=np.cumsum(begins) - 1,
        **{f.name: getattr(rows, f.name)[order] for f in fields(rows)[4:]},
    )
    return replace(
        corpus,
        rows=split,
        table=corpus.table.take(pa.array(order)).combine_chunks(),
        first=corpus.first[parent],
        players=np.full((len(order), 2), -1, dtype=np.int32),
        seats=np.full((n, 2), -1, dtype=np.int32),
    )
