"""What a training run shows and leaves behind: a progress bar or plain lines, and ``training_log.json``."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
    """

    def __init__(self, console: Console, total: int, done: int = 0, every: int = 100) -> None:
        self.console, self.total, self.every = console, total, every
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
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, report: StepReport) -> None:
        """Take one step's report."""
        self.losses.append(round(report.loss, 6))
        self._window.append(report.loss)
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

    def checkpoint(self, step: int, name: str, lr: float, evaluation: dict[str, Any] | None) -> None:
        """Add an entry."""
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
            }
        )

    def write(self, path: Path, **more: Any) -> None:
        """``training_log.json``: all entries, the last one as ``final``, and the loss of every step of this run."""
        with replacing(path) as temporary:
            final = self.entries[-1] if self.entries else None
            content = {**more, "checkpoints": self.entries, "final": final, "losses": self.losses}
            temporary.write_text(json.dumps(content, indent=2) + "\n")
