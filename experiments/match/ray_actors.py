"""Workers of a Ray cluster, or of a Ray that is started on this machine for the length of the run.

An existing cluster is used where ``RAY_ADDRESS`` names one. Each worker needs this package and what the agents are made of
(adapters, plugins) under the same paths; results come back over the network, no shared folder is needed.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from bargain_env.errors import InputError

from .shard_player import HiredPlayer, Order


class RayActors:
    """Ray actors, one CPU each.

    Args:
        job: what they play.
        count: how many.

    Raises:
        InputError: Ray is not installed.
    """

    def __init__(self, job: Order, count: int) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise InputError(
                "--engine ray needs Ray; install it with pip install 'bargain-lab[ray]', or use --engine process"
            ) from error
        self._ray = ray
        self._own = not ray.is_initialized()
        if self._own:
            here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": count, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level="ERROR", **here)
        # Threads are the settings' business, not Ray's: it would set OMP_NUM_THREADS where the user has not.
        threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
        remote = ray.remote(num_cpus=1, max_restarts=0, runtime_env={"env_vars": threads})(HiredPlayer)
        self._actors = [remote.remote(job) for _ in range(count)]
        self._busy: dict[Any, int] = {}

    def ask(self, worker: int, number: int) -> None:
        """Have ``worker`` play shard ``number``."""
        self._busy[self._actors[worker].play.remote(number)] = worker

    def answers(self) -> list[tuple[int, Any]]:
        """Wait for busy workers."""
        ready, _ = self._ray.wait(list(self._busy), num_returns=1)
        return [(self._busy.pop(reference), self._answer(reference)) for reference in ready]

    def _answer(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            return " ".join(str(error).split())[:200]

    def stop(self) -> None:
        """End all, and the Ray that was started for them."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()
