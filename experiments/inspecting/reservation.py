"""Can the other side's reservation be told from what a seat sees?

Before the other side has offered anything, only the generator of scenarios can tell it, so that is compared with what the
preset tells by itself: the same models, fitted to as many fresh games of the preset. Later, offers disclose reservations,
as they should; that is shown by turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bargain_env

from . import models
from .games import SEATS
from .models import BOOSTED, Fit
from .sample import LIMIT, Sample, at_opening
from .verdicts import LEAK, NOTE, OK, Check

Fits = dict[str, Fit]

PRIOR_SEED = 2**62
"""Seed of fresh games; no run of `experiments.collect` has one so large."""
TOLD = 0.9
"""From this R² on a limit is as good as told."""
SLACK = 0.04
"""An excess over the reference below this is no leak, however sure."""
_LIKE_NONE, _UNKNOWN = "of no preset", "of unknown origin"


def opening_checks(sample: Sample, presets: NDArray[np.object_], seed: int) -> Iterator[Check]:
    """A check for each preset and seat, on the first decisions of the sampled games.

    Args:
        sample: the games.
        presets: ``[games]`` as `experiments.inspecting.presets` names them.
        seed: splits games and draws intervals.
    """
    of = presets[sample.game]
    test = models.held_out(len(sample.ids), seed)[sample.game]
    sound = sample.opening & np.isfinite(sample.own) & np.isfinite(sample.other)
    for preset in dict.fromkeys(of[sound].tolist()):
        same = sound & np.array([name == preset for name in of], dtype=bool)
        for k, seat in enumerate(SEATS):
            rows = same & (sample.seat == k)
            x, own, other, held = sample.seen[rows], sample.own[rows], sample.other[rows], test[rows]
            found = _fits(x, own, other, held, seed)
            if preset:
                reference = _prior(preset, k, sample.columns(("max_turns",))[rows][:, 0], held, seed)
            else:
                reference = _fits(sample.columns(LIMIT)[rows], own, other, held, seed)
            yield _check(preset, seat, found, reference)


def _fits(x: NDArray[np.float64], own: NDArray[np.float64], other: NDArray[np.float64],
          test: NDArray[np.bool_], seed: int) -> Fits:  # fmt: skip
    return {model: models.fitted(model, x, other, test, seed, base=own) for model in models.models()}


def _prior(preset: str, seat: int, max_turns: NDArray[np.float64], test: NDArray[np.bool_], seed: int) -> Fits:
    """What the models get from as many fresh games of the preset."""
    if not len(test):
        return {}
    games = bargain_env.sample(preset, seed=PRIOR_SEED, ids=np.arange(len(test)))
    own, other = (games.buyer_max, games.seller_min) if seat == 0 else (games.seller_min, games.buyer_max)
    return _fits(at_opening(own, games.price_low, games.price_high, max_turns), own, other, test, seed)


def _check(preset: str | None, seat: str, found: Fits, reference: Fits) -> Check:
    label = preset or (_UNKNOWN if preset is None else _LIKE_NONE)
    verdict, why, action = _verdict(preset, found, reference)
    figures = {
        "preset": preset,
        "seat": seat,
        "reference": "fresh games of the preset" if preset else "the same games, the limit without its digits",
        "models": {m: {"data": f.document(), "reference": reference[m].document()} for m, f in found.items()},
    }
    name = f"reservation_turn_1_{'_'.join(label.split())}_{seat}"
    return Check(name, f"other side's limit at turn 1: {seat}, games {_of(preset)}", verdict, why, action, figures)


def _of(preset: str | None) -> str:
    return f"of {preset}" if preset else (_UNKNOWN if preset is None else _LIKE_NONE)


def _verdict(preset: str | None, found: Fits, reference: Fits) -> tuple[str, str, str]:
    """Verdict, why and what to do."""
    model, fit = max(found.items(), key=lambda item: (item[1].r2 == item[1].r2, item[1].r2))
    if fit.r2 != fit.r2:
        return NOTE, f"{fit.games} held-out games are too few, or the limits do not differ", "inspect more games"
    here = f"{text(fit)} by {model}"
    if fit.low >= TOLD:
        what = f"collect with another --scenario than {preset}" if preset else "let the width of the ZOPA vary"
        return LEAK, f"{here}: the own limit tells the other one", f"{what}, unless that is what is studied"
    hidden = [m for m, f in found.items() if f.low > reference[m].high and f.r2 - reference[m].r2 > SLACK]
    if hidden:
        m = hidden[-1]
        than = f"{preset} itself gives" if preset else "the limit without its digits gives"
        why = f"{text(found[m])} by {m}, where {than} {text(reference[m])}: something else tells the other limit"
        return LEAK, why, "find what in the generator links the limits; collect again"
    if preset:
        return _only_linear(OK, f"{here}; {preset} itself gives {text(reference[model])}")
    if fit.low > SLACK:
        return NOTE, f"{here}, from the own limit", "compare with the prior that the scenarios were drawn from"
    return _only_linear(OK, here)


def _only_linear(verdict: str, why: str) -> tuple[str, str, str]:
    """A clean bill needs both models."""
    if models.boosting_is_here():
        return verdict, why, ""
    return NOTE, f"{why}; only least squares was tried", "install scikit-learn (the extra inspect) and look again"


def text(fit: Fit) -> str:
    """R² with its interval."""
    return f"R² {_short(fit.r2)} [{_short(fit.low)}, {_short(fit.high)}]"


def _short(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def by_turn(sample: Sample, seed: int) -> dict[str, list[dict[str, Any]]]:
    """For each seat, R² of the other's reservation at each turn: ``{seat: [{turn, games, linear, boosting}]}``.

    Least squares is fitted anew for each turn, trees once for all of them. Games leave the curve when they end, and the
    spread of limits is that of the games that are left.
    """
    test = models.held_out(len(sample.ids), seed)[sample.game]
    sound = np.isfinite(sample.own) & np.isfinite(sample.other)
    return {seat: _curve(sample, sound & (sample.seat == k), test, seed) for k, seat in enumerate(SEATS)}


def _curve(sample: Sample, rows: NDArray[np.bool_], test: NDArray[np.bool_], seed: int) -> list[dict[str, Any]]:
    turns = [t for t in np.unique(sample.turn[rows]).tolist() if _enough(rows & (sample.turn == t), test)]
    if not turns:
        return []
    distance = sample.other - sample.own
    games, place = np.unique(sample.game[rows & test], return_inverse=True)
    column = np.searchsorted(turns, sample.turn[rows & test])
    kept = np.isin(sample.turn[rows & test], turns)
    at = (place[kept], column[kept])
    truth = np.full((len(games), len(turns)), np.nan)
    truth[at] = sample.other[rows & test][kept]
    found = {}
    for model in models.models():
        predicted = np.full(len(rows), np.nan)
        for part in [rows] if model == BOOSTED else [rows & (sample.turn == t) for t in turns]:
            learn, ask = part & ~test, part & test
            told = len(np.unique(sample.game[learn]))
            predicted[ask] = models.predict(model, sample.seen[learn], distance[learn], sample.seen[ask], told)
        errors = np.full(truth.shape, np.nan)
        errors[at] = (distance - predicted)[rows & test][kept]
        found[model] = models.measured(truth, errors, seed)
    return [
        {"turn": turn, "games": fits[0].games, **{m: f.document() for m, f in zip(found, fits, strict=True)}}
        for turn, *fits in zip(turns, *found.values(), strict=True)
    ]


def _enough(rows: NDArray[np.bool_], test: NDArray[np.bool_]) -> bool:
    return min((rows & test).sum(), (rows & ~test).sum()) >= 2 * models.LEAST


def disclosure_check(curves: dict[str, list[dict[str, Any]]]) -> Check:
    """What the curves say, in a line; disclosure by play is no leak."""
    best = {
        (seat, row["turn"]): max(r2 for m in models.models() if (r2 := row[m]["r2"]) is not None)
        for seat, rows in curves.items()
        for row in rows
        if any(row[m]["r2"] is not None for m in models.models())
    }
    title, later = "other side's limit at later turns", {key: r2 for key, r2 in best.items() if key[1] > 1}
    if not later:
        return Check("reservation_later", title, NOTE, "too few games", "inspect more games")
    seat, turn = max(later, key=later.__getitem__)
    most, before = later[seat, turn], best.get((seat, 1))
    figures = {"r2_before_offers": before, "r2_most": most, "turn": turn, "seat": seat}
    if before is not None and before >= TOLD:
        return Check("reservation_later", title, OK, "nothing is left for offers to tell", "", figures)
    start = "" if before is None else f"R² {before:.3f} before any offer, "
    why = f"{start}up to {most:.3f} with them ({seat}, turn {turn}): disclosed by play, no leak"
    return Check("reservation_later", title, OK, why, "", figures)
