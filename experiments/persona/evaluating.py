"""The evaluation: every arm on the same test decisions, and the files that say what came of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments.persona import training
from experiments.persona.arms import BASELINE, PER_PERSONA, POOLED_ARM, Arms, chosen, samples, swap_counts
from experiments.persona.folder import PER_USER, PersonaData, write_json
from experiments.persona.measures import (
    FIGURES,
    Predicted,
    Truth,
    difference,
    figures,
    mean_interval,
    named,
    sums,
    take,
)
from hyperlora.adapters.likelihood import row_losses, under_adapters
from hyperlora.adapters.many import LoRAPlan, train_many
from hyperlora.adapters.peft_folder import LoRA
from hyperlora.adapters.rows import stack_adapters

Floats = NDArray[np.float64]
Tell = Callable[[str], None]

BASELINE_FILE, RESULTS_FILE = "baseline_results.json", "per_persona_results.json"
SUMMARY_FILE, SAMPLES_FILE, CURVE_FILE = "per_persona_summary.csv", "sample_outputs.jsonl", "games_curve.json"
ALL = "ALL"
SAMPLES = 20
LIKELIHOOD = FIGURES.index("log_likelihood")
COLUMNS = (
    "persona", "strategy", "family", "preset", "seat", "unseen", "n_train", "n_val", "n_test", "metric", "arm", "against",
    "value", "reference", "delta", "ci_low", "ci_high", "clusters", "seed", "base_digest",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that a report is made of.

    Attributes:
        data: the personas.
        arms: names.
        truth: of the test decisions.
        predicted: by arm.
        gains: ``[P, 2]`` nats a decision that a persona's own adapter gains over what it started from, on its training and
            its test rows.
        curve: by number of training games, the same on the test rows of some personas ``[K]``.
        start: what that is, as ``--start`` names it.
        storage: see `experiments.persona.training.stored_bytes`.
        base_digest: of the base.
        seed: of the intervals.
    """

    data: PersonaData
    arms: list[str]
    truth: Truth
    predicted: dict[str, Predicted]
    gains: Floats
    curve: dict[int, Floats]
    start: training.Start
    storage: dict[str, float]
    base_digest: str
    seed: int

    def contrasts(self) -> list[tuple[str, str]]:
        """Pairs of arms that are compared: all with the baseline, and own adapters with the other ways to adapt."""
        others = [(arm, BASELINE) for arm in self.arms if arm != BASELINE]
        return [*others, *((PER_PERSONA, arm) for arm in self.arms if arm not in (BASELINE, PER_PERSONA))]

    def of(self, personas: Sequence[int]) -> tuple[Truth, dict[str, Predicted]]:
        """The decisions of some personas."""
        return take(self.truth, self.predicted, np.flatnonzero(np.isin(self.truth.persona, personas)))

    def added(self, personas: Sequence[int], by_game: bool) -> dict[str, tuple[Floats, Floats]]:
        """`sums` of each arm over some personas' decisions; clusters are their games, or the personas."""
        truth, predicted = self.of(personas)
        cluster = np.unique(truth.game if by_game else truth.persona, return_inverse=True)[1]
        return {arm: sums(truth, p, cluster) for arm, p in predicted.items()}


def evaluate(
    arms: Arms,
    curve_games: Sequence[int],
    curve_personas: int,
    plan: LoRAPlan,
    start: training.Start,
    seed: int,
    tell: Tell,
) -> Evaluation:
    """Ask every arm, and train on fewer games what the curve needs.

    Raises:
        InputError: the curve asks for more games than there are to train on; said before any arm is asked.
    """
    data, rows = arms.data, arms.data.rows("test")
    first = training.start_of(data.folder, start)
    if curve_games:
        _curve_limit(data, curve_games, chosen(data, curve_personas))
    predicted = {}
    for arm in arms.names:
        predicted[arm] = arms.predict(arm, rows)
        tell(f"{arm}: {len(rows):,} decisions")
    train_rows = data.rows("train")
    origin = POOLED_ARM if start == "pooled" else BASELINE
    gains = np.stack([_gain(arms, train_rows, origin), _gain(arms, rows, origin)], axis=1)
    folders = [data.folder / PER_USER / persona.id for persona in data.personas]
    curve = games_curve(arms, curve_games, curve_personas, plan, first, tell) if curve_games else {}
    return Evaluation(
        data, arms.names, arms.truth(rows), predicted, gains, curve, start, training.stored_bytes(folders),
        arms.model.base_digest, seed,
    )  # fmt: skip


def _gain(arms: Arms, rows: NDArray[np.int64], origin: str) -> Floats:
    """``[P]`` mean gain of the own adapter over ``origin`` on rows of each persona, in nats a decision."""
    each = arms.log_likelihood(PER_PERSONA, rows) - arms.log_likelihood(origin, rows)
    owner, count = arms.data.owner[rows], len(arms.data.personas)
    return np.bincount(owner, weights=each, minlength=count) / np.bincount(owner, minlength=count)


