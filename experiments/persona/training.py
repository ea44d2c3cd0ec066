"""Adapters of personas: one for each, trained together in groups; one for all; and a HyperLoRA gated by the persona's ρ."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bargain_env.errors import InputError
from bargain_env.files import sha256
from experiments.persona.cast import Persona
from experiments.persona.folder import HYPERLORA, PER_USER, POOLED, PersonaData, write_json
from hyperlora.adapters.folders import META
from hyperlora.adapters.likelihood import row_losses
from hyperlora.adapters.many import LoRAPlan, Pupil, Trained, train_many
from hyperlora.adapters.peft_folder import LoRA, read_peft, write_peft
from hyperlora.adapters.rows import inject_rows
from hyperlora.base import load_base
from hyperlora.binding import bind_rho
from hyperlora.checkpoint import save_hyperlora_adapter
from hyperlora.data import NegotiationDataset
from hyperlora.export import base_name
from hyperlora.inject import adapter_state, inject_hyperlora, load_adapter_state
from hyperlora.peft_format import PEFT_CONFIG, PEFT_WEIGHTS
from hyperlora.plan import TrainSettings
from hyperlora.train import StepReport, train

RECORD = "training.json"
TIMES = "training_times.json"
"""Beside the adapters and not in them: their bytes are the same however long it took."""
Tell = Callable[[str], None]
Start = Literal["pooled", "base"]


def groups_of(data: PersonaData, together: int) -> list[list[int]]:
    """Personas that train together: those with equally many rows, so that they end together.

    A pure function of the data, whatever is trained already: a group that was interrupted is trained anew as a whole, and
    gives the same bytes as it would have given.
    """
    rows = [len(data.rows("train", k)) for k in range(len(data.personas))]
    order = sorted(range(len(rows)), key=lambda k: (-rows[k], k))
    return [order[i : i + together] for i in range(0, len(order), together)]


def train_personas(
    data: PersonaData, model_name: str, prompt_format: int, plan: LoRAPlan, together: int, start: Start, tell: Tell
) -> dict[str, Any]:
    """An adapter in ``lora_per_user/ID`` for every persona that has none yet.

    Args:
        data: the personas and their games.
        model_name: of the base.
        prompt_format: of the prompts.
        plan: how each is trained.
        together: how many at once.
        start: what they start from; ``pooled`` needs ``lora_all``.
        tell: hears how far it is.

    Returns:
        How many were trained now, in how many seconds and steps.
    """
    groups = groups_of(data, together)
    waiting = [
        group for group in groups if not all(adapter_folder(data, k).joinpath(PEFT_CONFIG).is_file() for k in group)
    ]
    done, began = sum(map(len, groups)) - sum(map(len, waiting)), time.perf_counter()
    if done:
        tell(f"continuing: {done} of {len(data.personas)} adapters are there")
    if not waiting:
        return {"trained": 0, "seconds": 0.0, "steps": 0}
    model, tokenizer = load_base(model_name)
    dataset = data.dataset(tokenizer, prompt_format)
    inject_rows(model, plan.target_modules)
    first = start_of(data.folder, start)
    origin = (
        {"start": POOLED, "start_sha256": sha256(data.folder / POOLED / PEFT_WEIGHTS)} if first else {"start": "base"}
    )
    trained = steps = 0
    for group in waiting:
        started = time.perf_counter()
        found = train_many(model, dataset, [pupil(data, k) for k in group], plan, start=first)
        for k, one in zip(group, found, strict=True):
            save(adapter_folder(data, k), one, model, plan, data.digest, meta_of(data.personas[k]), origin)
        add_time(data.folder, PER_USER, len(group), time.perf_counter() - started, sum(one.steps for one in found))
        trained, steps = trained + len(group), steps + sum(one.steps for one in found)
        seconds = time.perf_counter() - began
        left = seconds / trained * (sum(map(len, waiting)) - trained)
        tell(
            f"{done + trained} of {len(data.personas)} adapters, {trained / seconds:.2f} a second, {left:,.0f} s to go"
        )
    return {"trained": trained, "seconds": time.perf_counter() - began, "steps": steps}


def start_of(folder: Path, start: Start) -> LoRA | None:
    """What the adapters of personas start from; None for fresh weights.

    Raises:
        InputError: ``lora_all`` is wanted and is not there, or is damaged.
    """
    return read_peft(folder / POOLED) if start == "pooled" else None


def pupil(data: PersonaData, k: int, games: int | None = None) -> Pupil:
    """A persona as `train_many` takes it; ``games`` trains on its first so many games only."""
    name = data.personas[k].id + ("" if games is None else f"@{games}")
    return Pupil(name, data.rows("train", k, games), data.rows("val", k))


def adapter_folder(data: PersonaData, k: int) -> Path:
    """Where the adapter of a persona lies."""
    return data.folder / PER_USER / data.personas[k].id


def meta_of(persona: Persona) -> dict[str, str]:
    """What routers read of a persona's adapter (`hyperlora.adapters.folders`)."""
    return {"domain": persona.family, "description": f"{persona.seat} on {persona.preset}: {persona.strategy}"}


