"""What a router's scores come to: accuracy, calibration and abstention, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from experiments.reporting import plots
from experiments.reporting.charts import AGENT_LOOKS, FAINT, new_figure, style
from hyperlora.adapters.routing import Scores, chosen, fitted_temperature, posteriors

from .measures import mean_interval
from .routing import SEEN, Group, Scored

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BINS = 10
FITTED_ON = 400
"""Queries that a temperature is fitted to at most, spread evenly: the search costs as much for each."""
CHART = "router_calibration"


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """Q queries of all groups after routing.

    Attributes:
        seen: ``[Q]`` offers.
        persona: ``[Q]`` whose game it is; empty for a stranger.
        confidence: ``[Q]`` of the best persona.
        null: ``[Q]`` of none of them.
        top1, top3, family: ``[Q]`` whether the persona is the best, among the best three, of the family of the best.
        rivals: ``[Q]`` personas that might have been chosen.
        kin: ``[Q]`` share of them that is of the same family.
    """

    seen: Ints
    persona: NDArray[np.str_]
    confidence: Floats
    null: Floats
    top1: Bools
    top3: Bools
    family: Bools
    rivals: Ints
    kin: Floats

    def answered(self, known: float) -> Bools:
        """``[Q]`` where a router that abstains below ``known`` does not."""
        return chosen(np.stack([self.confidence, self.null], axis=1), 0.0, known) >= 0


def handicap_of(parts: Sequence[tuple[Group, Scored]], answered: float, seen: int) -> float:
    """The least handicap an offer, 0 or more, under which that share of validation queries is likelier than under the null.

    An adapter that has read everybody's games predicts better than one that has read a hundredth of them, whoever plays.
    Uncorrected, it says that nobody is known; what tells a known opponent from a stranger is by how much.

    Args:
        parts: validation queries.
        answered: the share.
        seen: offers after which it is taken, see `known_of`.
    """
    offers = np.concatenate([scored.seen for _, scored in parts])
    behind = np.concatenate([scored.null - scored.logs.max(axis=1) for _, scored in parts])
    count = _nearest_count(offers, seen)
    return max(0.0, float(np.quantile(behind[offers == count], answered, method="inverted_cdf")) / count)


def held_back(parts: Sequence[tuple[Group, Scored]], handicap: float) -> list[tuple[Group, Scored]]:
    """The same queries with the null hypothesis so many nats an offer behind."""
    return [(group, replace(scored, null=scored.null - handicap * scored.seen)) for group, scored in parts]


def routed(parts: Sequence[tuple[Group, Scored]], temperature: float) -> Routed:
    """The posterior of every query; of equal personas the one whose name comes first is the better."""
    columns: list[tuple[Any, ...]] = []
    for group, scored in parts:
        shares = posteriors(scored.logs, scored.null, temperature)
        rows, label = np.arange(len(shares)), scored.label
        order = np.argsort(-shares[:, :-1], axis=1, kind="stable")
        families = np.array([one.family for one in group.members])
        names = np.array([one.name for one in group.members])
        known = label >= 0
        found = known & (shares[rows, order[:, 0]] > 0.0)  # what is like nobody is not recognised by the order of names
        columns.append((
            scored.seen,
            np.where(known, names[label], ""),
            shares[rows, order[:, 0]],
            shares[:, -1],
            found & (order[:, 0] == label),
            found & (order[:, :3] == label[:, None]).any(axis=1),
            found & (families[order[:, 0]] == families[label]),
            np.full(len(shares), len(names)),
            np.where(known, (families[None, :] == families[label][:, None]).mean(axis=1), np.nan),
        ))  # fmt: skip
    return Routed(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def temperature_of(parts: Sequence[tuple[Group, Scored]]) -> float:
    """The temperature under which validation queries are best explained."""
    labelled = []
    for group, scored in parts:
        names = [one.name for one in group.members]
        for logs, null, label in zip(scored.logs.tolist(), scored.null.tolist(), scored.label.tolist(), strict=True):
            values = dict(zip(names, logs, strict=True))
            labelled.append((Scores(values, log=True, null=null if np.isfinite(null) else None), names[label]))
    picked = np.unique(np.linspace(0, len(labelled) - 1, min(FITTED_ON, len(labelled))).astype(np.int64))
    return fitted_temperature([labelled[i] for i in picked])


def known_of(found: Routed, answered: float, seen: int) -> float:
    """The highest ``known`` at which that share of validation queries after ``seen`` offers is answered.

    Games end early: where none is so long, the longest count.
    """
    at = found.seen == _nearest_count(found.seen, seen)
    return float(np.quantile(1.0 - found.null[at], 1.0 - answered, method="lower"))


def _nearest_count(offers: Ints, wanted: int) -> int:
    """``wanted`` if a query has so many offers, or the next larger count that there is, or the largest."""
    return int(offers[offers >= min(wanted, int(offers.max()))].min())


def accuracy(found: Routed, apart: Mapping[str, Routed], known: float, seed: int) -> list[dict[str, Any]]:
    """A row for each number of offers that some game has: accuracies, what chance gives, and how often nobody is named.

    Intervals resample personas, with all their games.

    Args:
        found: test queries.
        apart: by name, queries of opponents that are none of the personas. Of each kind the row says how many there are,
            how often the router abstains, and how well what it abstains by tells them from personas, whatever the
            threshold: the area under the receiver operating characteristic.
        known: of the router.
        seed: of the intervals.
    """
    rows = []
    for seen in SEEN:
        at = found.seen == seen
        if not at.any():
            continue
        answered = found.answered(known)[at]
        row: dict[str, Any] = {"offers": seen, "games": int(at.sum())}
        for name in ("top1", "top3", "family"):
            hits = getattr(found, name)[at].astype(np.float64)
            _, who = np.unique(found.persona[at], return_inverse=True)
            own = np.bincount(who, weights=hits) / np.bincount(who)
            _, low, high = mean_interval(own, seed)
            row |= {name: float(hits.mean()), f"{name}_low": _none(low), f"{name}_high": _none(high)}
        rivals = found.rivals[at]
        row |= {
            "chance_top1": float((1.0 / rivals).mean()),
            "chance_top3": float((np.minimum(3, rivals) / rivals).mean()),
            "chance_family": float(found.kin[at].mean()),
            "abstained": float(1.0 - answered.mean()),
            "top1_answered": _none(float(found.top1[at][answered].mean()) if answered.any() else np.nan),
        }
        for name, others in apart.items():
            there = others.seen == seen
            row |= {
                name: int(there.sum()),
                f"abstained_{name}": _none(
                    float(1.0 - others.answered(known)[there].mean()) if there.any() else np.nan
                ),
                f"auroc_{name}": _none(_auroc(found.null[at], others.null[there])),
            }
        rows.append(row)
    return rows


def _auroc(known: Floats, strange: Floats) -> float:
    """Chance that of two queries the strange one is taken for the stranger; half of the ties (Hanley and McNeil 1982)."""
    if not len(known) or not len(strange):
        return float("nan")
    return float(((strange[:, None] > known).mean() + (strange[:, None] >= known).mean()) / 2.0)


def _none(value: float) -> float | None:
    return None if np.isnan(value) else value


def reliability(found: Routed) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error of the best persona's confidence, and the bins that it is a mean of.

    Equally wide bins, weighted by their queries (Guo et al. 2017, equation 3).
    """
    place = np.minimum((found.confidence * BINS).astype(np.int64), BINS - 1)
    rows, error = [], 0.0
    for k in range(BINS):
        at = place == k
        if at.any():
            sure, right = float(found.confidence[at].mean()), float(found.top1[at].mean())
            error += abs(right - sure) * float(at.mean())
            rows.append({"low": k / BINS, "high": (k + 1) / BINS, "confidence": sure, "top1": right,
                         "queries": int(at.sum())})  # fmt: skip
    return error, rows


