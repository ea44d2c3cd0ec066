"""The two tables of a data set: their columns, what each column means, and how an episode is named.

`STEPS` has one row a decision, the columns of the seed's ``decision_steps`` first and ours after them; `EPISODES` has
one row a game. Both are written by `experiments.collect` and, checked and split, by `experiments.prepare`.

A trajectory id is ``SEED-DIGEST-ID``: the run seed, six hex digits of a digest of the settings that shape the games,
and the scenario id. Two runs share an id only if it names the very same game, so logs can be appended to each other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SCHEMA_VERSION = 1
HISTORY_LENGTH = 8
"""How many offers before a step its ``history_*`` columns keep (the seed's K)."""

PART_GAMES = 25_000
"""Consecutive scenario ids of one part of a collected data set; its last part may have fewer."""

_TRAJECTORY_ID = re.compile(r"(\d+)-[0-9a-f]{6}-(\d+)")


def _schema(*fields: tuple[str, pa.DataType, str]) -> pa.Schema:
    described = [pa.field(name, kind, metadata={"description": text}) for name, kind, text in fields]
    return pa.schema(described, metadata={"schema_version": str(SCHEMA_VERSION)})


STEPS = _schema(
    ("trajectory_id", pa.string(), "the episode; SEED-DIGEST-ID where this project made it"),
    ("turn", pa.int64(), "from 1, counted over both seats"),
    ("role", pa.string(), "who decides: buyer or seller"),
    ("max_turns", pa.int64(), "moves of both seats together"),
    ("turns_remaining", pa.int64(), "max_turns - turn; 0 on the last turn"),
    ("reservation_price", pa.float64(), "limit of the seat that decides, currency units"),
    ("price_low", pa.float64(), "lower end of the public range"),
    ("price_high", pa.float64(), "upper end of the public range"),
    ("last_offer_price", pa.float64(), "standing offer of the other seat, the one that ACCEPT takes; null where none"),
    ("history_roles", pa.list_(pa.string()), "who made each of the last 8 offers before this step, oldest first"),
    ("history_prices", pa.list_(pa.float64()), "the last 8 offers before this step, oldest first"),
    ("target_action", pa.string(), "OFFER or ACCEPT"),
    ("target_price", pa.float64(), "the price offered; null for ACCEPT"),
    ("success", pa.bool_(), "whether the episode ended in a deal"),
    ("rho_train", pa.float64(), "settlement of the episode; -1 at an impasse; null for a deal where there is no ZOPA"),
    ("strategy", pa.string(), "who played this seat; null where unknown"),
    ("opponent_strategy", pa.string(), "who played the other seat; null where unknown"),
    ("starter", pa.string(), "who moved on turn 1"),
    ("zopa_low", pa.float64(), "the seller's limit; above zopa_high where there is no ZOPA"),
    ("zopa_high", pa.float64(), "the buyer's limit"),
    ("seed", pa.int64(), "run seed; null where unknown"),
    ("split", pa.string(), "train, eval or test, by episode; empty before prepare"),
    ("schema_version", pa.int32(), "version of these columns"),
)

EPISODES = _schema(
    ("trajectory_id", pa.string(), "the episode, as in the steps"),
    ("scenario_id", pa.int64(), "with the seed it names the game; null where unknown"),
    ("seed", pa.int64(), "run seed; null where unknown"),
    ("starter", pa.string(), "who moved on turn 1"),
    ("buyer_max", pa.float64(), "the buyer's limit, currency units"),
    ("seller_min", pa.float64(), "the seller's limit"),
    ("price_low", pa.float64(), "lower end of the public range"),
    ("price_high", pa.float64(), "upper end of the public range"),
    ("max_turns", pa.int64(), "moves of both seats together"),
    ("buyer_strategy", pa.string(), "null where unknown"),
    ("seller_strategy", pa.string(), "null where unknown"),
    ("agreement", pa.bool_(), "whether the game ended in a deal"),
    ("price", pa.float64(), "price of the deal; null at an impasse"),
    ("rho", pa.float64(), "(price - seller_min) / (buyer_max - seller_min); -1 at an impasse; null without a ZOPA"),
    ("buyer_utility", pa.float64(), "1 - rho with a ZOPA; 0 at an impasse"),
    ("seller_utility", pa.float64(), "rho with a ZOPA; 0 at an impasse"),
    ("turns", pa.int64(), "moves played, the accepting one included"),
    ("split", pa.string(), "train, eval or test; empty before prepare"),
    ("schema_version", pa.int32(), "version of these columns"),
)


def run_name(seed: int, settings: Mapping[str, Any]) -> str:
    """``SEED-DIGEST`` of a run, where ``settings`` are all those that shape its games (not how many there are)."""
    text = json.dumps(dict(settings), sort_keys=True)
    return f"{seed}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def trajectory_ids(run: str, scenario_ids: NDArray[np.int64]) -> NDArray[np.object_]:
    """``[E]`` names of episodes of the run ``run``."""
    padded = pc.utf8_lpad(pa.array(scenario_ids).cast(pa.string()), 6, "0")
    return pc.binary_join_element_wise(run, padded, "-").to_numpy(zero_copy_only=False)


def scenario_ids(names: pa.StringArray) -> pa.Int64Array:
    """Scenario id of each trajectory id that this project made; null for any other."""
    return pc.struct_field(pc.extract_regex(names, r"^(?:\d+-[0-9a-f]{6}-)(?P<id>\d{1,18})$"), [0]).cast(pa.int64())


def seeds(names: pa.StringArray) -> pa.Int64Array:
    """Run seed in each trajectory id that this project made; null for any other."""
    return pc.struct_field(pc.extract_regex(names, r"^(?P<seed>\d{1,16})-[0-9a-f]{6}-\d+$"), [0]).cast(pa.int64())


def origin(name: str) -> tuple[int | None, int | None]:
    """``(seed, scenario id)`` of a trajectory id that this project made; ``(None, None)`` for any other."""
    match = _TRAJECTORY_ID.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else (None, None)