def add_time(folder: Path, what: str, adapters: int, seconds: float, steps: int) -> None:
    """Add training to what ``training_times.json`` says was spent on ``what`` so far, in this run and earlier ones."""
    known = times(folder)
    old = known.get(what, {"adapters": 0, "seconds": 0.0, "steps": 0, "threads": []})
    known[what] = {
        "adapters": old["adapters"] + adapters,
        "seconds": round(old["seconds"] + seconds, 3),
        "steps": old["steps"] + steps,
        "threads": sorted({*old["threads"], torch.get_num_threads()}),
    }
    write_json(folder / TIMES, known)


def times(folder: Path) -> dict[str, dict[str, Any]]:
    """By kind of adapter: how many were trained, in how many wall-clock seconds and steps, on how many threads.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / TIMES
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, which loses no more than the times") from error


def save(
    folder: Path,
    trained: Trained,
    model: Any,
    plan: LoRAPlan,
    data_digest: str,
    meta: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
) -> None:
    """An adapter in PEFT's format, and beside it how it was trained, and what it is for where ``meta`` says so.

    ``origin`` says what training started from, if not from the base.
    """
    record = {
        "name": trained.name,
        **(origin or {"start": "base"}),
        "steps": trained.steps,
        "best_epoch": trained.best_epoch,
        "val_losses": trained.val_losses,
        "train_losses": trained.train_losses,
        "plan": asdict(plan),
        "base_digest": model.base_digest,
        "data_sha256": data_digest,
    }
    files = {RECORD: record} | ({META: dict(meta)} if meta else {})
    write_peft(
        folder,
        trained.lora,
        base_model=base_name(model),
        dropout=plan.dropout,
        metadata={"base_digest": model.base_digest, "name": trained.name},
        files={name: json.dumps(content, indent=1) + "\n" for name, content in files.items()},
    )


def train_pooled(
    data: PersonaData, model_name: str, prompt_format: int, plan: LoRAPlan, tell: Tell
) -> dict[str, Any] | None:
    """One LoRA for all personas, in ``lora_all``; None where it is there already."""
    folder = data.folder / POOLED
    if (folder / PEFT_CONFIG).is_file():
        tell(f"{POOLED} is there already")
        return None
    model, tokenizer = load_base(model_name)
    dataset, began = data.dataset(tokenizer, prompt_format), time.perf_counter()
    inject_rows(model, plan.target_modules)
    [found] = train_many(
        model, dataset, [Pupil(POOLED, data.rows("train"), data.rows("val"))], plan, now_and_then(tell, POOLED)
    )
    save(folder, found, model, plan, data.digest)
    seconds = time.perf_counter() - began
    add_time(data.folder, POOLED, 1, seconds, found.steps)
    return {"seconds": seconds, "steps": found.steps, "val_losses": found.val_losses}


def train_gated(
    data: PersonaData, model_name: str, prompt_format: int, plan: LoRAPlan, tell: Tell
) -> dict[str, Any] | None:
    """One HyperLoRA for all, in ``hyperlora_all``, gated by each persona's mean settled ρ; None where it is there."""
    folder = data.folder / HYPERLORA
    if (folder / PEFT_CONFIG).is_file():
        tell(f"{HYPERLORA} is there already")
        return None
    model, tokenizer = load_base(model_name)
    inject_hyperlora(model, plan.rank, plan.alpha, plan.dropout, target_modules=plan.target_modules, seed=plan.seed)
    dataset, began = data.dataset(tokenizer, prompt_format), time.perf_counter()
    part, val = Subset(dataset, data.rows("train")), data.rows("val")
    batch_size = min(plan.batch_size, len(part))
    per_epoch = len(part) // batch_size
    settings = TrainSettings(
        max_steps=plan.epochs * per_epoch, batch_size=batch_size, grad_accum=1, lr=plan.lr,
        warmup_steps=plan.warmup_steps, weight_decay=plan.weight_decay, clip=plan.clip, seed=plan.seed,
    )  # fmt: skip
    kept: dict[str, torch.Tensor] = {}
    losses: list[float] = []
    progress = now_and_then(tell, HYPERLORA)

    def after(report: StepReport) -> None:
        progress(report.step, settings.max_steps)
        if report.step % per_epoch == 0:
            losses.append(gated_loss(model, dataset, val))
            if losses[-1] <= min(losses):
                kept.update(adapter_state(model))

    train(model, part, settings, on_step=after)  # type: ignore[arg-type]
    load_adapter_state(model, kept)
    save_hyperlora_adapter(
        model, tokenizer, folder, prompt_format=prompt_format,
        extra={"data_sha256": data.digest, "personas_plan": asdict(plan), "val_losses": losses},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    add_time(data.folder, HYPERLORA, 1, seconds, settings.max_steps)
    return {"seconds": seconds, "steps": settings.max_steps, "val_losses": losses}


def gated_loss(model: Any, dataset: NegotiationDataset, rows: np.ndarray) -> float:
    """Mean loss of rows, each at its own ρ, in nats a target token."""
    loss, tokens = row_losses(model, dataset, rows, lambda places: bind_rho(model, dataset.rho[rows[places]].tolist()))
    return float(loss.sum() / tokens.sum())


class Subset:
    """Some rows of a dataset as one, which is all that the training loop asks of it."""

    def __init__(self, dataset: NegotiationDataset, rows: np.ndarray) -> None:
        self.dataset, self.rows = dataset, rows
        self.lengths = dataset.lengths[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """As `NegotiationDataset` gives it."""
        return self.dataset.batch(self.rows[rows])


def now_and_then(tell: Tell, what: str, every: float = 20.0) -> Callable[[int, int], None]:
    """Says every so many seconds how far the training of ``what`` is."""
    began = told = time.monotonic()

    def on_step(step: int, steps: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > every:
            told = now
            tell(f"{what}: step {step:,} of {steps:,}, {(now - began) / step * (steps - step):,.0f} s to go")

    return on_step


def pooled_plan(plan: LoRAPlan, epochs: int, batch_size: int) -> LoRAPlan:
    """The plan of what is trained on everybody's rows."""
    return replace(plan, epochs=epochs, batch_size=batch_size)


def stored_bytes(folders: Sequence[Path]) -> dict[str, float]:
    """Mean bytes of an adapter's weights, and of all files of its folder."""
    weights = [(folder / "adapter_model.safetensors").stat().st_size for folder in folders]
    whole = [sum(path.stat().st_size for path in folder.iterdir()) for folder in folders]
    return {"adapters": len(folders), "weights": float(np.mean(weights)), "folder": float(np.mean(whole))}
