"""Adapters that no folder holds: weighted sums of others, and those made in memory."""

from __future__ import annotations

import pytest
import torch
from made_adapters import apart, expected, inputs, loaded, manager_of, pairs, served, write

from bargain_env.errors import InputError
from hyperlora.adapters import AdapterSpec

ATOL = 1e-5
NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def made(tmp_path):
    manager, registry, _ = manager_of(tmp_path, NAMES)
    return manager, registry, tmp_path


def test_fuse_is_the_weighted_sum_of_the_updates(tmp_path):
    write(tmp_path, "wide", 1, rank=5)
    write(tmp_path, "narrow", 2, rank=1, targets=["v_proj"])
    manager, registry, _ = manager_of(tmp_path)
    x, parts = inputs(), {tmp_path / "wide": 0.7, tmp_path / "narrow": -0.4}
    spec = manager.fuse("mix", {"wide": 0.7, "narrow": -0.4})
    assert (spec.kind, spec.rank, spec.domain) == ("generated", 6, "narrow+wide")
    assert [(p.name, p.weight) for p in spec.lineage] == [("narrow", -0.4), ("wide", 0.7)]
    assert spec.lineage[1].digest == registry.get_adapter("wide").digest
    want = expected(x, parts)
    assert apart(want, expected(x, {}), expected(x, {tmp_path / "wide": 1.0})) > 0.01
    torch.testing.assert_close(served(manager, x, {"mix": 1.0}), want, atol=ATOL, rtol=0)
    manager.fuse("self", {"wide": 1.0})
    with manager.lease("self") as fused, manager.lease("wide") as one:
        assert all(torch.equal(a, b) for n in one.layers for a, b in zip(fused.layers[n], one.layers[n], strict=True))
    assert manager.get_active_adapters() == {}


def test_an_evicted_fused_adapter_is_made_again(made):
    manager, registry, folder = made
    manager.fuse("mix", {"ant": 0.5, "bee": 0.5})
    want = served(manager, inputs(), {"mix": 1.0})
    manager.unload("mix")
    torch.testing.assert_close(served(manager, inputs(), {"mix": 1.0}), want, atol=ATOL, rtol=0)
    manager.unload("mix")
    write(folder, "bee", 99)
    registry.rescan()
    with pytest.raises(InputError, match="fused of another 'bee'"):
        manager.load("mix")


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [("mix", {}, "nothing to fuse"), ("ant", {"bee": 1.0}, "another adapter"), ("mix", {"ant": float("nan")}, "finite"),
     ("mix", {"nobody": 1.0}, "unknown adapter")],
)  # fmt: skip
def test_what_cannot_be_fused(made, name, weights, reason):
    with pytest.raises(InputError, match=reason):
        made[0].fuse(name, weights)


def test_a_name_that_cannot_be_registered_moves_nobody(tmp_path):
    manager, _, _ = manager_of(tmp_path, NAMES, max_loaded=1)
    manager.load("cat")
    for name in ("mix@0.5", ""):
        with pytest.raises(InputError, match="stands before a rho"):
            manager.fuse(name, {"ant": 0.5, "bee": 0.5})
        with pytest.raises(InputError, match="stands before a rho"):
            manager.adopt(AdapterSpec(name, "", "experts"), pairs(5))
    assert loaded(manager) == ["cat"]
    assert manager.get_active_adapters() == {"cat": 1.0}


def test_an_adapter_made_in_memory_is_adopted_and_gone_when_evicted(made):
    manager, registry, folder = made
    x, layers = inputs(), pairs(5)
    spec = manager.adopt(AdapterSpec("instant", "", "experts"), layers)
    assert (spec.kind, spec.rank, registry.get_adapter("instant").domain) == ("generated", 2, "experts")
    write(folder, "same", 5)
    torch.testing.assert_close(  # α / r of the folder is 1.5
        served(manager, x, {"instant": 1.5}), expected(x, {folder / "same": 1.0}), atol=ATOL, rtol=0
    )
    layers["layers.0.q_proj"][0].zero_()  # a copy was adopted
    torch.testing.assert_close(
        served(manager, x, {"instant": 1.5}), expected(x, {folder / "same": 1.0}), atol=ATOL, rtol=0
    )
    with pytest.raises(InputError, match="does not take"):
        manager.adopt(AdapterSpec("wrong", "", "experts"), {"layers.9.q_proj": pairs(5)["layers.1.q_proj"]})
    manager.unload("instant")
    with pytest.raises(InputError, match="made in memory and are gone"):
        manager.load("instant")
