"""Arms of the ablation: which way ρ takes, what is held fixed, and who may be named where."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from janus_worlds import OFFERS, TABLE, small_adapter, write_adapter, write_base

from agents.janus import TEXT_RHO, JanusAgent
from agents.janus_models import at_mean_gates, clear_models, shared_adapter
from agents.situations import situation_of, view_of
from bargain_env import PRESETS
from bargain_env.errors import InputError
from experiments.match import arms, contestants
from experiments.match.arms import JanusOptions, janus_spec
from hyperlora import adapter_digest, bind_rho, inject_hyperlora, load_hyperlora_adapter, save_hyperlora_adapter
from hyperlora.base import nano_model
from hyperlora.constant_gates import has_constant_gates, mean_gates, set_constant_gates, with_constant_gates
from hyperlora.inject import adapter_modules, adapter_state
from hyperlora.layer import HyperLoRALinear
from hyperlora.testing import IDENTITIES
from hyperlora.testing.probe import Probe, as_found
from hyperlora.testing.report import Skipped
from hyperlora.tokens import encode

NEED_RHO = {"rho_moves_it", "prefix_of_another_rho", "only_the_adapter_trains", "state_round_trip"}
"""Identities that ask for gates that follow ρ, or that train."""


@pytest.fixture(scope="module")
def adapter():
    return small_adapter()


@pytest.fixture
def world(tmp_path):
    """An adapter on disk, and nobody's model in memory."""
    clear_models()
    yield write_adapter(tmp_path / "adapter", write_base(tmp_path / "base"))
    clear_models()


def logits(adapter, texts, rho):
    """Of the vocabulary after each text, with the gates at each ``rho``; alone, for a row's place is worth a last bit."""
    found = []
    for ids, one in zip(encode(adapter.tokenizer, texts), rho, strict=True):
        with torch.no_grad(), bind_rho(adapter.model, one):
            found.append(adapter.model(torch.tensor([ids])).logits[0, -1])
    return found


def prompts(agent, rho):
    view = view_of([situation_of({**TABLE, "offers": OFFERS}, 8)] * len(rho))
    agent.reset(view.games)
    return agent.prompts(view, np.array(rho))


