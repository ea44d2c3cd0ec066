"""The game for PettingZoo's parallel learners: `BargainParallel`."""

from __future__ import annotations

import copy
import secrets
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from pettingzoo import ParallelEnv

from .aec import AGENTS
from .core import Scenario
from .observation import SIZE
from .render import RENDER_MODES, check_render_mode
from .session import Observation, Session
from .settings import GameSettings


class BargainParallel(ParallelEnv[str, Observation, Any]):
    """`BargainAEC` for learners that act for every seat on every step.

    Rules, actions, observations, rewards and configurations are those of `BargainAEC`. On each step only the action of the
    seat to move is played; the other's is not read. ``infos[agent]["active_agent"]`` says, from `reset` on, whether it is
    that agent's turn (a bool: PettingZoo's converter puts a name there, which TorchRL cannot make a tensor of). The mask of
    the seat that waits is one-hot on action 0, so that a learner can sample from it.

    An illegal ACCEPT is a wasted turn, counted in ``infos[agent]["invalid_moves"]``.

    Raises:
        InputError: an unknown option, or a value outside its range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (PettingZoo reads a plain dict)
        "name": "bargain_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": 1,
    }

    def __init__(self, render_mode: str | None = None, **game: Any) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.session = Session(GameSettings.of(game), waiting_mask="one-hot")
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.action_spaces = {a: self.session.settings.action_space() for a in AGENTS}
        self.observation_spaces = {a: self.session.settings.observation_space() for a in AGENTS}
        self.state_space = spaces.Box(-1.0, 1.0, (SIZE + 1,), dtype=np.float32)

    def observation_space(self, agent: str) -> spaces.Space:
        """The same object on every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """The same object on every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start the next game, as in `BargainAEC`."""
        self.session.begin(seed, options, entropy=lambda: secrets.randbits(32))
        self.agents = list(AGENTS)
        return self._show()

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play the action of the seat to move. After the end there is nothing to play: five empty dicts.

        Raises:
            InvalidAction: the seat to move has no action, or one outside the space.
            ResetNeeded: there is no game yet.
        """
        session = self.session
        session.game()
        if not self.agents:
            return {}, {}, {}, {}, {}
        agent = self.possible_agents[session.mover]
        if not isinstance(actions, dict) or agent not in actions:
            raise InvalidAction(f"{agent} is to move; give a dict with its action")
        paid = session.act(actions[agent])
        rewards = dict(zip(AGENTS, paid, strict=True))
        observations, infos = self._show()
        over = session.over
        if over:
            self.agents = []
        if self.render_mode == "human":
            self.render()
        return observations, rewards, dict.fromkeys(AGENTS, over), dict.fromkeys(AGENTS, False), infos

    def _show(self) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        session = self.session
        mover = None if session.over else session.mover
        return (
            {agent: session.observation(seat) for agent, seat in AGENTS.items()},
            {agent: {**session.info(seat), "active_agent": seat is mover} for agent, seat in AGENTS.items()},
        )

    def state(self) -> np.ndarray:
        """``[23]`` what the buyer sees, and the seller's reservation on the same scale."""
        return self.session.global_state()

    def render(self) -> str | np.ndarray | None:
        """The game so far: text with ``ansi``, printed with ``human``, ``[H, W, 3]`` uint8 with ``rgb_array``."""
        return self.session.render(self.render_mode)

    def close(self) -> None:
        """Nothing to release."""

    @property
    def scenario(self) -> Scenario:
        """The current game, with both reservations: for analysis, not for a player."""
        return self.session.game()

    def clone(self) -> BargainParallel:
        """An independent copy of the environment, in the middle of the same game."""
        return copy.deepcopy(self)

    def get_state(self) -> dict[str, Any]:
        """The position, for `set_state`; plain values that can be pickled."""
        return {"session": self.session.snapshot(), "agents": list(self.agents)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a position of this or of any equally configured environment."""
        self.session.restore(state["session"])
        self.agents = list(state["agents"])
