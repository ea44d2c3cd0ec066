"""Adapters in memory: loaded, checked, served to many threads, swapped, evicted. The model's own weights are never written.

An adapter is *loaded* while its weights are in memory, and *active* while it has a scaling and so takes part in
`serving`. A pass runs under what was bound when it began (`hyperlora.adapters.rows`): the tensors of an adapter do not
change, so loads, swaps and evictions in other threads reach the next pass and never this one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bargain_env.errors import InputError

from ..inject import TARGET_MODULES
from .async_manager import AsyncCalls
from .backends import backend_of
from .errors import NoRoom, ServerError
from .made import adopted_spec, finite, fused_spec
from .registry import AdapterRegistry
from .residents import Resident, Residents, described
from .spec import AdapterSpec, Parent
from .weights import AdapterWeights, Pair, fuse_weights

logger = logging.getLogger(__name__)

FAILURES = 100
"""Names whose last failure `AdapterManager.status` tells; a name that nobody has may be asked for too."""


class AdapterManager(AsyncCalls):
    """The adapters of one model. Every method may be called from any thread.

    Each operation has the seed's coroutine, which returns whether it succeeded and logs why not, and a plain form, which
    raises: `load_adapter` and `load`, `unload_adapter` and `unload`, `swap_adapter` and `swap`.

    Room is made by evicting what was used least recently; a load, a lease and a pass are uses. What is pinned or leased
    stays, and where nothing may go, `NoRoom` is raised: nobody waits for anybody. An adapter is read and checked before
    anything changes, so that a load that fails leaves everything as it was.

    Args:
        backend: a model, or a server (see `hyperlora.adapters.backends`).
        registry: where adapters are looked up; its ``max_loaded`` is the largest number in memory.
        limit_bytes: of all weights in memory; None for no limit. While an adapter is read, its own bytes come on
            top; so do, for the length of a block, the stack of `serving_rows` and the sum that `serving` makes of several.
        target_modules: suffixes of the layers of a model that can be adapted.
    """

    def __init__(
        self,
        backend: Any,
        registry: AdapterRegistry,
        *,
        limit_bytes: int | None = None,
        target_modules: Sequence[str] = TARGET_MODULES,
    ) -> None:
        if limit_bytes is not None and limit_bytes < 1:
            raise InputError(f"limit_bytes {limit_bytes} must be at least 1: no adapter could be loaded")
        self._backend, self._registry = backend_of(backend, target_modules), registry
        self._residents: Residents[AdapterWeights] = Residents(registry.max_loaded, limit_bytes)
        self._active: Mapping[str, float] = {}  # replaced as a whole, never changed
        self._lock = threading.RLock()  # around all of the above; never held while a file is read
        self._loading = threading.RLock()  # one adapter is read at a time
        self._counts: Counter[str] = Counter()
        self._failures: dict[str, str] = {}

    @property
    def model(self) -> Any:
        """The model that is served; raises `InputError` where that is a server's."""
        model = getattr(self._backend, "model", None)
        if model is None:
            raise InputError("this manager serves no model of this process; give it a model instead of a server")
        return model

    # ---- loading

    def load(self, name: str, scaling: float = 1.0) -> AdapterSpec:
        """Load ``name`` if it is not, and make it active at ``scaling``.

        Raises:
            InputError: no such adapter, its files are unusable, or it does not fit the model.
            NoRoom: see the class.
            ServerError: the server refused.
        """
        return self._bring(name, scaling=finite(scaling)).spec

    def unload(self, name: str) -> None:
        """Forget ``name``. Passes under way end with it, and its memory is freed when the last of them does.

        Raises:
            InputError: it is not loaded, or pinned.
            ServerError: the server refused.
        """
        with self._lock:
            self._refuse_pinned(self._held(name))
            self._remove(name)

    def swap(self, old: str, new: str, scaling: float = 1.0) -> AdapterSpec:
        """Put ``new`` in the place of ``old`` in one step: no pass sees both, none sees neither.

        ``old`` may have been evicted meanwhile. Where it is leased it counts until its last lease ends.

        Raises:
            InputError, NoRoom, ServerError: as `load`, or ``old`` is pinned or unknown; ``old`` is served as before.
        """
        return self._bring(new, scaling=finite(scaling), instead_of=self._registry.require(old).name).spec

    def deactivate(self, name: str) -> None:
        """Leave ``name`` out of `serving` and keep it in memory; a server, which serves all it has, unloads it."""
        with self._lock:
            if self._backend.scales_at_load and name in self._active:
                self.unload(name)
            self._active = _without(self._active, name)

    def pin(self, name: str) -> None:
        """Load ``name`` if it is not, and never evict it; raises as `load`."""
        held = self._bring(name, lease=True)
        with self._lock:
            held.pinned = True
            self._residents.end_lease(held)

    def unpin(self, name: str) -> None:
        """Let ``name`` be evicted again; raises `InputError` where it is not loaded."""
        with self._lock:
            self._held(name).pinned = False

    def adopt(self, spec: AdapterSpec, layers: Mapping[str, Pair]) -> AdapterSpec:
        """Load an adapter that was made in memory, and register it; it is not active yet.

        Args:
            spec: its name and what is known of it; of kind ``generated``.
            layers: A ``[r, d_in]`` and B ``[d_out, r]`` by module name, B scaled.

        Raises:
            InputError: as `load`, or the name is that of an adapter on disk.
            NoRoom: as `load`.
        """
        named = adopted_spec(spec, layers, self._registry)
        with self._loading:
            weights = self._backend.adopt(named, layers)
            with self._lock:
                held = self._admit(replace(named, rank=weights.rank, size_bytes=weights.nbytes), weights, None)
            self._registry.register_adapter(held.spec)
        return held.spec

    def fuse(self, name: str, weights: Mapping[str, float], domain: str | None = None) -> AdapterSpec:
        """The weighted sum Σ wᵢ Bᵢ Aᵢ of adapters, as one of its own: loaded, registered, not active yet.

        It remembers what it was fused of, and so can be evicted and made again.

        Raises:
            InputError: no parts, a weight that is not finite, a name that is taken by another kind of adapter, or as `load`.
            NoRoom: as `load`.
        """
        held = self._bring(fused_spec(name, weights, domain, self._registry))
        self._registry.register_adapter(held.spec)
        return held.spec

    # ---- serving

    @contextlib.contextmanager
    def serving(self, selection: Mapping[str, float] | None = None) -> Iterator[tuple[str, ...]]:
        """Within the block, every row of a pass of this thread or task runs under the sum of these adapters.

        Args:
            selection: scaling of each, loaded where they are not; by default those that are active now. None of them: the
                base model, exactly.

        Yields:
            Their names.

        Raises:
            InputError, NoRoom, ServerError: as `load`.
        """
        with self._leased(selection) as held, self._backend.bind([(h.weights, s) for h, s in held], None):
            yield tuple(h.spec.name for h, _ in held)

    @contextlib.contextmanager
    def serving_rows(self, rows: Sequence[str | None], scaling: float | None = None) -> Iterator[None]:
        """Within the block, each row of a batch runs under its own adapter.

        Args:
            rows: name of each row's adapter, loaded where it is not; None for the base model, exactly. Ranks and target
                modules may differ.
            scaling: of all; by default each has its active one, or 1 where it is not active.

        Raises:
            InputError, NoRoom, ServerError: as `load`.
        """
        names = list(dict.fromkeys(name for name in rows if name is not None))
        active = self.get_active_adapters() if scaling is None else dict.fromkeys(names, scaling)
        with self._leased({name: active.get(name, 1.0) for name in names}) as held:
            numbers = {name: i for i, name in enumerate(names)}
            row = [-1 if name is None else numbers[name] for name in rows]
            with self._backend.bind([(h.weights, scaling) for h, scaling in held], row):
                yield

    @contextlib.contextmanager
    def lease(self, name: str) -> Iterator[AdapterWeights]:
        """Hold ``name`` for the length of the block: loaded if it is not, and not evicted; raises as `load`."""
        with self._leased({name: 1.0}) as held:
            yield held[0][0].weights

    @contextlib.contextmanager
    def _leased(self, selection: Mapping[str, float] | None) -> Iterator[list[tuple[Resident[AdapterWeights], float]]]:
        held: list[tuple[Resident[AdapterWeights], float]] = []
        try:
            if selection is None:
                with self._lock:  # all in one step, or a swap could come between two of them
                    for name, scaling in self._active.items():
                        resident = self._held(name)
                        self._residents.lease(resident)
                        held.append((resident, scaling))
            for name, scaling in (selection or {}).items():
                held.append((self._bring(name, lease=True), finite(scaling)))
            yield held
        finally:
            with self._lock:
                for resident, _ in held:
                    self._residents.end_lease(resident)

    # ---- what there is

    def get_active_adapters(self) -> dict[str, float]:
        """Scaling of each active adapter, in the order of activation."""
        with self._lock:
            return dict(self._active)

    def memory(self) -> dict[str, int]:
        """Bytes of weights by device, those of adapters that are leaving included."""
        total: Counter[str] = Counter()
        with self._lock:
            for held in (*self._residents, *self._residents.leaving):
                total.update(held.weights.by_device())
        return dict(sorted(total.items()))

    def status(self) -> dict[str, Any]:
        """All of it, JSON-ready: adapters least recently used first, memory, limits, and what happened so far."""
        with self._lock:
            residents, active = self._residents, self._active
            return {
                "loaded": [{**described(held), "scaling": active.get(held.spec.name)} for held in residents],
                "leaving": [described(held) for held in residents.leaving],
                "bytes": residents.nbytes,
                "limit_bytes": residents.limit_bytes,
                "max_loaded": residents.max_loaded,
                "memory": self.memory(),
                "counts": {k: self._counts[k] for k in ("loads", "hits", "evictions", "failures")},
                "failures": dict(self._failures),
            }

    # ---- inside

    def _bring(
        self,
        wanted: str | AdapterSpec,
        scaling: float | None = None,
        lease: bool = False,
        instead_of: str | None = None,
    ) -> Resident[AdapterWeights]:
        """``wanted`` in memory and used, with all else that is asked done in the same step as its coming."""
        try:
            spec = self._registry.require(wanted) if isinstance(wanted, str) else wanted
            held = self._use(spec, scaling, lease, instead_of)
            if held is not None:
                return held
            with self._loading:
                held = self._use(spec, scaling, lease, instead_of)  # another thread may have been faster
                if held is not None:
                    return held
                weights = self._read(spec, 1.0 if scaling is None else scaling)
                with self._lock:
                    return self._settle(self._admit(spec, weights, instead_of), scaling, lease, instead_of)
        except (InputError, NoRoom, ServerError, OSError) as error:
            self._note_failure(wanted if isinstance(wanted, str) else wanted.name, error)
            raise

    def _use(
        self, spec: AdapterSpec, scaling: float | None, lease: bool, instead_of: str | None
    ) -> Resident[AdapterWeights] | None:
        """``spec`` used, where it is in memory as asked for."""
        with self._lock:
            held = self._fresh(spec)
            rescaled = scaling is not None and scaling != self._active.get(spec.name)
            if held is None or (rescaled and self._backend.scales_at_load):
                return None
            self._counts["hits"] += 1
            return self._settle(held, scaling, lease, instead_of)

    def _fresh(self, spec: AdapterSpec) -> Resident[AdapterWeights] | None:
        """The one in memory, unless the registry has newer files under its name."""
        held = self._residents.get(spec.name)
        return held if held is not None and held.spec.digest == spec.digest else None

    def _read(self, spec: AdapterSpec, scaling: float) -> AdapterWeights:
        if not spec.lineage:
            return self._backend.read(spec, scaling)
        return fuse_weights([(self._parent(spec, parent), parent.weight) for parent in spec.lineage], spec.digest)

    def _parent(self, spec: AdapterSpec, parent: Parent) -> AdapterWeights:
        found = self._registry.require(parent.name)
        if found.digest != parent.digest:
            raise InputError(f"{spec.name!r} was fused of another {parent.name!r} than there is now; fuse it again")
        with self._lock:
            held = self._fresh(found)
        return held.weights if held is not None else self._read(found, 1.0)

    def _admit(self, spec: AdapterSpec, weights: AdapterWeights, instead_of: str | None) -> Resident[AdapterWeights]:
        try:
            leaving = None if instead_of is None else self._residents.get(instead_of)
            if leaving is not None and instead_of != spec.name:
                self._refuse_pinned(leaving)
            victims = self._residents.make_way(spec, weights.nbytes, instead_of)
            replaced = [leaving.spec.name] if leaving is not None and instead_of != spec.name else []
            self._remove_all([*replaced, *victims])
            self._counts["evictions"] += len(victims)
        except (InputError, NoRoom, ServerError):
            self._take_back(spec.name)
            raise
        held = Resident(replace(spec, size_bytes=spec.size_bytes or weights.nbytes), weights)
        if self._residents.get(spec.name) is None:
            self._registry.note_loaded(spec.name, True)
        self._residents.put(held)
        self._counts["loads"] += 1
        return held

    def _remove_all(self, names: Sequence[str]) -> None:
        """All of them or none: where one cannot go, those that went before it come back."""
        active, gone = self._active, list[Resident[AdapterWeights]]()
        try:
            for name in names:
                held = self._held(name)
                self._remove(name)
                gone.append(held)
        except ServerError:
            back = [held for held in reversed(gone) if self._load_again(held, active)]
            for held in back:
                self._residents.put_first(held)
                self._registry.note_loaded(held.spec.name, True)
            kept = {held.spec.name for held in back} | self._active.keys()
            self._active = {name: scaling for name, scaling in active.items() if name in kept}
            raise

    def _take_back(self, name: str) -> None:
        """Have the backend hold ``name`` as it did before it was read: as it is in memory, or not at all."""
        before = self._residents.get(name)
        if before is None:
            with contextlib.suppress(ServerError):
                self._backend.drop(name)
        elif self._backend.scales_at_load and not self._load_again(before, self._active):
            self._forget(name)

    def _load_again(self, held: Resident[AdapterWeights], active: Mapping[str, float]) -> bool:
        """Whether the backend took it back as it was; a server that takes nothing back has lost it, which is logged."""
        try:
            self._backend.read(held.spec, active.get(held.spec.name, 1.0))
        except (InputError, ServerError) as error:
            self._note_failure(held.spec.name, error)
            return False
        return True

    def _settle(
        self, held: Resident[AdapterWeights], scaling: float | None, lease: bool, instead_of: str | None
    ) -> Resident[AdapterWeights]:
        name = held.spec.name
        old = None if instead_of in (None, name) else self._residents.get(str(instead_of))
        if old is not None:
            self._refuse_pinned(old)
            self._remove(old.spec.name)
        self._residents.touch(name)
        if lease:
            self._residents.lease(held)
        if scaling is not None:
            self._active = {**self._active, name: scaling}
        return held

    def _held(self, name: str) -> Resident[AdapterWeights]:
        held = self._residents.get(name)
        if held is None:
            loaded = ", ".join(known.spec.name for known in self._residents) or "none"
            raise InputError(f"adapter {name!r} is not loaded; loaded: {loaded}")
        return held

    def _refuse_pinned(self, held: Resident[AdapterWeights]) -> None:
        if held.pinned:
            raise InputError(f"adapter {held.spec.name!r} is pinned; unpin it first")

    def _remove(self, name: str) -> None:
        self._backend.drop(name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._residents.remove(name)
        self._registry.note_loaded(name, False)
        self._active = _without(self._active, name)

    def _note_failure(self, name: str, error: Exception) -> None:
        """Count it, and log each reason once: a request that comes every second would fill the log with it."""
        with self._lock:
            self._counts["failures"] += 1
            known = self._failures.pop(name, None)
            self._failures[name] = str(error)
            if len(self._failures) > FAILURES:
                del self._failures[next(iter(self._failures))]
        if known != str(error):
            logger.error("adapter %s: %s", name, error)


def _without(active: Mapping[str, float], name: str) -> dict[str, float]:
    return {known: scaling for known, scaling in active.items() if known != name}
