"""Instant experts: what generated adapters predict of unseen personas, beside trained ones and one for everybody."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bargain_env.errors import InputError
from experiments.persona import training
from experiments.persona.arms import BASELINE, PER_PERSONA, POOLED_ARM, Arms, swapped
from experiments.persona.folder import PersonaData, write_json
from experiments.persona.generating import SEEN_OFFERS, Hypernetwork, identity, seen_personas, teach
from experiments.persona.measures import mean_interval
from experiments.persona.support import SPREAD, Support, read_support
from experiments.reporting.statistics import ratio_intervals, safe_ratio
from hyperlora.adapters.hypernetwork import HyperNetwork
from hyperlora.adapters.hypernetwork_files import CONFIG, load_hypernetwork, save_hypernetwork
from hyperlora.adapters.likelihood import row_losses, under_adapters
from hyperlora.adapters.many import LoRAPlan, Pupil, train_many
from hyperlora.adapters.offer_embedding import OfferEmbedding
from hyperlora.adapters.peft_folder import LoRA, read_peft
from hyperlora.adapters.rows import Weights
from hyperlora.peft_format import PEFT_CONFIG

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Tell = Callable[[str], None]

FOLDER, SEEN_POOLED, EXPERTS = "hypernetwork", "lora_seen", "lora_generated"
RESULTS = "hypernetwork_results.json"
SEEN_ARM, SWAPPED_ARM = "pooled_seen", "swapped_embedding"
GAMES = (2, 4)
"""Numbers of games whose first five offers are seen at once, beside one."""


def generated(offers: int, games: int = 1) -> str:
    """Name of the arm whose adapters are generated from so much."""
    return f"generated_{offers}_offers" + ("" if games == 1 else f"_of_{games}_games")


def trained_network(
    arms: Arms, support: Support, plan: LoRAPlan, pooled: LoRAPlan, settings: Hypernetwork, out: Path, tell: Tell
) -> tuple[HyperNetwork, OfferEmbedding, dict[str, Any], LoRA]:
    """The network in ``out``, trained if it is not there yet, with its embedding and record; and ``lora_seen``.

    Raises:
        InputError: another one is there.
    """
    folder = out / FOLDER
    unseen = [persona.id for persona in arms.data.personas if persona.unseen]
    chosen = {**identity(settings), "data_sha256": arms.data.digest, "unseen": unseen}
    if (folder / CONFIG).is_file():
        network, config = load_hypernetwork(folder, arms.model)
        if config.get("training") != chosen:
            raise InputError(
                f"{folder} holds a hypernetwork of other settings or games; remove it, or choose another --out"
            )
        tell(f"{folder} is there already")
        everybody = _seen_pooled(arms, pooled, out, tell)
        return network, OfferEmbedding.from_config(config["embedding"]), config["record"], everybody
    embedding = support.fitted(seen_personas(arms.data))
    everybody = _seen_pooled(arms, pooled, out, tell)
    network = HyperNetwork.for_model(
        arms.model, embedding.dim, lora_rank=plan.rank, bottleneck_dim=settings.bottleneck_dim, alpha=plan.alpha,
        head_rank=settings.head_rank, seed=settings.seed,
    )  # fmt: skip
    if settings.pooled_start:
        network.start_from(everybody)
    taught = teach(arms, network.to(next(arms.model.parameters()).device), support, embedding, settings, tell)
    about = {"training": chosen, "record": taught.record, "embedding": embedding.as_config()}
    save_hypernetwork(taught.network, folder, arms.model, about)
    return taught.network, embedding, taught.record, everybody


def _seen_pooled(arms: Arms, plan: LoRAPlan, out: Path, tell: Tell) -> LoRA:
    """One LoRA for all seen personas: the generic adapter that has read what the hypernetwork reads, and no more."""
    folder, seen = out / SEEN_POOLED, seen_personas(arms.data)
    if not (folder / PEFT_CONFIG).is_file():
        rows = [(r := arms.data.rows(split))[np.isin(arms.data.owner[r], seen)] for split in ("train", "val")]
        progress = training.now_and_then(tell, SEEN_POOLED)
        [found] = train_many(arms.model, arms.dataset, [Pupil(SEEN_POOLED, *rows)], plan, progress)
        training.save(folder, found, arms.model, plan, arms.data.digest)
    lora, record = read_peft(folder), json.loads((folder / training.RECORD).read_text())
    expected = {"plan": asdict(plan), "data_sha256": arms.data.digest, "base_digest": arms.model.base_digest}
    if any(record.get(name) != value for name, value in json.loads(json.dumps(expected)).items()):
        raise InputError(
            f"{folder} was trained on other games, another base or with other settings; remove it, or choose another --out"
        )
    return lora


def judge(
    arms: Arms, network: HyperNetwork, embedding: OfferEmbedding, support: Support, everybody: LoRA,
    settings: Hypernetwork, tell: Tell,
) -> dict[str, Floats]:  # fmt: skip
    """``[U]`` mean gain over the base of every arm on each unseen persona's test decisions, in nats a decision."""
    unseen = [k for k, persona in enumerate(arms.data.personas) if persona.unseen]
    rows = arms.data.rows("test")
    rows = rows[np.isin(arms.data.owner[rows], unseen)]
    place = np.searchsorted(unseen, arms.data.owner[rows])
    bare = arms.log_likelihood(BASELINE, rows)

    def gain(log_likelihood: Floats) -> Floats:
        return np.bincount(place, weights=log_likelihood - bare) / np.bincount(place)

    def under(weights: Weights, which: Ints) -> Floats:
        return gain(-row_losses(arms.model, arms.dataset, rows, under_adapters(arms.model, weights, which))[0])

    found = {PER_PERSONA: gain(arms.log_likelihood(PER_PERSONA, rows))}
    if arms.pooled is not None:
        found[POOLED_ARM] = gain(arms.log_likelihood(POOLED_ARM, rows))
    found[SEEN_ARM] = under(everybody.scaled(), np.zeros(len(rows), dtype=np.int64))

    def written(offers: int, games: int, whom: Ints | None = None) -> Floats:
        draws = 1 if offers == 0 else settings.draws
        each = []
        for number in range(draws):
            vectors = [support.embed(embedding, k, _shown(support, k, number, games), offers) for k in unseen]
            with torch.no_grad():
                weights = network(torch.stack(vectors).to(next(arms.model.parameters()).device))
            each.append(under(weights, place if whom is None else whom[place]))
        return np.mean(each, axis=0)

    for offers in (0, *SPREAD):
        found[generated(offers)] = written(offers, 1)
        tell(f"{generated(offers)}: {found[generated(offers)].mean():+.3f} nats a decision")
    for games in GAMES:
        found[generated(SEEN_OFFERS, games)] = written(SEEN_OFFERS, games)
    if len(unseen) > 1:
        other = np.searchsorted(unseen, swapped(arms.data, unseen))
        found[SWAPPED_ARM] = written(SEEN_OFFERS, 1, other)
    return found


