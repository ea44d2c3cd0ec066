"""The game for Gymnasium: one learner at one seat, any policy opposite: `BargainEnv`."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from .batch import BatchState
from .core import Move, Seat
from .face import Face
from .opponents import Opponent, opponent_of
from .play import view_of
from .policy import SeatGames
from .render import RENDER_MODES, check_render_mode
from .scenarios import Scenarios, preset
from .session import Observation, Session
from .settings import GameSettings, seat_of

SeatOrName = str | Seat


class BargainEnv(Face, gymnasium.Env[Observation, Any]):
    """Haggle over one price with a fixed opponent.

    ## Description

    The learner holds one seat; a step plays its move and then the opponent's answer. If the opponent starts, its first
    offer is already standing after `reset`. The rules are those of `bargain_env.bargain_v0`: offers alternate, ACCEPT ends
    the game at the standing offer, and after ``max_turns`` moves of both seats it is an impasse.

    ## Actions, observation, rewards, termination

    As documented in `BargainAEC`, for the learner's seat: ``Discrete(1 + n_prices)`` with ``action_mask`` in the
    observation, in ``info`` and from ``action_masks()``; or ``Box(-1, 1, (1,))`` with ``action_mode="box"``. An illegal
    ACCEPT is a wasted turn, counted in ``info["invalid_moves"]``. The mask is all 0 when the game is over. The reward is a
    share of the ZOPA, paid when the game ends, less the costs of moves, if there are any (those of the opponent's opening
    come with the first step). The deadline *terminates*: a learner that bootstraps at truncation would otherwise be paid
    for stalling.

    ``info["agreement"]`` says whether there is a deal.

    ## Configurations

    | argument | default | meaning |
    |---|---|---|
    | ``seat`` | ``"buyer"`` | the learner's seat, ``buyer`` or ``seller`` |
    | ``opponent`` | a linear conceder | a `Policy`, a name (after ``import agents``), or a list: each game draws one |
    | ``render_mode`` | None | ``ansi``, ``human`` or ``rgb_array`` |
    | all others | | as in `BargainAEC` |

    ``reset(seed=s)`` plays game 0 of seed ``s`` and each later ``reset()`` the next; ``reset(options={"scenario":
    Scenario(...)})`` plays that very game. ``clone()``, ``copy.deepcopy``, ``pickle`` and ``get_state``/``set_state`` keep
    the game as it stands, an opponent with memory included.

    ## Version History

    * v0: first version.

    Raises:
        InputError: an unknown option, or a value outside its range.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def __init__(
        self, seat: SeatOrName = "buyer", opponent: Opponent = None, render_mode: str | None = None, **game: Any
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.session = Session(GameSettings.of(game))
        self.seat = seat_of(seat)
        self.opponent = opponent_of(opponent, preset(self.session.settings.scenario))
        self._owed = 0.0  # what the opponent's opening paid the learner, who gets it with its first step
        self.action_space = self.session.settings.action_space()
        self.observation_space = self.session.settings.observation_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the next game; see Configurations in the class documentation."""
        super().reset(seed=seed)
        self.session.begin(seed, options, entropy=lambda: int(self.np_random.integers(2**32)))
        self._seated = SeatGames.of(Scenarios.of([self.session.game()]), self.seat.other)
        self.opponent.reset(self._seated)
        self._owed = self._answer() if self.session.mover != self.seat else 0.0
        return self.session.see(self.seat)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play ``action``, then the opponent's answer.

        Raises:
            InvalidAction: the action is outside the space.
            ResetNeeded: there is no game, or it is over.
        """
        session = self.session
        session.game()
        if session.over:
            raise ResetNeeded("the game is over; call reset() before step()")
        reward = self._owed + session.act(action)[self.seat]
        self._owed = 0.0
        if not session.over:
            reward += self._answer()
        if self.render_mode == "human":
            self.render()
        observation, info = session.see(self.seat)
        return observation, reward, session.over, False, info

    def _answer(self) -> float:
        """Let the opponent move; returns what that pays the learner."""
        session = self.session
        view = view_of(
            BatchState.of(session.game(), session.state), self._seated, np.zeros(1, dtype=np.intp), session.turn
        )
        moves = self.opponent.act(view)
        return session.play(Move(bool(moves.accept[0]), float(moves.price[0])))[self.seat]

    def action_masks(self) -> np.ndarray:
        """``[1 + K]`` bool, as sb3-contrib's MaskablePPO asks for it; all True in box mode."""
        if self.session.settings.action_mode == "box":
            return np.ones(1, dtype=bool)
        return self.session.mask(self.seat).astype(bool)

    def get_state(self) -> dict[str, Any]:
        """The position, for `set_state`; holds a copy of the opponent unless that keeps no memory."""
        remembers = not getattr(self.opponent, "memoryless", False)
        opponent = copy.deepcopy(self.opponent) if remembers else None
        return {"session": self.session.snapshot(), "opponent": opponent, "owed": self._owed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a position of this or of any equally configured environment."""
        self.session.restore(state["session"])
        self._owed = state["owed"]
        if state["opponent"] is not None:
            self.opponent = copy.deepcopy(state["opponent"])
        if self.session.scenario is not None:
            self._seated = SeatGames.of(Scenarios.of([self.session.scenario]), self.seat.other)
