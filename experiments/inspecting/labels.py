"""Can the label of a game be read, before it is played, from something that has no business to tell it?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO

from . import models
from .models import Fit
from .reservation import text
from .sample import SEEN, TALK, Sample
from .verdicts import LEAK, NOTE, OK, Check

Floats = NDArray[np.float64]

READ, HINT = 0.10, 0.02
"""R² from which on a label is being read, and from which on there is something to know."""
_RESIDUES = (2, 3, 4, 5, 7, 8, 10)
_DIGITS = re.compile(r"(\d+)\D*$")


def label_checks(sample: Sample, presets: NDArray[np.object_], seed: int) -> Iterator[Check]:
    """All checks of the label, on the first decisions of the sampled games.

    Preset and starter may tell of the outcome, so labels count from the mean of their games.

    Args:
        sample: the games.
        presets: ``[games]``.
        seed: splits games and draws intervals.
    """
    opening = np.flatnonzero(sample.opening)
    presets = presets[sample.game[opening]]
    held = models.held_out(len(sample.ids), seed)[sample.game[opening]]
    deal = sample.success[opening] > 0
    rho = np.where(deal, sample.rho[opening], np.nan)
    strata = np.array([f"{p} {s}" for p, s in zip(presets, sample.starter[opening], strict=True)], dtype=object)
    targets = {"ρ of deals": _from_mean(rho, strata), "impasse": _from_mean((~deal).astype(np.float64), strata)}
    sources = {
        "row_order": ("the order of rows", sample.row[opening][:, None].astype(np.float64)),
        "trajectory_id": ("the number in the trajectory id", _number([sample.ids[g] for g in sample.game[opening]])),
        "opening_columns": ("what the opening seat sees", sample.seen[opening]),
    }
    for name, (what, x) in sources.items():
        found = {
            (target, model): models.fitted(model, x[~np.isnan(y)], y[~np.isnan(y)], held[~np.isnan(y)], seed)
            for target, y in targets.items()
            for model in models.models()
        }
        yield _check(name, what, found)
    yield _success(sample)
    yield _empty(sample)


def _from_mean(values: Floats, strata: NDArray[np.object_]) -> Floats:
    """Values less the mean of their stratum; NaN stays."""
    out = values.copy()
    for name in set(strata.tolist()):
        rows = (strata == name) & ~np.isnan(values)
        if rows.any():
            out[rows] -= values[rows].mean()
    return out


def _number(ids: list[str]) -> Floats:
    """``[n, F]`` the last number in each id, and its remainders; NaN where there is none."""
    found = [_DIGITS.search(name) for name in ids]
    number = np.array([np.nan if match is None else float(match[1][-15:]) for match in found])
    return np.stack([number, *(number % k for k in _RESIDUES)], axis=1)


def _check(name: str, what: str, found: dict[tuple[str, str], Fit]) -> Check:
    title = f"label from {what}"
    figures = {f"{target} by {model}": fit.document() for (target, model), fit in found.items()}
    known = {key: fit for key, fit in found.items() if fit.r2 == fit.r2}
    if not known:
        return Check(f"label_{name}", title, NOTE, "too few games, or all labels alike", "inspect more games", figures)
    (target, model), fit = max(known.items(), key=lambda item: item[1].low)
    why = f"{target}: {text(fit)} by {model}"
    if name == "opening_columns":  # a limit may well tell something of the outcome; of a column see `_empty`
        verdict, action = (OK, "") if fit.low <= READ else (NOTE, "see which column tells it, and whether it should")
    elif fit.low > READ:
        verdict, action = LEAK, "shuffle the games, or name them anew: python -m experiments.prepare"
    else:
        verdict = NOTE if fit.low > HINT else OK
        action = "see whether two data sets were joined end to end" if verdict == NOTE else ""
    return Check(f"label_{name}", title, verdict, why, action, figures)


def _success(sample: Sample) -> Check:
    """``success`` says that there was a deal, so by definition whether ρ is -1; it must say no more and no less."""
    deal, rho = sample.success > 0, sample.rho
    wrong = int(((rho == IMPASSE_RHO) == deal).sum())
    title = "label from the column success"
    if wrong:
        why = f"{wrong:,} of {len(rho):,} decisions: success contradicts rho_train"
        return Check(
            "label_success", title, LEAK, why, "compute labels anew: python -m experiments.prepare DATA --repair"
        )
    why = "tells an impasse from a deal, as it is defined, and nothing of the ρ of a deal"
    return Check("label_success", title, OK, why, figures={"contradictions": 0})


def _empty(sample: Sample) -> Check:
    """At turn 1 nobody has said anything, so nothing that was said can be in a row."""
    opening = sample.seen[sample.opening][:, [SEEN.index(name) for name in TALK]]
    spoken = int((np.nan_to_num(opening) != 0).any(axis=1).sum())
    title = "offers before the first decision"
    if spoken:
        why = f"{spoken:,} of {len(opening):,} games have offers in the columns of turn 1"
        return Check("label_future_offers", title, LEAK, why, "rebuild the history: python -m experiments.prepare")
    return Check("label_future_offers", title, OK, "none in the columns of turn 1", figures={"games": len(opening)})
