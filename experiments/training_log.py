"""What a training run shows and leaves behind: a progress line, and ``training_log.json``."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bargain_env.files import replacing
from hyperlora.train import StepReport

WINDOW = 100


class TrainingLog:
    """Collects step reports; prints one line every ``every`` steps.

    Args:
        console: where to print.
        total: steps planned.
        every: steps between lines.
    """

    def __init__(self, console: Console, total: int, every: int = 100) -> None:
        self.console, self.total, self.every = console, total, every
        self.entries: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._first: tuple[int, float] | None = None

    def __call__(self, report: StepReport) -> None:
        """Take one step's report."""
        self.losses.append(round(report.loss, 6))
        self._window.append(report.loss)
        now = time.monotonic()
        if self._first is None:
            self._first = (report.step, now)
        if report.step % self.every == 0 or report.step == self.total:
            done = report.step - self._first[0]
            pace = (now - self._first[1]) / done if done else 0.0
            left = pace * (self.total - report.step)
            gates = f" sep {report.separation:.3f}" if report.separation else ""
            gates += f" smooth {report.smoothness:.3f}" if report.smoothness else ""
            self.console.print(
                f"step {report.step}/{self.total}  loss {np.mean(self._window):.4f}{gates}  lr {report.lr:.1e}  "
                f"{pace * 1000:.0f} ms/step  {left / 60:.1f} min left"
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
