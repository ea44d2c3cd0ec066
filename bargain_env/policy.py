"""What a player is: the batch-first `Policy` protocol and everything it is shown.

A policy plays one seat of B games. It is told once what that seat may know (`SeatGames`), then, turn by turn, shown the
games in which it must move (`SeatView`) and answers with `Moves`. The other seat's reservation is in none of these
objects, so no policy can read it by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from . import rng
from .core import Seat
from .moves import Moves, RawMoves
from .rng import Stream
from .scenarios import Scenarios

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]


_PUBLIC = ("price_low", "price_high", "max_turns", "starter", "tick", "discount", "id", "seed")


class SeatGames:
    """What one seat knows of B games before they start; every column is ``[B]``, not to be written to.

    Columns of a selection (`take`) are copied when they are first asked for.

    Attributes:
        seat: the seat.
        reservation: its limit: the most a buyer may pay, the least a seller may take.
        price_low: lower end of the public range.
        price_high: upper end.
        max_turns: moves of both seats together.
        starter: who moves first.
        tick: prices are rounded to multiples of this.
        discount: factor a turn.
        id: names the game, for randomness.
        seed: the run seed.
    """

    seat: Seat
    reservation: Floats
    price_low: Floats
    price_high: Floats
    max_turns: Ints
    starter: Ints
    tick: Floats
    discount: Floats
    id: Ints
    seed: Ints

    def __init__(self, seat: Seat, columns: dict[str, Any], rows: Rows | None = None) -> None:
        """Arguments: the seat, all columns but that by name, and which rows of them (None: all)."""
        self.seat, self._columns, self._rows = seat, columns, rows

    def __getattr__(self, name: str) -> Any:
        """A column, on first use."""
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(f"a seat knows no {name!r} of its games")
        column = self._columns[name]
        value = column if self._rows is None else column[self._rows]
        setattr(self, name, value)
        return value

    def __len__(self) -> int:
        return len(self._columns["id"] if self._rows is None else self._rows)

    @classmethod
    def of(cls, scenarios: Scenarios, seat: Seat) -> SeatGames:
        """The part of ``scenarios`` that ``seat`` may know."""
        columns = {name: getattr(scenarios, name) for name in _PUBLIC}
        columns["reservation"] = scenarios.buyer_max if seat == Seat.BUYER else scenarios.seller_min
        return cls(seat, columns)

    def take(self, rows: Rows) -> SeatGames:
        """The given rows, in that order."""
        return SeatGames(self.seat, self._columns, rows if self._rows is None else self._rows[rows])

    @property
    def sign(self) -> float:
        """+1 for the buyer, who gains when the price falls by one; -1 for the seller."""
        return 1.0 if self.seat == Seat.BUYER else -1.0

    def uniform(self, turn: int | Ints, n: int = 1) -> Floats:
        """``[B, n]`` numbers in [0, 1), a pure function of (seed, id, seat, turn)."""
        return rng.uniform(self.seed, self.id, seat=self.seat, turn=turn, stream=Stream.POLICY, n=n)


class SeatView:
    """The b games in which a seat must move now; not to be written to.

    All rows are on the same turn, except where a policy has said that it takes `mixed_turns`: then ``turn`` is ``[b]``, and
    histories are aligned at their end, with NaN on the left in games that are younger. So the last column is always the
    other seat's latest turn and the last but one this seat's.

    Attributes:
        rows: ``[b]`` which of the games given to `Policy.reset` these are: index per-game memory with it.
        games: what the seat knows of these b games, in the same order.
        turn: the turn about to be played, from 1; an int, or ``[b]`` with mixed turns.
        standing: ``[b]`` the offer that may be accepted; NaN where there is none.
    """

    __slots__ = ("_prices", "games", "rows", "standing", "turn")

    def __init__(
        self, rows: Rows, games: SeatGames, turn: Any, standing: Floats, prices: Floats | Callable[[], Floats]
    ) -> None:
        """Arguments as the attributes; ``prices`` may be a function that makes them when first asked for."""
        self.rows, self.games, self.turn, self.standing, self._prices = rows, games, turn, standing, prices

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prices(self) -> Floats:
        """``[b, turn - 1]`` offers so far, oldest first; NaN where a turn made none."""
        if callable(self._prices):
            self._prices = self._prices()
        return self._prices

    @property
    def sides(self) -> NDArray[np.int8]:
        """``[b, turn - 1]`` who moved on each past turn (`Seat`)."""
        ago = np.arange(self.prices.shape[1], 0, -1)
        return np.broadcast_to(((self.games.seat + ago) % 2).astype(np.int8), self.prices.shape)

    @property
    def own_offers(self) -> Floats:
        """``[b, ⌊(turn - 1) / 2⌋]`` this seat's past offers, oldest first."""
        return self.prices[:, self.prices.shape[1] % 2 :: 2]

    @property
    def opponent_offers(self) -> Floats:
        """``[b, ⌊turn / 2⌋]`` the other seat's past offers, oldest first."""
        return self.prices[:, (self.prices.shape[1] + 1) % 2 :: 2]

    def take(self, at: Rows, rows: Rows | None = None) -> SeatView:
        """The rows ``at`` of the view, in that order, renamed ``rows`` if given."""
        return SeatView(
            rows=self.rows[at] if rows is None else rows,
            games=self.games.take(at),
            turn=self.turn[at] if isinstance(self.turn, np.ndarray) else self.turn,
            standing=self.standing[at],
            prices=lambda: self.prices[at],
        )

    def on_turn(self, turn: int, at: Rows) -> SeatView:
        """Of a view with mixed turns, the rows ``at`` alone, which are all on ``turn``."""
        part = self.take(at)
        past = part.prices.shape[1]
        return SeatView(part.rows, part.games, turn, part.standing, part.prices[:, past - (turn - 1) :])


