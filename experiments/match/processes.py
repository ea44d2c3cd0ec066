"""Worker processes, each with a pipe of its own: spawned, deaf to Ctrl-C, and gone as soon as who started them is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from typing import Any

from .shard_player import HiredPlayer, Order


class Processes:
    """Workers of this machine.

    Args:
        job: what they play.
        count: how many.
    """

    def __init__(self, job: Order, count: int) -> None:
        # Forked, they would share the state of torch's threads, which does not survive it.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._workers = []
        self._busy: set[int] = set()
        for _ in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(theirs, job), daemon=True)
            worker.start()
            theirs.close()  # or the pipe would not end when the worker does
            self._pipes.append(ours)
            self._workers.append(worker)

    def ask(self, worker: int, number: int) -> None:
        """Have ``worker`` play shard ``number``; that it has died meanwhile is told by `answers`."""
        self._busy.add(worker)
        with contextlib.suppress(OSError):
            self._pipes[worker].send(number)

    def answers(self) -> list[tuple[int, Any]]:
        """Wait for busy workers."""
        ready = wait([self._pipes[worker] for worker in self._busy])
        return [(worker, self._answer(worker)) for worker in sorted(self._busy) if self._pipes[worker] in ready]

    def _answer(self, worker: int) -> Any:
        self._busy.discard(worker)
        try:
            return self._pipes[worker].recv()
        except (EOFError, OSError):
            process = self._workers[worker]
            process.join()
            code = process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            if code == -signal.SIGKILL:
                how += ", as when memory runs out"
            return f"process {process.pid}, {how}"

    def stop(self) -> None:
        """Kill all."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()


def _serve(pipe: Connection, job: Order) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to everybody; who started us decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    player = HiredPlayer(job)
    with contextlib.suppress(EOFError, OSError):  # nobody is at the other end any more
        while True:
            pipe.send(player.play(pipe.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
