"""Which adapters are in memory, in the order of their use, and who must go to make room. Bookkeeping alone.

Not locked: the manager holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .errors import NoRoom
from .spec import AdapterSpec
from .weights import AdapterWeights


class Sized(Protocol):
    """Anything that knows the bytes of memory it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        ...


W = TypeVar("W", bound=Sized)


@dataclass(slots=True, eq=False)
class Resident(Generic[W]):
    """An adapter in memory.

    Attributes:
        spec: what it is.
        weights: its tensors.
        pinned: never evicted.
        leases: how many hold it now; a leased adapter is not evicted, and one that was unloaded stays until the last ends.
    """

    spec: AdapterSpec
    weights: W
    pinned: bool = False
    leases: int = 0


class Residents(Generic[W]):
    """Adapters in memory, least recently used first, within a number and a number of bytes.

    Args:
        max_loaded: adapters at once.
        limit_bytes: of all their weights; None for no limit.

    Attributes:
        leaving: unloaded or replaced, and still leased. They count until their last lease ends.
    """

    def __init__(self, max_loaded: int, limit_bytes: int | None = None) -> None:
        self.max_loaded, self.limit_bytes = max_loaded, limit_bytes
        self._by_name: OrderedDict[str, Resident[W]] = OrderedDict()
        self.leaving: list[Resident[W]] = []

    def __iter__(self) -> Iterator[Resident[W]]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Resident[W] | None:
        """The one called ``name``; not a use."""
        return self._by_name.get(name)

    def touch(self, name: str) -> None:
        """``name`` is used now."""
        self._by_name.move_to_end(name)

    @property
    def nbytes(self) -> int:
        """Bytes of all, those that are leaving included."""
        return sum(held.weights.nbytes for held in (*self, *self.leaving))

    def make_way(self, spec: AdapterSpec, nbytes: int, instead_of: str | None = None) -> list[str]:
        """Who must go before ``spec`` fits, least recently used first; changes nothing.

        Args:
            spec: what shall come; it takes the place of an adapter of its name.
            nbytes: of its weights.
            instead_of: another that goes in any case.

        Raises:
            NoRoom: too many are leased or pinned, or it is larger than the limit alone.
        """
        if self.limit_bytes is not None and nbytes > self.limit_bytes:
            raise NoRoom(f"{spec.name!r} has {nbytes} bytes, the limit is {self.limit_bytes}; raise limit_bytes")
        going = {spec.name, instead_of}
        staying = [held for held in (*self, *self.leaving) if held.spec.name not in going or held.leases]
        count, total = len(staying) + 1, sum(held.weights.nbytes for held in staying) + nbytes
        victims: list[str] = []
        for held in self:
            if not self._exceeds(count, total):
                break
            if held.spec.name not in going and not held.leases and not held.pinned:
                victims.append(held.spec.name)
                count, total = count - 1, total - held.weights.nbytes
        if self._exceeds(count, total):
            raise NoRoom(self._complaint(spec, staying, victims))
        return victims

    def _exceeds(self, count: int, total: int) -> bool:
        return count > self.max_loaded or (self.limit_bytes is not None and total > self.limit_bytes)

    def _complaint(self, spec: AdapterSpec, staying: list[Resident[W]], victims: list[str]) -> str:
        kept = sorted({held.spec.name for held in staying} - set(victims))
        limit = f"{self.max_loaded} adapters" + (
            f" and {self.limit_bytes} bytes" if self.limit_bytes is not None else ""
        )
        return (
            f"no room for {spec.name!r} within {limit}: {', '.join(kept)} are leased or pinned; end a lease, unpin one, "
            "or raise the limit"
        )

    def put(self, held: Resident[W]) -> None:
        """Add an adapter as the most recently used; one of its name leaves, and its pin passes on."""
        old = self._by_name.pop(held.spec.name, None)
        if old is not None:
            held.pinned = old.pinned
            self._let_go(old)
        self._by_name[held.spec.name] = held

    def put_first(self, held: Resident[W]) -> None:
        """Add one again that was removed, as the least recently used; there is none of its name."""
        if held in self.leaving:
            self.leaving.remove(held)
        self._by_name[held.spec.name] = held
        self._by_name.move_to_end(held.spec.name, last=False)

    def remove(self, name: str) -> Resident[W]:
        """Take ``name`` out; while it is leased it is leaving."""
        held = self._by_name.pop(name)
        self._let_go(held)
        return held

    def _let_go(self, held: Resident[W]) -> None:
        if held.leases:
            self.leaving.append(held)

    def lease(self, held: Resident[W]) -> None:
        """One more holds it; a use."""
        held.leases += 1
        self.touch(held.spec.name)

    def end_lease(self, held: Resident[W]) -> None:
        """One less holds it; the last one of a leaving adapter frees it."""
        held.leases -= 1
        if not held.leases and held in self.leaving:
            self.leaving.remove(held)


def described(held: Resident[AdapterWeights]) -> dict[str, Any]:
    """An adapter in memory, JSON-ready."""
    spec, weights = held.spec, held.weights
    return {
        "name": spec.name,
        "kind": spec.kind,
        "domain": spec.domain,
        "digest": spec.digest,
        "rank": weights.rank or spec.rank,
        "bytes": weights.nbytes,
        "leases": held.leases,
        "pinned": held.pinned,
        "base_checked": spec.base_digest is not None,
    }
