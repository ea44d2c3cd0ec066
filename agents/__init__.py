"""Players: the scripted zoo, what Stable-Baselines3 learned, and Janus.

Importing this package does not import torch: `JanusAgent` is loaded on first use, and `LearnedPolicy` loads torch itself.
"""

from typing import TYPE_CHECKING, Any

from bargain_env.opponents import understand_names

from . import omniscient, scripted  # noqa: F401  (they register their strategies)
from .learned import LearnedPolicy
from .ranges import Range
from .registry import StrategyInfo, describe, is_held_out, list_strategies, make, make_for, register
from .sampling import sample_strategies

if TYPE_CHECKING:
    from .janus import JanusAgent

understand_names(make_for)

__all__ = [
    "JanusAgent",
    "LearnedPolicy",
    "Range",
    "StrategyInfo",
    "describe",
    "is_held_out",
    "list_strategies",
    "make",
    "make_for",
    "register",
    "sample_strategies",
]


def __getattr__(name: str) -> Any:
    if name == "JanusAgent":
        from .janus import JanusAgent

        return JanusAgent
    raise AttributeError(f"module 'agents' has no attribute {name!r}")
