"""The game for PettingZoo's parallel learners: `BargainParallel`."""

from __future__ import annotations

import secrets
from typing import Any

from gymnasium.error import InvalidAction
from pettingzoo import ParallelEnv

from .face import AGENTS, TwoSeats
from .render import RENDER_MODES
from .session import Observation


class BargainParallel(TwoSeats, ParallelEnv[str, Observation, Any]):
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
        super().__init__(render_mode, game, waiting_mask="one-hot")
        self.agents: list[str] = []

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

    def get_state(self) -> dict[str, Any]:
        """The position, for `set_state`; plain values that can be pickled."""
        return {"session": self.session.snapshot(), "agents": list(self.agents)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a position of this or of any equally configured environment."""
        self.session.restore(state["session"])
        self.agents = list(state["agents"])
