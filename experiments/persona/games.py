"""What the personas do: games against drawn counterparts, split by game, and their decisions as a steps table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import agents
import bargain_env
from bargain_env import PRESETS, Trajectories, rng
from bargain_env.errors import InputError
from bargain_env.play import concatenate
from experiments.corpus import cast as players
from experiments.corpus import records
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table
from experiments.match import pairs
from hyperlora.outside import public_limit

from .cast import Persona

Ints = NDArray[np.int64]

GAMES_APART = 10_000
"""Scenario ids between the first games of two personas; also the most games of one."""
SEED_APART = 2_000_000
"""Added to the seed of games, so that they are neither those of a tournament nor those that the shipped base has read."""
SPLITS = ("train", "val", "test")
SEATS = ("buyer", "seller")
SHARES = (0.6, 0.2)
"""Of training and validation; the rest is for tests."""
FEWEST_GAMES = 3


def play_games(personas: Sequence[Persona], games: int, seed: int, max_turns: int) -> pa.Table:
    """Every persona's decisions in its games, ordered by persona, game and turn.

    The counterpart of each game is one of all strategies that may train, drawn evenly.

    Args:
        personas: who plays.
        games: of each of them.
        seed: run seed.
        max_turns: moves of both seats together.

    Returns:
        `records.STEPS` with two more columns, ``persona`` and ``game`` (its number among the persona's, from 0).

    Raises:
        InputError: fewer games than can be split, or more than ids allow.
    """
    if not FEWEST_GAMES <= games <= GAMES_APART:
        raise InputError(f"--games {games} must lie in {FEWEST_GAMES} … {GAMES_APART}: each split needs one")
    owner = np.repeat(np.arange(len(personas)), games)
    ids = owner * GAMES_APART + np.tile(np.arange(games), len(personas))
    parts: list[Trajectories] = []
    names: list[NDArray[np.object_]] = []
    order: list[NDArray[np.intp]] = []
    for preset in dict.fromkeys(persona.preset for persona in personas):
        mine = np.flatnonzero([personas[k].preset == preset for k in owner.tolist()])
        result, who = _play_preset([personas[k] for k in owner[mine].tolist()], preset, ids[mine], seed, max_turns)
        parts, names, order = [*parts, result], [*names, who], [*order, mine]
    back = np.argsort(np.concatenate(order))
    result, who = concatenate(parts).take(back), np.concatenate(names)[back]
    shaping = {"personas": [[p.strategy, p.preset, p.seat] for p in personas], "max_turns": max_turns}
    rows = rows_of_games(result, records.run_name(seed, shaping), who[:, 0].tolist(), who[:, 1].tolist())
    number = np.array([int(name.rpartition("-")[2]) for name in rows.ids])  # the scenario's id ends a trajectory's
    persona, game = np.divmod(number, GAMES_APART)
    split = split_of(len(personas), games, seed)[persona, game]
    table = steps_table(rows, split.astype(object))
    table = table.append_column("persona", pa.array([personas[k].id for k in persona])
                                .take(pa.array(rows.episode)))  # fmt: skip
    table = table.append_column("game", pa.array(game[rows.episode]))
    seats = np.array([p.seat for p in personas])[persona][rows.episode]
    return table.filter(pc.equal(table["role"], pa.array(seats.tolist())))


def _play_preset(
    who: Sequence[Persona], preset: str, ids: Ints, seed: int, max_turns: int
) -> tuple[Trajectories, NDArray[np.object_]]:
    """The games of one preset, and ``[B, 2]`` the names of buyer and seller."""
    games = bargain_env.sample(preset, seed=seed + SEED_APART, ids=ids, max_turns=max_turns)
    others = np.array(agents.list_strategies(split="train"), dtype=object)
    drawn = others[pairs.draw(games, len(others))[:, 0]]
    buys = np.array([persona.seat == "buyer" for persona in who])
    own = np.array([persona.strategy for persona in who], dtype=object)
    names = np.stack([np.where(buys, own, drawn), np.where(buys, drawn, own)], axis=1)
    seats = (players.policy(names[:, seat], PRESETS[preset], None) for seat in (0, 1))
    return bargain_env.play(games, *seats), names


def split_sizes(games: int) -> tuple[int, int, int]:
    """How many of a persona's games train, validate and test; at least one each."""
    train, val = (max(1, round(share * games)) for share in SHARES)
    train = min(train, games - val - 1)
    return train, val, games - train - val


def require_decisions(personas: Sequence[Persona], table: pa.Table) -> None:
    """Refuse personas with nothing to train on, to choose by or to be measured by.

    Raises:
        InputError: names the first, and the split.
    """
    there = set(zip(table["persona"].to_pylist(), table["split"].to_pylist(), strict=True))
    for persona in personas:
        for split in SPLITS:
            if (persona.id, split) not in there:
                raise InputError(
                    f"{persona.id} ({persona.strategy}, {persona.seat} on {persona.preset}) decides nothing in its {split} "
                    "games: they end before its first move; raise --max-turns or --games, or choose another --seed"
                )


def split_of(personas: int, games: int, seed: int) -> NDArray[np.str_]:
    """``[personas, games]`` the split of each game: the same shares inside every persona."""
    label = np.repeat(np.array(SPLITS), split_sizes(games))
    found = np.empty((personas, games), dtype=label.dtype)
    for k in range(personas):
        ids = k * GAMES_APART + np.arange(games)
        found[k, np.argsort(rng.uniform(seed, ids, stream=rng.Stream.SPLIT)[:, 0], kind="stable")] = label
    return found


def public_limits(table: pa.Table) -> pa.Table:
    """The same with `public_limit` as everybody's reservation, which is all that who sits opposite knows of it."""
    buys = pc.equal(table["role"], "buyer")
    limit = pc.if_else(buys, *(public_limit(seat, table["price_low"], table["price_high"]) for seat in SEATS))
    return table.set_column(table.column_names.index("reservation_price"), "reservation_price", limit)
