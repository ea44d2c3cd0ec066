"""The manager's room against a model of it: an ordered dictionary, leases, pins and two limits."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from made_adapters import LAYERS, TARGETS, WIDTH, stack, write

from bargain_env.errors import InputError
from hyperlora.adapters import AdapterManager, AdapterRegistry, NoRoom

RANKS = {"ant": 1, "bee": 1, "cat": 2, "dog": 3, "eel": 4}
UNIT = LAYERS * len(TARGETS) * 2 * WIDTH * 4
"""Bytes for each rank."""
BROKEN = "fox"
NAMES = st.sampled_from(sorted(RANKS))


@pytest.fixture(scope="module", autouse=True)
def adapters():
    """One directory for all runs; `Room` reads it."""
    with tempfile.TemporaryDirectory() as directory:
        for seed, (name, rank) in enumerate(RANKS.items()):
            write(Path(directory), name, seed, rank=rank)
        (write(Path(directory), BROKEN, 9) / "adapter_model.safetensors").write_bytes(b"")
        Room.directory = Path(directory)
        yield


class Room(RuleBasedStateMachine):
    directory = Path()

    @initialize(most=st.integers(1, 4), units=st.sampled_from([None, 3, 5, 8]))
    def begin(self, most, units):
        self.most, self.limit = most, None if units is None else units * UNIT
        self.manager = AdapterManager(
            stack(), AdapterRegistry(self.directory, most), limit_bytes=self.limit, target_modules=TARGETS
        )
        self.held: OrderedDict[str, int] = OrderedDict()  # bytes of what is in memory, least recently used first
        self.pins: set[str] = set()
        self.leases: list[tuple[str, object, bool]] = []  # name, context, whether what it holds is still in `held`
        self.active: set[str] = set()

    # ---- the model

    def leased(self, name):
        return any(n == name and here for n, _, here in self.leases)

    def leaving(self):
        return {id(c): n for n, c, here in self.leases if not here}

    def fits(self, extra=None, without=()):
        """Whether all that is held would fit, with one more and without some."""
        gone = {n for n, _, here in self.leases if not here}  # each name leaves at most once at a time, see `unload`
        names = [n for n in self.held if n not in without] + sorted(gone) + ([extra] if extra else [])
        total = sum(RANKS[n] for n in names) * UNIT
        return len(names) <= self.most and (self.limit is None or total <= self.limit)

    def victims(self, name, instead_of=None):
        """Who goes for ``name``, or None where it cannot come."""
        certain = [instead_of] if instead_of in self.held and not self.leased(instead_of) else []
        gone = list(certain)
        for other in [n for n in self.held if n != instead_of and n not in self.pins and not self.leased(n)]:
            if self.fits(name, gone):
                break
            gone.append(other)
        return gone[len(certain) :] if self.fits(name, gone) else None

    def forget(self, name):
        del self.held[name]
        self.active.discard(name)
        self.leases = [(n, c, here and n != name) for n, c, here in self.leases]

    def bring(self, call, name, instead_of=None):
        """Do ``call``, and to the model what it should do; returns whether it should succeed."""
        if name in self.held:
            self.held.move_to_end(name)
            call()
            return True
        victims = self.victims(name, instead_of)
        if victims is None:
            with pytest.raises(NoRoom):
                call()
            return False
        call()
        for victim in victims:
            self.forget(victim)
        self.held[name] = RANKS[name] * UNIT
        return True

    # ---- what happens

    @rule(name=NAMES)
    def load(self, name):
        if self.bring(lambda: self.manager.load(name), name):
            self.active.add(name)

    @rule(name=NAMES)
    def pin(self, name):
        if self.bring(lambda: self.manager.pin(name), name):
            self.pins.add(name)

    @rule(name=NAMES)
    def unpin(self, name):
        if name in self.held:
            self.manager.unpin(name)
            self.pins.discard(name)
        else:
            with pytest.raises(InputError, match="not loaded"):
                self.manager.unpin(name)

    @rule(name=NAMES)
    def lease(self, name):
        context = self.manager.lease(name)
        if self.bring(context.__enter__, name):
            self.leases.append((name, context, True))

    @rule(data=st.data())
    def end_a_lease(self, data):
        if self.leases:
            _, context, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            context.__exit__(None, None, None)

    @rule(name=NAMES)
    def unload(self, name):
        if name not in self.held:
            with pytest.raises(InputError, match="not loaded"):
                self.manager.unload(name)
        elif name in self.pins:
            with pytest.raises(InputError, match="pinned"):
                self.manager.unload(name)
        elif not (self.leased(name) and name in self.leaving().values()):
            self.manager.unload(name)
            self.forget(name)

    @rule(old=NAMES, new=NAMES)
    def swap(self, old, new):
        if old == new or (self.leased(old) and old in self.leaving().values()):
            return
        if old in self.held and old in self.pins:
            with pytest.raises((InputError, NoRoom)):
                self.manager.swap(old, new)
            return
        if self.bring(lambda: self.manager.swap(old, new), new, instead_of=old):
            if old in self.held:
                self.forget(old)
            self.active.add(new)

    @rule()
    def serve(self):
        with self.manager.serving() as names:
            assert set(names) == self.active
        for name in names:
            self.held.move_to_end(name)

    @rule()
    def fail(self):
        with pytest.raises(InputError, match="cannot be used"):
            self.manager.load(BROKEN)

    # ---- what always holds

    @invariant()
    def the_same(self):
        status = self.manager.status()
        assert [entry["name"] for entry in status["loaded"]] == list(self.held)
        assert {entry["name"] for entry in status["loaded"] if entry["pinned"]} == self.pins & set(self.held)
        assert {entry["name"] for entry in status["loaded"] if entry["scaling"] is not None} == self.active
        assert [entry["leases"] for entry in status["loaded"]] == [
            sum(n == name and here for n, _, here in self.leases) for name in self.held
        ]
        assert {entry["name"] for entry in status["leaving"]} == set(self.leaving().values())
        total = sum(self.held.values()) + sum(RANKS[n] * UNIT for n in set(self.leaving().values()))
        assert status["bytes"] == total
        assert len(status["loaded"]) + len(status["leaving"]) <= self.most
        assert self.limit is None or total <= self.limit

    def teardown(self):
        for _, context, _ in getattr(self, "leases", []):
            context.__exit__(None, None, None)


Room.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
TestRoom = Room.TestCase
