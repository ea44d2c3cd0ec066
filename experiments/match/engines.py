"""Who plays the shards: this process, worker processes, or Ray. All of them give the same bytes for the same shard."""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal, Protocol

from .processes import Processes
from .ray_actors import RayActors
from .shard_player import Failed, Order, Player

Engine = Literal["process", "ray"]
Warn = Callable[[str], None]


class WorkersDiedError(RuntimeError):
    """No worker is left."""


class Crew(Protocol):
    """Workers that play one shard at a time."""

    def ask(self, worker: int, number: int) -> None:
        """Have ``worker``, which is idle, play shard ``number``.

        Raises:
            ConnectionError: it has died.
        """

    def answers(self) -> list[tuple[int, Any]]:
        """Wait until something is known of a busy worker: what it played, or in words how it died."""

    def stop(self) -> None:
        """End all workers, busy ones too."""


def play(
    player: Player,
    job: Order,
    numbers: Sequence[int],
    workers: int,
    engine: Engine,
    warn: Warn,
    ahead: int | None = None,
) -> Generator[Any, None, None]:
    """Play shards, in the order of ``numbers`` or nearly so; each is yielded when it is finished.

    Args:
        player: of this process.
        job: the same for others.
        numbers: of the shards.
        workers: how many play at once; one process worker is this process itself.
        engine: who they are.
        warn: told of a worker that died.
        ahead: how far from the earliest shard that is not finished another may be begun, where ``numbers`` rise: so many at
            most need be kept by who wants them in order.

    Raises:
        InputError: Ray is wanted and not installed.
        WorkersDiedError: none is left to go on.
    """
    if engine == "process" and workers == 1:
        yield from map(player.play, numbers)
    elif numbers:
        count = min(workers, len(numbers))
        crew: Crew = Processes(job, count) if engine == "process" else RayActors(job, count)
        try:
            yield from _drive(crew, count, numbers, player.shards, warn, ahead)
        finally:
            crew.stop()


def _drive(
    crew: Crew, workers: int, numbers: Sequence[int], shards: Sequence[Any], warn: Warn, ahead: int | None = None
) -> Iterator[Any]:
    """Hand out shards. One whose worker died is tried once more by another; nobody takes the dead one's place.

    What killed it was most likely the machine's want of memory, which fewer workers need less of.
    """
    todo, idle = collections.deque(numbers), collections.deque(range(workers))
    busy: dict[int, int] = {}
    lost: collections.Counter[int] = collections.Counter()
    while todo or busy:
        while todo and idle and (ahead is None or todo[0] < min(busy.values(), default=todo[0]) + ahead):
            worker = idle.popleft()
            busy[worker] = todo.popleft()
            crew.ask(worker, busy[worker])
        if not busy:
            raise WorkersDiedError(f"all {workers} workers died; {len(todo)} shards are left")
        for worker, answer in crew.answers():
            number = busy.pop(worker)
            if isinstance(answer, Failed):
                raise answer.error
            if not isinstance(answer, str):
                idle.append(worker)
                yield answer
                continue
            lost[number] += 1
            warn(f"worker {worker} died ({answer}) while playing {shards[number]}")
            if lost[number] > 1:
                raise WorkersDiedError(f"two workers died while playing {shards[number]}")
            todo.appendleft(number)
