"""What each seat of recorded games saw, did and earned, as the Gymnasium face of the game would have shown it.

Observations are those of `bargain_env.single.BargainEnv` with ``action_mode="box"``, bit for bit: they are made by the same
`Film`. Its settings are the default ones in which data are collected: no discount, no cost of a turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import Scenario, Seat, State
from bargain_env.observation import SIZE, Film
from experiments.corpus import records

from .source import Block

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Decisions:
    """N decisions of E games, both seats, by game, then turn.

    Attributes:
        block: the games.
        episode: ``[N]`` row of ``block.episodes``.
        seat: ``[N]`` who decides (`Seat`).
        step: ``[N]`` how many decisions the seat has made in this game before.
        seen: ``[N, SIZE]`` what the seat sees when it decides.
        then: ``[N, SIZE]`` what it sees when it decides next, or when the game is over.
        done: ``[N]`` whether it decides no more.
        accept: ``[N]``.
        price: ``[N]`` offered, NaN where ``accept``.
        reward: ``[N]`` the seat's utility where ``done``, else 0.
        utility: ``[N]`` the seat's utility in this game.
    """

    block: Block
    episode: NDArray[np.int64]
    seat: NDArray[np.int64]
    step: NDArray[np.int64]
    seen: NDArray[np.float32]
    then: NDArray[np.float32]
    done: NDArray[np.bool_]
    accept: NDArray[np.bool_]
    price: Floats
    reward: Floats
    utility: Floats

    def __len__(self) -> int:
        return len(self.episode)

    @classmethod
    def of(cls, block: Block) -> Decisions:
        """The decisions of ``block``, whose games must all be `playable`."""
        steps, episode = block.steps, block.episode
        accept = steps["target_action"].to_numpy() == "ACCEPT"
        price = numbers(steps, "target_price")
        seat = (steps["role"].to_numpy() == Seat.SELLER.label).astype(np.int64)
        place = np.arange(len(episode)) - block.first[episode]
        done = place + 2 >= np.diff(block.first)[episode]
        seen, ends = _observations(block, price)
        then = np.empty_like(seen)
        following = np.flatnonzero(~done)
        then[following] = seen[following + 2]  # the seats alternate
        then[done] = ends[episode[done], seat[done]]
        paid = np.stack([numbers(block.episodes, f"{s.label}_utility") for s in Seat], axis=1)[episode, seat]
        return cls(block, episode, seat, place // 2, seen, then, done, accept, price, np.where(done, paid, 0.0), paid)


def numbers(table: pa.Table, name: str) -> Floats:
    """``[N]`` a column of numbers as float64, NaN where null."""
    return table[name].to_numpy().astype(np.float64)


def playable(block: Block) -> NDArray[np.bool_]:
    """``[E]`` games that `bargain_env` can play: known limits in a price range of some width, and a move of each seat."""
    games = block.episodes
    low, high = numbers(games, "price_low"), numbers(games, "price_high")
    limits = np.stack([numbers(games, "buyer_max"), numbers(games, "seller_min")])
    inside = ((limits >= low) & (limits <= high)).all(axis=0)  # NaN, an unknown limit, is not
    return inside & (high - low > 1e-6) & (np.diff(block.first) >= 2)


def scenario_of(game: dict[str, object]) -> Scenario:
    """The `Scenario` of a row of `records.EPISODES`; an unknown seed or id, which only random numbers need, is 0."""
    values = {name: game[name] for name in ("buyer_max", "seller_min", "price_low", "price_high", "max_turns")}
    starter = Seat.SELLER if game["starter"] == Seat.SELLER.label else Seat.BUYER
    return Scenario(**values, starter=starter, id=game["scenario_id"] or 0, seed=game["seed"] or 0)  # type: ignore[arg-type]


def _observations(block: Block, price: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``[N, SIZE]`` what the seat that decides sees, and ``[E, 2, SIZE]`` what buyer and seller see when it is over."""
    seen = np.empty((len(price), SIZE), dtype=np.float32)
    ends = np.empty((len(block), 2, SIZE), dtype=np.float32)
    offers = [None if p != p else p for p in price.tolist()]
    first = block.first.tolist()
    for k, game in enumerate(block.episodes.select(_OF_A_GAME).to_pylist()):
        start, end = first[k], first[k + 1]
        played, scenario = end - start, scenario_of(game)
        film = Film(scenario, State(prices=tuple(offers[start:end])))
        film.end(played + 1)
        seen[start:end] = film.frames[: played * SIZE].reshape(played, SIZE)
        mover = (scenario.starter + played) % 2  # whose turn it would be
        ends[k, mover], ends[k, 1 - mover] = film.show(played + 1), film.show_other(played + 1)
    return seen, ends


_OF_A_GAME = [
    name
    for name in records.EPISODES.names
    if name in ("buyer_max", "seller_min", "price_low", "price_high", "max_turns", "starter", "scenario_id", "seed")
]
