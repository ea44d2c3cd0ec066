"""The game for PettingZoo's agent-environment cycle: `BargainAEC` and, with guards against misuse, `GuardedBargainAEC`."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from pettingzoo import AECEnv
from pettingzoo.utils.env_logger import EnvLogger

from . import actions
from .face import AGENTS, TwoSeats
from .render import RENDER_MODES
from .session import NO_REWARD, Observation

_NAMES = tuple(AGENTS)
_OTHER = {"buyer_0": "seller_0", "seller_0": "buyer_0"}
ILLEGAL_REWARD = -1.0
_KEPT = ("agents", "agent_selection", "rewards", "_cumulative_rewards", "terminations", "truncations", "_infos")


class BargainAEC(TwoSeats, AECEnv[str, Observation, Any]):
    """A buyer and a seller haggle over one price.

    ## Description

    Two seats, ``buyer_0`` and ``seller_0``, move in turn. A move accepts the other seat's standing offer, which
    ends the game, or offers a price, which replaces the standing offer. Each seat knows its own reservation (the
    most the buyer may pay, the least the seller may take), the public price range, the clock and all offers; never
    the other's reservation.

    ## Actions

    With ``action_mode="grid"`` ``Discrete(1 + n_prices)``:

    | action | meaning |
    |---|---|
    | 0 | ACCEPT the standing offer of the other seat |
    | i = 1 … n_prices | OFFER the i-th of ``n_prices`` evenly spaced prices of the public range |

    ``action_mask`` is in the observation and in ``infos[agent]``; it is all 0 for the seat that waits. Accepting
    where nothing may be accepted is, in `raw_env`, a wasted turn that is counted in
    ``infos[agent]["invalid_moves"]``; in `env` it ends the game with reward -1 for the offender. An offer beyond
    one's own reservation is legal, and so is an offer on the last turn, which nobody can answer.

    With ``action_mode="box"`` ``Box(-1, 1, (1,))``: a price, -1 being the lower end of the range and 1 the upper; a
    price that crosses the standing offer accepts it, at the standing price. Everything is legal; there is no mask.

    ## Observation

    ``Dict(observation=Box(-1, 1, (22,), float32), action_mask=Box(0, 1, (1 + n_prices,), int8))``, or the Box alone
    in box mode; the 22 numbers are the table of `bargain_env.observation`. ``state()`` is what the buyer sees and the
    seller's reservation: ``Box(-1, 1, (23,))``, for critics that may know both.

    ## Rewards

    0 until the last move. Then, with ρ = (price - seller_min) / (buyer_max - seller_min): 1 - ρ for the buyer and ρ
    for the seller; 0 for both at an impasse. A deal beyond one's own reservation is worth less than 0. Options change
    this: ``discount``, ``turn_cost`` and ``opponent_weight``; the formula is in `bargain_env.rewards`.

    ## Termination

    ACCEPT, or ``max_turns`` moves of both seats together. The deadline is a rule of the game that both seats see
    coming, so it terminates; nothing is ever truncated. Both seats get the same flag.

    ## Configurations

    | argument | default | meaning |
    |---|---|---|
    | ``scenario`` | ``"hidden"`` | preset that games are drawn from: ``paper``, ``hidden``, ``no_deal`` |
    | ``max_turns`` | 20 | moves of both seats together |
    | ``tick`` | 0.01 | prices are rounded to multiples of this |
    | ``discount`` | 1 | surplus factor for each turn before the accepted offer |
    | ``action_mode`` | ``"grid"`` | ``grid`` or ``box`` |
    | ``n_prices`` | 131 | prices on the grid |
    | ``turn_cost`` | 0 | taken from a seat's reward for each of its moves, in shares of the ZOPA |
    | ``opponent_weight`` | 0 | share of the other seat's surplus in one's reward: -1 is zero-sum, 1 common interest |
    | ``render_mode`` | None | ``ansi``: `render` returns text; ``human``: moves are printed; ``rgb_array``: a chart |

    ``reset(seed=s)`` plays game 0 of seed ``s``, and each later ``reset()`` the next: 1, 2, … Even games start with
    the buyer. ``reset(options={"scenario": Scenario(...)})`` plays that very game; other options are ignored.

    ``clone()``, ``copy.deepcopy`` and ``pickle`` keep the game as it stands; ``get_state()`` and ``set_state(s)`` do the
    same for one environment, faster.

    ## Version History

    * v0: first version.

    Raises:
        InputError: an unknown option, or a value outside its range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (PettingZoo reads a plain dict)
        "name": "bargain_v0",
        "render_modes": list(RENDER_MODES),
        "is_parallelizable": False,
        "render_fps": 1,
    }

    def __init__(self, render_mode: str | None = None, **game: Any) -> None:
        super().__init__(render_mode, game, waiting_mask="zeros")

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the next game; see Configurations in the class documentation."""
        self.session.begin(seed, options, entropy=lambda: secrets.randbits(32))
        self.agents = list(_NAMES)
        self.agent_selection = _NAMES[self.session.mover]
        self.rewards = {"buyer_0": 0.0, "seller_0": 0.0}
        self._cumulative_rewards = {"buyer_0": 0.0, "seller_0": 0.0}
        self.terminations = {"buyer_0": False, "seller_0": False}
        self.truncations = {"buyer_0": False, "seller_0": False}
        self._infos: dict[str, dict[str, Any]] = {}

    def step(self, action: Any) -> None:
        """Play ``action`` for ``agent_selection``.

        Raises:
            InvalidAction: the action is outside the space.
            ResetNeeded: there is no game yet.
        """
        try:
            agent = self.agent_selection
        except AttributeError:
            raise ResetNeeded("no game has been started; call reset() first") from None
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        session = self.session
        paid = session.act(action)
        self._cumulative_rewards[agent] = 0.0
        if paid is NO_REWARD:
            self.rewards = {"buyer_0": 0.0, "seller_0": 0.0}
        else:
            self.rewards = {"buyer_0": paid[0], "seller_0": paid[1]}
            self._accumulate_rewards()
        if session.over:
            self.terminations = {"buyer_0": True, "seller_0": True}
        self.agent_selection = _OTHER[agent]
        self._infos = {}
        if self.render_mode == "human":
            self.render()

    def _was_dead_step(self, action: Any) -> None:
        """As in `AECEnv`, for two agents that are always done together."""
        if action is not None:
            raise ValueError("when an agent is dead, the only valid action is None")
        agent = self.agent_selection
        del self.terminations[agent], self.truncations[agent], self._cumulative_rewards[agent]
        self._infos.pop(agent, None)
        self.agents.remove(agent)
        if self.agents:
            self.agent_selection = self.agents[0]
        self.rewards = dict.fromkeys(self.agents, 0.0)

    @property
    def infos(self) -> dict[str, dict[str, Any]]:
        """One info a seat, made when it is first asked for after a move."""
        infos = self._infos
        for agent in self.agents:
            if agent not in infos:
                infos[agent] = self.session.info(AGENTS[agent])
        return infos

    def last(self, observe: bool = True) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """``(observation, reward since its last move, terminated, truncated, info)`` of the agent to move."""
        agent = self.agent_selection
        seen, info = self.session.see(AGENTS[agent])
        return (
            seen if observe else None,
            self._cumulative_rewards[agent],
            self.terminations[agent],
            False,
            self._infos.setdefault(agent, info),
        )

    def agent_iter(self, max_iter: int = 2**63) -> Iterator[str]:
        """The agent to move, until none is left or ``max_iter`` were given; call `step` for each."""
        while self.agents and max_iter > 0:
            max_iter -= 1
            yield self.agent_selection

    def observe(self, agent: str) -> Observation:
        """What ``agent`` sees now, whether or not it is to move."""
        return self.session.observation(AGENTS[agent])

    def get_state(self) -> dict[str, Any]:
        """The position, for `set_state`; plain values that can be pickled."""
        kept = {name: getattr(self, name) for name in _KEPT} if self.session.scenario else {}
        return {"session": self.session.snapshot(), **copy.deepcopy(kept)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a position of this or of any equally configured environment."""
        for name in _KEPT:
            self.__dict__.pop(name, None)  # a position before the first game has none of them
        for name, value in copy.deepcopy(state).items():
            if name == "session":
                self.session.restore(value)
            else:
                setattr(self, name, value)