def write_chart(bins: dict[str, tuple[float, list[dict[str, float]]]], folder: Path) -> list[Path]:
    """Confidence against accuracy of each method, as PNG, SVG and CSV."""
    data = [{"method": method, **row} for method, (_, rows) in bins.items() for row in rows]
    return plots.write([plots.Plot(CHART, lambda: _drawn(bins), data)], folder)


def _drawn(bins: dict[str, tuple[float, list[dict[str, float]]]]) -> Figure:
    with style():
        figure = new_figure(5.2, 4.6)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, zorder=1)
        for (method, (error, rows)), (colour, marker, line) in zip(bins.items(), AGENT_LOOKS, strict=False):
            x, y = [row["confidence"] for row in rows], [row["top1"] for row in rows]
            axes.plot(x, y, color=colour, marker=marker, linestyle=line, label=f"{method}, ECE {error:.3f}")
            for at, height, row in zip(x, y, rows, strict=True):
                axes.annotate(str(row["queries"]), (at, height), textcoords="offset points", xytext=(4, 5), fontsize=7)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the best persona", ylabel="share that is right",
                 title="Does the router know how sure it may be?")  # fmt: skip
        axes.grid(True)
        axes.legend(loc="upper left")
        return figure


def table(methods: dict[str, dict[str, Any]]) -> Table:
    """For the terminal: accuracy beside chance, and abstention, by method and number of offers."""
    shown = Table(title="Who is it? Test games, personas of the same seat and preset", title_justify="left")
    for name in ("method", "offers", "games", "top-1", "chance", "top-3", "chance", "family", "chance",
                 "abstained", "strangers", "AUROC", "left out", "AUROC"):  # fmt: skip
        shown.add_column(name, justify="left" if name == "method" else "right", no_wrap=name == "method")
    for method, found in methods.items():
        for row in found.get("by_offers", []):
            pairs = [_percent(row[name]) for kind in ("top1", "top3", "family") for name in (kind, f"chance_{kind}")]
            apart = [text for kind in ("strangers", "left_out") for text in (
                _percent(row[f"abstained_{kind}"]), _share(row[f"auroc_{kind}"]))]  # fmt: skip
            shown.add_row(method, str(row["offers"]), str(row["games"]), *pairs, _percent(row["abstained"]), *apart)
    return shown


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
