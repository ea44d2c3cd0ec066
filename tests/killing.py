"""Processes that are killed (SIGKILL) at a chosen event; for killed_training.py and killed_tournament.py.

Children are forked after the imports, before anything has computed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any


class Trap:
    """Counts what a run does and kills the process at the ``at``-th event."""

    def __init__(self, at: int | None) -> None:
        self.at, self.names = at, list[str]()

    def event(self, name: str) -> None:
        """Something happens now."""
        self.names.append(name)
        if len(self.names) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, holder: Any, name: str) -> None:
        """Make every call of ``holder.name`` an event before it and one after it."""
        inner: Callable[..., Any] = getattr(holder, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.event(f"before {name}")
            result = inner(*args, **kwargs)
            self.event(f"after {name}")
            return result

        setattr(holder, name, watched)


def forked(run: Callable[[], Any], must_end: bool) -> Any:
    """What ``run`` returns in a fork, as JSON carries it; None if it was killed.

    Raises:
        SystemExit: it ``must_end`` by itself, and did not.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        found = run()
        with os.fdopen(write, "w") as out:
            json.dump(found, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    _, status = os.waitpid(pid, 0)
    if must_end and status != 0:
        raise SystemExit(f"a run that nobody killed ended with {status}")
    return json.loads(text) if text else None
