"""Janus with a model of its opponent: persona adapters, routed by what the opponent does, and a lookahead over offers.

Nothing here imports torch before a player is built.
"""

from .pool import Counterpart, Pool
from .settings import ModellingSettings

__all__ = ["Counterpart", "ModellingSettings", "Pool"]
