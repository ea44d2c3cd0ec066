"""The game for TRL: a chat model haggles by calling the tools ``accept()`` and ``offer(price)``.

    trainer = GRPOTrainer(
        MODEL,
        reward_funcs=utility_reward,
        train_dataset=Dataset.from_list(tasks(256, seed=0)),
        environment_factory=partial(BargainTools, opponent=["boulware_hard", "linear_standard"]),
    )

MODEL needs a chat template that can call tools. TRL makes one `BargainTools` for each rollout of a batch and calls `reset`
with the columns of its row, so all rollouts of a row play the same game. Neither TRL nor torch is imported here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from bargain_env import Move, MoveKind, Scenario, Seat, SeatGames, State, settlement
from bargain_env.batch import BatchState
from bargain_env.core import is_over, mover, step
from bargain_env.errors import InputError
from bargain_env.opponents import Opponent, opponent_of
from bargain_env.outcome import utilities_of
from bargain_env.play import view_of
from bargain_env.scenarios import DEFAULT_PRESET, preset
from bargain_env.settings import GameSettings, check_seed, seat_of

TASK = "Negotiate a price. Make every move by calling a tool; when the negotiation is over, call none.\n\n"
"""The user's message in `tasks`; what `BargainTools.reset` says follows it."""


def tasks(n: int, *, seed: int, seat: str = "buyer", first: int = 0, rho: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Rows for ``train_dataset``: games ``first``, ``first + 1``, … of ``seed``.

    Args:
        n: how many.
        seed: of the games.
        seat: the model's seat: ``buyer``, ``seller``, or ``both``, which alternates with two games each.
        first: the first game. Even games begin with the buyer, odd ones with the seller.
        rho: settlements to ask for, in turn, each for four games; the column ``rho``, which `settlement_reward` reads.

    Raises:
        InputError: the seed or the seat is none.
    """
    check_seed(seed)
    rows = []
    for game in range(first, first + n):
        plays = Seat(game // 2 % 2) if seat == "both" else seat_of(seat)
        row = {"prompt": [{"role": "user", "content": TASK}], "seed": seed, "game": game, "seat": plays.label}
        rows.append({**row, "rho": rho[game // 4 % len(rho)]} if len(rho) else row)
    return rows


class BargainTools:
    """One game at a time against any opponent, moved by tool calls; what ``environment_factory`` is to make.

    The rules are those of `bargain_env.core`: a move that they do not allow (accepting where nothing stands, a price outside
    the range) is a wasted turn, and the tool's answer says so. Calls that are no move at all (a price that is no number, or
    any call when the game is over) raise; TRL tells the model why and counts them as failures. A game whose model stops
    calling before its end has no deal.

    Args:
        opponent: who plays the other seat: a strategy name, a list of names of which each game draws one, a `Policy`, or
            None for a linear conceder.
        scenario: preset that games are drawn from.
        max_turns: moves of both seats together.
        tick: prices are rounded to multiples of this.
        discount: a deal's surplus is multiplied by this for each turn before the accepted offer.

    Raises:
        InputError: an option is out of its range, or the opponent is not known.
    """

    def __init__(
        self,
        opponent: Opponent = None,
        scenario: str = DEFAULT_PRESET,
        max_turns: int = 20,
        tick: float = 0.01,
        discount: float = 1.0,
    ) -> None:
        self._settings = GameSettings(scenario=scenario, max_turns=max_turns, tick=tick, discount=discount)
        policy = opponent_of(opponent, preset(scenario))
        self._opponent = policy if getattr(policy, "memoryless", False) else copy.deepcopy(policy)
        self._game: Scenario | None = None
        self._state, self._seat = State(), Seat.BUYER
        self._rho: float | None = None

    # Every public method but `reset` and `get_reward` is shown to the model as a tool, with its docstring.

    def reset(
        self, seed: int | None = None, game: int = 0, seat: str = "buyer", rho: float | None = None, **_: Any
    ) -> str:
        """Start game ``game`` of ``seed``; the other side moves first where it starts.

        Args:
            seed: of the game; with ``game`` it determines the scenario and the opponent's chances.
            game: its number.
            seat: the model's seat.
            rho: a settlement to ask for, 0 the seller's limit and 1 the buyer's; None asks for nothing.
            **_: the other columns of the row.

        Returns:
            The rules, what the seat knows, and the first offer where there is one.

        Raises:
            InputError: the row has no seed, or a value is out of its range.
        """
        if seed is None:
            raise InputError("the row has no column 'seed'; make the rows with agents.trl.tasks")
        self._seat, self._rho, self._state = seat_of(seat), rho, State()
        games = self._settings.draw(check_seed(seed), np.array([game]))
        self._game = games[0]
        self._seated = SeatGames.of(games, self._seat.other)
        self._opponent.reset(self._seated)
        if mover(self._game, self._state) != self._seat:
            self._answer()
        return "\n".join([*self._rules(), self._now()])

    def accept(self) -> str:
        """Accept the other side's latest offer. This ends the negotiation with a deal at that price.

        Returns:
            What happened.
        """
        return self._play(Move(True))

    def offer(self, price: float) -> str:
        """Offer a price to the other side, which then accepts it or makes an offer of its own.

        Args:
            price: The price in dollars, such as 812.5.

        Returns:
            What the other side did.
        """
        try:
            amount = float(price)
        except (TypeError, ValueError):
            raise InputError(f"price {price!r} is not a number; call offer with one, such as 812.5") from None
        return self._play(Move(False, amount))

    @property
    def scenario(self) -> Scenario:
        """The game, with both limits: for analysis, not for a player.

        Raises:
            InputError: none has been started.
        """
        if self._game is None:
            raise InputError("no game has been started; call reset() first")
        return self._game

    @property
    def state(self) -> State:
        """How far it is."""
        return self._state

    @property
    def seat(self) -> Seat:
        """The model's seat."""
        return self._seat

    @property
    def over(self) -> bool:
        """Whether the game has ended."""
        return is_over(self.scenario, self._state)

    @property
    def utility(self) -> float:
        """The model's share of the ZOPA, discounted; 0 without a deal, below 0 beyond its limit."""
        game, state = self.scenario, self._state
        if not state.agreement or state.standing is None:
            return 0.0
        width = game.price_high - game.price_low
        both = utilities_of(
            state.standing,
            game.buyer_max,
            game.seller_min,
            scale=width,
            discount=game.discount,
            turns=len(state.kinds),
        )
        return both[self._seat]

    @property
    def rho(self) -> float | None:
        """Settlement of the deal; None without one, or without a ZOPA."""
        game, state = self.scenario, self._state
        if not state.agreement or state.standing is None:
            return None
        rho = float(settlement(state.standing, game.buyer_max, game.seller_min))
        return rho if rho == rho else None

    @property
    def invalid_moves(self) -> int:
        """Turns that the model wasted."""
        first = 0 if self.scenario.starter == self._seat else 1
        return self._state.kinds[first::2].count(MoveKind.INVALID)

    def _play(self, move: Move) -> str:
        if self.over:
            raise InputError("the negotiation is over; call no more tools")
        self._state = step(self.scenario, self._state, move)
        wasted = self._state.kinds[-1] is MoveKind.INVALID
        if not self.over:
            self._answer()
        if not wasted:
            return self._now()
        why = "there was no offer to accept" if move.accept else f"{move.price:g} is outside the range of prices"
        return f"Your turn was wasted: {why}.\n{self._now()}"

    def _answer(self) -> None:
        """Let the opponent move."""
        batch = BatchState.of(self.scenario, self._state)
        moves = self._opponent.act(view_of(batch, self._seated, np.zeros(1, dtype=np.intp), self._state.turn))
        self._state = step(self.scenario, self._state, Move(bool(moves.accept[0]), float(moves.price[0])))

    def _rules(self) -> list[str]:
        game, me, other = self.scenario, self._seat.label, self._seat.other.label
        limit = _money(game.reservation(self._seat))
        gain = f"You may pay at most {limit}" if self._seat == Seat.BUYER else f"You may take no less than {limit}"
        want = "low" if self._seat == Seat.BUYER else "high"
        rules = [
            f"You are the {me} and face a {other}. You move in turn, {game.max_turns} turns in all; without a deal by then "
            "both gain nothing.",
            f"Prices lie between {_money(game.price_low)} and {_money(game.price_high)}. {gain}, and want the price {want}.",
        ]
        if game.discount != 1.0:
            rules.append(f"Every turn before the accepted offer multiplies what a deal is worth by {game.discount:g}.")
        if self._rho is not None:
            rules.append(f"Aim at a settlement of {self._rho:.2f}, where 0 is the seller's limit and 1 the buyer's.")
        return rules

    def _now(self) -> str:
        game, state, other = self.scenario, self._state, self._seat.other.label
        if state.agreement:
            by = "You accept" if mover(game, state) != self._seat else f"The {other} accepts"
            return f"{by}: a deal at {_money(state.standing or 0.0)}. The negotiation is over."
        if self.over:
            return "That was the last turn: no deal. The negotiation is over."
        clock = f"It is turn {state.turn} of {game.max_turns}, and your move."
        if state.standing is None or state.standing_seat is self._seat:
            return f"No offer of the {other} stands. {clock}"
        return f"The {other} offers {_money(state.standing)}. {clock}"


def utility_reward(environments: Sequence[BargainTools], **_: Any) -> list[float]:
    """The model's share of the ZOPA in each game, for ``reward_funcs``; 0 without a deal."""
    return [one.utility for one in environments]


def settlement_reward(environments: Sequence[BargainTools], rho: Sequence[float], **_: Any) -> list[float]:
    """``1 - |ρ - asked|`` of each deal, never below 0, for ``reward_funcs``; 0 without a deal or a ZOPA.

    Args:
        environments: the finished games.
        rho: what was asked for, the column of that name; see `tasks`.
    """
    reached = [one.rho for one in environments]
    return [0.0 if r is None else max(0.0, 1.0 - abs(r - asked)) for r, asked in zip(reached, rho, strict=True)]


def _money(price: float) -> str:
    return f"${price:.2f}"
