"""Random pairs of strategies: who plays whom is a pure function of (seed, game id), like everything that is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import agents
from bargain_env import Policy, Preset, RoutedPolicy, Scenarios, rng
from bargain_env.rng import Stream


def draw(games: Scenarios, n: int) -> NDArray[np.intp]:
    """``[B, 2]`` which of ``n`` strategies is the buyer and which the seller, evenly and independently."""
    drawn = rng.uniform(games.seed, games.id, stream=Stream.PAIRING, n=2)
    return (drawn * n).astype(np.intp)


def by_name(names: NDArray[np.object_], preset: Preset) -> RoutedPolicy:
    """The strategies of a seat as one policy; ``names`` ``[B]`` says who plays each game."""
    used, assignment = np.unique(names.astype(str), return_inverse=True)
    return routed(used.tolist(), assignment, preset)


def routed(names: Sequence[str], choice: NDArray[np.intp], preset: Preset) -> RoutedPolicy:
    """The strategies of a seat as one policy; ``choice`` ``[B]`` says who plays each game, who plays none is not built."""
    used, assignment = np.unique(choice, return_inverse=True)
    policies: list[Policy] = [agents.make_for(preset, names[k]) for k in used]
    return RoutedPolicy(policies, assignment)
