"""The only game loop: ``play(scenarios, buyer, seller) -> Trajectories``.

Collecting data, tournaments, evaluation during training and a human at the keyboard all go through it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .batch import BatchState
from .core import MoveKind, Seat
from .outcome import settlement, utilities
from .policy import Bools, Floats, Ints, Moves, Policy, RawMoves, Rows, SeatGames, SeatView
from .scenarios import Scenarios


@dataclass(frozen=True, slots=True)
class Trajectories:
    """B finished games. Column ``k`` of a history belongs to turn ``k + 1``.

    Attributes:
        scenarios: the games.
        prices: ``[B, T]`` offers, NaN where the turn made none.
        kinds: ``[B, T]`` `MoveKind` of each turn; ``NONE`` after the end.
        guarded: ``[B, T]`` turns on which the mover's guard replaced its decision.
        raw: ``[B, T]`` what the movers decided before that; None where no player tells.
    """

    scenarios: Scenarios
    prices: Floats
    kinds: np.ndarray
    guarded: Bools
    raw: RawMoves | None = None

    def __len__(self) -> int:
        return len(self.scenarios)

    @property
    def turns(self) -> Ints:
        """``[B]`` moves played, the accepting one included."""
        return (self.kinds != MoveKind.NONE).sum(axis=1)

    @property
    def agreement(self) -> Bools:
        """``[B]`` whether the game ended in a deal."""
        return (self.kinds == MoveKind.ACCEPT).any(axis=1)

    @property
    def price(self) -> Floats:
        """``[B]`` price of the deal, NaN at an impasse."""
        seen = ~np.isnan(self.prices)
        last = self.prices.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
        return np.where(self.agreement, self.prices[np.arange(len(self)), last], np.nan)

    @property
    def rho(self) -> Floats:
        """``[B]`` settlement of the deal, NaN at an impasse or without a ZOPA."""
        return settlement(self.price, self.scenarios.buyer_max, self.scenarios.seller_min)

    @property
    def utilities(self) -> Floats:
        """``[B, 2]`` buyer's and seller's, 0 at an impasse."""
        s = self.scenarios
        scale = s.price_high - s.price_low
        return utilities(self.price, s.buyer_max, s.seller_min, scale=scale, discount=s.discount, turns=self.turns)

    def sides(self) -> np.ndarray:
        """``[B, T]`` whose turn each column is (`Seat`)."""
        return (self.scenarios.starter[:, None] + np.arange(self.prices.shape[1])) % 2

    def count(self, kind: MoveKind, seat: Seat) -> Ints:
        """``[B]`` moves of ``kind`` made by ``seat``."""
        return ((self.kinds == kind) & (self.sides() == seat)).sum(axis=1)

    def guards(self, seat: Seat) -> Ints:
        """``[B]`` moves of ``seat`` that its guard replaced."""
        return (self.guarded & (self.sides() == seat)).sum(axis=1)

    def fallbacks(self, seat: Seat) -> Ints:
        """``[B]`` moves of ``seat`` that stood in for an answer which was no move; see `RawMoves`."""
        if self.raw is None:
            return np.zeros(len(self), dtype=np.int64)
        return (self.raw.fallback & (self.sides() == seat)).sum(axis=1)

    def take(self, rows: Rows) -> Trajectories:
        """The given games, in that order."""
        raw = None if self.raw is None else self.raw.take(rows)
        return Trajectories(self.scenarios.take(rows), self.prices[rows], self.kinds[rows], self.guarded[rows], raw)


def concatenate(parts: list[Trajectories]) -> Trajectories:
    """Games of several calls of `play` as one; all must have the same T."""
    scenarios = Scenarios(
        **{f.name: np.concatenate([getattr(p.scenarios, f.name) for p in parts]) for f in fields(Scenarios)}
    )
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("prices", "kinds", "guarded")}
    return Trajectories(scenarios, **columns, raw=_concatenate_raw(parts))


def _concatenate_raw(parts: list[Trajectories]) -> RawMoves | None:
    if all(part.raw is None for part in parts):
        return None
    ends = np.cumsum([len(part) for part in parts]).tolist()
    whole = RawMoves.blank(ends[-1], parts[0].prices.shape[1])
    for part, end in zip(parts, ends, strict=True):
        whole.put(slice(end - len(part), end), part.raw)
    return whole


def play(scenarios: Scenarios, buyer: Policy, seller: Policy) -> Trajectories:
    """Play every game to its end.

    Args:
        scenarios: B games.
        buyer: plays the buyer's seat in all of them.
        seller: plays the seller's seat.

    Returns:
        The B games, in the order given. Game ``i`` depends only on row ``i`` and on the two policies.

    Raises:
        ValueError: one object plays both seats (its memory would mix), or a policy answers for the wrong number of rows.
    """
    if buyer is seller:
        raise ValueError(f"policy {buyer.name!r} cannot hold both seats in one object; make two of it")
    state = BatchState.start(scenarios)
    guarded, raw = np.zeros((len(scenarios), len(state.prices)), dtype=bool), None
    seats = [
        (seat, policy, SeatGames.of(scenarios, seat)) for seat, policy in ((Seat.BUYER, buyer), (Seat.SELLER, seller))
    ]
    for _, policy, games in seats:
        policy.reset(games)
    for turn in range(1, len(state.prices) + 1):
        active = state.live
        accept, price = np.zeros(len(scenarios), dtype=bool), np.full(len(scenarios), np.nan)
        for seat, policy, games in seats:
            rows = state.rows_of(seat)
            if len(rows):
                moves = _ask(policy, view_of(state, games, rows, turn))
                accept[rows], price[rows], guarded[rows, turn - 1] = moves.accept, moves.price, moves.guarded
                if moves.raw is not None:
                    raw = RawMoves.blank(*guarded.shape) if raw is None else raw
                    raw.put((rows, turn - 1), moves.raw)
        state.move(active, accept, price)
    prices, kinds = np.ascontiguousarray(state.prices.T), np.ascontiguousarray(state.kinds.T)
    return Trajectories(scenarios, prices, kinds, guarded, raw)


def view_of(state: BatchState, games: SeatGames, rows: Rows, turn: int) -> SeatView:
    """What a policy is shown of ``rows``, which are all on ``turn``; ``games`` is what its seat knows of all games."""
    return SeatView(rows, games.take(rows), turn, state.acceptable()[rows], lambda: state.history(rows))


def _ask(policy: Policy, view: SeatView) -> Moves:
    moves = policy.act(view)
    if len(moves.accept) != len(view):
        raise ValueError(f"policy {policy.name!r} answered {len(moves.accept)} moves for {len(view)} games")
    return moves
