"""The game for Stable-Baselines3 and sb3-contrib: `SB3VecEnv`, which plays hundreds of games in one batch.

Every learner of theirs takes a `bargain_env.single.BargainEnv` as it is. This plays 64 games some 40 times faster than a
``DummyVecEnv`` of them:

    env = SB3VecEnv(64, seat="buyer", opponent="linear_standard", n_prices=27)
    MaskablePPO("MlpPolicy", env, seed=0).learn(200_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Dict
from gymnasium.vector import AutoresetMode

from bargain_env.errors import InputError
from bargain_env.vector import BargainVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("agents.sb3 needs Stable-Baselines3: pip install -e '.[rl]'", name=error.name) from None


class SB3VecEnv(VecEnv):
    """`BargainVectorEnv` as the ``VecEnv`` of Stable-Baselines3.

    In ``grid`` mode the observation is the 22 numbers alone: MaskablePPO asks `action_masks` for the mask, and a network
    has no use for a second copy of it. As in every ``VecEnv`` a game that is over starts anew in the same step; its last
    observation is in ``infos[i]["terminal_observation"]``, and ``infos[i]["agreement"]`` says whether there was a deal.

    After ``seed(s)`` and `reset`, slot i plays games 0, 1, … of seed ``s + i``.

    Args:
        num_envs: games at once.
        **options: as in `BargainVectorEnv`; its ``autoreset_mode`` is fixed.

    Raises:
        InputError: an unknown option, or a value outside its range.
    """

    def __init__(self, num_envs: int = 64, **options: Any) -> None:
        self.games = BargainVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        space = self.games.single_observation_space
        self._masked = isinstance(space, Dict)
        seen = space["observation"] if isinstance(space, Dict) else space
        super().__init__(num_envs, seen, self.games.single_action_space)

    def reset(self) -> VecEnvObs:
        """Start new games everywhere.

        Raises:
            InputError: options were set; a game to be played is given to a single `BargainEnv`.
        """
        if any(self._options):
            raise InputError(f"SB3VecEnv takes no options, not {self._options}; give them to reset() of one BargainEnv")
        seeds = None if None in self._seeds else self._seeds
        observation, _ = self.games.reset(seed=seeds)
        self._reset_seeds()
        return observation["observation"] if self._masked else observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep ``actions`` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play them."""
        observation, reward, over, _, given = self.games.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(over).tolist():
            last = given["final_obs"][i]
            infos[i] = {
                "terminal_observation": last["observation"] if self._masked else last,
                "TimeLimit.truncated": False,  # the deadline is a rule of the game: never bootstrap there
                "agreement": bool(given["final_info"]["agreement"][i]),
            }
        return observation["observation"] if self._masked else observation, reward.astype(np.float32), over, infos

    def action_masks(self) -> np.ndarray:
        """``[num_envs, 1 + K]`` bool."""
        return self.games.action_masks()

    def close(self) -> None:
        """Nothing to release."""
        self.games.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One chart a game."""
        return self.games.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """What the environment of all games has under that name, once for each index."""
        return [getattr(self.games, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """All games share one environment, so nothing can be set in some of them."""
        raise NotImplementedError(f"cannot set {attr_name!r} in single games; make another SB3VecEnv")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Row i of what the method of the environment of all games returns, for each index i."""
        rows = getattr(self.games, method_name)(*args, **kwargs)
        return [rows[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]