def games_curve(
    arms: Arms, games: Sequence[int], count: int, plan: LoRAPlan, start: LoRA | None, tell: Tell
) -> dict[int, Floats]:
    """Gain over ``start`` on test rows after training on fewer games: by number, nats a decision of each sampled persona.

    Validation rows stay the same, and so does ``start``, which may have read all the games. The whole number of training
    games is what ``lora_per_user`` holds, and not trained anew.

    Raises:
        InputError: more games than there are to train on.
    """
    data, who = arms.data, chosen(arms.data, count)
    most, found = _curve_limit(data, games, who), {}
    for number in sorted(set(games)):
        adapters = [arms.own[k] for k in who]
        if number < most:
            pupils = [training.pupil(data, k, number) for k in who]
            adapters = [one.lora for one in train_many(arms.model, arms.dataset, pupils, plan, start=start)]
        before = [] if start is None else [start]
        weights = stack_adapters([lora.scaled() for lora in adapters + before])
        gains = []
        for place, k in enumerate(who):
            rows = data.rows("test", k)
            own, origin = (
                row_losses(arms.model, arms.dataset, rows, under_adapters(arms.model, weights, np.full(len(rows), i)))[
                    0
                ]
                for i in (place, len(who) if before else -1)
            )
            gains.append(float((origin - own).mean()))
        found[number] = np.array(gains)
        tell(f"{number} training games: {np.mean(gains):+.3f} nats a decision")
    return found


def _curve_limit(data: PersonaData, games: Sequence[int], who: Sequence[int]) -> int:
    """The most training games that all of ``who`` have, if nothing beyond is asked for."""
    most = min(len(np.unique(data.game[data.rows("train", k)])) for k in who)
    if max(games) > most or min(games) < 1:
        raise InputError(
            f"--games-curve asks for {min(games)} to {max(games)} training games, but a persona has {most}; ask for "
            f"1 … {most}"
        )
    return most


def families(data: PersonaData) -> dict[str, list[int]]:
    """Numbers of the personas of each family."""
    names = list(dict.fromkeys(persona.family for persona in data.personas))
    return {name: [k for k, persona in enumerate(data.personas) if persona.family == name] for name in names}


def summary_rows(found: Evaluation) -> list[dict[str, Any]]:
    """Rows of ``per_persona_summary.csv``: each persona, then each family and all, whose clusters are personas."""
    data = found.data
    groups: list[tuple[dict[str, Any], list[int], bool]] = []
    for k, p in enumerate(data.personas):
        about = {"persona": p.id, "strategy": p.strategy, "family": p.family, "preset": p.preset, "seat": p.seat}
        groups.append(({**about, "unseen": p.unseen}, [k], True))
    for name, members in families(data).items():
        groups.append(({"persona": f"family:{name}", "family": name}, members, False))
    groups.append(({"persona": ALL}, list(range(len(data.personas))), False))
    split_sizes = {split: np.bincount(data.owner[data.rows(split)], minlength=len(data.personas))
                   for split in ("train", "val", "test")}  # fmt: skip
    rows = []
    for about, members, by_game in groups:
        parts = found.added(members, by_game)
        shared = {f"n_{split}": int(sizes[members].sum()) for split, sizes in split_sizes.items()}
        for arm, against in found.contrasts():
            gap, low, high = difference(parts[arm], parts[against], found.seed)
            own, other = figures(*parts[arm]), figures(*parts[against])
            clusters = len(parts[arm][0])
            for i, metric in enumerate(FIGURES):
                rows.append({**about, **shared, "metric": metric, "arm": arm, "against": against, "value": own[i],
                             "reference": other[i], "delta": gap[i], "ci_low": low[i], "ci_high": high[i],
                             "clusters": clusters, "seed": found.seed, "base_digest": found.base_digest})  # fmt: skip
    return rows


def write_results(found: Evaluation, rows: list[dict[str, Any]], arms: Arms, out: Path) -> list[Path]:
    """Everything but the report; returns the files."""
    test_rows, everybody = arms.data.rows("test"), list(range(len(found.data.personas)))
    overall = {arm: named(figures(*pair)) for arm, pair in found.added(everybody, by_game=True).items()}
    write_json(out / BASELINE_FILE, {"decisions": len(test_rows), "base_digest": found.base_digest,
                                     "figures": overall[BASELINE]})  # fmt: skip
    each = {}
    for k, persona in enumerate(found.data.personas):
        parts = found.added([k], by_game=True)
        each[persona.id] = {
            **persona.as_dict(),
            "arms": {arm: named(figures(*pair)) for arm, pair in parts.items()},
            "gain_train": float(found.gains[k, 0]),
            "gain_test": float(found.gains[k, 1]),
        }
    swaps = swap_counts(arms.data, arms.others)
    write_json(out / RESULTS_FILE, {"overall": overall, "storage": found.storage, "swapped": swaps, "personas": each})
    with replacing(out / SUMMARY_FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in rows)
    with replacing(out / SAMPLES_FILE) as temporary, temporary.open("w") as file:
        for sample in samples(arms, found.truth, found.predicted, test_rows, SAMPLES):
            file.write(json.dumps(sample) + "\n")
    files = [out / name for name in (BASELINE_FILE, RESULTS_FILE, SUMMARY_FILE, SAMPLES_FILE)]
    if found.curve:
        write_json(
            out / CURVE_FILE, {str(games): _curve_point(values, found.seed) for games, values in found.curve.items()}
        )
        files.append(out / CURVE_FILE)
    return files


def _curve_point(values: Floats, seed: int) -> dict[str, float | int | None]:
    mean, low, high = (None if np.isnan(x) else x for x in mean_interval(values, seed))
    return {"mean": mean, "ci_low": low, "ci_high": high, "personas": len(values)}
