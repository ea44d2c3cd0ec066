"""The nine acceptance criteria of dynamic adapters, one test each, through the coroutines where there are any."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from made_adapters import LAYERS, TARGETS, WIDTH, expected, inputs, manager_of, served, stack, write
from torch import nn

from hyperlora.adapters import (
    AdapterManager,
    AdapterRegistry,
    AdapterRouter,
    AdapterSpec,
    InjectionChannel,
    MemoryBus,
    setup_weight_interface,
)

ATOL = 1e-5


@pytest.fixture
def directory(tmp_path):
    for seed, (name, words) in enumerate(
        {"medical": ["doctor", "symptom"], "legal": ["court", "contract"], "coding": ["debug", "function"],
         "style": ["tone"]}.items()
    ):  # fmt: skip
        write(tmp_path, name, seed, domain=name, keywords=words, description=" ".join(words))
    (tmp_path / "broken").mkdir()
    return tmp_path


def manage(directory, max_loaded=3):
    registry = AdapterRegistry(directory, max_loaded)
    return AdapterManager(stack(), registry, target_modules=TARGETS), registry


def test_1_the_registry_discovers_and_catalogues_adapters(directory):
    registry = AdapterRegistry(directory)
    assert [s.name for s in registry.list_adapters()] == ["coding", "legal", "medical", "style"]
    assert registry.get_adapter("medical").rank == 2
    assert [s.name for s in registry.get_adapters_for_domain("legal")] == ["legal"]
    assert list(registry.problems) == ["broken"]


def test_2_the_manager_loads_and_unloads_within_its_capacity(directory):
    manager, registry = manage(directory, max_loaded=2)

    async def scene():
        for name in ("medical", "legal", "coding"):
            assert await manager.load_adapter(name)
            assert len(registry.loaded_adapters) <= 2
        assert list(manager.get_active_adapters()) == ["legal", "coding"]
        assert await manager.unload_adapter("legal")
        assert not await manager.unload_adapter("legal")

    asyncio.run(scene())
    assert registry.loaded_adapters == ["coding"]


def test_3_the_router_classifies_queries_and_selects_adapters(directory):
    router = AdapterRouter(AdapterRegistry(directory), method="keyword")
    assert asyncio.run(router.route("a doctor in court", top_k=2)) == [("legal", 0.5), ("medical", 0.5)]
    assert asyncio.run(router.route("nothing known")) == []


def test_4_several_adapters_are_loaded_at_once_and_all_influence_the_output(directory):
    manager, _ = manage(directory)
    x, outputs = inputs(), [served(manage(directory)[0], inputs())]
    for name in ("medical", "legal", "coding"):
        manager.load(name)
        outputs.append(served(manager, x))
    assert all((a - b).abs().max() > 0.01 for i, a in enumerate(outputs) for b in outputs[:i])
    want = expected(x, {directory / name: 1.0 for name in ("medical", "legal", "coding")})
    torch.testing.assert_close(outputs[-1], want, atol=ATOL, rtol=0)


def test_5_swapping_is_atomic(directory):
    manager, _ = manage(directory, max_loaded=1)

    async def scene():
        await manager.load_adapter("medical")
        assert await manager.swap_adapter("medical", "legal")
        assert manager.get_active_adapters() == {"legal": 1.0}
        assert not await manager.swap_adapter("legal", "broken")

    asyncio.run(scene())
    assert manager.get_active_adapters() == {"legal": 1.0}  # what failed has changed nothing
    torch.testing.assert_close(
        served(manager, inputs()), expected(inputs(), {directory / "legal": 1.0}), atol=ATOL, rtol=0
    )


def test_6_generated_pairs_are_valid_adapters(directory):
    manager, _ = manage(directory)
    names = [f"layers.{i}.{target}" for i in range(LAYERS) for target in TARGETS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = nn.ModuleList(nn.Linear(5, 2 * 2 * WIDTH) for _ in names)
    embedding = torch.ones(5)
    flat = {name: head(embedding).detach() for name, head in zip(names, heads, strict=True)}
    layers = {n: (v[: 2 * WIDTH].view(2, WIDTH), v[2 * WIDTH :].view(WIDTH, 2)) for n, v in flat.items()}
    manager.adopt(AdapterSpec("instant", "", "experts"), layers)
    assert (served(manager, inputs(), {"instant": 1.0}) - expected(inputs(), {})).abs().max() > 0.001


def test_7_the_bus_handler_of_dynamic_lora_works(directory):
    bus, model = MemoryBus(), stack()

    async def scene():
        manager, router = await setup_weight_interface(bus, model, AdapterRegistry(directory), method="keyword")
        async with bus.injecting(InjectionChannel.DYNAMIC_LORA, [SimpleNamespace(source_text="the doctor")]):
            with torch.no_grad():
                inside = model(inputs())
            assert manager.get_active_adapters() == {"medical": 0.5}
        assert router.method == "keyword"
        return inside

    got = asyncio.run(scene())
    torch.testing.assert_close(got, expected(inputs(), {directory / "medical": 0.5}), atol=ATOL, rtol=0)
    assert torch.equal(model(inputs()), expected(inputs(), {}))


def test_8_without_adapters_weight_adaptation_is_skipped(tmp_path):
    bus, model = MemoryBus(), stack()

    async def scene():
        await setup_weight_interface(bus, model, AdapterRegistry(tmp_path / "empty"))
        async with bus.injecting(InjectionChannel.DYNAMIC_LORA, [SimpleNamespace(source_text="the doctor")]):
            return model(inputs())

    assert torch.equal(asyncio.run(scene()), expected(inputs(), {}))


def test_9_memory_of_loaded_adapters_is_tracked_by_device_and_limited(tmp_path):
    one = LAYERS * len(TARGETS) * 2 * (2 * WIDTH) * 4
    manager, _, _ = manager_of(tmp_path, ["a", "b", "c"], limit_bytes=2 * one)
    for name in ("a", "b", "c"):
        manager.load(name)
    assert manager.memory() == {"cpu": 2 * one}
    assert [e["name"] for e in manager.status()["loaded"]] == ["b", "c"]
    manager.unload("b")
    assert manager.memory() == {"cpu": one}