def waking(seed=0, **options):
    """A model whose adapter says something."""
    model = inject_hyperlora(nano_model(hidden=32, layers=2, heads=2, intermediate=48, seed=4), rank=4, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            layer.lora_B.normal_(0.0, 0.5, generator=generator)
    return model.eval()


# ── constant gates ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("fourier", [False, True])
def test_gates_frozen_at_their_mean(activation, fourier):
    model = waking(gate_activation=activation, use_fourier=fourier)
    x, rho = torch.arange(24).reshape(2, 12), [0.1, 0.9]
    with torch.no_grad(), bind_rho(model, rho):
        moving = model(x).logits
        free = model.hyperlora_binding.gates
    assert (free[:, 0] - free[:, 1]).abs().max() > 1e-2
    grid = torch.linspace(0, 1, 101).tolist()
    by_hand = torch.stack([net(torch.tensor(grid).unsqueeze(1)).mean(0) for net in model.hyperlora_binding.nets])
    assert torch.allclose(mean_gates(model), by_hand.double(), atol=1e-6)
    twin = with_constant_gates(model, mean_gates(model))
    with torch.no_grad(), bind_rho(twin, [*rho, -1.0, 0.5]):
        frozen = twin(x.repeat(2, 1)).logits
        gates = twin.hyperlora_binding.gates
    assert torch.equal(gates, gates[:, :1].expand_as(gates))
    assert torch.allclose(gates[:, 0].double(), by_hand.double(), atol=2e-6)
    assert torch.equal(frozen[:2], frozen[2:])
    assert not torch.allclose(frozen[:2], moving, atol=1e-4)
    assert (has_constant_gates(twin), has_constant_gates(model)) == (True, False)
    with torch.no_grad(), bind_rho(model, rho):
        assert torch.equal(model(x).logits, moving), "the original is as it was"


def test_the_twin_shares_all_but_its_gates():
    model = waking()
    twin = with_constant_gates(model, 0.5)
    mine, its = dict(model.named_parameters()), dict(twin.named_parameters())
    assert mine.keys() == its.keys()
    assert {name.split(".hyper_net.")[-1].split(".")[0] for name in mine if mine[name] is not its[name]} == {"bank"}
    assert adapter_digest(model) != adapter_digest(twin)
    assert all(layer.binding is twin.hyperlora_binding for _, layer in adapter_modules(twin))


def test_gates_of_one_make_a_plain_lora():
    model = waking()
    x = torch.arange(12).reshape(1, 12)
    set_constant_gates(model, 1.0)
    with torch.no_grad(), bind_rho(model, 0.3):
        ours = model(x).logits
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            assert isinstance(layer, HyperLoRALinear)
            layer.base_layer.weight += layer.alpha / layer.rank * layer.lora_B @ layer.lora_A
    with torch.no_grad(), bind_rho(model, None):
        folded = model(x).logits
    assert torch.allclose(ours, folded, atol=1e-4)
    assert not any(p.requires_grad for p in model.hyperlora_binding.bank.parameters())


@pytest.mark.parametrize(
    ("activation", "gate"), [("sigmoid", 1.2), ("sigmoid", -0.1), ("tanh", -1.5), ("softplus", -1.0)]
)
def test_a_gate_that_the_activation_cannot_give_is_refused(activation, gate):
    model = waking(gate_activation=activation)
    before = adapter_digest(model)
    with pytest.raises(InputError, match=f"gates of {activation} lie in"):
        set_constant_gates(model, gate)
    assert adapter_digest(model) == before


@pytest.mark.parametrize("gate", [1.0, None])
def test_identities_hold_with_constant_gates(gate):
    model = waking(dropout=0.0)
    twin = with_constant_gates(model, mean_gates(model) if gate is None else gate)
    held, skipped = [], []
    with as_found(twin):
        probe = Probe(twin, None, 4, 12, 1e-5, 0)
        for name, identity in IDENTITIES.items():
            if name in NEED_RHO:
                continue
            with probe.undisturbed():
                try:
                    finding = identity(probe)
                except Skipped:
                    skipped.append(name)
                    continue
            assert finding.named(name).holds, finding
            held.append(name)
    assert len(held) > 12, skipped
    with as_found(twin):
        probe = Probe(twin, None, 4, 12, 1e-5, 0)
        with probe.undisturbed():
            assert not IDENTITIES["rho_moves_it"](probe).holds, "the dial is dead"


# ── the two ways ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_text_alone(adapter):
    both, text = JanusAgent(adapter), JanusAgent(adapter, channel="text")
    said = prompts(both, [0.1, 0.9])
    assert said[0] != said[1]
    assert prompts(text, [0.1, 0.9]) == said
    same = [said[0]] * 3
    assert not torch.allclose(*logits(both.adapter, same, [0.1, 0.9, 0.5])[:2], atol=1e-4)
    first, *others = logits(text.adapter, same, [0.1, 0.9, -1.0])
    assert all(torch.equal(first, other) for other in others)
    assert not torch.allclose(*logits(text.adapter, said, [0.1, 0.1]), atol=1e-4), "the prompt still speaks"


def test_gates_alone(adapter):
    agent = JanusAgent(adapter, channel="gates")
    said = prompts(agent, [0.1, 0.9, -1.0])
    assert len(set(said)) == 1
    assert said == prompts(JanusAgent(adapter), [TEXT_RHO] * 3)
    assert agent.adapter is adapter
    apart = logits(adapter, said, [0.1, 0.9, 0.1])
    assert not torch.allclose(apart[0], apart[1], atol=1e-4)
    assert torch.equal(apart[0], apart[2]), "through nothing but the gates"


def test_gates_alone_play_as_text_that_says_a_half(adapter):
    """At ρ 0.5 the arm is the agent itself; elsewhere it is not."""
    view = view_of([situation_of(TABLE, 8)] * 2)
    found = {}
    for channel in ("both", "gates"):
        for rho in (0.5, 0.9):
            agent = JanusAgent(adapter, np.full(2, rho), guard="none", channel=channel)
            agent.reset(view.games)
            found[channel, rho] = agent.act(view).price.tolist()
    assert found["both", 0.5] != found["both", 0.9]
    assert found["both", 0.5] == found["gates", 0.5]
    assert found["both", 0.9] != found["gates", 0.9]


def test_an_adapter_trained_with_one_text_is_always_shown_it(adapter):
    trained = type(adapter)(adapter.model, adapter.tokenizer, {**adapter.config, "run": {"text_rho": 0.3}})
    assert prompts(JanusAgent(adapter), [0.8]) != prompts(JanusAgent(adapter), [0.3])
    for channel in ("both", "gates"):
        assert prompts(JanusAgent(trained, channel=channel), [0.8]) == prompts(JanusAgent(adapter), [0.3])


def test_unknown_channel(adapter):
    with pytest.raises(InputError, match="did you mean 'gates'"):
        JanusAgent(adapter, channel="gate")


def test_the_frozen_twin_is_loaded_once_and_beside_its_original(world):
    plain, frozen = shared_adapter(world), shared_adapter(world, frozen_gates=True)
    assert frozen is shared_adapter(world, frozen_gates=True)
    assert plain is shared_adapter(world)
    assert (has_constant_gates(plain.model), has_constant_gates(frozen.model)) == (False, True)
    assert frozen.model.hyperlora_digest == adapter_digest(frozen.model) != plain.model.hyperlora_digest
    assert frozen.model.get_input_embeddings().weight is plain.model.get_input_embeddings().weight
    state = adapter_state(at_mean_gates(plain).model)
    assert all(torch.equal(state[name], value) for name, value in adapter_state(frozen.model).items())


# ── specs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_specs(world, tmp_path):
    path = str(world)
    forms = {
        "janus-nano": ("janus-nano", "both", False),
        "janus-nano@text": ("janus-nano", "text", False),
        "janus-nano@gates": ("janus-nano", "gates", False),
        f"janus:{path}": (path, "both", True),
        f"janus:{path}@gates": (path, "gates", True),
        "base": ("janus-nano", "base", False),
        f"base:{path}": (path, "base", True),
        "shuffled": ("janus-nano", "shuffled", False),
        f"lora:{path}": (path, "lora", True),
    }
    for text, wanted in forms.items():
        found = janus_spec(text)
        assert (found.label, found.adapter, found.arm, found.given) == (text, *wanted)
        assert found.arm in arms.ARMS
    for other in ("fair", "janus", "script:fair", "micro(step=10.0)", "janus-nano@tex"):
        assert janus_spec(other) is None
    odd = tmp_path / "odd@name"
    odd.mkdir()
    assert janus_spec(f"janus:{odd}").adapter == str(odd)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base@text", "stands behind janus-nano or janus:PATH"),
        ("shuffled@gates", "stands behind"),
        ("janus:", "no checkpoint at ''"),
        ("janus:/no/such@text", "no checkpoint at '/no/such'"),
        ("lora:/no/such", "no checkpoint at '/no/such'"),
        ("janus-nano@texts", "unknown agent"),
    ],
)
def test_specs_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        contestants.resolve_agents(text)


