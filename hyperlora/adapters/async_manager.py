"""The seed report's coroutines: what a manager does, without blocking the event loop, answered with True or False."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from bargain_env.errors import InputError

from .errors import NoRoom, ServerError

logger = logging.getLogger(__name__)


class AsyncCalls:
    """Adds the coroutines to a manager; each runs the plain form in a thread and logs what that raises."""

    @abstractmethod
    def load(self, name: str, scaling: float = 1.0) -> Any:
        """See `AdapterManager.load`."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """See `AdapterManager.unload`."""

    @abstractmethod
    def swap(self, old: str, new: str, scaling: float = 1.0) -> Any:
        """See `AdapterManager.swap`."""

    async def load_adapter(self, adapter_name: str, scaling: float = 1.0) -> bool:
        """`load`; False where it failed, and everything is as it was."""
        return await asyncio.to_thread(succeeds, self.load, adapter_name, scaling)

    async def unload_adapter(self, adapter_name: str) -> bool:
        """`unload`; False where it failed."""
        return await asyncio.to_thread(succeeds, self.unload, adapter_name)

    async def swap_adapter(self, old_name: str, new_name: str, scaling: float = 1.0) -> bool:
        """`swap`; False where it failed, and ``old_name`` is served as before."""
        return await asyncio.to_thread(succeeds, self.swap, old_name, new_name, scaling)


def succeeds(call: Callable[..., Any], *arguments: Any) -> bool:
    """Whether ``call`` did not fail in one of the ways that a manager's calls fail."""
    try:
        call(*arguments)
    except (InputError, NoRoom, ServerError, OSError) as error:
        logger.debug("%s%s: %s", call.__name__, arguments, error)
        return False
    return True
