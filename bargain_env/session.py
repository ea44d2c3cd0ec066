"""One game at a time, as the scalar faces share it: where games come from, what a move does, shows and pays.

A face adds only the calling convention of its framework.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from . import actions, core
from .core import Move, MoveKind, Scenario, Seat, State, judge
from .errors import InputError
from .observation import SIZE, Film, scaled
from .outcome import utilities_of
from .render import transcript
from .rewards import rewards
from .settings import GameSettings, check_seed

Observation = Any
NO_REWARD = (0.0, 0.0)
BLOCK = 128
_SEATS = tuple(Seat)
_OTHER = (Seat.SELLER, Seat.BUYER)
_OFFER, _INVALID = MoveKind.OFFER, MoveKind.INVALID
_ACCEPT_IT = Move(True)


@lru_cache(maxsize=64)
def _judged(price_low: float, price_high: float, tick: float, n_prices: int) -> tuple[tuple[float, float] | None, ...]:
    """The price that each grid action offers, as `core.judge` rounds it, and that price as observations scale it.

    An offer is judged by range and tick alone, so it need not be judged again on every move. None is ACCEPT.
    """
    game = Scenario(price_high, price_low, price_low, price_high, tick=tick)
    table: list[tuple[float, float] | None] = [None]
    for price in actions.grid(price_low, price_high, n_prices).tolist():
        offered = judge(game, Seat.BUYER, None, None, Move(False, price))[1]
        if offered is None:
            raise InputError(
                f"grid price {price} rounds out of the range; choose a tick that divides {price_low} and {price_high}"
            )
        table.append((offered, scaled(offered, price_low, price_high)))
    return tuple(table)


class Snapshot(NamedTuple):
    """A position that a `Session` can return to; plain values, so it can be pickled and compared."""

    seed: int | None
    next_id: int
    scenario: Scenario | None
    state: State
    invalid: tuple[int, int]
    printed: int = 0


class Session:
    """The game of a scalar face.

    Args:
        settings: of every game.
        waiting_mask: ``zeros`` or ``one-hot``: the mask of a seat that is not to move. One-hot (on action 0) is for
            learners that sample an action for every seat on every step.

    Attributes:
        scenario: the current game; None before the first `begin`.
        turn: the turn about to be played, from 1.
        mover: whose turn it is, or would be.
        over: whether the game has ended.
        agreement: whether it ended in a deal.
        invalid: wasted turns of each seat.
    """

    def __init__(self, settings: GameSettings, waiting_mask: str = "zeros") -> None:
        self.settings = settings
        self._block: tuple[int | None, int, list[tuple[Any, ...]]] | None = None
        self._opens = actions.action_mask(True, False, settings.n_prices)
        self._answers = actions.action_mask(True, True, settings.n_prices)
        self._waits = np.zeros_like(self._opens)
        self._waits[actions.ACCEPT] = waiting_mask == "one-hot"
        self._masked = settings.action_mode == "grid"
        self._costly = bool(settings.turn_cost or settings.opponent_weight)
        self.scenario: Scenario | None = None
        self.seed: int | None = None
        self.next_id, self.invalid, self._printed = 0, [0, 0], 0

    # ── games ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, seed: int | None, options: dict[str, Any] | None, entropy: Callable[[], int]) -> None:
        """Start a game: game 0 of ``seed`` if one is given, else the next one of the seed in use.

        Args:
            seed: the run seed.
            options: ``{"scenario": Scenario(...)}`` plays that very game and counts no id; other keys are ignored, as
                PettingZoo's tests demand.
            entropy: makes the seed of an environment that was never given one.

        Raises:
            InputError: ``options["scenario"]`` is not a `Scenario`, or leaves no turn to answer.
        """
        if seed is not None:
            self.seed, self.next_id = check_seed(seed), 0
        elif self.seed is None:
            self.seed = entropy()
        given = options.get("scenario") if isinstance(options, dict) else None
        if given is None:
            given = self._next_game()
        elif not isinstance(given, Scenario):
            raise InputError(f"options['scenario'] must be a bargain_env.Scenario, not {type(given).__name__}")
        elif given.max_turns < 2:
            raise InputError("options['scenario'] has max_turns 1; an offer and its answer need 2")
        self._set(given, State(), [0, 0])
        self._printed = 0

    def _next_game(self) -> Scenario:
        """The game ``next_id``; games are drawn in blocks, as one costs as much as many."""
        first = self.next_id - self.next_id % BLOCK
        if self._block is None or self._block[:2] != (self.seed, first):
            drawn = self.settings.draw(self.seed, np.arange(first, first + BLOCK))
            self._block = (self.seed, first, drawn.rows())
        row = self._block[2][self.next_id - first]
        self.next_id += 1
        return Scenario(*row)

    def _set(self, scenario: Scenario, state: State, invalid: list[int]) -> None:
        self.scenario, self.invalid = scenario, invalid
        self._grid = self._table(scenario)
        self._last_turn = scenario.max_turns
        self.turn, self.standing, self.standing_seat, prices, kinds, self.agreement = state
        self._prices, self._kinds = list(prices), list(kinds)
        self._film = Film(scenario, state)
        self.over = False
        self.mover = _SEATS[(scenario.starter + self.turn - 1) & 1]
        if core.is_over(scenario, state):
            self._close()

    def _close(self) -> None:
        self.over = True
        self._film.end(self.turn)

    @property
    def state(self) -> State:
        """How far the game is."""
        past = (tuple(self._prices), tuple(self._kinds))
        return State(self.turn, self.standing, self.standing_seat, *past, self.agreement)

    def snapshot(self) -> Snapshot:
        """The position now."""
        state = State() if self.scenario is None else self.state
        return Snapshot(
            self.seed, self.next_id, self.scenario, state, (self.invalid[0], self.invalid[1]), self._printed
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to ``snapshot``."""
        self.seed, self.next_id, self._printed = snapshot.seed, snapshot.next_id, snapshot.printed
        if snapshot.scenario is None:
            self.scenario = None
        else:
            self._set(snapshot.scenario, snapshot.state, list(snapshot.invalid))

    def _table(self, game: Scenario) -> tuple[tuple[float, float] | None, ...]:
        return _judged(game.price_low, game.price_high, game.tick, self.settings.n_prices) if self._masked else ()

    def __getstate__(self) -> dict[str, Any]:
        """All but what can be made again: copies are for tree search, and should be light."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_block", "_grid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the rest again."""
        self.__dict__.update(state)
        self._block = None
        if self.scenario is not None:
            self._grid = self._table(self.scenario)

    def game(self) -> Scenario:
        """The current scenario.

        Raises:
            ResetNeeded: there is none.
        """
        if self.scenario is None:
            raise ResetNeeded("no game has been started; call reset() first")
        return self.scenario

    # ── moves ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def act(self, action: Any) -> tuple[float, float]:
        """Make the move that a learner's ``action`` stands for; returns what it pays the buyer and the seller.

        Raises:
            InvalidAction: it is not in the action space.
        """
        if not self._masked:
            return self.play(self._decode_box(action))
        try:
            known = bool(action >= 0)
            offer = self._grid[action] if known else None
        except (TypeError, ValueError, IndexError):
            known = False
        if known:
            return self.play(_ACCEPT_IT) if offer is None else self._offer(offer[0], offer[1])
        n = self.settings.n_prices
        raise InvalidAction(
            f"action {action!r} is not in Discrete({n + 1}); give an integer: 0 accepts, 1 to {n} offer a price"
        )

    def _decode_box(self, action: Any) -> Move:
        try:
            value = np.asarray(action)
        except ValueError:  # rows of different lengths
            value = np.zeros(0)
        if value.shape != (1,) or value.dtype.kind not in "fiu" or not -1 <= value[0] <= 1:
            raise InvalidAction(
                f"action {action!r} is not in Box(-1, 1, (1,)); give one number from -1 to 1 in an array"
            )
        game = self.game()
        standing = np.nan if self.standing is None or self.standing_seat is self.mover else self.standing
        accept, price = actions.decode_box(value[0], game.price_low, game.price_high, self.mover, standing)
        return Move(bool(accept), float(price))

    def play(self, move: Move) -> tuple[float, float]:
        """Make ``move``; returns what it pays the buyer and the seller."""
        scenario, seat, turn = self.game(), self.mover, self.turn
        kind, price = judge(scenario, seat, self.standing, self.standing_seat, move)
        if price is not None:
            return self._offer(price, scaled(price, scenario.price_low, scenario.price_high))
        self._prices.append(None)
        self._kinds.append(kind)
        self.turn, self.mover = turn + 1, _OTHER[seat]
        standing = None if self.standing is None else scaled(self.standing, scenario.price_low, scenario.price_high)
        self._film.record_nothing(turn, standing, self.standing_seat is self.mover)
        if kind is _INVALID:
            self.invalid[seat] += 1
            if turn < scenario.max_turns:
                return self._pay(0.0, 0.0, seat)
        return self._end(kind is not _INVALID, seat)

    def _offer(self, price: float, shown: float) -> tuple[float, float]:
        """Offer ``price``, already judged; ``shown`` is how observations scale it."""
        seat, turn = self.mover, self.turn
        self._prices.append(price)
        self._kinds.append(_OFFER)
        self._film.record(turn, shown)
        self.turn, self.mover, self.standing, self.standing_seat = turn + 1, _OTHER[seat], price, seat
        if turn == self._last_turn:
            return self._end(False, seat)
        return self._pay(0.0, 0.0, seat) if self._costly else NO_REWARD

    def _end(self, agreement: bool, seat: Seat) -> tuple[float, float]:
        self.agreement = agreement
        self._close()
        if not agreement or self.standing is None:
            return self._pay(0.0, 0.0, seat)
        game = self.game()
        buyer, seller = utilities_of(
            self.standing,
            game.buyer_max,
            game.seller_min,
            scale=game.price_high - game.price_low,
            discount=game.discount,
            turns=self.turn - 1,
        )
        return self._pay(buyer, seller, seat)

    def _pay(self, buyer: float, seller: float, seat: Seat) -> tuple[float, float]:
        if self._costly:
            paid = rewards(np.array([[buyer, seller]]), np.array([seat], dtype=np.int8), self.settings)
            buyer, seller = paid[0].tolist()
        return buyer, seller

    # ── what a seat is shown ──────────────────────────────────────────────────────────────────────────────────────────

    def mask(self, seat: Seat) -> NDArray[np.int8]:
        """``[1 + K]`` a new mask of ``seat``'s legal actions (grid mode)."""
        self.game()
        if seat is not self.mover or self.over:
            return self._waits.copy()
        return (self._opens if self.may_not_accept else self._answers).copy()

    @property
    def may_not_accept(self) -> bool:
        """Whether the seat to move faces no offer of the other seat."""
        return self.standing_seat is None or self.standing_seat is self.mover

    def see(self, seat: Seat) -> tuple[Observation, dict[str, Any]]:
        """`observation` and `info` of ``seat``, in one call."""
        if seat is not self.mover or not self._masked:
            return self.observation(seat), self.info(seat)
        maker, end = self.standing_seat, self.turn * SIZE
        legal = self._waits if self.over else self._opens if maker is None or maker is seat else self._answers
        return (
            {"observation": self._film.frames[end - SIZE : end], "action_mask": legal.copy()},
            {"action_mask": legal.copy(), "invalid_moves": self.invalid[seat], "agreement": self.agreement},
        )

    def observation(self, seat: Seat) -> Observation:
        """A new observation of ``seat``, in its observation space."""
        self.game()
        film = self._film
        seen = film.show(self.turn) if seat is self.mover else film.show_other(self.turn)
        return {"observation": seen, "action_mask": self.mask(seat)} if self._masked else seen

    def info(self, seat: Seat) -> dict[str, Any]:
        """A new info of ``seat``: its mask (grid mode), its wasted turns so far, and whether there is a deal."""
        if self._masked:
            mask = self.mask(seat)
            return {"action_mask": mask, "invalid_moves": self.invalid[seat], "agreement": self.agreement}
        return {"invalid_moves": self.invalid[seat], "agreement": self.agreement}

    def render(self, mode: str | None) -> str | NDArray[np.uint8] | None:
        """The game in the way of ``mode``.

        Returns:
            ``ansi``: a string; ``rgb_array``: ``[H, W, 3]`` uint8; ``human``: None, after printing the lines that were not
            printed before; without a mode: None.
        """
        game = self.game()
        if mode == "ansi":
            return transcript(game, self.state)
        if mode is not None:
            from . import drawing  # loads matplotlib and rich

            if mode == "rgb_array":
                return drawing.chart(game, self.state)
            self._printed = drawing.print_lines(game, self.state, self._printed)
        return None

    def global_state(self) -> NDArray[np.float32]:
        """``[SIZE + 1]`` what the buyer sees, then the seller's reservation on the same scale."""
        self.game()
        shown = {self.mover: self._film.show(self.turn), _OTHER[self.mover]: self._film.show_other(self.turn)}
        return np.append(shown[Seat.BUYER], shown[Seat.SELLER][3])