def test_the_default_lora_and_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"python -m experiments\.ablations"):
        janus_spec("lora")
    arms.LORA.mkdir(parents=True)
    assert janus_spec("lora").adapter == str(arms.LORA)


def test_an_adapter_says_what_it_was_trained_for(tmp_path):
    wanted = {
        "lora": {"gates": "constant"},
        "gates_trained": {"text_rho": 0.5},
        "both": {"gates": "rho", "text_rho": None},
    }
    for arm, run in wanted.items():
        folder = tmp_path / arm / "adapter"
        folder.mkdir(parents=True)
        (folder / arms.CONFIG).write_text(json.dumps({"run": run}))
        assert janus_spec(f"janus:{folder}").arm == janus_spec(f"janus:{folder.parent}").arm == arm
        assert janus_spec(f"janus:{folder}@text").arm == "text"
    (tmp_path / "both/adapter" / arms.CONFIG).write_text("[")
    assert janus_spec(f"janus:{tmp_path}/both").arm == "both"


def test_arms_reach_the_agent(world):
    named = f"janus:{world},janus:{world}@text,janus:{world}@gates,base:{world}"
    made = [
        c.build(np.array([0.2]), PRESETS["paper"]) for c in contestants.resolve_agents(named, JanusOptions(threads=1))
    ]
    assert [agent.channel for agent in made] == ["both", "text", "gates", "both"]
    assert [agent.base_only for agent in made] == [False, False, False, True]
    assert [has_constant_gates(agent.adapter.model) for agent in made] == [False, True, False, False]


def test_a_lora_must_be_one(world, tmp_path):
    def build(spec):
        (found,) = contestants.resolve_agents(spec, JanusOptions(threads=1))
        return found.build(np.array([0.5]), PRESETS["paper"])

    with pytest.raises(InputError, match="is no plain LoRA"):
        build(f"lora:{world}")
    loaded = load_hyperlora_adapter(world)
    set_constant_gates(loaded.model, 1.0)
    plain = save_hyperlora_adapter(loaded.model, loaded.tokenizer, tmp_path / "plain")
    assert torch.allclose(mean_gates(build(f"lora:{plain}").adapter.model), torch.ones((), dtype=torch.float64))


def test_who_is_a_control_and_who_is_asked():
    found = {
        c.label: c for c in contestants.resolve_agents("janus-nano,janus-nano@text,janus-nano@gates,base,shuffled")
    }
    assert [label for label, c in found.items() if c.control] == ["base", "shuffled"]
    assert all(c.takes_rho for c in found.values())
    assert not contestants.unasked(found["base"], 0.5).takes_rho
    seen = []
    watched = contestants.Contestant("x", takes_rho=True, build=lambda rho, _: seen.append(rho))
    contestants.unasked(watched, 0.25).build(None, PRESETS["paper"])
    assert seen[0] == 0.25
