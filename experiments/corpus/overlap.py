"""Work beside the caller's: a thread that makes what is needed next, and one that finishes what was handed over.

NumPy and Arrow let go of Python's lock while they compute, read, compress and write, so threads overlap there. Order is
kept: each thread does one thing after another. Errors arrive in the caller.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
    """The items, made in a thread before they are asked for.

    Closing it, at whatever item, closes ``items`` and ends the thread.

    Args:
        items: what to make; it runs in that thread alone, but for its end.
        most: how many wait at once; 0 for none, and no thread.
    """
    with contextlib.closing(items):
        if not most:
            yield from items
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        try:
            waiting = collections.deque(thread.submit(next, items, _END) for _ in range(most))
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)  # waits for the item that is being made


@contextlib.contextmanager
def behind(most: int) -> Iterator[Callable[..., None]]:
    """Hand work over to a thread, which has done all of it when the block ends.

    Yields:
        ``do(work, *arguments)``, which waits while too much is waiting.

    Args:
        most: how many pieces of work wait at once; 0 for none, and no thread.

    Raises:
        Exception: whatever a piece of work raised, from a later ``do`` or at the end of the block.
    """
    if not most:
        yield lambda work, *arguments: work(*arguments)
        return
    thread, waiting = ThreadPoolExecutor(1, thread_name_prefix="behind"), collections.deque[Future[Any]]()

    def do(work: Callable[..., Any], *arguments: Any) -> None:
        while len(waiting) >= most:
            waiting.popleft().result()
        waiting.append(thread.submit(work, *arguments))

    try:
        yield do
        while waiting:
            waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