class GuardedBargainAEC(BargainAEC):
    """`BargainAEC` that refuses misuse, and ends the game with reward -1 for whoever makes an illegal move.

    The guards are those of PettingZoo's `OrderEnforcingWrapper`, `AssertOutOfBoundsWrapper` and `TerminateIllegalWrapper`,
    with their error classes, at a fraction of their cost; but an illegal move *terminates*, where theirs also truncates.
    """

    _stepped = True

    # Not in the class above: CPython reads the attributes of a class with __getattr__ at half the speed.
    def __getattr__(self, name: str) -> Any:
        """Only reached where there is no such attribute."""
        if name in _KEPT or name == "infos":
            raise AttributeError(f"{name} cannot be accessed before reset(); call reset() first")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def step(self, action: Any) -> None:
        """Play ``action``; an illegal one ends the game with reward -1 for its agent.

        Raises:
            AssertionError: there is no game yet, or the action is outside the space.
        """
        if self.session.scenario is None:
            EnvLogger.error_step_before_reset()
        self._stepped = True
        if not self.agents:
            EnvLogger.warn_step_after_terminated_truncated()
            return
        agent = self.agent_selection
        if self._is_illegal(agent, action):
            self._end_illegally(agent)
            return
        try:
            super().step(action)
        except InvalidAction as error:
            raise AssertionError(str(error)) from None

    def _is_illegal(self, agent: str, action: Any) -> bool:
        if self.terminations[agent] or self.session.settings.action_mode == "box":
            return False
        accepts = (
            isinstance(action, int | np.integer | np.ndarray) and np.ndim(action) == 0 and action == actions.ACCEPT
        )
        return bool(accepts) and self.session.may_not_accept

    def _end_illegally(self, agent: str) -> None:
        EnvLogger.warn_on_illegal_move()
        self.terminations = dict.fromkeys(_NAMES, True)
        self.rewards = {**dict.fromkeys(_NAMES, 0.0), agent: ILLEGAL_REWARD}
        self._cumulative_rewards[agent] = 0.0
        self._accumulate_rewards()
        self.agent_selection = self.agents[0]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the next game."""
        self._stepped = True
        super().reset(seed=seed, options=options)

    def observe(self, agent: str) -> Observation:
        """What ``agent`` sees now."""
        if self.session.scenario is None:
            EnvLogger.error_observe_before_reset()
        return super().observe(agent)

    def state(self) -> np.ndarray:
        """``[23]`` see `BargainAEC.state`."""
        if self.session.scenario is None:
            EnvLogger.error_state_before_reset()
        return super().state()

    def render(self) -> str | np.ndarray | None:
        """The game so far."""
        if self.session.scenario is None:
            EnvLogger.error_render_before_reset()
        return super().render()

    def agent_iter(self, max_iter: int = 2**63) -> Iterator[str]:
        """The agent to move; `step` or `reset` must be called between two of them."""
        if self.session.scenario is None:
            EnvLogger.error_agent_iter_before_reset()
        self._stepped = True
        return self._checked(super().agent_iter(max_iter))

    def _checked(self, agents: Iterator[str]) -> Iterator[str]:
        for agent in agents:
            assert self._stepped, "call step() or reset() for each agent of agent_iter()"
            self._stepped = False
            yield agent
