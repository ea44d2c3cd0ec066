"""Models are loaded once and shared; another base, another precision and the options that reach them."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from janus_worlds import write_adapter, write_base

from agents import janus_models
from agents.janus import JanusAgent
from agents.janus_models import clear_models, shared_adapter
from agents.janus_session import Janus
from bargain_env.errors import InputError

TABLE = {"seat": "buyer", "reservation": 900.0, "price_low": 200.0, "price_high": 1500.0, "max_turns": 20}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two bases, and an adapter of the first."""
    root = tmp_path_factory.mktemp("world")
    base, other = (write_base(root / name, seed) for name, seed in (("base", 1), ("other", 2)))
    return base, other, write_adapter(root / "adapter", base)


@pytest.fixture(autouse=True)
def empty():
    """No test finds what another has loaded."""
    clear_models()
    yield
    clear_models()


@pytest.fixture
def loads(monkeypatch):
    """What was loaded, in order; loading costs nothing."""
    made = []

    def load(adapter, base, **options):
        made.append((adapter, base, options))
        return object()

    monkeypatch.setattr(janus_models, "load_hyperlora_adapter", load)
    return made


# ── loaded once ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seats_agents_and_sessions_share_one_model(world):
    folder = world[2]
    buyer, seller, session = JanusAgent(folder, 0.2), JanusAgent(str(folder), 0.8), Janus.load(folder)
    assert buyer.adapter is seller.adapter is session.agent.adapter
    assert buyer is not seller
    assert Janus.clear() == 1
    assert JanusAgent(folder).adapter is not buyer.adapter
    assert janus_models.KEPT >= 2


def test_what_differs_is_loaded_apart(loads):
    ways = [{}, {"base": "b"}, {"allow_base_mismatch": True}, {"precision": "dense"}, {"device": "cuda"}]
    monkey = [shared_adapter("a", **way) for way in ways[:4]]
    assert len({id(one) for one in monkey}) == len(loads) == 4
    assert [shared_adapter("a", **way) for way in ways[:4]] == monkey
    assert len(loads) == 4
    shared_adapter("a", **ways[4])
    assert loads[4] == ("a", None, {"allow_base_mismatch": False, "precision": "trained", "device": "cuda"})


def test_the_one_used_longest_ago_makes_room(loads, monkeypatch):
    monkeypatch.setattr(janus_models, "KEPT", 4)
    for name in "abcd":
        shared_adapter(name)
    shared_adapter("a")
    shared_adapter("e")
    shared_adapter("a")
    assert [name for name, *_ in loads] == list("abcde")
    shared_adapter("b")
    assert [name for name, *_ in loads] == list("abcdeb")
    assert clear_models() == 4
    assert clear_models() == 0


def test_an_adapter_that_was_trained_again_is_loaded_again_and_the_old_one_let_go(tmp_path, loads):
    first = shared_adapter(tmp_path)
    assert shared_adapter(tmp_path) is first
    os.utime(tmp_path, ns=(1, 10**18))
    second = shared_adapter(tmp_path)
    assert second is not first
    assert shared_adapter(tmp_path) is second
    assert clear_models() == 1


def test_what_fails_to_load_leaves_the_others(world):
    kept = shared_adapter(world[2])
    with pytest.raises(InputError):
        shared_adapter("/no/such/adapter")
    assert shared_adapter(world[2]) is kept
    assert clear_models() == 1


# ── any base ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_base_is_refused_unless_allowed(world):
    base, other, folder = world
    with pytest.raises(InputError, match="allow the mismatch"):
        Janus.load(folder, base=str(other))
    own, named = Janus.load(folder), Janus.load(folder, base=str(base))
    there = Janus.load(folder, base=str(other), allow_base_mismatch=True)
    assert own.decide(TABLE, 0.3) == named.decide(TABLE, 0.3)
    assert own.decide(TABLE, 0.3).accept_probability == 0.0
    said = {**TABLE, "offers": [("seller", 1100.0)]}
    assert own.decide(said, 0.3).accept_probability != there.decide(said, 0.3).accept_probability


def test_a_base_in_four_bits(world):
    pytest.importorskip("bitsandbytes")
    said = {**TABLE, "offers": [("seller", 1100.0)]}
    with warnings.catch_warnings(action="ignore"):
        packed = Janus.load(world[2], precision="nf4")
    assert packed.agent.adapter.config["served_precision"] == "nf4"
    dense, coarse = Janus.load(world[2], precision="dense").decide(said, 0.3), packed.decide(said, 0.3)
    assert dense == Janus.load(world[2]).decide(said, 0.3)
    assert coarse.accept_probability != dense.accept_probability
    assert 0.0 < coarse.accept_probability < 1.0


def test_a_mode_is_refused_before_anything_is_loaded(loads):
    for mode in ("beam", "sample:0", "quantile", "mean:2"):
        with pytest.raises(InputError, match="decode mode"):
            JanusAgent("a", decode=mode)
    with pytest.raises(InputError, match="guard"):
        JanusAgent("a", guard="irr")
    assert loads == []


def test_a_free_mode_plays_and_counts(world):
    """The unadapted base writes nonsense: its answers are none, and its reservation is played."""
    janus = Janus.load(world[2], decode="free", base_only=True)
    decisions = janus.decide([TABLE, {**TABLE, "seat": "seller", "offers": [("buyer", 500.0)]}])
    for decision in decisions:
        assert decision.fallback == (decision.raw_action == "NONE")
        assert not decision.fallback or (decision.action, decision.price) == ("OFFER", 900.0)
    assert any(decision.fallback for decision in decisions)
    torch.manual_seed(1)
    assert janus.decide(TABLE) == decisions[0]