def _shown(support: Support, persona: int, draw: int, count: int) -> list[int]:
    """Games of a draw: following ones of its list, from the start again at its end; all where there are no more."""
    games = support.games[persona]
    start = draw * count
    return [games[(start + i) % len(games)] for i in range(min(count, len(games)))]


def write_experts(arms: Arms, network: HyperNetwork, embedding: OfferEmbedding, support: Support, out: Path) -> None:
    """An adapter for every unseen persona in ``lora_generated``, from its first five offers in one game."""
    for k, persona in enumerate(arms.data.personas):
        if persona.unseen:
            vector = support.embed(embedding, k, _shown(support, k, 0, 1), SEEN_OFFERS)
            network.export(vector, out / EXPERTS / persona.id, arms.model, f"{persona.id}, from its first five offers")


def results_of(
    data: PersonaData, gains: dict[str, Floats], network: HyperNetwork, record: dict[str, Any], settings: Hypernetwork
) -> dict[str, Any]:
    """What ``hypernetwork_results.json`` holds: gains, shares of the trained adapters' gain, differences, with intervals."""
    own, five = gains[PER_PERSONA], gains[generated(SEEN_OFFERS)]
    seed = settings.seed
    arms = {}
    for name, gain in gains.items():
        low, high = ratio_intervals(gain[:, None], own[:, None], seed=seed)
        share = float(safe_ratio(gain.mean(), own.mean()))
        arms[name] = {
            "gain": _figure(*mean_interval(gain, seed)),
            "share_of_trained": _figure(share, float(low[0]), float(high[0])),
            "above_pooled_seen": _figure(*mean_interval(gain - gains[SEEN_ARM], seed)),
        }
    unseen = [persona for persona in data.personas if persona.unseen]
    contrasts = {} if SWAPPED_ARM not in gains else {
        "own_above_swapped_embedding": _figure(*mean_interval(five - gains[SWAPPED_ARM], seed))
    }  # fmt: skip
    return {
        "unit": "nats a decision above the bare base, mean over unseen personas",
        "seen": len(data.personas) - len(unseen),
        "unseen": len(unseen),
        "parameters": network.size(),
        "hypernetwork_digest": network.digest(),
        "training": record,
        "arms": arms,
        **contrasts,
        "personas": {
            persona.id: {"strategy": persona.strategy, **{name: float(gain[i]) for name, gain in gains.items()}}
            for i, persona in enumerate(unseen)
        },
    }


