"""The append-only log of decisions: JSON Lines, one record a step, with the field names and nesting of the seed.

    {"trajectory_id", "turn", "agent": {"strategy", "strategy_params"},
     "state": {"timestep", "max_turns", "role", "last_offer_price", "offer_history", "reservation_price",
               "price_range"},
     "action": {"type", "price"}, "is_terminal",
     "meta": {"buyer_max", "seller_min", "zopa_low", "zopa_high", "zopa_width", "accepted_price",
              "episode_outcome": {"agreement_bool", "price", "num_turns"}}, "rho"}

``offer_history`` is everything offered before the step. ``is_terminal`` is true on an episode's last step and there
``accepted_price`` is the price of the deal. Numbers are written in full, so that reading them back gives the same bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO

import numpy as np

from bargain_env import Seat
from bargain_env.errors import InputError

from .step_rows import StepRows

_LABELS = [seat.label for seat in Seat]


class DatasetWriter:
    """Appends episodes to a log; refuses an episode whose id is already in it.

    Args:
        path: the log; made if absent, kept and appended to if present.

    Raises:
        InputError: the file that is there is not such a log (named, with its line).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = 0
        self._known = _ids_in(path) if path.exists() else set()
        self._file: TextIO = path.open("a", encoding="utf-8")

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(self, rows: StepRows) -> None:
        """Write whole episodes.

        Raises:
            InputError: an id is already in the log; nothing of ``rows`` is written.
        """
        clashes = self._known.intersection(rows.ids.tolist())
        if clashes:
            raise InputError(
                f"{self.path} already holds {len(clashes)} of these episodes, such as {min(clashes)!r}; "
                "they are the same games: choose another seed or another file"
            )
        self._file.writelines(_lines(rows))
        self._known.update(rows.ids.tolist())
        self.steps += len(rows)


def _lines(rows: StepRows) -> Iterator[str]:
    agents, metas, rhos = _agents(rows), _metas(rows), [_number(r) for r in rows.rho.tolist()]
    ids = [json.dumps(name) for name in rows.ids]
    last = set(rows.last.tolist())
    columns: list[np.ndarray] = [rows.episode, rows.turn, rows.role, rows.max_turns, rows.last_offer, rows.reservation]
    columns += [rows.price_low, rows.price_high, rows.accept, rows.price]
    offered: list[str] = []
    for i, row in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        e, turn, seat, max_turns, last_offer, reservation, low, high, accept, price = row
        yield (
            f'{{"trajectory_id": {ids[e]}, "turn": {turn}, "agent": {agents[2 * e + seat]}, '
            f'"state": {{"timestep": {turn}, "max_turns": {max_turns}, "role": "{_LABELS[seat]}", '
            f'"last_offer_price": {_number(last_offer)}, "offer_history": [{", ".join(offered)}], '
            f'"reservation_price": {reservation!r}, "price_range": [{low!r}, {high!r}]}}, '
            f'"action": {{"type": "{"ACCEPT" if accept else "OFFER"}", "price": {_number(price)}}}, '
            f'"is_terminal": {"true" if i in last else "false"}, '
            f'"meta": {metas[e].replace("@", _number(last_offer) if accept else "null")}, "rho": {rhos[e]}}}\n'
        )
        if i in last:
            offered = []
        elif not accept:
            offered.append(f'["{_LABELS[seat]}", {price!r}]')


def _agents(rows: StepRows) -> list[str]:
    """The ``agent`` object of each episode's buyer and seller, interleaved."""
    known = {name: json.dumps({"strategy": name, "strategy_params": {}}) for name in set(rows.strategies.ravel())}
    return [known[name] for name in rows.strategies.ravel()]


def _metas(rows: StepRows) -> list[str]:
    """The ``meta`` object of each episode, with ``@`` in place of the accepted price."""
    out = []
    ends = zip(
        rows.limits.tolist(),
        rows.agreement.tolist(),
        rows.deal_price.tolist(),
        rows.turn[rows.last].tolist(),
        strict=True,
    )
    for (high, low), deal, price, turns in ends:
        out.append(
            f'{{"buyer_max": {_number(high)}, "seller_min": {_number(low)}, '
            f'"zopa_low": {_number(low)}, "zopa_high": {_number(high)}, '
            f'"zopa_width": {_number(high - low)}, "accepted_price": @, "episode_outcome": '
            f'{{"agreement_bool": {"true" if deal else "false"}, "price": {_number(price)}, "num_turns": {turns}}}}}'
        )
    return out


def _number(value: float) -> str:
    return "null" if math.isnan(value) else repr(value)


def _ids_in(path: Path) -> set[str]:
    known = set()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                known.add(json.loads(line)["trajectory_id"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{path}, line {number} is not a step record; mend or move the file, then append again"
                ) from None
    return known
