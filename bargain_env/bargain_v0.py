"""The versioned door of the PettingZoo faces: ``from bargain_env import bargain_v0; env = bargain_v0.env()``.

Importing it also registers ``bargain/bargain-v0`` with PettingZoo, from 1.27 on, which has a registry.
"""

from __future__ import annotations

from typing import Any

import pettingzoo
from pettingzoo.utils import wrappers

from .aec import BargainAEC

__all__ = ["BargainAEC", "env", "raw_env"]


def raw_env(**configuration: Any) -> BargainAEC:
    """The game without wrappers; arguments as in `BargainAEC`."""
    return BargainAEC(**configuration)


def env(**configuration: Any) -> wrappers.OrderEnforcingWrapper:
    """The game with PettingZoo's guards: an illegal move ends it with reward -1 for the offender."""
    guarded = wrappers.TerminateIllegalWrapper(raw_env(**configuration), illegal_reward=-1)
    return wrappers.OrderEnforcingWrapper(wrappers.AssertOutOfBoundsWrapper(guarded))


if hasattr(pettingzoo, "register"):
    pettingzoo.register("aec", "bargain/bargain-v0", "bargain_env.bargain_v0:env")
