"""What the faces of one game share: a `Session` to look at, to draw and to copy."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from gymnasium import spaces

from .core import Scenario, Seat
from .observation import SIZE
from .render import check_render_mode
from .session import Session
from .settings import GameSettings

AGENTS = {"buyer_0": Seat.BUYER, "seller_0": Seat.SELLER}


class Face:
    """An environment that plays the game of a `Session`."""

    session: Session
    render_mode: str | None

    @property
    def scenario(self) -> Scenario:
        """The current game, with both reservations: for analysis, not for a player."""
        return self.session.game()

    def render(self) -> Any:
        """The game so far: text with ``ansi``, printed with ``human``, ``[H, W, 3]`` uint8 with ``rgb_array``."""
        return self.session.render(self.render_mode)

    def clone(self) -> Self:
        """An independent copy of the environment, in the middle of the same game."""
        return copy.deepcopy(self)


class TwoSeats(Face):
    """A face for PettingZoo: both seats are agents, each with spaces of its own."""

    def __init__(self, render_mode: str | None, game: dict[str, Any], waiting_mask: str) -> None:
        """Arguments: the render mode, the options of `GameSettings`, and what a waiting seat's mask is (see `Session`)."""
        settings = GameSettings.of(game)
        self.render_mode, self.session = check_render_mode(render_mode), Session(settings, waiting_mask)
        self.possible_agents = list(AGENTS)
        self.action_spaces = {agent: settings.action_space() for agent in AGENTS}
        self.observation_spaces = {agent: settings.observation_space() for agent in AGENTS}
        self.state_space = spaces.Box(-1.0, 1.0, (SIZE + 1,), dtype=np.float32)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The same object on every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The same object on every call."""
        return self.action_spaces[agent]

    def state(self) -> np.ndarray:
        """``[23]`` what the buyer sees, and the seller's reservation on the same scale."""
        return self.session.global_state()

    def close(self) -> None:
        """Nothing to release."""
