"""The game for Gymnasium's vector learners: `BargainVectorEnv`, the twin of `BargainEnv` for many games at once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from . import actions as spelling
from .answers import Answers, Upcoming
from .batch import ALL, BatchState, Bools, Floats, Rows
from .core import MoveKind, Seat
from .errors import InputError
from .observation import Watcher
from .opponents import Opponent, opponent_of
from .outcome import utilities
from .render import check_render_mode, transcript
from .rewards import rewards
from .scenarios import preset
from .session import Observation
from .settings import GameSettings, seat_of


class BargainVectorEnv(VectorEnv[Observation, Any, np.ndarray]):
    """`BargainEnv` for ``num_envs`` games at once, bit-identical to as many of them in a `SyncVectorEnv`.

    Slot i plays games 0, 1, … of seed ``s + i`` after ``reset(seed=s)``, or of ``s[i]`` after ``reset(seed=[...])``. Moves,
    observations and a memoryless opponent (every scripted strategy is) are computed for all games together; an opponent
    with memory is copied into every slot.

    ## Configurations

    | argument | default | meaning |
    |---|---|---|
    | ``num_envs`` | 1 | games at once |
    | ``seat`` | ``"buyer"`` | the learner's seat |
    | ``opponent`` | a linear conceder | as in `BargainEnv` |
    | ``autoreset_mode`` | ``NEXT_STEP`` | see below |
    | ``render_mode`` | None | ``ansi`` or ``rgb_array``: `render` returns one frame a game |
    | all others | | as in `BargainAEC` |

    | mode | what happens to a game that is over |
    |---|---|
    | ``NEXT_STEP`` | the next step starts a new one there; its action is not read and its reward is 0 |
    | ``SAME_STEP`` | a new one starts at once; the last of the old one is in ``infos["final_obs"]``, ``["final_info"]`` |
    | ``DISABLED`` | nothing: the caller resets it with ``reset(options={"reset_mask": bool[num_envs]})`` |

    Raises:
        InputError: an unknown option, or a value outside its range.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        seat: str | Seat = "buyer",
        opponent: Opponent = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **game: Any,
    ) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs {num_envs} must be at least 1")
        try:
            self._mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise InputError(f"autoreset_mode {autoreset_mode!r} is not one of {modes}") from None
        self.metadata = {**self.metadata, "autoreset_mode": self._mode}
        self.num_envs, self.render_mode = num_envs, check_render_mode(render_mode, self.metadata["render_modes"])
        self.seat, self.settings = seat_of(seat), GameSettings.of(game)
        self.opponent = opponent_of(opponent, preset(self.settings.scenario))
        self.single_action_space = self.settings.action_space()
        self.single_observation_space = self.settings.observation_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._answers = Answers(self.opponent, self.seat.other, num_envs)
        self._upcoming = Upcoming(self.settings, self.seat, self._answers, num_envs)
        self._state = BatchState.start(self.settings.draw(0, np.arange(num_envs)))
        self._watcher = Watcher(self.seat, num_envs)
        self._invalid = np.zeros(num_envs, dtype=np.int64)
        self._done = np.zeros(num_envs, dtype=bool)
        self._slots = np.arange(num_envs)
        self._started = False
        games = self._state.scenarios  # of a preset: the public range is the same in all games
        self._grid = np.append(np.nan, spelling.grid(games.price_low[0], games.price_high[0], self.settings.n_prices))

    # ── reset ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new games everywhere, or where ``options["reset_mask"]`` is True.

        Raises:
            InputError: a seed list or a mask of the wrong type or length, or an option that a vector environment lacks.
        """
        slots = self._masked_slots(options)
        super().reset(seed=seed if isinstance(seed, int) else None)
        if seed is None and not self._started:
            seed = self.np_random.integers(2**31, size=self.num_envs).tolist()
        if seed is not None:
            given = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            if len(given) != self.num_envs:
                raise InputError(f"{len(given)} seeds for {self.num_envs} games; give one seed, or one for each game")
            fresh = np.array([i for i in slots.tolist() if given[i] is not None], dtype=np.intp)
            self._upcoming.seed(fresh, np.array([given[i] for i in fresh.tolist()], dtype=np.int64))
        self._started = True
        self._begin(slots)
        observation, infos = self._show()
        if len(slots) < self.num_envs:
            infos = _only(infos, slots)
        return observation, infos

    def _masked_slots(self, options: dict[str, Any] | None) -> Rows:
        options = options or {}
        if "scenario" in options:
            raise InputError(
                "options['scenario'] is for single environments; a vector environment draws from its preset"
            )
        mask = options.get("reset_mask")
        if mask is None:
            return self._slots
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise InputError(
                f"options['reset_mask'] must be a bool array of shape ({self.num_envs},) with a True in it"
            )
        if not self._started and not mask.all():
            raise InputError("the first reset must start all games; leave out options['reset_mask']")
        return np.flatnonzero(mask)

    def _begin(self, slots: Rows) -> None:
        if len(slots):
            rows = self._upcoming.take(slots)
            self._state.replace(slots, self._upcoming.state, rows)
            self._watcher.offers[slots] = self._upcoming.watcher.offers[rows]
            self._invalid[slots], self._done[slots] = 0, False

    # ── step ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, actions: Any) -> tuple[Observation, Floats, Bools, Bools, dict[str, Any]]:
        """Play one action in each game, then the opponent's answers.

        Raises:
            InvalidAction: an action is outside the space.
            ResetNeeded: no game was started, or one is over and the mode is DISABLED.
        """
        if not self._started:
            raise ResetNeeded("no games have been started; call reset() first")
        resting = np.flatnonzero(self._done)
        if len(resting) and self._mode == AutoresetMode.DISABLED:
            raise ResetNeeded(f"game {resting[0]} is over; call reset(options={{'reset_mask': ...}}) first")
        accept, price = self._decode(actions)
        reward = np.zeros(self.num_envs)
        if len(resting):
            playing = np.flatnonzero(~self._done)
            self._move(playing, accept[playing], price[playing], self.seat, reward)
            self._begin(resting)
        else:
            self._move(ALL, accept, price, self.seat, reward)
        rows = self._state.rows_of(self.seat.other)
        if len(rows):
            moves = self._answers.act(self._state, rows, rows)
            self._move(rows, moves.accept, moves.price, self.seat.other, reward)
        over = self._done.copy()
        finals: dict[str, Any] = {}
        if self._mode == AutoresetMode.SAME_STEP and over.any():
            finals = self._finals(np.flatnonzero(over))
            self._begin(np.flatnonzero(over))
        observation, infos = self._show()
        return observation, reward, over, np.zeros(self.num_envs, dtype=bool), {**finals, **infos}

    def _decode(self, actions: Any) -> tuple[Bools, Floats]:
        actions = np.asarray(actions)
        if self.settings.action_mode == "grid":
            if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
                raise InvalidAction(f"give {self.num_envs} integers, not {actions.dtype} of shape {actions.shape}")
            if actions.min() < 0 or actions.max() > self.settings.n_prices:
                bad = np.flatnonzero((actions < 0) | (actions > self.settings.n_prices))[0]
                raise InvalidAction(f"action {actions[bad]} of game {bad} is not in {self.single_action_space}")
            return actions == spelling.ACCEPT, self._grid[actions]
        if actions.shape != (self.num_envs, 1) or actions.dtype.kind not in "fiu":
            raise InvalidAction(f"give numbers of shape ({self.num_envs}, 1), not {actions.dtype} of {actions.shape}")
        value = actions[:, 0]
        bad = np.flatnonzero(~((value >= -1) & (value <= 1)))
        if len(bad):
            raise InvalidAction(f"action {value[bad[0]]} of game {bad[0]} is not in [-1, 1]")
        games = self._state.scenarios
        return spelling.decode_box(value, games.price_low, games.price_high, self.seat, self._state.acceptable())

    def _move(self, rows: Rows | slice, accept: Bools, price: Floats, seat: Seat, reward: Floats) -> None:
        """Play a move of ``seat`` in ``rows`` and add to ``reward`` what it pays the learner."""
        state = self._state
        played = state.move(rows, accept, price)
        self._watcher.record(state, rows, played)
        if seat == self.seat:
            self._invalid[rows] += played.kinds == MoveKind.INVALID
        index = self._slots[rows]
        over = index[state.agreement[rows] | (state.turn[rows] > state.scenarios.max_turns[rows])]
        self._done[over] = True
        if self.settings.turn_cost or self.settings.opponent_weight:
            worth = np.zeros((self.num_envs, 2))
            worth[over] = self._utilities(over)
            reward[index] += rewards(worth[index], played.mover, self.settings)[:, self.seat]
        elif len(over):
            reward[over] = self._utilities(over)[:, self.seat]

    def _utilities(self, rows: Rows) -> Floats:
        state, games = self._state, self._state.scenarios
        low, high = games.price_low[rows], games.price_high[rows]
        return utilities(
            np.where(state.agreement[rows], state.standing[rows], np.nan),
            games.buyer_max[rows],
            games.seller_min[rows],
            scale=high - low,
            discount=games.discount[rows],
            turns=state.turn[rows] - 1,
        )

    # ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _show(self, rows: Rows | slice = ALL) -> tuple[Observation, dict[str, Any]]:
        seen: Observation = self._watcher.look(self._state, rows)
        present = np.ones(len(seen), dtype=bool)
        infos: dict[str, Any] = {
            "invalid_moves": self._invalid[rows].copy(),
            "agreement": self._state.agreement[rows].copy(),
        }
        if self.settings.action_mode == "grid":
            mask = self._mask(rows, len(seen))
            seen, infos = {"observation": seen, "action_mask": mask}, {"action_mask": mask.copy(), **infos}
        return seen, {k: v for key, value in infos.items() for k, v in ((key, value), (f"_{key}", present.copy()))}

    def _mask(self, rows: Rows | slice, n: int) -> NDArray[np.int8]:
        mask = np.ones((n, 1 + self.settings.n_prices), dtype=np.int8)
        mask[:, spelling.ACCEPT] = self._state.may_accept(rows)
        mask[self._done[rows]] = 0
        return mask

    def _finals(self, rows: Rows) -> dict[str, Any]:
        """What `SyncVectorEnv` reports of the last step of games that are started anew in the same step."""
        seen, infos = self._show(rows)
        final = np.full(self.num_envs, None, dtype=object)
        for k, row in enumerate(rows.tolist()):
            final[row] = {key: value[k] for key, value in seen.items()} if isinstance(seen, dict) else seen[k]
        present = np.zeros(self.num_envs, dtype=bool)
        present[rows] = True
        spread = {key: _spread(value, rows, self.num_envs) for key, value in infos.items()}
        return {"final_obs": final, "_final_obs": present, "final_info": spread, "_final_info": present.copy()}

    def action_masks(self) -> NDArray[np.bool_]:
        """``[num_envs, 1 + K]`` bool; all True in box mode."""
        if self.settings.action_mode == "box":
            return np.ones((self.num_envs, 1), dtype=bool)
        return self._mask(ALL, self.num_envs).astype(bool)

    def render(self) -> tuple[Any, ...] | None:
        """One frame a game."""
        if self.render_mode is None:
            return None
        games = (self._state.row(i) for i in range(self.num_envs))
        if self.render_mode == "ansi":
            return tuple(transcript(*game) for game in games)
        from .drawing import chart  # loads matplotlib

        return tuple(chart(*game) for game in games)

    def clone(self) -> BargainVectorEnv:
        """An independent copy, in the middle of the same games."""
        return copy.deepcopy(self)


def _spread(values: np.ndarray, rows: Rows, n: int) -> np.ndarray:
    out = np.zeros((n, *values.shape[1:]), dtype=values.dtype)
    out[rows] = values
    return out


def _only(infos: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """Infos of ``rows`` alone; the others are 0 and marked as missing."""
    n = len(infos["_agreement"])
    return {key: _spread(value[rows], rows, n) for key, value in infos.items()}
