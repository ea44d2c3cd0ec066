"""Offline reinforcement learning: one row (s, a, r, s', done) a decision of either seat, with returns and who behaved."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa

import agents
from bargain_env import Seat
from bargain_env.actions import encode_box
from bargain_env.errors import InputError
from bargain_env.observation import SIZE

from .decisions import Decisions, numbers, playable
from .source import Block
from .tables import Layout
from .writing import described

_VECTOR = pa.list_(pa.float32(), SIZE)
SCHEMA = described(
    ("trajectory_id", pa.string(), "the game, as in steps and episodes"),
    ("seat", pa.string(), "who decides: buyer or seller; the transitions of a seat of a game form a trajectory"),
    ("step", pa.int32(), "decisions of this seat in this game before this one"),
    ("turn", pa.int32(), "turn of the game, from 1, counted over both seats"),
    ("observation", _VECTOR, "s: what the seat sees, as bargain_env.observation lists it, in [-1, 1]"),
    ("accept", pa.bool_(), "a: whether it accepts the standing offer"),
    ("price", pa.float64(), "a: the price it offers, currency units; null where it accepts"),
    ("action", pa.float32(), "a, as Box(-1, 1) action of Bargain-v0; null for an offer that crosses the standing one"),
    ("reward", pa.float64(), "r: the seat's utility with its last decision, a share of the ZOPA; 0 before it"),
    ("next_observation", _VECTOR, "s': what the seat sees at its next decision, or when the game is over"),
    ("done", pa.bool_(), "whether the game ended before the seat decided again; the deadline terminates too"),
    ("return_to_go", pa.float64(), "sum of the rewards from this one on, undiscounted"),
    ("behavior_policy", pa.string(), "the strategy that decided; null where unknown"),
    (
        "behavior_probability",
        pa.float64(),
        "of this action under it: 1 where no chance is involved; null where unknown",
    ),
    ("opponent_policy", pa.string(), "the strategy of the other seat; null where unknown"),
)
"""The columns, each with its meaning."""


def layout() -> Layout:
    """One table, `SCHEMA`."""
    return Layout(
        {"transitions": SCHEMA},
        rows,
        "Decisions of both seats of a game over one price, as transitions for offline reinforcement learning. A row is one "
        "decision of one seat: the other seat's answer belongs to the environment. Observations and rewards are those of "
        'the Gymnasium environment `Bargain-v0` of bargain-lab with `action_mode="box"`.',
        'from datasets import load_dataset\n\ntrain = load_dataset(DIR, split="train").with_format("numpy")\n'
        'buyer = train.filter(lambda row: row["seat"] == "buyer")',
    )


def rows(block: Block) -> tuple[dict[str, pa.Table], int]:
    """`SCHEMA` of the decisions of ``block``, by game, then turn, and how many games were left out: not `playable`."""
    kept = playable(block)
    block = block.take(kept)
    made = Decisions.of(block)
    steps = block.steps
    columns = {
        "trajectory_id": steps["trajectory_id"],
        "seat": steps["role"],
        "step": made.step,
        "turn": steps["turn"],
        "observation": _vectors(made.seen),
        "accept": made.accept,
        "price": steps["target_price"],
        "action": pa.array(box_actions(made), from_pandas=True),
        "reward": made.reward,
        "next_observation": _vectors(made.then),
        "done": made.done,
        "return_to_go": made.utility,
        "behavior_policy": steps["strategy"],
        "behavior_probability": _probabilities(steps["strategy"]),
        "opponent_policy": steps["opponent_strategy"],
    }
    arrays = [pa.chunked_array([c]) if isinstance(c, pa.Array) else c for c in map(_arrow, columns.values())]
    table = pa.table(dict(zip(columns, arrays, strict=True))).cast(SCHEMA)
    return {"transitions": table}, int((~kept).sum())


def box_actions(made: Decisions) -> np.ndarray:
    """``[N]`` each decision as a box action, float32; NaN for an offer that crosses the standing one or leaves the range.

    In box mode the former means ACCEPT, and the latter cannot be said.
    """
    steps, out = made.block.steps, np.full(len(made), np.nan, dtype=np.float32)
    low, high, standing = (numbers(steps, name) for name in ("price_low", "price_high", "last_offer_price"))
    for seat in Seat:
        crosses = made.price >= standing if seat == Seat.BUYER else made.price <= standing
        outside = ~made.accept & ~((made.price >= low) & (made.price <= high))
        at = np.flatnonzero((made.seat == seat) & ~crosses & ~outside)
        out[at] = encode_box(made.accept[at], made.price[at], low[at], high[at], seat, standing[at])
    return out


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), SIZE)


def _arrow(column: object) -> pa.Array | pa.ChunkedArray:
    return pa.array(column) if isinstance(column, np.ndarray) else column


def _probabilities(names: pa.ChunkedArray) -> pa.Array:
    coded = names.combine_chunks().dictionary_encode()
    known = pa.array([_probability(name) for name in coded.dictionary.to_pylist()], pa.float64())
    return known.take(coded.indices)


@cache
def _probability(name: str) -> float | None:
    """1 for a scripted strategy whose moves do not depend on the seed; None for all others."""
    if ":" in name:  # a model or a learned policy, which would be loaded to be described
        return None
    try:
        return None if agents.describe(name).stochastic else 1.0
    except InputError:
        return None
