"""What a training run shows and leaves behind: a progress bar or plain lines, ``training_log.json``, TensorBoard events."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bargain_env.errors import InputError
from bargain_env.files import replacing
from hyperlora.train import StepReport

WINDOW = 100


class TrainingLog:
    """Collects step reports; a bar on a terminal, elsewhere a line every ``every`` steps. Use it in a ``with`` block.

    Args:
        console: where to print.
        total: steps planned.
        done: steps done before.
        every: steps between lines.
        tensorboard: folder for TensorBoard events, written within the ``with`` block; None writes none. A resumed run
            appends to the folder of the first, and events of steps beyond ``done`` are replaced.

    Raises:
        InputError: events are asked for and the ``tensorboard`` package is missing.
    """

    def __init__(
        self, console: Console, total: int, done: int = 0, every: int = 100, tensorboard: Path | None = None
    ) -> None:
        self.console, self.total, self.every = console, total, every
        self._events = None if tensorboard is None else Events(tensorboard, done)
        self.entries: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._done, self._started = done, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=done)

    def __enter__(self) -> TrainingLog:
        if self._events:
            self._events.open()
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._events:
            self._events.close()

    def __call__(self, report: StepReport) -> None:
        """Take one step's report."""
        self.losses.append(round(report.loss, 6))
        self._window.append(report.loss)
        if self._events:
            self._events.add(report.step, _of_step(report))
        text = f"loss {np.mean(self._window):.4f}"
        text += f" sep {report.separation:.3f}" if report.separation else ""
        text += f" smooth {report.smoothness:.3f}" if report.smoothness else ""
        self._bar.update(self._task, completed=report.step, description=text)
        if not self.console.is_terminal and (report.step % self.every == 0 or report.step == self.total):
            pace = (time.monotonic() - self._started) / (report.step - self._done)
            self.console.print(
                f"step {report.step}/{self.total}  {text}  lr {report.lr:.1e}  {pace * 1000:.0f} ms/step  "
                f"{pace * (self.total - report.step) / 60:.1f} min left"
            )

    def checkpoint(
        self,
        step: int,
        name: str,
        lr: float,
        evaluation: dict[str, Any] | None,
        play: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry.

        Args:
            step: optimizer steps done.
            name: of the checkpoint; empty where none was written.
            lr: learning rate of the step.
            evaluation: on held-out decisions, nested as it likes.
            play: from `experiments.play_evaluation`.
        """
        if self._events:
            self._events.add(step, {**scalars(evaluation or {}, "eval"), **scalars(play or {}, "play")})
            self._events.flush()
        losses = np.array(self._window)
        self.entries.append(
            {
                "step": step,
                "checkpoint": name,
                "train_loss_last": float(losses[-1]) if len(losses) else None,
                "train_loss_window_mean": float(losses.mean()) if len(losses) else None,
                "train_loss_window_std": float(losses.std()) if len(losses) else None,
                "lr": lr,
                "eval": evaluation,
                **({} if play is None else {"play": play}),
            }
        )

    def write(self, path: Path, **more: Any) -> None:
        """``training_log.json``: all entries, the last one as ``final``, and the loss of every step of this run."""
        with replacing(path) as temporary:
            final = self.entries[-1] if self.entries else None
            content = {**more, "checkpoints": self.entries, "final": final, "losses": self.losses}
            temporary.write_text(json.dumps(content, indent=2) + "\n")


class Events:
    """TensorBoard events of one run.

    Args:
        folder: where to write; made when opened.
        done: steps done before. What the folder holds of later steps is hidden: they will be done again.

    Raises:
        InputError: the ``tensorboard`` package is missing.
    """

    def __init__(self, folder: Path, done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"TensorBoard events need the tensorboard package ({error}); pip install 'bargain-lab[train]'"
            ) from error
        self._make: Any = SummaryWriter
        self._writer: Any = None
        self._folder, self._done = folder, done

    def open(self) -> None:
        """Start a file of events."""
        self._writer = self._make(str(self._folder), purge_step=self._done + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars, by tag; nothing once closed."""
        if self._writer:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def flush(self) -> None:
        """Put everything on disk, so that a run killed after a checkpoint has the events up to it."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer:
            self._writer.close()
        self._writer = None


def _of_step(report: StepReport) -> dict[str, float]:
    """The numbers of a report; a gate term that is 0 is one that is switched off."""
    off = [name for name in ("separation", "smoothness") if not getattr(report, name)]
    return {name: value for name, value in scalars(asdict(report)).items() if name not in ("step", *off)}


def scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in nested mappings by path, ``eval/by_action/OFFER``; what is no number is left out.

    A leading ``eval_`` of a name is dropped: the prefix says it.
    """
    return dict(_numbers(values, prefix))


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        path = f"{prefix}/{name.removeprefix('eval_')}" if prefix else name
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, float(value)
