"""The bus by which memories reach a model, and its channel for adapters: routed and loaded before a generation, released
after it.

>>> bus = MemoryBus()
>>> manager, router = await setup_weight_interface(bus, model, registry)
>>> async with bus.injecting(InjectionChannel.DYNAMIC_LORA, memories):
...     model.generate(...)                 # under the adapters that the memories call for, or the base model
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bargain_env.errors import InputError

from .async_manager import succeeds
from .embedding import EmbeddingClient
from .errors import NoRoom, ServerError
from .manager import AdapterManager
from .registry import AdapterRegistry
from .router import AdapterRouter

logger = logging.getLogger(__name__)

Handler = Callable[[Sequence[Any]], Awaitable[Any]]
"""From memory vectors to a context for the generation that follows, or None."""


class InjectionChannel(enum.Enum):
    """How a memory may change what a model does."""

    DYNAMIC_LORA = "dynamic_lora"
    """Through its weights, by adapters."""


class MemoryBus:
    """Hands memories to the handlers of a channel."""

    def __init__(self) -> None:
        self._handlers: dict[InjectionChannel, list[Handler]] = {}

    def register_handler(self, channel: InjectionChannel, handler: Handler) -> None:
        """Add a handler; those of a channel are called in the order they came.

        Raises:
            InputError: not a channel, or the handler cannot be called.
        """
        if not isinstance(channel, InjectionChannel) or not callable(handler):
            raise InputError(f"register_handler takes an InjectionChannel and a coroutine function; got {channel!r}")
        self._handlers.setdefault(channel, []).append(handler)

    @contextlib.asynccontextmanager
    async def injecting(self, channel: InjectionChannel, memories: Sequence[Any]) -> AsyncIterator[None]:
        """Within the block, what the handlers of ``channel`` made of the memories is in force in this task.

        A channel without handlers changes nothing. Threads that ``asyncio.to_thread`` starts in the block see it too.
        """
        with contextlib.ExitStack() as stack:
            for handler in self._handlers.get(channel, ()):
                context = handler(memories)
                context = await context if inspect.isawaitable(context) else context
                if context is not None:
                    stack.enter_context(context)
            yield


class DynamicLoRA:
    """Handler of `InjectionChannel.DYNAMIC_LORA`: routes the memories' text and loads what it calls for.

    Where nothing can be routed to or loaded, the base model answers: that is counted in `counts`, and each reason is
    logged once.

    Args:
        manager: of the model.
        router: reads text; with another ``read`` whatever that gives.
        min_confidence: adapters with less are left out.
        top_k: adapters at once.
        read: the router's query from the memories; by default the first hundred characters of the first three
            ``source_text``, as in the seed report.

    Attributes:
        counts: requests, served (with adapters), base (without), failed (an adapter could not be loaded, or let go).
    """

    def __init__(
        self,
        manager: AdapterManager,
        router: AdapterRouter,
        *,
        min_confidence: float = 0.5,
        top_k: int = 2,
        read: Callable[[Sequence[Any]], Any] | None = None,
    ) -> None:
        if not 0.0 <= min_confidence <= 1.0:
            raise InputError(f"min_confidence {min_confidence} must lie in [0, 1]")
        self._manager, self._router = manager, router
        self._min_confidence, self._top_k, self._read = min_confidence, top_k, read or first_texts
        self.counts: Counter[str] = Counter(requests=0, served=0, base=0, failed=0)
        self._said: set[str] = set()
        self._open: Counter[str] = Counter()  # requests under way by the adapters that they have made active
        self._lock = threading.Lock()

    async def __call__(self, memories: Sequence[Any]) -> AbstractContextManager[tuple[str, ...]] | None:
        """Load what the memories call for and make it active at its confidence.

        Returns:
            A context in which a generation runs under these adapters and none of another request; on leaving it they are no
            longer active, and stay in memory for the next request until room is needed. None where the base answers.
        """
        self.counts["requests"] += 1
        wanted = {name: c for name, c in await self._routed(memories) if c >= self._min_confidence}
        loaded: dict[str, float] = {}
        opened: list[str] = []
        try:
            for name, confidence in wanted.items():
                if self._opens(name):
                    opened.append(name)
                    if not await self._load(name, confidence):
                        self.counts["failed"] += 1
                        self._close([opened.pop()])
                        continue
                loaded[name] = confidence
        except BaseException:  # cancelled, or an error that nobody foresaw: no request is left to close them
            self._close(opened)
            raise
        self.counts["served" if loaded else "base"] += 1
        return self._request(loaded, opened) if loaded else None

    async def _routed(self, memories: Sequence[Any]) -> Sequence[tuple[str, float]]:
        try:
            return await self._router.route(self._read(memories), self._top_k) if memories else []
        except (InputError, NoRoom, ServerError, OSError) as error:
            self._fail(error)
            return []

    async def _load(self, name: str, scaling: float) -> bool:
        """`AdapterManager.load_adapter`, ended only once its thread has: what that makes active can then be closed."""
        done = asyncio.get_running_loop().run_in_executor(None, succeeds, self._manager.load, name, scaling)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            while not done.done():
                with contextlib.suppress(asyncio.CancelledError):  # a second one, while the thread still works
                    await asyncio.wait([done])
            raise

    @contextlib.contextmanager
    def _request(self, loaded: dict[str, float], opened: list[str]) -> Iterator[tuple[str, ...]]:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close, opened)
            try:
                names = stack.enter_context(self._manager.serving(loaded))
            except (InputError, NoRoom, ServerError, OSError) as error:  # evicted since, and no room to come back
                self._fail(error)
                self.counts.update(served=-1, base=1)
                names = stack.enter_context(self._manager.serving({}))
            yield names

    def _opens(self, name: str) -> bool:
        """Whether ``name`` is this handler's to activate: not where somebody else has made it active."""
        with self._lock:
            if not self._open[name] and name in self._manager.get_active_adapters():
                return False
            self._open[name] += 1
            return True

    def _close(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self._open[name] -= 1
                if self._open[name]:
                    continue
                del self._open[name]
                try:
                    self._manager.deactivate(name)
                except (InputError, ServerError, OSError) as error:  # the answer was given, and the others must close
                    self._fail(error, f"{name!r} stays active")

    def _fail(self, error: Exception, what: str = "the base model answers") -> None:
        self.counts["failed"] += 1
        if str(error) not in self._said:
            self._said.add(str(error))
            logger.error("%s: %s", what, error)


def first_texts(memories: Sequence[Any]) -> str:
    """The seed report's query: a hundred characters of each of the first three memories."""
    return " ".join(memory.source_text[:100] for memory in memories[:3])


async def setup_weight_interface(
    bus: Any,
    backend: Any,
    registry: AdapterRegistry,
    embedding_client: EmbeddingClient | None = None,
    *,
    method: str = "embedding",
    min_confidence: float = 0.5,
    limit_bytes: int | None = None,
) -> tuple[AdapterManager, AdapterRouter]:
    """Wire manager, router and handler to a bus.

    Args:
        bus: has ``register_handler(channel, handler)``.
        backend: a model or a server; see `AdapterManager`.
        registry: of the adapters; it may be empty, and is then skipped.
        embedding_client: of the router.
        method: of the router.
        min_confidence: see `DynamicLoRA`.
        limit_bytes: see `AdapterManager`.

    Returns:
        The manager and the router.
    """
    manager = AdapterManager(backend, registry, limit_bytes=limit_bytes)
    router = AdapterRouter(registry, embedding_client, method)
    await router.initialize_domain_embeddings()
    bus.register_handler(InjectionChannel.DYNAMIC_LORA, DynamicLoRA(manager, router, min_confidence=min_confidence))
    return manager, router
