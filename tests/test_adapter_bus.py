"""The bus: memories in, adapters in force for one generation, and the base model where there are none."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
import torch
from made_adapters import TARGETS, expected, inputs, stack, write

from bargain_env.errors import InputError
from hyperlora.adapters import (
    AdapterManager,
    AdapterRegistry,
    AdapterRouter,
    DynamicLoRA,
    InjectionChannel,
    MemoryBus,
    NoRoom,
    ServerError,
)

CHANNEL = InjectionChannel.DYNAMIC_LORA
ATOL = 1e-5


def memory(text):
    return [SimpleNamespace(source_text=text)]


@pytest.fixture
def world(tmp_path):
    write(tmp_path, "law", 1, keywords=["court"])
    write(tmp_path, "med", 2, keywords=["doctor"])
    registry = AdapterRegistry(tmp_path, max_loaded=2)
    manager = AdapterManager(stack(), registry, target_modules=TARGETS)
    handler = DynamicLoRA(manager, AdapterRouter(registry, method="keyword"))
    bus = MemoryBus()
    bus.register_handler(CHANNEL, handler)
    return SimpleNamespace(bus=bus, manager=manager, handler=handler, registry=registry, folder=tmp_path)


@torch.no_grad()
def answered(world):
    return world.manager.model(inputs())


def close(a, b):
    torch.testing.assert_close(a, b, atol=ATOL, rtol=0)


def test_adapters_are_in_force_for_one_generation_and_stay_in_memory(world):
    base, law = expected(inputs(), {}), expected(inputs(), {world.folder / "law": 1.0})
    assert (base - law).abs().max() > 0.01

    async def scene():
        async with world.bus.injecting(CHANNEL, memory("the court")):
            close(answered(world), law)
            close(await asyncio.to_thread(answered, world), law)
            assert world.manager.get_active_adapters() == {"law": 1.0}
            assert world.manager.status()["loaded"][0]["leases"] == 1
        assert torch.equal(answered(world), base)

    asyncio.run(scene())
    assert world.manager.get_active_adapters() == {}
    assert [(e["name"], e["leases"]) for e in world.manager.status()["loaded"]] == [("law", 0)]
    assert world.handler.counts == {"requests": 1, "served": 1, "base": 0, "failed": 0}


def test_two_requests_at_once_do_not_see_each_other(world):
    both = asyncio.Barrier(2)

    async def request(word, name):
        async with world.bus.injecting(CHANNEL, memory(word)):
            await both.wait()
            close(answered(world), expected(inputs(), {world.folder / name: 1.0}))
            await both.wait()

    async def scene():
        await asyncio.gather(request("court", "law"), request("doctor", "med"))

    asyncio.run(scene())
    assert world.manager.get_active_adapters() == {}


def test_an_adapter_that_somebody_else_made_active_stays_so(world):
    world.manager.load("law", 0.5)

    async def scene():
        async with world.bus.injecting(CHANNEL, memory("court")):
            close(answered(world), expected(inputs(), {world.folder / "law": 1.0}))

    asyncio.run(scene())
    assert world.manager.get_active_adapters() == {"law": 0.5}


def test_a_request_that_is_cancelled_while_it_loads_leaves_nothing_active(world, monkeypatch):
    begun, go_on, load = threading.Event(), threading.Event(), world.manager.load

    def slow(name, scaling):
        begun.set()
        assert go_on.wait(10)
        return load(name, scaling)

    monkeypatch.setattr(world.manager, "load", slow)

    async def scene():
        request = asyncio.create_task(world.handler(memory("court")))
        assert await asyncio.to_thread(begun.wait, 10)
        for _ in range(2):
            request.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(scene())
    assert world.manager.get_active_adapters() == {}
    monkeypatch.undo()
    with asyncio.run(world.handler(memory("court"))) as names:  # and the next request is as the first
        assert names == ("law",)
        assert world.manager.get_active_adapters() == {"law": 1.0}
    assert world.manager.get_active_adapters() == {}


def test_what_was_evicted_before_it_answered_counts_as_the_base(world, monkeypatch):
    context, serving = asyncio.run(world.handler(memory("court"))), world.manager.serving

    def no_room(selection):
        if selection:
            raise NoRoom("all leased")
        return serving(selection)

    monkeypatch.setattr(world.manager, "serving", no_room)
    with context as names:
        assert names == ()
        assert torch.equal(answered(world), expected(inputs(), {}))
    assert world.handler.counts == {"requests": 1, "served": 0, "base": 1, "failed": 1}


def test_an_error_that_nobody_foresaw_is_raised_and_leaves_nothing_active(world, monkeypatch):
    load = world.manager.load

    def fails_after(name, scaling):
        load(name, scaling)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(world.manager, "load", fails_after)
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(world.handler(memory("court")))
    assert world.manager.get_active_adapters() == {}


def test_what_cannot_be_let_go_is_counted_and_the_others_are(world, monkeypatch, caplog):
    def refuses(name):
        raise ServerError(f"the server could not unload {name!r}")

    world.handler._min_confidence = 0.0
    monkeypatch.setattr(world.manager, "deactivate", lambda name: refuses(name) if name == "law" else None)
    with asyncio.run(world.handler(memory("court doctor"))) as names:
        assert set(names) == {"law", "med"}
    assert world.handler.counts["failed"] == 1
    assert world.handler._open == {}
    assert [r.getMessage() for r in caplog.records] == ["'law' stays active: the server could not unload 'law'"]


def harmless(world):
    return None


def broken(world):
    (world.folder / "law" / "adapter_model.safetensors").write_bytes(b"")


def full(world):
    world.manager.pin("med")
    write(world.folder, "third", 3)
    world.registry.rescan()
    world.manager.pin("third")


@pytest.mark.parametrize(
    ("harm", "text", "failed"), [(harmless, "weather", 0), (harmless, "", 0), (broken, "court", 3), (full, "court", 3)]
)
def test_where_no_adapter_can_serve_the_base_model_answers(world, harm, text, failed, caplog):
    harm(world)

    async def scene():
        async with world.bus.injecting(CHANNEL, memory(text) if text else []):
            assert torch.equal(answered(world), expected(inputs(), {}))

    for _ in range(3):
        asyncio.run(scene())
    assert world.handler.counts == {"requests": 3, "served": 0, "base": 3, "failed": failed}
    assert sum(record.levelname == "ERROR" for record in caplog.records) == bool(failed)
    assert world.manager.get_active_adapters() == {}


def test_an_empty_registry_and_a_channel_without_handlers_change_nothing(tmp_path):
    manager = AdapterManager(stack(), AdapterRegistry(tmp_path), target_modules=TARGETS)
    handler = DynamicLoRA(manager, AdapterRouter(AdapterRegistry(tmp_path)))

    async def scene():
        assert await handler(memory("anything")) is None
        async with MemoryBus().injecting(CHANNEL, memory("anything")):
            with torch.no_grad():
                return manager.model(inputs())

    assert torch.equal(asyncio.run(scene()), expected(inputs(), {}))


def test_a_handler_needs_a_channel():
    with pytest.raises(InputError, match="InjectionChannel"):
        MemoryBus().register_handler("dynamic_lora", harmless)
