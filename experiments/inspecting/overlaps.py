"""Is what is measured apart from what is trained on?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from experiments.corpus.splits import TRAIN

from .digests import Digests, distinct
from .games import Games
from .moves import Decisions
from .verdicts import LEAK, NOTE, OK, Check

_SAME = 0.01
"""Share of games that may equal another one without a word."""
_CHANCE = 0.05
"""Share of measured games that chance may find among those of training, where few limits are possible."""


def overlap_checks(games: Games, decisions: Decisions) -> Iterator[Check]:
    """All checks of splits against each other, and of who played."""
    yield _ids(decisions)
    yield _scenarios(games)
    yield _limits(games)
    yield _whole_games(decisions)
    yield _held_out(games)


def _ids(decisions: Decisions) -> Check:
    title = "one episode in several splits"
    figures = {"torn": decisions.torn, "two_splits": decisions.two_splits}
    if decisions.two_splits:
        why = f"{decisions.two_splits:,} games have rows in several splits"
        return Check("split_by_episode", title, LEAK, why, "split by episode: python -m experiments.prepare", figures)
    if decisions.torn:
        why = f"rows of {decisions.torn:,} ids do not stand together: different games may share an id"
        return Check("split_by_episode", title, LEAK, why, "python -m experiments.prepare DATA --repair", figures)
    return Check("split_by_episode", title, OK, _unsplit(decisions.split_names) or "every game is in one split",
                 figures=figures)  # fmt: skip


def _unsplit(names: list[str]) -> str:
    return "" if any(names) else "not split yet; experiments.prepare does that"


def _across(digests: Digests, split_of: NDArray[np.uint8]) -> tuple[int, int]:
    """Digests that occur in several splits, and all different ones."""
    order = np.argsort(digests)
    inner, split = digests[order], split_of[order]
    starts = np.flatnonzero(np.concatenate([[True], inner[1:] != inner[:-1]])) if len(inner) else np.zeros(0, np.intp)
    if not len(starts):
        return 0, 0
    several = np.minimum.reduceat(split, starts) != np.maximum.reduceat(split, starts)
    return int(several.sum()), len(starts)


def _scenarios(games: Games) -> Check:
    title, known = "one scenario in several splits", games.scenarios != 0
    several, every = _across(games.scenarios[known], games.split_of[known])
    figures = {"scenarios": every, "in_several_splits": several, "games_of_unknown_scenario": int((~known).sum())}
    if several:
        why = f"{several:,} of {every:,} scenarios (seed, id and limits) have games in several splits"
        return Check("split_by_scenario", title, LEAK, why, "put all games of a scenario into one split", figures)
    if not known.any():
        why = "scenario ids are unknown; see the limits below"
        return Check("split_by_scenario", title, NOTE, why, "keep seed and scenario_id when collecting", figures)
    why = _unsplit(games.split_names) or f"each of {every:,} scenarios is in one split"
    return Check("split_by_scenario", title, OK, why, figures=figures)


def _limits(games: Games) -> Check:
    """Limits have few digits, so some agree by chance: as often within the training games as between splits."""
    title = "same limits in training and measured games"
    if TRAIN not in games.split_names or len(games.split_names) < 2:
        return Check("limits_across_splits", title, OK, _unsplit(games.split_names) or "there is one split only")
    between, within = _recurring(games.limits, games.split_of == games.split_names.index(TRAIN))
    known = bool((games.scenarios != 0).all())
    figures = {"measured_games_with_limits_of_training": between, "training_games_likewise": within}
    why = f"{between:.1%} of measured games share both limits with a training game, {within:.1%} of those with another"
    if between - within > _CHANCE and not known:
        return Check("limits_across_splits", title, LEAK, why, "put all games of a scenario into one split", figures)
    if between > _SAME and not known:
        return Check("limits_across_splits", title, NOTE, why, "see whether scenarios recur", figures)
    return Check("limits_across_splits", title, OK, why, figures=figures)


def _whole_games(decisions: Decisions) -> Check:
    """Short games recur by chance where few limits are possible, within the training games as between splits."""
    title, played = "whole games twice", decisions.played
    extra = len(played) - len(distinct(played))
    figures: dict[str, float] = {"games": len(played), "repeated": extra}
    why, between, within = f"{extra:,} of {len(played):,} games repeat another move for move", 0.0, 0.0
    if TRAIN in decisions.split_names and len(decisions.split_names) > 1:
        train = decisions.split_of == decisions.split_names.index(TRAIN)
        between, within = _recurring(played, train)
        figures |= {"measured_games_as_in_training": between, "training_games_likewise": within}
        why += f"; {between:.1%} of measured games are in training, {within:.1%} of training games are there again"
    if between - within > _SAME or between > _CHANCE:
        return Check("duplicate_games", title, LEAK, why, "drop the copies, then split anew", figures)
    if extra > _SAME * len(played) or between > _SAME:
        return Check("duplicate_games", title, NOTE, why, "see whether a run was collected twice", figures)
    return Check("duplicate_games", title, OK, why if extra else "none repeats another move for move", figures=figures)


def _recurring(digests: Digests, train: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of measured games whose digest a training game has, and of training games whose digest another one has."""
    values, often = np.unique(digests[train], return_counts=True)
    measured = digests[~train]
    met = np.searchsorted(values, measured, "right") > np.searchsorted(values, measured)
    return float(met.mean()), float(often[often > 1].sum() / max(often.sum(), 1))


def _held_out(games: Games) -> Check:
    title = "strategies held out from training"
    trained = sum(n for (split, _), n in games.held_out.items() if split in (TRAIN, ""))
    names = sorted({name for _, name in games.held_out})
    figures = {"seats": dict(sorted((f"{s or 'no split'}: {n}", k) for (s, n), k in games.held_out.items()))}
    if trained:
        why = f"{_some(names)} in {trained:,} seats that may train"
        return Check("held_out_strategies", title, LEAK, why, "drop them: python -m experiments.prepare DATA", figures)
    if names:
        why = f"{_some(names)} in measured games only"
        return Check("held_out_strategies", title, OK, why, figures=figures)
    return Check("held_out_strategies", title, OK, "none plays", figures=figures)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'play' if len(names) > 1 else 'plays'}"
