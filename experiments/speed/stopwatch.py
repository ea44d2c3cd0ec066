"""Speeds as ratios: ours and the reference take turns in one process, and the best round of each counts.

Machines are shared and noisy: a rate alone says little, and the best of several rounds is what the code can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Work = Callable[[], float]
"""Does a piece of work and returns how many units it was."""
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """One line of a benchmark.

    Attributes:
        name: what was measured.
        rate: units a second.
        unit: what is counted.
        reference: name of what it is compared with; empty where there is none.
        ratio: ``rate`` over the reference's; None without a reference.
        bar: the least ratio that the project promises; None where it promises none.
        goal: the rate that was asked for. It is shown, not held: it says as much of the machine as of the code.
    """

    name: str
    rate: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    bar: float | None = None
    goal: float | None = None

    @property
    def meets(self) -> bool | None:
        """Whether the promise holds; None where there is none."""
        return None if self.bar is None or self.ratio is None else self.ratio >= self.bar

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "meets": self.meets}


def rates(
    works: Mapping[str, Work], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Units a second of each work: the best of `ROUNDS` rounds in which all take turns.

    Args:
        works: what to measure; each is called once beforehand to warm up.
        seconds: how long each is measured, over all rounds.
        clock: what tells the time; `time.process_time` counts only this process's own.
    """
    for work in works.values():
        work()
    best = dict.fromkeys(works, 0.0)
    for _ in range(ROUNDS):
        for name, work in works.items():
            done, started, spent = 0.0, clock(), 0.0
            while spent < seconds / ROUNDS:
                done += work()
                spent = clock() - started
            best[name] = max(best[name], done / spent)
    return best
