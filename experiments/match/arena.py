"""Tournament play: every agent meets the same opponents in the same scenarios, from either seat, at every ρ.

Pairing costs nothing here. A scenario, and every random number that anybody draws in it, is a function of (seed,
scenario id, seat, turn); so two agents, or one agent at two ρ, face the same limits and an opponent with the same luck.
Even scenario ids start with the buyer and odd ones with the seller: both starters are in every cell.

Games are played in blocks of a size that the plan alone determines. Scripted results do not depend on it at all; a
language model's logits may differ in the last bit between batch shapes, so its results are reproducible because the
shapes are.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import Policy, Preset, RoutedPolicy, Scenarios, Seat, Trajectories, play, rng, sample
from bargain_env.errors import InputError
from bargain_env.rng import Stream

from . import opponents, results
from .contestants import Contestant

Floats = NDArray[np.float64]

BLOCK_ROWS = 512
"""Games of one batch; fewer where a block of whole scenarios does not fill it."""
SCRIPT_ROWS = 65536
"""The same where the agents are scripts, all of which share a batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every contestant plays.

    Attributes:
        opponents: strategy names.
        rho: requested ρ of the agents that take one, each in [0, 1] or -1.
        games: scenarios; each is one game of every cell.
        seats: where the agents sit.
        preset: where scenarios come from.
        seed: run seed.
        max_turns: moves of both seats together.

    Raises:
        InputError: a value is out of its range.
    """

    opponents: tuple[str, ...]
    rho: tuple[float, ...]
    games: int
    seats: tuple[Seat, ...]
    preset: Preset
    seed: int = 0
    max_turns: int = 20

    def __post_init__(self) -> None:
        for name, low, high in (("games", 1, 2**31), ("seed", 0, 2**63 - 1), ("max_turns", 1, 2**15 - 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"--{name} {value} is outside [{low}, {high}]; choose another")

    def scenarios(self, first: int, count: int) -> Scenarios:
        """``count`` of the games, from number ``first`` on."""
        return sample(self.preset.name, count, seed=self.seed, first_id=first, max_turns=self.max_turns)

    def requests(self, contestant: Contestant) -> tuple[float, ...]:
        """ρ that ``contestant`` is asked for; NaN stands for its only pass where it takes none."""
        return self.rho if contestant.takes_rho else (float("nan"),)

    def rows(self, contestant: Contestant) -> int:
        """Games that ``contestant`` plays, over all seats."""
        return len(self.seats) * len(self.opponents) * len(self.requests(contestant)) * self.games


@dataclass(frozen=True, slots=True)
class Block:
    """Games just finished: rows of the episodes table, unsorted."""

    contestant: Contestant
    seat: Seat
    table: pa.Table


def run_tournament(
    contestants: Sequence[Contestant], plan: Plan, observe: Callable[[Block], None] | None = None
) -> pa.Table:
    """Play ``plan`` with every contestant.

    Args:
        contestants: the agents; labels differ.
        plan: what they play.
        observe: called after each block, for progress.

    Returns:
        One row a game, `results.SCHEMA`, sorted by ``episode_id``.

    Raises:
        InputError: the shuffled control with fewer than two ρ, which could permute nothing.
    """
    if len(plan.rho) < 2 and any(c.shuffled for c in contestants):
        raise InputError("agent 'shuffled' permutes the rho grid and needs at least two values in --rho")
    tables = []
    for team in _teams(contestants):
        for seat in plan.seats:
            for first in range(0, plan.games, _scenarios_in_block(plan, team)):
                for block in _play_block(team, plan, seat, first):
                    tables.append(block.table)
                    if observe:
                        observe(block)
    return results.ordered(tables)


Team = Sequence[Contestant]
"""Contestants that play in one batch, side by side: one alone, or scripts."""


def _teams(contestants: Sequence[Contestant]) -> Iterator[Team]:
    """All contestants in order, scripts that follow each other as one team."""
    for scripted, neighbours in itertools.groupby(contestants, key=lambda c: c.scripted):
        some = list(neighbours)
        yield from [some] if scripted else [[contestant] for contestant in some]


def _scenarios_in_block(plan: Plan, team: Team) -> int:
    rows = sum(len(plan.requests(contestant)) for contestant in team) * len(plan.opponents)
    return max(1, (SCRIPT_ROWS if team[0].scripted else BLOCK_ROWS) // rows)


def _play_block(team: Team, plan: Plan, seat: Seat, first: int) -> Iterator[Block]:
    """A team at one seat in the scenarios from ``first`` on; each one's rows are ordered by opponent, ρ, scenario."""
    count = min(_scenarios_in_block(plan, team), plan.games - first)
    games = plan.scenarios(first, count)
    grid = np.array(plan.requests(team[0]))
    shape = (len(team), len(plan.opponents), len(grid), count)
    member, opponent, request, scenario = (index.ravel() for index in np.indices(shape))
    requested = grid[request]
    given = _shuffle(plan, grid, games).ravel() if team[0].shuffled else requested
    players = [opponents.build(name, plan.preset) for name in plan.opponents]
    played = _seat(
        games.take(scenario),
        seat,
        _seated(team, member, given, plan),
        RoutedPolicy(players, opponent, name="opponents"),
    )
    names = np.array(plan.opponents, dtype=object)[opponent]
    splits = np.array([opponents.split(name) for name in plan.opponents], dtype=object)[opponent]
    for k, contestant in enumerate(team):
        mine = np.flatnonzero(member == k)
        parts = (array[mine] for array in (requested, names, splits))
        yield Block(contestant, seat, results.table(played.take(mine), contestant.label, seat, *parts))


def _seated(team: Team, member: NDArray[np.intp], given: Floats, plan: Plan) -> Policy:
    """The team as one policy; ``member`` says who plays each row, ``given`` at which ρ."""
    policies = [contestant.build(given if contestant.takes_rho else None, plan.preset) for contestant in team]
    return policies[0] if len(team) == 1 else RoutedPolicy(policies, member, name="agents")


def _seat(scenarios: Scenarios, seat: Seat, agent: Policy, opponent: Policy) -> Trajectories:
    if seat == Seat.BUYER:
        return play(scenarios, agent, opponent)
    return play(scenarios, opponent, agent)


def _shuffle(plan: Plan, grid: Floats, games: Scenarios) -> Floats:
    """The grid permuted within each (opponent, scenario): ``[opponents, ρ, scenarios]``.

    Each permutation depends on the seed, the scenario id and the opponent's name, so it is the same in any tournament
    with this grid.
    """
    return np.stack([grid[order] for order in _permutations(plan.opponents, len(grid), games)])


def _permutations(opponents: Sequence[str], n: int, games: Scenarios) -> Iterator[NDArray[np.intp]]:
    for name in opponents:
        place = zlib.crc32(name.encode()) & 0xFFFFFF
        keys = rng.uniform(games.seed, games.id, turn=place, stream=Stream.PAIRING, n=n)
        yield np.argsort(keys, axis=1, kind="stable").T
