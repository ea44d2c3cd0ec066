"""The log of decisions: JSON Lines, one record a step, with the field names and nesting of the seed.

    {"trajectory_id", "turn", "agent": {"strategy", "strategy_params"},
     "state": {"timestep", "max_turns", "role", "last_offer_price", "offer_history", "reservation_price",
               "price_range"},
     "action": {"type", "price"}, "is_terminal",
     "meta": {"buyer_max", "seller_min", "zopa_low", "zopa_high", "zopa_width", "accepted_price",
              "episode_outcome": {"agreement_bool", "price", "num_turns"}}, "rho"}

``offer_history`` is everything offered before the step. ``is_terminal`` is true on an episode's last step and there
``accepted_price`` is the price of the deal. Numbers are written in full, so that reading them back gives the same bits.
Logs of different games can be put one behind another.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import orjson
from numpy.typing import NDArray

from bargain_env import Seat

from .step_rows import StepRows

_ROLES = [f'"{seat.label}"' for seat in Seat]
_BOOLS = ("false", "true")
_LINES = 512
"""Records that are put together at a time: few enough to stay in cache."""


def log_chunks(rows: StepRows) -> Iterator[bytes]:
    """The records of ``rows``, games that were played whole, each with its line break, some at a time."""
    lines = _lines(rows)
    while chunk := "".join(islice(lines, _LINES)):
        yield chunk.encode()


def _lines(rows: StepRows) -> Iterator[str]:
    """Each column is written in one call of orjson; what is left to do for a step is to put the pieces together."""
    heads, ends = _heads(rows), _ends(rows)
    columns = [rows.episode, rows.role, rows.accept, rows.turn, rows.turn == rows.turn[rows.last][rows.episode]]
    offered, numbers = "", map(_numbers, (rows.last_offer, rows.price))
    for e, seat, accept, turn, last, standing, price in zip(*(c.tolist() for c in columns), *numbers, strict=True):
        head, agent, role, limit = heads[2 * e + seat]
        accepted, rest = ends[e]
        kind = "ACCEPT" if accept else "OFFER"
        yield (
            f'{head}{turn}{agent}{turn}{role}{standing},"offer_history":[{offered}{limit}"{kind}","price":{price}}},'
            f'"is_terminal":{_BOOLS[last]}{accepted}{standing if accept else "null"}{rest}'
        )
        if last:
            offered = ""
        elif not accept:
            offered = f"{offered},[{_ROLES[seat]},{price}]" if offered else f"[{_ROLES[seat]},{price}]"


def _heads(rows: StepRows) -> list[tuple[str, str, str, str]]:
    """What the records of a seat of an episode have in common, buyer and seller interleaved: up to the turn, from there to
    the turn again, to the standing offer, and from the history to the action.
    """
    first, names = rows.first, rows.strategies.ravel().tolist()
    agents = {name: _text({"strategy": name, "strategy_params": {}}) for name in set(names)}
    columns = (column[first] for column in (rows.max_turns, rows.price_low, rows.price_high))
    per_episode = zip(map(_text, rows.ids.tolist()), *map(_numbers, columns), strict=True)
    seats = [
        (
            f'{{"trajectory_id":{name},"turn":',
            f',"max_turns":{turns},"role":',
            f',"price_range":[{low},{high}]}},"action":{{"type":',
        )
        for name, turns, low, high in per_episode
    ]
    limits = _numbers(rows.limits.ravel())
    return [
        (
            seats[k // 2][0],
            f',"agent":{agents[name]},"state":{{"timestep":',
            f'{seats[k // 2][1]}{_ROLES[k % 2]},"last_offer_price":',
            f'],"reservation_price":{limits[k]}{seats[k // 2][2]}',
        )
        for k, name in enumerate(names)
    ]


def _ends(rows: StepRows) -> list[tuple[str, str]]:
    """What the records of an episode end with: before and after the accepted price."""
    high, low = rows.limits.T
    columns = map(_numbers, (high, low, high - low, rows.deal_price, rows.turn[rows.last], rows.rho))
    return [
        (
            f',"meta":{{"buyer_max":{high},"seller_min":{low},"zopa_low":{low},"zopa_high":{high},"zopa_width":{width},'
            '"accepted_price":',
            f',"episode_outcome":{{"agreement_bool":{_BOOLS[deal]},"price":{price},"num_turns":{turns}}}}},"rho":{rho}}}\n',
        )
        for deal, high, low, width, price, turns, rho in zip(rows.agreement.tolist(), *columns, strict=True)
    ]


def _numbers(values: NDArray) -> list[str]:
    """Each number as JSON, the shortest text that reads back the same; NaN is ``null``."""
    written = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return written[1:-1].split(",") if len(values) else []


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
