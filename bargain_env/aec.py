"""The game for PettingZoo: `BargainAEC`, a shell over `bargain_env.core`."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv

from . import actions, core
from .core import MoveKind, Scenario, Seat, State
from .observation import SIZE, observe
from .outcome import utilities
from .render import transcript
from .scenarios import DEFAULT_PRESET, preset, sample

AGENTS = {"buyer_0": Seat.BUYER, "seller_0": Seat.SELLER}


class BargainAEC(AECEnv[str, dict[str, np.ndarray], int]):
    """A buyer and a seller haggle over one price.

    ## Description

    Two seats, ``buyer_0`` and ``seller_0``, move in turn. A move accepts the other seat's standing offer, which
    ends the game, or offers a price, which replaces the standing offer. Each seat knows its own reservation (the
    most the buyer may pay, the least the seller may take), the public price range, the clock and all offers; never
    the other's reservation.

    ## Actions

    ``Discrete(1 + n_prices)``, see `bargain_env.actions`:

    | action | meaning |
    |---|---|
    | 0 | ACCEPT the standing offer of the other seat |
    | i = 1 … n_prices | OFFER the i-th of ``n_prices`` evenly spaced prices of the public range |

    ``action_mask`` is in the observation and in ``infos[agent]``; it is all 0 for the seat that waits. Accepting
    where nothing may be accepted is, in `raw_env`, a wasted turn that is counted in
    ``infos[agent]["invalid_moves"]``; in `env` it ends the game with reward -1 for the offender. An offer beyond
    one's own reservation is legal, and so is an offer on the last turn, which nobody can answer.

    ## Observation

    ``Dict(observation=Box(-1, 1, (22,), float32), action_mask=Box(0, 1, (1 + n_prices,), int8))``; the 22 numbers
    are the table of `bargain_env.observation`.

    ## Rewards

    0 until the last move. Then, with ρ = (price - seller_min) / (buyer_max - seller_min): 1 - ρ for the buyer and ρ
    for the seller; 0 for both at an impasse. A deal beyond one's own reservation is worth less than 0.

    ## Termination

    ACCEPT, or ``max_turns`` moves of both seats together. The deadline is a rule of the game that both seats see
    coming, so it terminates; nothing is ever truncated.

    ## Configurations

    | argument | default | meaning |
    |---|---|---|
    | ``scenario`` | ``"hidden"`` | preset that games are drawn from: ``paper``, ``hidden``, ``no_deal`` |
    | ``max_turns`` | 20 | moves of both seats together |
    | ``n_prices`` | 131 | prices on the grid |
    | ``render_mode`` | None | ``"ansi"``: `render` returns text; ``"human"``: every move is printed |

    ``reset(seed=s)`` plays game 0 of seed ``s``, and each later ``reset()`` the next: 1, 2, … Even games start with
    the buyer. ``reset(options={"scenario": Scenario(...)})`` plays that very game; other options are ignored.

    ## Version History

    * v0: first version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (PettingZoo reads a plain dict)
        "name": "bargain_v0",
        "render_modes": ["human", "ansi"],
        "is_parallelizable": False,
        "render_fps": 1,
    }

    def __init__(
        self,
        scenario: str = DEFAULT_PRESET,
        max_turns: int = 20,
        n_prices: int = actions.DEFAULT_PRICES,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} must be None, 'human' or 'ansi'")
        self.render_mode = render_mode
        self._preset, self._max_turns, self._n_prices = preset(scenario).name, max_turns, n_prices
        self._seed: int | None = None
        self._next_id = 0
        self.possible_agents = list(AGENTS)
        self.action_spaces = {a: spaces.Discrete(1 + n_prices) for a in AGENTS}
        self.observation_spaces = {a: self._observation_space() for a in AGENTS}
        self._start(sample(self._preset, seed=0, max_turns=max_turns)[0])  # refuses bad settings at once

    def _observation_space(self) -> spaces.Dict:
        box = spaces.Box(-1.0, 1.0, (SIZE,), dtype=np.float32)
        return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (1 + self._n_prices,), dtype=np.int8)})

    def observation_space(self, agent: str) -> spaces.Space:
        """The same object on every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """The same object on every call."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the next game; see Configurations in the class documentation."""
        if seed is not None:
            self._seed, self._next_id = seed, 0
        elif self._seed is None:
            self._seed = secrets.randbits(32)
        given = (options or {}).get("scenario")
        if isinstance(given, Scenario):
            self._start(given)
        else:
            games = sample(self._preset, seed=self._seed, first_id=self._next_id, max_turns=self._max_turns)
            self._next_id += 1
            self._start(games[0])

    def _start(self, scenario: Scenario) -> None:
        self.scenario, self.game = scenario, State()
        self._prices = actions.grid(scenario.price_low, scenario.price_high, self._n_prices)
        self.agents = list(AGENTS)
        self.agent_selection = self._mover()
        self.rewards = dict.fromkeys(AGENTS, 0.0)
        self._cumulative_rewards = dict.fromkeys(AGENTS, 0.0)
        self.terminations = dict.fromkeys(AGENTS, False)
        self.truncations = dict.fromkeys(AGENTS, False)
        self.infos = {agent: self._info(agent) for agent in AGENTS}

    def step(self, action: int | None) -> None:
        """Play ``action`` for ``agent_selection``.

        Raises:
            ValueError: the action is outside the space.
        """
        if self.terminations[self.agent_selection]:
            self._was_dead_step(action)
            return
        if action is None:
            raise ValueError(f"{self.agent_selection} is to move; None is for agents that are done")
        self.game = core.step(self.scenario, self.game, actions.decode(int(action), self._prices))
        self._cumulative_rewards[self.agent_selection] = 0.0
        self._clear_rewards()
        if core.is_over(self.scenario, self.game):
            self.rewards = self._utilities()
            self.terminations = dict.fromkeys(AGENTS, True)
        self.agent_selection = self._mover()
        self._accumulate_rewards()
        self.infos = {agent: self._info(agent) for agent in AGENTS}
        if self.render_mode == "human":
            self.render()

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        """What ``agent`` sees now, whether or not it is to move."""
        game, seat = self.scenario, AGENTS[agent]
        seen = observe(
            self.game,
            seat,
            reservation=game.reservation(seat),
            price_low=game.price_low,
            price_high=game.price_high,
            max_turns=game.max_turns,
            starter=game.starter,
        )
        return {"observation": seen, "action_mask": self._mask(agent)}

    def render(self) -> str | None:
        """The game so far: text with ``render_mode="ansi"``, printed with ``"human"``."""
        text = transcript(self.scenario, self.game)
        if self.render_mode == "human":
            print(text)
        return text if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Nothing to release."""

    def _mover(self) -> str:
        return self.possible_agents[core.mover(self.scenario, self.game)]

    def _mask(self, agent: str) -> np.ndarray:
        to_move = not core.is_over(self.scenario, self.game) and agent == self._mover()
        return actions.action_mask(to_move, core.may_accept(self.scenario, self.game), self._n_prices)

    def _info(self, agent: str) -> dict[str, Any]:
        first = 0 if AGENTS[agent] == self.scenario.starter else 1
        invalid = self.game.kinds[first::2].count(MoveKind.INVALID)
        return {"action_mask": self._mask(agent), "invalid_moves": invalid}

    def _utilities(self) -> dict[str, float]:
        game = self.scenario
        both = utilities(
            self.game.standing if self.game.agreement and self.game.standing is not None else np.nan,
            game.buyer_max,
            game.seller_min,
            scale=game.price_high - game.price_low,
            discount=game.discount,
            turns=len(self.game.kinds),
        )
        return {agent: float(both[seat]) for agent, seat in AGENTS.items()}
