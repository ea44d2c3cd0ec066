"""When to stop: a pure rule over the sequence of evaluations, whose whole state fits into a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bargain_env.errors import InputError


@dataclass(slots=True)
class EarlyStopping:
    """Stop after ``patience`` evaluations in a row that did not improve on the best one. Lower is better.

    The answer depends on nothing but the settings and the sequence of `update` calls; a run that is resumed with the
    state of its checkpoint stops at the step at which it would have stopped.

    Attributes:
        patience: evaluations without improvement that are endured; 0 never stops, and still keeps track of the best.
        min_delta: an evaluation improves if it is below ``best_value`` by more than this.
        best_value: of the best evaluation so far; None before a finite one.
        best_step: when that was.
        since: evaluations after the best one; before a first finite one all are counted.
        last_step: of the latest evaluation.

    Raises:
        InputError: a negative or non-finite setting.
    """

    patience: int = 0
    min_delta: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    since: int = 0
    last_step: int | None = None

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise InputError(f"early-stopping patience {self.patience} is negative; give 0 to never stop")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise InputError(f"early-stopping min_delta {self.min_delta} must be a number of at least 0")

    @property
    def stopped(self) -> bool:
        """Whether the patience is exhausted."""
        return self.patience > 0 and self.since >= self.patience

    def update(self, step: int, value: float) -> bool:
        """Take one evaluation; whether to stop now. It was the best one if ``best_step == step`` afterwards.

        NaN and infinities never become best; they use up patience like any evaluation that is no better.

        Args:
            step: optimizer steps done, larger at each call.
            value: for example ``eval_loss``.

        Raises:
            ValueError: ``step`` does not follow the latest one; an evaluation must not count twice.
        """
        if self.last_step is not None and step <= self.last_step:
            raise ValueError(f"evaluation at step {step} after one at step {self.last_step}; each step counts once")
        self.last_step = step
        if math.isfinite(value) and (self.best_value is None or value < self.best_value - self.min_delta):
            self.best_value, self.best_step, self.since = float(value), step, 0
        else:
            self.since += 1
        return self.stopped

    def as_dict(self) -> dict[str, Any]:
        """Settings and state, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> EarlyStopping:
        """What `as_dict` gave.

        Raises:
            InputError: other names than those.
        """
        names = {f.name for f in fields(cls)}
        if set(state) != names:
            raise InputError(
                f"early-stopping state has {sorted(state)} instead of {sorted(names)}; resume from another checkpoint"
            )
        return cls(**state)
