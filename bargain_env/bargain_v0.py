"""The versioned door of the PettingZoo faces: ``from bargain_env import bargain_v0; env = bargain_v0.env()``."""

from __future__ import annotations

from typing import Any

from .aec import BargainAEC, GuardedBargainAEC
from .parallel import BargainParallel

__all__ = ["BargainAEC", "BargainParallel", "GuardedBargainAEC", "env", "parallel_env", "raw_env"]


def raw_env(**configuration: Any) -> BargainAEC:
    """The game for the agent-environment cycle, without guards; arguments as in `BargainAEC`."""
    return BargainAEC(**configuration)


def env(**configuration: Any) -> GuardedBargainAEC:
    """The same with PettingZoo's guards: an illegal move ends the game with reward -1 for the offender."""
    return GuardedBargainAEC(**configuration)


def parallel_env(**configuration: Any) -> BargainParallel:
    """The game for learners that act for every seat on every step; arguments as in `BargainParallel`."""
    return BargainParallel(**configuration)
