"""Tournament play: every agent meets the same opponents in the same scenarios, from either seat, at every ρ.

Pairing costs nothing here. A scenario, and every random number that anybody draws in it, is a function of (seed,
scenario id, seat, turn); so two agents, or one agent at two ρ, face the same limits and an opponent with the same luck.
Even scenario ids start with the buyer and odd ones with the seller: both starters are in every cell.

Games are played in blocks of a size that the plan alone determines. Scripted results do not depend on it at all; a
language model's logits may differ in the last bit between batch shapes, so its results are reproducible because the
shapes are. A plan is cut into shards, each of some blocks: a shard's games are a function of contestants, plan and shard,
whoever plays them, where and when.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env import Policy, Preset, RoutedPolicy, Scenarios, Seat, Trajectories, play, rng, sample
from bargain_env.errors import InputError
from bargain_env.rng import Stream

from . import opponents, results
from .arms import JanusOptions
from .contestants import Contestant
from .results import Cell

Floats = NDArray[np.float64]

BLOCK_ROWS = 512
"""Games of one batch; fewer where a block of whole scenarios does not fill it."""
SCRIPT_ROWS = 65536
"""The same where agents, all in one batch, and opponents are scripts."""
MOST_SHARDS = 64
"""Of one team at one seat. A shard is one block until there are more of them than this: then it is several."""
MOST_GAMES = 10**9
"""Of a cell: ids number them with nine digits, and are sorted as text."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every contestant plays.

    Attributes:
        opponents: names, see `experiments.match.opponents`.
        rho: requested ρ of the agents that take one, by seat, each in [0, 1] or -1; see `same_grid`.
        games: scenarios; each is one game of every cell.
        seats: where the agents sit.
        preset: where scenarios come from.
        seed: run seed.
        max_turns: moves of both seats together.
        janus: how opponents that are Januses play.

    Raises:
        InputError: a value is out of its range.
    """

    opponents: tuple[str, ...]
    rho: Mapping[Seat, tuple[float, ...]]
    games: int
    seats: tuple[Seat, ...]
    preset: Preset
    seed: int = 0
    max_turns: int = 20
    janus: JanusOptions = field(default_factory=JanusOptions)

    def __post_init__(self) -> None:
        for name, low, high in (("games", 1, MOST_GAMES), ("seed", 0, 2**63 - 1), ("max_turns", 1, 2**15 - 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"--{name} {value} is outside [{low}, {high}]; choose another")

    def scenarios(self, first: int, count: int) -> Scenarios:
        """``count`` of the games, from number ``first`` on."""
        return sample(self.preset.name, count, seed=self.seed, first_id=first, max_turns=self.max_turns)

    def requests(self, contestant: Contestant, seat: Seat) -> tuple[float, ...]:
        """ρ that ``contestant`` is asked for at ``seat``; NaN stands for its only pass where it takes none."""
        return self.rho[seat] if contestant.takes_rho else (float("nan"),)

    def rows(self, contestant: Contestant) -> int:
        """Games that ``contestant`` plays, over all seats."""
        return sum(len(self.requests(contestant, seat)) for seat in self.seats) * len(self.opponents) * self.games


def same_grid(rho: Iterable[float]) -> dict[Seat, tuple[float, ...]]:
    """`Plan.rho` that asks both seats for the same ρ."""
    return dict.fromkeys(Seat, tuple(rho))


def check(contestants: Sequence[Contestant], plan: Plan) -> None:
    """Refuse what could not be played as it is meant.

    Raises:
        InputError: the shuffled control with fewer than two ρ at a seat, where it could permute nothing, or a name that
            would tangle the ids of episodes.
    """
    for name in (*(contestant.label for contestant in contestants), *plan.opponents):
        if "|" in name:
            raise InputError(f"{name!r} holds a '|', which parts the fields of an episode's id; rename it")
    if any(c.shuffled for c in contestants) and min(len(plan.rho[seat]) for seat in plan.seats) < 2:
        raise InputError("agent 'shuffled' permutes the rho grid and needs at least two values in --rho")


Team = Sequence[Contestant]
"""Contestants that play in one batch, side by side: one alone, or scripts."""


def teams(contestants: Sequence[Contestant]) -> list[Team]:
    """All contestants in order, scripts that follow each other as one team."""
    found: list[Team] = []
    for scripted, neighbours in itertools.groupby(contestants, key=lambda c: c.scripted):
        some = list(neighbours)
        found += [some] if scripted else [[contestant] for contestant in some]
    return found


@dataclass(frozen=True, slots=True)
class Shard:
    """Games that are played, kept and lost together: those of a team at a seat in some scenarios.

    Attributes:
        team: its number in `teams`.
        seat: where it sits.
        first: number of the first scenario.
        count: scenarios.
        block: scenarios of one batch; the last may have fewer.
    """

    team: int
    seat: Seat
    first: int
    count: int
    block: int

    def __str__(self) -> str:
        return f"team {self.team} as {self.seat.label}, scenarios {self.first} to {self.first + self.count - 1}"


def shards(contestants: Sequence[Contestant], plan: Plan) -> list[Shard]:
    """The whole plan, in the order in which it is played: by team, seat, scenario."""
    found = []
    for number, team in enumerate(teams(contestants)):
        for seat in plan.seats:
            block = _scenarios_in_block(plan, team, seat)
            size = block * math.ceil(math.ceil(plan.games / block) / MOST_SHARDS)
            for first in range(0, plan.games, size):
                found.append(Shard(number, seat, first, min(size, plan.games - first), block))
    return found


def run_tournament(
    contestants: Sequence[Contestant], plan: Plan, observe: Callable[[pa.Table], None] | None = None
) -> pa.Table:
    """Play ``plan`` with every contestant, in memory.

    Args:
        contestants: the agents; labels differ.
        plan: what they play.
        observe: called with the rows of each shard, for progress.

    Returns:
        One row a game, `results.SCHEMA`, sorted by ``episode_id``.

    Raises:
        InputError: see `check`.
    """
    check(contestants, plan)
    tables, all_teams = [], teams(contestants)
    for shard in shards(contestants, plan):
        tables.append(play_shard(all_teams[shard.team], plan, shard))
        if observe:
            observe(tables[-1])
    return results.ordered(tables)


def play_shard(team: Team, plan: Plan, shard: Shard) -> pa.Table:
    """Its games: `results.SCHEMA`, sorted by ``episode_id``; each of the `cells` has a row for each scenario."""
    grid = cells(team, plan, shard.seat)
    blocks = [results.table(played, grid, which) for played, which in play_blocks(team, plan, shard)]
    return blocks[0] if len(blocks) == 1 else results.by_cell(blocks, len(grid))


def play_blocks(team: Team, plan: Plan, shard: Shard) -> Iterator[tuple[Trajectories, NDArray[np.intp]]]:
    """The games of each of its blocks, and to which of the `cells` they belong."""
    grid, end = cells(team, plan, shard.seat), shard.first + shard.count
    for first in range(shard.first, end, shard.block):
        yield _play_block(team, plan, grid, plan.scenarios(first, min(shard.block, end - first)))


def cells(team: Team, plan: Plan, seat: Seat) -> list[Cell]:
    """Every combination of agent, ρ and opponent at ``seat``, in the order of their ids."""
    found = [
        Cell(contestant.label, seat, rho, name, opponents.split(name))
        for contestant in team
        for rho in plan.requests(contestant, seat)
        for name in plan.opponents
    ]
    return sorted(found, key=lambda cell: cell.prefix.encode())


def _scenarios_in_block(plan: Plan, team: Team, seat: Seat) -> int:
    rows = sum(len(plan.requests(contestant, seat)) for contestant in team) * len(plan.opponents)
    cheap = team[0].scripted and not any(":" in name or opponents.at_rho(name) for name in plan.opponents)
    return max(1, (SCRIPT_ROWS if cheap else BLOCK_ROWS) // rows)


def _play_block(
    team: Team, plan: Plan, grid: Sequence[Cell], games: Scenarios
) -> tuple[Trajectories, NDArray[np.intp]]:
    """A team in ``games``, ordered by cell, scenario; and the cell of each."""
    seat = grid[0].seat
    which, scenario = (index.ravel() for index in np.indices((len(grid), len(games))))
    labels = {contestant.label: k for k, contestant in enumerate(team)}
    names = {name: k for k, name in enumerate(plan.opponents)}
    member = np.array([labels[cell.agent] for cell in grid])[which]
    opponent = np.array([names[cell.opponent] for cell in grid])[which]
    given = np.array([cell.rho for cell in grid])[which]
    if team[0].shuffled:
        requests = np.array(plan.requests(team[0], seat))
        place = np.array([np.flatnonzero(requests == cell.rho)[0] for cell in grid])[which]
        given = _shuffle(plan, requests, games)[opponent, place, scenario]
    played = _seat(
        games.take(scenario),
        seat,
        _seated(team, member, given, plan),
        opponents.seated(plan.opponents, opponent, plan.preset, plan.janus),
    )
    return played, which


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
