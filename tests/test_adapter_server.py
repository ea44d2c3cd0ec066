"""A manager in front of a server: it holds what the manager says, and what fails there leaves everything as it was."""

from __future__ import annotations

import asyncio

import pytest
from made_adapters import loaded, manager_of, write

from bargain_env.errors import InputError
from hyperlora.adapters import AdapterManager, NoRoom, ServerError

NAMES = ["ant", "bee", "cat", "dog"]


class Server:
    """Holds adapters by name and refuses what it is told to."""

    def __init__(self):
        self.has, self.refuses, self.keeps = {}, set(), set()

    def load_lora_adapter(self, adapter_path, adapter_name, scaling):
        if adapter_name in self.refuses:
            raise OSError("out of memory")
        self.has[adapter_name] = (adapter_path, scaling)

    def unload_lora_adapter(self, adapter_name):
        if adapter_name in self.keeps:
            raise OSError("in use")
        del self.has[adapter_name]


def test_a_server_holds_what_the_manager_says(tmp_path):
    _, registry, _ = manager_of(tmp_path, NAMES, max_loaded=2)
    server = Server()
    manager = AdapterManager(server, registry)
    manager.load("ant", 0.5)
    manager.load("ant", 0.8)
    manager.load("bee")
    assert server.has == {"ant": (str(tmp_path / "ant"), 0.8), "bee": (str(tmp_path / "bee"), 1.0)}
    server.refuses.add("dog")
    assert asyncio.run(manager.load_adapter("dog")) is False
    assert sorted(server.has) == ["ant", "bee"]
    manager.load("cat")
    assert sorted(server.has) == ["bee", "cat"]
    assert manager.memory() == {"server": sum(registry.get_adapter(n).size_bytes for n in ("bee", "cat"))}
    with pytest.raises(InputError, match="no adapters per row"):
        manager.serving_rows(["bee"]).__enter__()
    with pytest.raises(InputError, match="needs a model, or a server"):
        AdapterManager(object(), registry)


def leased_and_full(manager, server):
    """A new scaling of an adapter that is leased takes room of its own."""
    with manager.lease("ant"), manager.lease("bee"):
        manager.load("ant", 0.25)


def old_one_stays(manager, server):
    server.keeps.add("ant")
    manager.swap("ant", "cat")


def second_victim_stays(manager, server):
    server.keeps.add("bee")
    manager.load("cat")


def pinned(manager, server):
    manager.pin("ant")
    try:
        manager.swap("ant", "cat")
    finally:
        manager.unpin("ant")


@pytest.mark.parametrize("fail", [leased_and_full, old_one_stays, second_victim_stays, pinned])
def test_what_fails_on_a_server_leaves_everything_as_it_was(tmp_path, fail):
    _, registry, _ = manager_of(tmp_path, NAMES[:2])
    write(tmp_path, "cat", 3, rank=8)
    registry.rescan()
    server = Server()
    manager = AdapterManager(server, registry, limit_bytes=registry.get_adapter("cat").size_bytes + 10)
    manager.load("ant", 0.5)
    manager.load("bee", 0.75)
    has, active, before = dict(server.has), manager.get_active_adapters(), manager.status()["loaded"]
    if fail is leased_and_full:
        manager._residents.max_loaded = 2
    with pytest.raises((NoRoom, ServerError, InputError)):
        fail(manager, server)
    assert server.has == has
    assert manager.get_active_adapters() == active
    assert sorted(map(str, manager.status()["loaded"])) == sorted(map(str, before))
    assert manager.status()["counts"]["evictions"] == 0
    assert registry.loaded_adapters == ["ant", "bee"]
    server.keeps.clear()
    manager.load("cat")
    assert sorted(server.has) == sorted(loaded(manager)) == ["cat"]
