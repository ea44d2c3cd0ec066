"""Tactics that concede as a resource runs out.

Faratin, Sierra, Jennings 1998 (see `time_dependent`), section 4.2, resource-estimation tactics: the share of the way from
S to R is ``kappa + (1 - kappa) · exp(-resource)``. Of the paper's resources, those that two parties have:

    time      resource = patience · (turns left), so all is given on the last turn and little before the last few
    thread    resource = patience · N² / (turns passed), with N = 1 partner: the longer the talk, the more is given

The first is quoted as ``min(0, t_max - t)``, which is never positive and would hold nothing back: it is read as max. The
patience is the paper's μ of the second, and 1 in the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bargain_env.errors import InputError
from bargain_env.policy import Floats

from .anchors import Frame
from .checks import require_between, require_positive
from .components import Offering

RESOURCES = ("time", "thread")


@dataclass(frozen=True, kw_only=True)
class ResourceDependent(Offering):
    """Give ``reach · (kappa + (1 - kappa) · exp(-resource))``.

    Attributes:
        resource: ``time`` or ``thread``.
        patience: a factor of the resource, a share a turn (time) or moves (thread).
        kappa: the share given while the resource is plentiful, in [0, 1].
    """

    resource: str = "time"
    patience: float = 1.0
    kappa: float = 0.0

    def __post_init__(self) -> None:
        require_positive("patience", self.patience)
        if self.resource not in RESOURCES:
            raise InputError(f"unknown resource {self.resource!r}; choose one of {', '.join(RESOURCES)}")
        require_between("kappa", self.kappa, 0.0, 1.0)

    def target(self, frame: Frame) -> Floats:
        return frame.reach * (self.kappa + (1.0 - self.kappa) * np.exp(-self.patience * self._plenty(frame)))

    def _plenty(self, frame: Frame) -> Floats:
        passed = frame.view.turn - 1
        if self.resource == "time":
            return np.maximum(frame.view.games.max_turns - 1 - passed, 0).astype(np.float64)
        return np.where(passed > 0, 1.0 / np.maximum(passed, 1), np.inf)
