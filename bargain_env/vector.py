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
from .batch import BatchState, Bools, Floats, Rows
from .core import MoveKind, Seat, quantise_array
from .errors import InputError
from .observation import Watcher
from .opponents import Opponent, opponent_of
from .outcome import utilities
from .render import check_render_mode, transcript
from .rewards import rewards
from .scenarios import preset
from .session import Observation
from .settings import GameSettings, check_seed, seat_of

_INVALID = int(MoveKind.INVALID)
TAPE = 64
"""Moves that fit on a tape before it is wound back."""


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
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise InputError(f"num_envs {num_envs!r} must be an integer of at least 1")
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise InputError(f"autoreset_mode {autoreset_mode!r} is not one of {modes}") from None
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self._resets, self._at_once = mode != AutoresetMode.DISABLED, mode == AutoresetMode.SAME_STEP
        self.num_envs, self.render_mode = num_envs, check_render_mode(render_mode, self.metadata["render_modes"])
        self.seat, self.settings = seat_of(seat), GameSettings.of(game)
        self.opponent = opponent_of(opponent, preset(self.settings.scenario))
        self.single_action_space = self.settings.action_space()
        self.single_observation_space = self.settings.observation_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._other = self.seat.other
        self._answers = Answers(self.opponent, self._other, num_envs)
        self._upcoming = Upcoming(self.settings, self._answers, num_envs)
        drawn, turns = self.settings.draw(0, np.arange(num_envs)), self.settings.max_turns
        self._state = BatchState.start(drawn, length=turns + TAPE, at=1)
        self._watcher = Watcher(self.seat, self._state)
        self._invalid = np.zeros(num_envs, dtype=np.int64)
        self._done = np.zeros(num_envs, dtype=bool)
        self._slots = np.arange(num_envs)
        self._started = False
        self._owed = np.zeros(num_envs)  # what openings paid the learner, who gets it with its first step
        paid = rewards(np.zeros((1, 2)), np.array([self._other], dtype=np.int8), self.settings)
        self._opening = paid[0, self.seat]
        self._masked = self.settings.action_mode == "grid"
        self._costly = bool(self.settings.turn_cost or self.settings.opponent_weight)
        games = self._state.scenarios  # of a preset: the public range is the same in all games
        grid = spelling.grid(games.price_low[0], games.price_high[0], self.settings.n_prices)
        self._grid = np.append(np.nan, quantise_array(grid, self.settings.tick))

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
        if seed is not None or not self._started:
            given: list[int | None] = [None] * self.num_envs if seed is None else self._seeds(seed)
            if not self._started:  # a slot that was given no seed draws one
                drawn = self.np_random.integers(2**31, size=self.num_envs).tolist()
                given = [own if one is None else one for one, own in zip(given, drawn, strict=True)]
            fresh = np.array([i for i in slots.tolist() if given[i] is not None], dtype=np.intp)
            self._upcoming.seed(fresh, np.array([given[i] for i in fresh.tolist()], dtype=np.int64))
        self._started = True
        self._begin(slots)
        observation, infos = self._show()
        if len(slots) < self.num_envs:
            infos = _only(infos, slots)
        return observation, infos

    def _require_games(self) -> None:
        if not self._started:
            raise ResetNeeded("no games have been started; call reset() first")

    def _seeds(self, seed: Any) -> list[int | None]:
        if not isinstance(seed, list | tuple | np.ndarray):
            first = check_seed(seed)
            check_seed(first + self.num_envs - 1)
            return [first + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InputError(f"{len(seed)} seeds for {self.num_envs} games; give one seed, or one for each game")
        return [None if one is None else check_seed(one) for one in seed]

    def _masked_slots(self, options: dict[str, Any] | None) -> Rows:
        options = options if isinstance(options, dict) else {}
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
            self._watcher.replace(slots, self._upcoming.watcher, rows)
            self._invalid[slots], self._done[slots] = 0, False
            if self._costly:
                self._owed[slots] = np.where(self._state.turn[slots] > 1, self._opening, 0.0)

    # ── step ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, actions: Any) -> tuple[Observation, Floats, Bools, Bools, dict[str, Any]]:
        """Play one action in each game, then the opponent's answers.

        Raises:
            InvalidAction: an action is outside the space.
            ResetNeeded: no game was started, or one is over and the mode is DISABLED.
        """
        self._require_games()
        resting = self._done.nonzero()[0]
        if len(resting) and not self._resets:
            raise ResetNeeded(f"game {resting[0]} is over; call reset(options={{'reset_mask': ...}}) first")
        accept, price = self._decode(actions)
        reward, self._owed = self._owed, np.zeros(self.num_envs)
        if len(resting):
            # They are about to be replaced. Until then they play on as phantoms: to move all costs less than to move most.
            self._state.restart(resting, self.seat)
            accept[resting] = False
        self._move(self.seat, None, accept, price, reward)
        self._answer(resting, reward)
        self._settle(reward)
        reward[resting] = 0.0
        self._begin(resting)
        over = self._done.copy()
        finals: dict[str, Any] = {}
        if self._at_once and over.any():
            finals = self._finals()
            self._begin(over.nonzero()[0])
        observation, infos = self._show()
        return observation, reward, over, np.zeros(self.num_envs, dtype=bool), {**finals, **infos}

    def _decode(self, actions: Any) -> tuple[Bools, Floats]:
        try:
            actions = np.asarray(actions)
        except ValueError as error:  # rows of different lengths
            raise InvalidAction(f"give one action for each of {self.num_envs} games: {error}") from None
        if self._masked:
            if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
                raise InvalidAction(f"give {self.num_envs} integers, not {actions.dtype} of shape {actions.shape}")
            # Seen as unsigned, negative ones are huge: one comparison finds both kinds.
            outside = actions.astype(np.int64, copy=False).view(np.uint64) > self.settings.n_prices
            if outside.any():
                bad = outside.nonzero()[0][0]
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

    def _answer(self, resting: Rows, reward: Floats) -> None:
        """Let the opponent move wherever the game goes on."""
        live = active = self._state.live
        if not self._answers.memoryless and len(resting):
            active = live.copy()
            active[resting] = False  # phantoms are not for an opponent to remember
        rows = active.nonzero()[0]
        if not len(rows):
            return
        accept, price = self._answers.act(self._state, rows, self._slots)
        everywhere = len(rows) == self.num_envs
        self._move(self._other, None if everywhere else active, accept, price, reward)
        if not everywhere:
            self._watcher.hold((~live).nonzero()[0])

    def _move(self, seat: Seat, active: Bools | None, accept: Bools, price: Floats, reward: Floats) -> None:
        """Play a move of ``seat`` in the ``active`` games (None: all) and, with costs, add what it pays to ``reward``."""
        state = self._state
        kinds = state.move(active, accept, price, rounded=self._masked and seat == self.seat)
        self._watcher.record(state, seat, kinds)
        if seat == self.seat:
            self._invalid += kinds == _INVALID
        if self._costly:
            rows = self._slots if active is None else np.flatnonzero(active)
            over = rows[~state.live[rows]]
            worth = np.zeros((self.num_envs, 2))
            worth[over] = self._utilities(over)
            movers = np.full(len(rows), seat, dtype=np.int8)
            reward[rows] += rewards(worth[rows], movers, self.settings)[:, self.seat]

    def _settle(self, reward: Floats) -> None:
        """Note which games are over, and unless `_move` did, pay for them."""
        before, self._done = self._done, ~self._state.live
        if not self._costly:
            ended = (self._done & ~before).nonzero()[0]
            if len(ended):
                reward[ended] = self._utilities(ended)[:, self.seat]

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

    def _show(self) -> tuple[Observation, dict[str, Any]]:
        seen: Observation = self._watcher.look(self._state, ~self._done)
        present = np.ones(self.num_envs, dtype=bool)
        infos: dict[str, Any] = {"invalid_moves": self._invalid.copy(), "agreement": self._state.agreement.copy()}
        if self._masked:
            mask = self._mask()
            seen, infos = {"observation": seen, "action_mask": mask}, {"action_mask": mask.copy(), **infos}
        return seen, {k: v for key, value in infos.items() for k, v in ((key, value), (f"_{key}", present.copy()))}

    def _mask(self) -> NDArray[np.int8]:
        mask = np.ones((self.num_envs, 1 + self.settings.n_prices), dtype=np.int8)
        mask[:, spelling.ACCEPT] = self._state.may_accept()
        over = self._done.nonzero()[0]
        if len(over):
            mask[over] = 0
        return mask

    def _finals(self) -> dict[str, Any]:
        """What `SyncVectorEnv` reports of the last step of games that are started anew in the same step."""
        rows, n = self._done.nonzero()[0], self.num_envs
        seen: Observation = self._watcher.look(self._state, ~self._done)[rows]
        infos: dict[str, Any] = {"invalid_moves": self._invalid[rows], "agreement": self._state.agreement[rows]}
        final = np.full(n, None, dtype=object)
        mask = np.zeros((len(rows), 1 + self.settings.n_prices), dtype=np.int8)
        for row, numbers, legal in zip(rows.tolist(), seen, mask, strict=True):
            own = numbers.copy()
            final[row] = {"observation": own, "action_mask": legal.copy()} if self._masked else own
        if self._masked:
            infos = {"action_mask": mask, **infos}
        return {"final_obs": final, "_final_obs": self._done.copy(), **self._final_info(rows, infos)}

    def _final_info(self, rows: Rows, infos: dict[str, Any]) -> dict[str, Any]:
        spread: dict[str, Any] = {}
        for key, value in infos.items():
            spread[key] = np.zeros((self.num_envs, *value.shape[1:]), dtype=value.dtype)
            spread[key][rows] = value
            spread[f"_{key}"] = self._done.copy()
        return {"final_info": spread, "_final_info": self._done.copy()}

    def action_masks(self) -> NDArray[np.bool_]:
        """``[num_envs, 1 + K]`` bool; all True in box mode."""
        self._require_games()
        if not self._masked:
            return np.ones((self.num_envs, 1), dtype=bool)
        return self._mask().astype(bool)

    def render(self) -> tuple[Any, ...] | None:
        """One frame a game."""
        self._require_games()
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


def _only(infos: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """Infos of ``rows`` alone; the others are 0 and marked as missing."""
    kept = {key: np.zeros_like(value) for key, value in infos.items()}
    for key, value in infos.items():
        kept[key][rows] = value[rows]
    return kept
