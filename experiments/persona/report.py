"""What the evaluation says, in words and tables: who benefits, how gain grows with games, memorised or generalised."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.persona import training
from experiments.persona.arms import BASELINE, PER_PERSONA, POOLED_ARM, SWAPPED, swap_counts, swapped
from experiments.persona.evaluating import ALL, Evaluation, families
from experiments.persona.games import split_sizes
from experiments.persona.measures import FIGURES, LOWER_IS_BETTER, figures, mean_interval

_SHOWN = {
    "action_accuracy": "right action",
    "accept_precision": "ACCEPT precision",
    "accept_recall": "recall",
    "accept_f1": "F1",
    "price_mae": "price MAE",
    "price_coverage": "coverage",
    "exact_price_rate": "exact price",
    "log_likelihood": "log-likelihood",
    "invalid_rate": "invalid",
}


def report(found: Evaluation, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown.

    Args:
        found: the evaluation.
        rows: of `experiments.persona.evaluating.summary_rows`.
    """
    data = found.data
    parts = [
        "# Personas: what an adapter of one's own is worth",
        f"{len(data.personas)} personas, {len(found.truth.accept):,} decisions of test games; limit shown in prompts: "
        f"{data.settings['limit']}. Every arm sees the same prompts, with the true course of the game. Prices are in shares "
        "of the price range; log-likelihood is in nats a decision; brackets are 95 % intervals.",
        "## All arms",
        _arms(found),
        "## Differences",
        "Personas are resampled, with all their decisions.",
        _differences(rows),
        "## Who benefits",
        _who(found, rows),
        *(["## How the gain grows with games", _curve(found)] if found.curve else []),
        "## Memorised or generalised",
        _memory(found, rows),
        "## Storage and training time",
        f"{found.storage['adapters']:,} adapters of {found.storage['weights']:,.0f} bytes of weights each "
        f"({found.storage['folder']:,.0f} with config and record).",
        *_times(found),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|---|{'--:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['delta']:+.3f} [{_number(row['ci_low'])}, {_number(row['ci_high'])}]"


def _arms(found: Evaluation) -> str:
    everybody = found.added(list(range(len(found.data.personas))), by_game=True)
    at = [FIGURES.index(name) for name in _SHOWN]
    body = ([arm, *(_number(x) for x in figures(*everybody[arm])[at])] for arm in found.arms)
    return _table(["arm", *_SHOWN.values()], body)


def _differences(rows: Sequence[dict[str, Any]]) -> str:
    wanted = ("log_likelihood", "action_accuracy", "accept_f1", "price_mae", "exact_price_rate")
    everybody = [row for row in rows if row["persona"] == ALL and row["metric"] in wanted]
    pairs = dict.fromkeys((row["arm"], row["against"]) for row in everybody)
    body = []
    for arm, against in pairs:
        here = {row["metric"]: row for row in everybody if (row["arm"], row["against"]) == (arm, against)}
        body.append([f"{arm} − {against}", *(_interval(here[name]) for name in wanted)])
    return _table(["", *(_SHOWN[name] for name in wanted)], body)


def _who(found: Evaluation, rows: Sequence[dict[str, Any]]) -> str:
    """Families by gain, with the share of personas whose own interval lies on the good side of 0."""
    own = [row for row in rows if (row["arm"], row["against"]) == (PER_PERSONA, BASELINE)]
    single = {(row["persona"], row["metric"]): row for row in own}
    body = []
    for name, members in families(found.data).items():
        ids = [found.data.personas[k].id for k in members]
        cells = [name, str(len(ids))]
        for metric in ("log_likelihood", "price_mae"):
            clear = sum(_clear(single[i, metric]) for i in ids)
            cells += [_interval(single[f"family:{name}", metric]), f"{clear} of {len(ids)}"]
        body.append((single[f"family:{name}", "log_likelihood"]["delta"], cells))
    body.sort(key=lambda entry: -entry[0])
    table = _table(
        ["family", "personas", "log-likelihood", "clear", "price MAE", "clear"], (cells for _, cells in body)
    )
    gains = found.gains[:, 1]
    seats = ", ".join(
        f"{seat} {gains[[p.seat == seat for p in found.data.personas]].mean():+.3f}"
        for seat in dict.fromkeys(p.seat for p in found.data.personas)
    )
    return (
        "Own adapter less baseline. *Clear* counts personas whose own interval, over their test games, lies beyond 0 on "
        f"the good side.\n\n{table}\n\nOver {_origin(found)}, nats a decision: {seats}. {int((gains > 0).sum())} of "
        f"{len(gains)} personas gain."
    )


def _clear(row: dict[str, Any]) -> bool:
    """Whether the interval lies on the good side of 0."""
    return bool(row["ci_high"] < 0 if row["metric"] in LOWER_IS_BETTER else row["ci_low"] > 0)


def _curve(found: Evaluation) -> str:
    body = []
    for games, values in found.curve.items():
        mean, low, high = mean_interval(values, found.seed)
        body.append([str(games), str(len(values)), f"{mean:+.3f} [{_number(low)}, {_number(high)}]"])
    val = split_sizes(int(found.data.settings["games"]))[1]
    return (
        f"Own adapter less {_origin(found)} on test games. At every point the epoch is chosen on all {val} validation "
        f"games, so a point stands for {val} games more than it trains on.\n\n"
        + _table(["training games", "personas", "log-likelihood, nats a decision"], body)
    )


def _memory(found: Evaluation, rows: Sequence[dict[str, Any]]) -> str:
    train, test = found.gains.T
    kept = f"{test.mean() / train.mean():.0%} of it carries over." if train.mean() > 0 else "nothing to carry over."
    lines = [
        f"- Gain over {_origin(found)} on training games {_mean(train, found)}, on test games {_mean(test, found)} nats a "
        f"decision: {kept}"
    ]
    for arm, text in (
        (SWAPPED, f"Under another persona's adapter ({_swapped(found)})"),
        (POOLED_ARM, "Under one adapter for all"),
    ):
        if arm not in found.arms:
            continue
        against = {row["against"]: row for row in rows if row["persona"] == ALL and row["metric"] == "log_likelihood"
                   and (row["arm"], row["against"]) in ((arm, BASELINE), (PER_PERSONA, arm))}  # fmt: skip
        lines.append(
            f"- {text} the gain over the baseline is {_interval(against[BASELINE])}; the own adapter is ahead of it by "
            f"{_interval(against[arm])}."
        )
    return "\n".join(lines)


def _origin(found: Evaluation) -> str:
    return (
        "the one for all, which it starts from and which has read all training games"
        if found.start == "pooled"
        else "the base"
    )


def _times(found: Evaluation) -> list[str]:
    body = [
        [what, f"{t['adapters']:,}", f"{t['steps']:,}", f"{t['seconds']:,.1f}", f"{t['seconds'] / t['adapters']:,.2f}",
         ", ".join(map(str, t["threads"]))]
        for what, t in training.times(found.data.folder).items()
    ]  # fmt: skip
    return [_table(["trained", "adapters", "steps", "seconds", "seconds an adapter", "threads"], body)] if body else []


def _swapped(found: Evaluation) -> str:
    counts = swap_counts(found.data, swapped(found.data))
    everybody = counts["personas"]
    return (
        f"same seat and preset for {everybody - counts['other_seat_or_preset']} of {everybody}, another family for "
        f"{everybody - counts['same_family']}"
    )


def _mean(values: np.ndarray, found: Evaluation) -> str:
    mean, low, high = mean_interval(values, found.seed)
    return f"{mean:+.3f} [{_number(low)}, {_number(high)}]"
