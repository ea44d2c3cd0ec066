"""Playing one shard, in this process or in another: from its number to the bytes of its file."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bargain_env.errors import InputError

from .arena import Plan, Shard, play_shard, shards, teams
from .contestants import Contestant
from .identity import Identity
from .live import Tally, tally
from .store import encode

Recipe = Callable[[], tuple[Sequence[Contestant], Plan]]
"""Makes contestants and plan anew. For workers it must be picklable, as a function of a module with its arguments is."""


class Player(Protocol):
    """Plays shards of something that is played in shards: a tournament, a collection."""

    @property
    def shards(self) -> Sequence[Any]:
        """All there are, each of which says what it is when it is made a text."""

    def play(self, number: int) -> Any:
        """The shard of that number, in a form that can go from one process to another."""


class Order(Protocol):
    """All that a worker is told, picklable."""

    def player(self) -> Player:
        """Who does it."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker of a tournament is told.

    Attributes:
        recipe: who plays what.
        identity: of the tournament.
        plan: what the recipe is to give.
        shards: what is to follow from it.
    """

    recipe: Recipe
    identity: Identity
    plan: Plan
    shards: Sequence[Shard]

    def player(self) -> ShardPlayer:
        """A player of the recipe.

        Raises:
            InputError: the recipe gives something else here.
        """
        made = ShardPlayer(*self.recipe(), self.identity)
        if (made.plan, list(made.shards)) != (self.plan, list(self.shards)):
            raise InputError(
                "a worker understands the settings otherwise; a --plugin must do the same each time, and the code must stay"
            )
        return made


@dataclass(frozen=True, slots=True)
class Finished:
    """A shard that was played.

    Attributes:
        number: of the shard.
        content: its file.
        found: what a scoreboard counts of it.
    """

    number: int
    content: bytes
    found: list[Tally]


@dataclass(frozen=True, slots=True)
class Failed:
    """A shard that could not be played, for a reason that the next attempt would meet too.

    Attributes:
        error: to be raised where the tournament is run.
    """

    error: Exception


class ShardPlayer:
    """Plays any shard of a plan.

    Args:
        players: the contestants.
        plan: what they play.
        identity: of the tournament.
    """

    def __init__(self, players: Sequence[Contestant], plan: Plan, identity: Identity) -> None:
        self.plan, self.identity = plan, identity
        self.teams, self.shards = teams(players), shards(players, plan)

    def play(self, number: int) -> Finished:
        """The shard of that number."""
        shard = self.shards[number]
        table = play_shard(self.teams[shard.team], self.plan, shard)
        return Finished(number, encode(table, self.identity.of(shard)), tally(table))


class HiredPlayer:
    """A player for another process: it makes its contestants at the first shard, and tells errors as a result.

    Args:
        job: what to play.
    """

    def __init__(self, job: Order) -> None:
        self._job = job
        self._player: Player | None = None

    def play(self, number: int) -> Any:
        """The shard of that number, or `Failed`."""
        try:
            if self._player is None:
                self._player = self._job.player()
            return self._player.play(number)
        except Exception as error:
            return Failed(_portable(error))


def _portable(error: Exception) -> Exception:
    """``error`` where it is the user's, otherwise its traceback, which would be lost on the way."""
    if isinstance(error, (InputError, OSError)):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(str(error))
        return error
    return RuntimeError(f"in a worker:\n{''.join(traceback.format_exception(error))}")