@runtime_checkable
class Policy(Protocol):
    """A player. One instance plays one seat of one batch at a time; a single game is a batch of one.

    A policy may say more of itself with two attributes, both False where they are missing:

    ``memoryless``
        its moves depend on the view alone, so one instance may play any games in any order (environments and solvers then
        ask it for many games at once, and need no copy of it for each game);
    ``mixed_turns``
        it takes views whose rows are on different turns, see `SeatView`.
    """

    name: str

    def reset(self, games: SeatGames) -> None:
        """Start B new games; forget the old ones."""

    def act(self, view: SeatView) -> Moves:
        """Move in the games of ``view``."""


def act_in_parts(owner: NDArray[np.integer], act: Callable[[int, Rows], Moves]) -> Moves:
    """The moves of a view whose rows belong to different owners.

    Args:
        owner: ``[b]`` whose each row is.
        act: ``(owner, rows) -> moves`` of its rows, which are ascending indices into the view.
    """
    accept, price = np.zeros(len(owner), dtype=bool), np.full(len(owner), np.nan)
    guarded, raw = np.zeros(len(owner), dtype=bool), None
    order = np.argsort(owner, kind="stable")  # one sort for all, not one search for each
    for at in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1) if len(owner) else ():
        moves = act(int(owner[at[0]]), at)
        accept[at], price[at], guarded[at] = moves.accept, moves.price, moves.guarded
        if moves.raw is not None:
            raw = RawMoves.blank(len(owner)) if raw is None else raw
            raw.put(at, moves.raw)
    return Moves(accept, price, guarded, raw)


def act_on_any_turns(policy: Policy, view: SeatView) -> Moves:
    """The moves of a memoryless ``policy`` in a view with mixed turns: asked turn by turn unless it takes such views."""
    if isinstance(view.turn, int) or getattr(policy, "mixed_turns", False):
        return policy.act(view)
    return act_in_parts(view.turn, lambda turn, at: policy.act(view.on_turn(turn, at)))


class RoutedPolicy:
    """Several policies at one seat, each playing its own rows: games against many opponents run as one batch.

    Args:
        policies: the players.
        assignment: ``[B]`` index into ``policies`` of the player of each game.
        name: what results call it.
    """

    def __init__(self, policies: list[Policy], assignment: NDArray[np.integer], name: str = "routed") -> None:
        self.name = name
        self._policies = policies
        self._assignment = np.asarray(assignment).astype(np.min_scalar_type(len(policies)))  # short keys sort fast
        self._position = np.zeros(len(self._assignment), dtype=np.intp)

    def reset(self, games: SeatGames) -> None:
        """Hand each player its rows.

        Raises:
            ValueError: the batch does not have one assignment a game.
        """
        if len(games) != len(self._assignment):
            raise ValueError(f"{len(self._assignment)} assignments for {len(games)} games")
        for k, policy in enumerate(self._policies):
            mine = np.flatnonzero(self._assignment == k)
            self._position[mine] = np.arange(len(mine))
            policy.reset(games.take(mine))

    def act(self, view: SeatView) -> Moves:
        """Ask each player for the moves of its rows."""
        position = self._position[view.rows]
        return act_in_parts(
            self._assignment[view.rows], lambda k, at: self._policies[k].act(view.take(at, rows=position[at]))
        )
