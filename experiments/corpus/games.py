"""Sound episodes as one row a game: everything else about them follows from the rules.

An episode that passed `experiments.corpus.checks` has turns 1, 2, 3, …, seats in turn, and each standing offer is the one
before; so the prices offered and what is constant over the game are all there is to keep. It takes a tenth of the room.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO, settlement

from .decisions import values
from .repair import Sound
from .step_rows import StepRows

GAMES = pa.schema(
    [
        ("first", pa.int64()),  # place in the input; the parts of one merged id share it
        ("trajectory_id", pa.string()),
        ("buyer_strategy", pa.string()),
        ("seller_strategy", pa.string()),
        ("seed", pa.float64()),
        ("starter", pa.int8()),
        ("max_turns", pa.int64()),
        ("price_low", pa.float64()),
        ("price_high", pa.float64()),
        ("buyer_max", pa.float64()),
        ("seller_min", pa.float64()),
        ("agreement", pa.bool_()),
        ("prices", pa.list_(pa.float64())),
    ]
)


def games_table(sound: Sound) -> pa.Table:
    """`GAMES`, in the order of ``sound``."""
    rows = sound.rows
    first, limits = rows.first, rows.limits
    offers = ~rows.accept
    counts = np.bincount(rows.episode[offers], minlength=len(rows.ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns = {
        "first": sound.first,
        "trajectory_id": rows.ids,
        "buyer_strategy": rows.strategies[:, 0],
        "seller_strategy": rows.strategies[:, 1],
        "seed": rows.seeds,
        "starter": rows.role[first],
        "max_turns": rows.max_turns[first],
        "price_low": rows.price_low[first],
        "price_high": rows.price_high[first],
        "buyer_max": limits[:, 0],
        "seller_min": limits[:, 1],
        "agreement": rows.agreement,
        "prices": pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.price[offers])),
    }
    arrays = [c if isinstance(c := columns[f.name], pa.Array) else pa.array(c).cast(f.type) for f in GAMES]
    return pa.table(arrays, schema=GAMES)


def rows_of(games: pa.Table) -> StepRows:
    """The decisions of `GAMES` in one chunk, game after game."""
    deal, prices = values(games, "agreement"), games["prices"].chunk(0)
    offered = np.diff(prices.offsets.to_numpy())
    moves = offered + deal
    episode = np.repeat(np.arange(len(moves)), moves)
    starts = np.cumsum(moves) - moves
    turn = np.arange(len(episode)) - starts[episode] + 1
    accept = deal[episode] & (turn == moves[episode])
    price = np.full(len(episode), np.nan)
    price[~accept] = prices.flatten().to_numpy()
    last_offer = np.concatenate([[np.nan], price[:-1]])[: len(price)]
    last_offer[starts] = np.nan
    role = (values(games, "starter").astype(np.int64)[episode] + turn - 1) % 2
    limits = np.stack([values(games, "buyer_max"), values(games, "seller_min")], axis=1)
    return StepRows(
        ids=games["trajectory_id"].chunk(0).to_numpy(zero_copy_only=False),
        strategies=players_of(games),
        seeds=values(games, "seed"),
        episode=episode,
        turn=turn,
        role=role,
        max_turns=values(games, "max_turns")[episode],
        reservation=limits[episode, role],
        price_low=values(games, "price_low")[episode],
        price_high=values(games, "price_high")[episode],
        last_offer=last_offer,
        accept=accept,
        price=price,
        zopa_low=limits[episode, 1],
        zopa_high=limits[episode, 0],
    )


def rho_of(games: pa.Table) -> NDArray[np.float64]:
    """``[E]`` label: settlement, -1 at an impasse."""
    deal, prices = values(games, "agreement"), games["prices"].chunk(0)
    last = np.append(prices.flatten().to_numpy(), np.nan)[np.cumsum(np.diff(prices.offsets.to_numpy())) - 1]
    rho = settlement(np.where(deal, last, np.nan), values(games, "buyer_max"), values(games, "seller_min"))
    return np.where(deal, rho, IMPASSE_RHO)


def players_of(games: pa.Table) -> NDArray[np.object_]:
    """``[E, 2]`` strategies of buyer and seller, None where unknown."""
    names = [games[name].chunk(0).to_numpy(zero_copy_only=False) for name in ("buyer_strategy", "seller_strategy")]
    return np.stack(names, axis=1).astype(object)


def lengths(games: pa.Table) -> NDArray[np.int64]:
    """``[E]`` moves of each game."""
    return np.diff(games["prices"].chunk(0).offsets.to_numpy()) + values(games, "agreement")
