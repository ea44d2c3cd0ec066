"""The names under which PettingZoo and Gymnasium know the game; importing `bargain_env` registers them."""

from __future__ import annotations

import gymnasium
import pettingzoo


def register() -> None:
    """Register with both. There is no ``max_episode_steps``: it would truncate, and the deadline is a rule of the game."""
    if "Bargain-v0" not in gymnasium.registry:
        gymnasium.register(
            "Bargain-v0",
            entry_point="bargain_env.single:BargainEnv",
            vector_entry_point="bargain_env.vector:BargainVectorEnv",
        )
    if hasattr(pettingzoo, "register"):  # from 1.27 on
        pettingzoo.register("aec", "bargain/bargain-v0", "bargain_env.bargain_v0:env")
        pettingzoo.register("parallel", "bargain/bargain-v0", "bargain_env.bargain_v0:parallel_env")
