"""TorchRL collects games of both PettingZoo faces: specs checked, every action drawn under its mask.

Install with `pip install -e '.[rl]' -c constraints.txt`.

    python examples/torchrl_rollout.py        # 6 s
    parallel: specs hold; 500 steps, 37 games, 24 deals
    aec: specs hold; 500 steps, 37 games, 24 deals

In the parallel face both seats act on every step, and the mask of the one that waits leaves it action 0, which is not
played. In the AEC face TorchRL's own ``mask`` says who acts. The ``action_mask`` of either is what TorchRL's
`MaskedCategorical` takes.
"""

import argparse
import warnings

import torch
from pettingzoo.utils import BaseParallelWrapper, BaseWrapper
from torchrl.envs import PettingZooWrapper
from torchrl.envs.utils import check_env_specs

from bargain_env import bargain_v0

warnings.filterwarnings("ignore", message="PettingZoo in TorchRL is tested using")
GROUPS = {"buyer": ["buyer_0"], "seller": ["seller_0"]}

# TorchRL takes the mask from the observation and then stumbles over the copy in the infos, which are of no use to it.


class NoInfosAEC(BaseWrapper):
    """The AEC face without infos."""

    @property
    def infos(self):
        """Nothing, for each agent."""
        return {agent: {} for agent in self.env.possible_agents}


class NoInfosParallel(BaseParallelWrapper):
    """The parallel face without infos."""

    def reset(self, seed=None, options=None):
        """Start a game."""
        observations, infos = self.env.reset(seed, options)
        return observations, {agent: {} for agent in infos}

    def step(self, actions):
        """Play a move."""
        *rest, infos = self.env.step(actions)
        return *rest, {agent: {} for agent in infos}


FACES = {
    "parallel": lambda: NoInfosParallel(bargain_v0.parallel_env(n_prices=27)),
    "aec": lambda: NoInfosAEC(bargain_v0.env(n_prices=27)),
}


def main(steps: int, seed: int) -> None:
    """Check both faces, let random players play, and say what happened."""
    for face, make in FACES.items():
        torch.manual_seed(seed)
        env = PettingZooWrapper(make(), group_map=GROUPS, use_mask=True)
        env.set_seed(seed)
        check_env_specs(env)
        played = env.rollout(steps, break_when_any_done=False)  # random actions under the mask; games follow each other
        for group in GROUPS:
            chosen = played[group, "action"].unsqueeze(-1)
            assert played[group, "action_mask"].gather(-1, chosen).all(), "an action against its mask"
            assert not played["next", group, "truncated"].any(), "the deadline terminates"
        games = int(played["next", "done"].sum())
        deals = sum(
            played["next", group, "reward"] for group in GROUPS
        ).count_nonzero()  # the shares of a deal sum to 1
        print(f"{face}: specs hold; {steps} steps, {games} games, {deals} deals")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
