"""From a corpus as it was found to one in which every id is one sound episode: what was wrong, and what was done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .checks import MERGED, Finding, check_held_out, check_labels, check_structure, find_merged
from .linking import REPEATED, UNLINKED, link
from .reading import Corpus
from .step_rows import StepRows

Mask = NDArray[np.bool_]
DROPPED, RELINKED, RECOMPUTED = "dropped", "split into its episodes", "recomputed from the moves"
_MERGED_MEANING = "several episodes under one trajectory id: a turn occurs more than once"
_UNLINKABLE = "the rows of a merged id cannot be told apart into whole episodes in just one way"
_REPEATED = "the same episode is there twice under one id; one copy is kept"
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem in the report.

    Attributes:
        kind: short name.
        meaning: one line.
        trajectories: ids that show it.
        steps: rows that show it.
        action: what was done to those ids.
        examples: up to five ids.
    """

    kind: str
    meaning: str
    trajectories: int
    steps: int
    action: str
    examples: list[str]


def sound_rows(corpus: Corpus, repair: bool) -> tuple[StepRows, list[Problem]]:
    """The sound episodes of ``corpus`` and its problems, each with what was done about it.

    Args:
        corpus: as read.
        repair: take merged ids apart (new ids ``ID/0``, ``ID/1``, …) and keep episodes whose labels are wrong, since
            labels are computed from the moves anyway. Otherwise the episodes concerned are dropped. An episode that
            breaks the rules, or whose players never train, is dropped in either case.
    """
    corpus, held_out = _without_held_out(corpus)
    corpus, problems = _without_merged(corpus, repair)
    problems = held_out + problems
    bad = np.zeros(len(corpus.rows.ids), dtype=bool)
    for finding in check_structure(corpus.rows):
        problems.append(_problem(finding, corpus.rows, DROPPED))
        bad |= finding.episodes(corpus.rows)
    corpus = take(corpus, ~bad)
    wrong = np.zeros(len(corpus.rows.ids), dtype=bool)
    for finding in check_labels(corpus):
        problems.append(_problem(finding, corpus.rows, RECOMPUTED if repair else DROPPED))
        wrong |= finding.episodes(corpus.rows)
    return (corpus.rows if repair else corpus.rows.take(~wrong)), problems


def take(corpus: Corpus, episodes: Mask) -> Corpus:
    """Only the ids where the mask ``[E]`` is true."""
    return _reorder(corpus, corpus.rows.take(episodes), np.flatnonzero(episodes[corpus.rows.episode]))


def _without_held_out(corpus: Corpus) -> tuple[Corpus, list[Problem]]:
    """First of all, while an id still has every label that the file gives it: of a merged id all its episodes go."""
    finding = check_held_out(corpus)
    if finding is None:
        return corpus, []
    return take(corpus, ~finding.episodes(corpus.rows)), [_problem(finding, corpus.rows, DROPPED)]


def _without_merged(corpus: Corpus, repair: bool) -> tuple[Corpus, list[Problem]]:
    merged = find_merged(corpus.rows)
    if not merged.any():
        return corpus, []
    shown = merged[corpus.rows.episode]
    problems = [_problem(Finding(MERGED, _MERGED_MEANING, shown), corpus.rows, RELINKED if repair else DROPPED)]
    if not repair:
        return take(corpus, ~merged), problems
    part = link(corpus.rows, merged)
    for kind, meaning, mark in (("unlinkable", _UNLINKABLE, UNLINKED), ("repeated", _REPEATED, REPEATED)):
        if (part == mark).any():
            problems.append(_problem(Finding(kind, meaning, part == mark), corpus.rows, DROPPED))
    return _split(corpus, merged, part), problems


def _split(corpus: Corpus, merged: Mask, part: NDArray[np.intp]) -> Corpus:
    """Each (id, part) as an id of its own, rows sorted again; rows without a part left out."""
    rows = corpus.rows
    order = np.lexsort((rows.turn, part, rows.episode))
    order = order[part[order] >= 0]
    old, piece = rows.episode[order], part[order]
    begins = (np.diff(old, prepend=-1) != 0) | (np.diff(piece, prepend=-1) != 0)
    starts, new = np.flatnonzero(begins), np.cumsum(begins) - 1
    parent = old[starts]
    names = [f"{rows.ids[e]}/{k}" if merged[e] else rows.ids[e] for e, k in zip(parent, piece[starts], strict=True)]
    unknown = merged[parent]  # the file says of an id, not of its parts, who played and with which seed
    strategies = rows.strategies[parent]
    strategies[unknown] = None
    per_row = {name: getattr(rows, name)[order] for name in StepRows.__slots__[4:]}
    split = StepRows(
        ids=np.array(names, dtype=object),
        strategies=strategies,
        seeds=np.where(unknown, np.nan, rows.seeds[parent]),
        episode=new,
        **per_row,
    )
    return _reorder(corpus, split, order)


def _reorder(corpus: Corpus, rows: StepRows, order: NDArray[np.intp]) -> Corpus:
    index = pa.array(order)
    return replace(
        corpus,
        rows=rows,
        rho=corpus.rho[order],
        success=corpus.success[order],
        players=corpus.players[order],
        history_roles=corpus.history_roles.take(index),
        history_prices=corpus.history_prices.take(index),
    )


def _problem(finding: Finding, rows: StepRows, action: str) -> Problem:
    touched = finding.episodes(rows)
    counts: dict[str, Any] = {"trajectories": int(touched.sum()), "steps": int(finding.steps.sum())}
    examples = rows.ids[touched][:_EXAMPLES].tolist()
    return Problem(finding.kind, finding.meaning, action=action, examples=examples, **counts)
