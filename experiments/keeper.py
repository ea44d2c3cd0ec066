"""What happens beside the training itself: evaluation, early stopping, checkpoints and the log, each when it is due."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from experiments.play_evaluation import evaluate_play
from experiments.training_log import TrainingLog
from experiments.training_summary import Milestone, Resumption, TrainingSummary, peak_memory, write_summary
from hyperlora.checkpoint import read_config, save_hyperlora_adapter
from hyperlora.data import NegotiationDataset
from hyperlora.digest import adapter_digest
from hyperlora.early_stopping import EarlyStopping
from hyperlora.evaluate import DecisionFacts, evaluate_decisions, evaluate_loss
from hyperlora.resume import OPTIMIZER, TrainState
from hyperlora.train import StepReport
from hyperlora.workers import Workers

if TYPE_CHECKING:
    from experiments.train import Settings

BEST = "best"


@dataclass(frozen=True, slots=True)
class Heldout:
    """Decisions to evaluate on, and what they are."""

    dataset: NegotiationDataset
    facts: DecisionFacts


@dataclass(slots=True)
class Keeper:
    """Called after each step, in every process; the first one writes."""

    settings: Settings
    identity: dict[str, Any]
    out: Path
    model: Any
    tokenizer: Any
    state: TrainState
    held_out: Heldout | None
    log: TrainingLog
    workers: Workers
    source: Path | None
    console: Console
    stopping: EarlyStopping = field(init=False)
    progress: dict[str, Any] = field(init=False)
    untried: Path | None = field(init=False)
    last_good: Path | None = field(init=False, default=None)
    last_evaluation: dict[str, Any] | None = field(init=False, default=None)
    step: int = field(init=False, default=0)
    started: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        before = {} if self.source is None else read_config(self.source)
        told = before.get("early_stopping")
        self.stopping = EarlyStopping.from_dict(told) if told else EarlyStopping(self.settings.patience)
        self.progress = before.get("progress", {"tokens": 0, "rows": 0, "lineage": []})
        if self.source is not None:
            link = {"from_checkpoint": self.source.name, "at_step": before["step"]}
            self.progress["lineage"] = [*self.progress["lineage"], link]
            self.step = before["step"]
        self.untried = self.source

    def on_step(self, report: StepReport) -> bool:
        """Do what is due after this step; whether to stop."""
        self.step = report.step
        self.last_good = self.untried  # its weights have given a sane loss
        self.progress["tokens"] += report.tokens
        self.progress["rows"] += report.rows
        self.log(report)
        last, stop, evaluation = report.step == self.settings.max_steps, False, None
        if self.held_out is not None and (last or report.step % self.settings.eval_every == 0):
            evaluation = self.last_evaluation = self._evaluate(self.held_out)
            stop = self.stopping.update(report.step, evaluation["eval_loss"])
            if self.stopping.best_step == report.step:
                self.progress["best"] = evaluation
                self.save(BEST)
        due = bool(self.settings.save_every) and report.step % self.settings.save_every == 0
        name = f"step-{report.step:06d}" if due else ""
        if due:
            self.save(name, {OPTIMIZER: self.state.tensors()})
            self.untried = self.out / name
        if (due or evaluation or last) and self.workers.first:
            self.log.checkpoint(report.step, name, report.lr, evaluation)
            self.log.write(
                self.out / "training_log.json", resumed_from=None if self.source is None else str(self.source)
            )
        return stop

    def _evaluate(self, held_out: Heldout) -> dict[str, Any]:
        """Loss, decisions and games of the model as it is now."""
        found = evaluate_loss(self.model, held_out.dataset, facts=held_out.facts)
        found["decisions"] = evaluate_decisions(self.model, self.tokenizer, held_out.dataset, held_out.facts)
        line = f"  eval loss {found['eval_loss']:.4f} on {found['rows']} rows{decisions_text(found['decisions'])}"
        if self.settings.play_games:
            shape = {"k_history": self.settings.k_history, "prompt_format": self.settings.prompt_format}
            config = {**shape, "run": self.identity}
            found["play"] = evaluate_play(self.model, self.tokenizer, config, games=self.settings.play_games)
            line += play_text(found["play"])
        self.console.print(line, soft_wrap=True)
        return found

    def save(self, name: str, files: dict[str, dict[str, torch.Tensor]] | None = None) -> None:
        """Write the adapter as it is now to the folder ``name``; one process does, the others wait."""
        if self.workers.first:
            save_hyperlora_adapter(
                self.model,
                self.tokenizer,
                self.out / name,
                k_history=self.settings.k_history,
                prompt_format=self.settings.prompt_format,
                pickle=self.settings.save_pickle,
                extra={
                    "step": self.step,
                    "run": self.identity,
                    "progress": self.progress,
                    "early_stopping": self.stopping.as_dict(),
                },
                files=files,
            )
        self.workers.wait()

    def finish(self) -> None:
        """Write the final adapter and the summary."""
        self.save("final")
        if self.workers.first:
            write_summary(self.out, self._summary())

    def _summary(self) -> TrainingSummary:
        best, last = self.progress.get("best"), self.last_evaluation
        shape = self.model.hyperlora_settings.as_config()
        return TrainingSummary(
            settings=vars(self.settings),
            data_sha256=self.identity["data_sha256"],
            base={
                "spec": self.model.base_spec,
                "digest": self.model.base_digest,
                "precision": self.model.base_precision,
            },
            adapter={**shape, "digest": adapter_digest(self.model)},
            steps=self.step,
            rows_seen=self.progress["rows"],
            target_tokens=self.progress["tokens"],
            wall_time_s=time.monotonic() - self.started,
            peak_memory=peak_memory(),
            best=None if best is None else Milestone(int(self.stopping.best_step or 0), best["rows"], best),
            last=None if last is None else Milestone(self.step, last["rows"], last),
            resumed=[Resumption(**link) for link in self.progress["lineage"]],
            early_stopped=self.stopping.stopped and self.step < self.settings.max_steps,
        )


def decisions_text(found: dict[str, Any]) -> str:
    """The decisions of an evaluation, for one line."""
    accuracy, error = found.get("action_accuracy"), found.get("price_mae")
    text = "" if accuracy is None else f", actions {accuracy:.1%} right"
    return text + ("" if error is None else f", prices off by {error:.3f}")


def play_text(found: dict[str, Any]) -> str:
    """The games of an evaluation, for one line."""
    parts = []
    for seat in ("buyer", "seller"):
        error, rate = found[seat]["mae"], found[seat]["agreement_rate"]
        off = "no deals" if error is None else f"rho off by {error:.2f} in {rate:.0%} deals"
        parts.append(f"{seat} {off}")
    return f"; plays: {', '.join(parts)}"