def _figure(value: float, low: float, high: float) -> dict[str, float | None]:
    named = {"value": value, "ci_low": low, "ci_high": high}
    return {name: None if math.isnan(x) else x for name, x in named.items()}


def table(results: dict[str, Any]) -> str:
    """Markdown of `results_of`."""
    head = ("adapter", "gain over the base", "share of the trained adapter's", f"above {SEEN_ARM}")
    body = [
        [name, *(_shown_figure(entry[key], key) for key in ("gain", "share_of_trained", "above_pooled_seen"))]
        for name, entry in results["arms"].items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---", "--:", "--:", "--:"], *body]]
    text = (
        f"{results['unseen']} unseen personas, nats a decision on test games, 95 % intervals over personas; "
        f"{results['seen']} seen ones taught the network ({results['parameters']:,} parameters, best after "
        f"{results['training']['best_step']:,} steps).\n\n" + "\n".join(lines) + "\n"
    )
    if "own_above_swapped_embedding" in results:
        figure = _shown_figure(results["own_above_swapped_embedding"], "gain")
        text += f"\nFrom its own offers rather than another unseen persona's: {figure}.\n"
    return text


def _shown_figure(figure: dict[str, float | None], key: str) -> str:
    write = (lambda x: "–" if x is None else f"{x:.0%}") if key == "share_of_trained" else (
        lambda x: "–" if x is None else f"{x:+.3f}")  # fmt: skip
    return f"{write(figure['value'])} [{write(figure['ci_low'])}, {write(figure['ci_high'])}]"


def run(
    data: PersonaData, arms: Arms, plan: LoRAPlan, pooled: LoRAPlan, settings: Hypernetwork, out: Path, tell: Tell
) -> dict[str, Any]:
    """Train, judge, write.

    Raises:
        InputError: nobody is seen or unseen, or another network lies in ``out``.
    """
    support = read_support(data)
    if not any(persona.unseen for persona in data.personas):
        raise InputError(f"no persona in {data.folder} is unseen; make others with --unseen above 0")
    network, embedding, record, everybody = trained_network(arms, support, plan, pooled, settings, out, tell)
    gains = judge(arms, network, embedding, support, everybody, settings, tell)
    write_experts(arms, network, embedding, support, out)
    results = results_of(data, gains, network, record, settings)
    write_json(out / RESULTS, results)
    return results
