"""Players: the scripted zoo, what Stable-Baselines3 learned, Janus, and chat models by prompt (`agents.text`).

Importing this package does not import torch: what plays Janus is loaded on first use, and the others load torch themselves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bargain_env.opponents import understand_names

from . import omniscient, scripted, text  # noqa: F401  (they register their strategies)
from .learned import LearnedPolicy
from .ranges import Range
from .registry import StrategyInfo, describe, is_held_out, list_strategies, make, make_for, register
from .sampling import sample_strategies

if TYPE_CHECKING:
    from .janus import JanusAgent
    from .janus_session import Janus, JanusDecision
    from .modelling.agent import ModellingAgent
    from .situations import Situation

understand_names(make_for)

_LAZY = {
    "Janus": "janus_session",
    "JanusAgent": "janus",
    "JanusDecision": "janus_session",
    "ModellingAgent": "modelling.agent",
    "Situation": "situations",
}

__all__ = [
    "Janus",
    "JanusAgent",
    "JanusDecision",
    "LearnedPolicy",
    "ModellingAgent",
    "Range",
    "Situation",
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
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'agents' has no attribute {name!r}")
