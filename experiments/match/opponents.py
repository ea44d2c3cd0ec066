"""Who sits opposite: opponents of a tournament by name."""

from __future__ import annotations

import agents
from bargain_env import Policy, Preset


def build(name: str, preset: Preset) -> Policy:
    """The opponent ``name`` for games of ``preset``; one for each batch.

    Raises:
        InputError: there is no such opponent.
    """
    policy: Policy = agents.make_for(preset, name)
    return policy


def split(name: str) -> str:
    """``train`` or ``held_out``, as ``episodes.parquet`` records it."""
    found: str = agents.describe(name).split
    return found
