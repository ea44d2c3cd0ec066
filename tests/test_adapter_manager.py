"""The manager: what is served, what a failing load leaves, room, leases, bytes."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from made_adapters import LAYERS, TARGETS, WIDTH, apart, expected, inputs, loaded, manager_of, served, stack, write
from safetensors.torch import load_file, save_file

from bargain_env.errors import InputError
from hyperlora.adapters import AdapterManager, AdapterRegistry, NoRoom
from hyperlora.adapters.manager import FAILURES

ATOL = 1e-5
NAMES = ["ant", "bee", "cat", "dog"]
ONE = LAYERS * len(TARGETS) * 2 * (2 * WIDTH) * 4
"""Bytes of an adapter of rank 2: A and B of each layer, float32."""


@pytest.fixture
def made(tmp_path):
    manager, registry, _ = manager_of(tmp_path, NAMES)
    return manager, registry, tmp_path


def test_serving_is_the_sum_of_the_active_adapters(made):
    manager, _, folder = made
    x, base = inputs(), expected(inputs(), {})
    assert torch.equal(served(manager, x), base)
    manager.load("ant")
    manager.load("bee", scaling=0.5)
    one, both = expected(x, {folder / "ant": 1.0}), expected(x, {folder / "ant": 1.0, folder / "bee": 0.5})
    assert apart(base, one, both) > 0.01
    torch.testing.assert_close(served(manager, x), both, atol=ATOL, rtol=0)
    assert manager.get_active_adapters() == {"ant": 1.0, "bee": 0.5}
    torch.testing.assert_close(served(manager, x, {"ant": 1.0}), one, atol=ATOL, rtol=0)
    assert torch.equal(served(manager, x, {}), base)
    manager.unload("bee")
    torch.testing.assert_close(served(manager, x), one, atol=ATOL, rtol=0)
    manager.deactivate("ant")
    assert torch.equal(served(manager, x), base)
    assert loaded(manager) == ["ant"]


def test_nothing_is_in_force_outside_and_weights_are_never_written(made):
    manager, _, _ = made
    before = [p.clone() for p in manager.model.parameters()]
    manager.load("ant")
    with manager.serving():
        pass
    assert torch.equal(manager.model(inputs()), expected(inputs(), {}))
    assert all(torch.equal(a, b) for a, b in zip(manager.model.parameters(), before, strict=True))


def test_rows_of_one_batch_run_under_adapters_of_different_rank_and_targets(tmp_path):
    write(tmp_path, "wide", 1, rank=5)
    write(tmp_path, "narrow", 2, rank=1, targets=["v_proj"])
    manager, _, _ = manager_of(tmp_path)
    x = inputs(4)
    with torch.no_grad(), manager.serving_rows(["wide", None, "narrow", "wide"]):
        got = manager.model(x)
    want = {n: expected(x, {tmp_path / n: 1.0}) for n in ("wide", "narrow")}
    base = expected(x, {})
    assert apart(want["wide"][0], base[0]) > 0.01
    for i, row in enumerate([want["wide"], base, want["narrow"], want["wide"]]):
        torch.testing.assert_close(got[i], row[i], atol=ATOL, rtol=0)
    assert torch.equal(got[1], stack()(x)[1])


def test_rows_have_their_active_scaling_unless_told_another(made):
    manager, _, folder = made
    x = inputs(2)
    manager.load("ant", scaling=0.25)
    for scaling, want in {None: 0.25, 1.0: 1.0}.items():
        with torch.no_grad(), manager.serving_rows(["ant", "bee"], scaling):
            got = manager.model(x)
        torch.testing.assert_close(got[0], expected(x, {folder / "ant": want})[0], atol=ATOL, rtol=0)
        torch.testing.assert_close(got[1], expected(x, {folder / "bee": 1.0})[1], atol=ATOL, rtol=0)


# ---- failing loads


def truncated(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def flipped(folder):
    path = folder / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def rewritten(change):
    def harm(folder):
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        save_file(change(tensors), path)

    return harm


def with_nan(tensors):
    next(iter(tensors.values()))[0, 0] = float("nan")
    return tensors


def too_wide(tensors):
    return {n: torch.cat([t, t], dim=1) if ".lora_A." in n else t for n, t in tensors.items()}


def other_layers(tensors):
    return {n.replace("layers.0.", "layers.7."): t for n, t in tensors.items()}


def half(tensors):
    return {n: t for n, t in tensors.items() if ".lora_A." in n}


def gone(folder):
    (folder / "adapter_model.safetensors").unlink()


HARMS = {
    "truncated": (truncated, "cannot be read|has changed"),
    "flipped bit": (flipped, "has changed|NaN"),
    "NaN": (rewritten(with_nan), "NaN or infinity"),
    "wrong shape": (rewritten(too_wide), "does not fit"),
    "other layers": (rewritten(other_layers), "does not take"),
    "no partner": (rewritten(half), "A and B|B"),
    "missing": (gone, "missing|no weights"),
}


@pytest.mark.parametrize("rescan", [False, True], ids=["behind the registry's back", "registered so"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_failing_load_changes_nothing(made, harm, rescan):
    manager, registry, folder = made
    manager.load("ant")
    manager.load("bee")
    before, x = manager.status(), inputs()
    want = served(manager, x)
    spoil, reason = HARMS[harm]
    spoil(folder / "cat")
    if rescan and harm != "flipped bit":  # whose new bytes are a sound adapter, once they are registered
        registry.rescan()
    for call in (
        lambda: manager.load("cat"),
        lambda: manager.swap("ant", "cat"),
        lambda: manager.pin("cat"),
        lambda: manager.fuse("mix", {"ant": 1.0, "cat": 1.0}),
        lambda: manager.serving_rows(["cat"]).__enter__(),
    ):
        with pytest.raises(InputError, match=reason if rescan else f"{reason}|has changed"):
            call()
    after = manager.status()
    assert {k: after[k] for k in ("loaded", "bytes", "leaving")} == {
        k: before[k] for k in ("loaded", "bytes", "leaving")
    }
    assert after["counts"]["failures"] >= 4
    assert torch.equal(served(manager, x), want)
    assert registry.get_adapter("mix") is None


def test_an_adapter_of_another_base_is_refused(tmp_path):
    write(tmp_path, "ours", 1, base_digest="a" * 64)
    write(tmp_path, "theirs", 2, base_digest="b" * 64)
    model = stack()
    model.base_digest = "a" * 64
    manager = AdapterManager(model, AdapterRegistry(tmp_path), target_modules=TARGETS)
    manager.load("ours")
    with pytest.raises(InputError, match=r"'theirs' was trained on another base \(base_digest bbbb"):
        manager.load("theirs")
    assert loaded(manager) == ["ours"]


def test_each_reason_is_logged_once_and_every_failure_counted(made, caplog):
    manager, _, folder = made
    gone(folder / "cat")
    for _ in range(3):
        assert asyncio.run(manager.load_adapter("cat")) is False
    assert asyncio.run(manager.load_adapter("nobody")) is False
    assert manager.status()["counts"]["failures"] == 4
    assert sum(r.message.startswith("adapter cat:") for r in caplog.records) == 1
    assert set(manager.status()["failures"]) == {"cat", "nobody"}
    for k in range(FAILURES):
        with pytest.raises(InputError):
            manager.load(f"nobody-{k}")
    assert list(manager.status()["failures"]) == [f"nobody-{k}" for k in range(FAILURES)], "the last ones, and no more"


# ---- room


def test_the_least_recently_used_goes_first(made):
    manager, registry, _ = made
    for name in ("ant", "bee", "cat"):
        manager.load(name)
    with manager.lease("ant"):
        pass
    manager.load("dog")
    assert loaded(manager) == ["cat", "ant", "dog"]
    assert registry.loaded_adapters == ["ant", "cat", "dog"]
    assert "bee" not in manager.get_active_adapters()
    assert registry.get_adapter("ant").loaded
    assert not registry.get_adapter("bee").loaded


def test_leased_and_pinned_adapters_stay_and_a_full_house_is_an_error(made):
    manager, _, _ = made
    manager.pin("ant")
    with manager.lease("bee"), manager.lease("cat"):
        with pytest.raises(NoRoom, match="ant, bee, cat are leased or pinned"):
            manager.load("dog")
        assert asyncio.run(manager.load_adapter("dog")) is False
        assert loaded(manager) == ["ant", "bee", "cat"]
    manager.load("dog")
    assert loaded(manager) == ["ant", "cat", "dog"]
    with pytest.raises(InputError, match="is pinned; unpin"):
        manager.unload("ant")
    with pytest.raises(InputError, match="is pinned; unpin"):
        manager.swap("ant", "bee")
    manager.unpin("ant")
    manager.unload("ant")
    with pytest.raises(InputError, match="'ant' is not loaded; loaded: cat, dog"):
        manager.unload("ant")


def test_an_unloaded_adapter_serves_its_leases_to_the_end(made):
    manager, _, folder = made
    x = inputs()
    with torch.no_grad(), manager.serving({"ant": 1.0}):
        manager.unload("ant")
        torch.testing.assert_close(manager.model(x), expected(x, {folder / "ant": 1.0}), atol=ATOL, rtol=0)
        assert [entry["name"] for entry in manager.status()["leaving"]] == ["ant"]
        assert manager.status()["bytes"] == ONE
    assert manager.status()["bytes"] == 0
    assert manager.status()["leaving"] == []


def test_a_limit_in_bytes(tmp_path):
    manager, _, _ = manager_of(tmp_path, NAMES, max_loaded=4, limit_bytes=2 * ONE + 10)
    write(tmp_path, "giant", 9, rank=8)
    manager._registry.rescan()
    for name in NAMES[:3]:
        manager.load(name)
    assert loaded(manager) == ["bee", "cat"]
    with pytest.raises(NoRoom, match=r"'giant' has \d+ bytes, the limit is"):
        manager.load("giant")
    assert loaded(manager) == ["bee", "cat"]
    with pytest.raises(InputError, match="limit_bytes 0"):
        manager_of(tmp_path, limit_bytes=0)


def test_bytes_are_those_of_the_storage(tmp_path):
    manager, _, _ = manager_of(tmp_path, NAMES)
    write(tmp_path, "big", 9, rank=7, targets=["q_proj"])
    manager._registry.rescan()
    manager.load("ant")
    manager.load("big")
    entries = {entry["name"]: entry["bytes"] for entry in manager.status()["loaded"]}
    assert entries["ant"] == ONE
    for name in entries:
        with manager.lease(name) as weights:
            tensors = [t for pair in weights.layers.values() for t in pair]
            real = sum(t.untyped_storage().nbytes() for t in tensors)
            assert abs(entries[name] - real) <= 0.01 * real
            assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)
    assert manager.memory() == {"cpu": sum(entries.values())}


# ---- swapping


def test_swap_replaces_in_one_step(tmp_path):
    manager, _, _ = manager_of(tmp_path, NAMES, max_loaded=1)
    manager.load("ant")
    manager.swap("ant", "bee", 0.5)
    assert manager.get_active_adapters() == {"bee": 0.5}
    assert loaded(manager) == ["bee"]
    manager.swap("ant", "cat")  # 'ant' is gone already
    assert loaded(manager) == ["cat"]
    with pytest.raises(InputError, match="unknown adapter 'nobody'"):
        manager.swap("nobody", "bee")
    with manager.lease("cat"), pytest.raises(NoRoom):
        manager.swap("cat", "bee")
    assert manager.get_active_adapters() == {"cat": 1.0}


def test_a_swap_under_a_lease_reaches_the_next_pass_only(made):
    manager, _, folder = made
    x = inputs()
    manager.load("ant")
    with torch.no_grad(), manager.serving():
        manager.swap("ant", "bee")
        torch.testing.assert_close(manager.model(x), expected(x, {folder / "ant": 1.0}), atol=ATOL, rtol=0)
    torch.testing.assert_close(served(manager, x), expected(x, {folder / "bee": 1.0}), atol=ATOL, rtol=0)


def test_new_files_under_a_name_are_loaded_after_a_rescan(made):
    manager, registry, folder = made
    x = inputs()
    manager.load("ant")
    write(folder, "ant", 77)
    old = served(manager, x)
    manager.load("ant")
    assert torch.equal(served(manager, x), old)  # what was registered is what is served
    registry.rescan()
    manager.load("ant")
    new = expected(x, {folder / "ant": 1.0})
    assert apart(old, new) > 0.01
    torch.testing.assert_close(served(manager, x), new, atol=ATOL, rtol=0)


# ---- the seed's coroutines, and what is told


def test_the_coroutines_say_whether_it_worked(made):
    manager, _, _ = made

    async def scene():
        return [
            await manager.load_adapter("ant", scaling=0.5),
            await manager.load_adapter("nobody"),
            await manager.swap_adapter("ant", "bee"),
            await manager.unload_adapter("ant"),
            await manager.unload_adapter("bee"),
        ]

    assert asyncio.run(scene()) == [True, False, True, False, True]
    assert manager.get_active_adapters() == {}


def test_status_is_json(made):
    manager, _, _ = made
    manager.load("ant")
    manager.pin("bee")
    status = json.loads(json.dumps(manager.status()))
    assert [(e["name"], e["pinned"], e["scaling"], e["leases"]) for e in status["loaded"]] == [
        ("ant", False, 1.0, 0), ("bee", True, None, 0)]  # fmt: skip
    assert status["counts"] == {"loads": 2, "hits": 0, "evictions": 0, "failures": 0}
    assert (status["max_loaded"], status["limit_bytes"], status["bytes"]) == (3, None, 2 * ONE)
