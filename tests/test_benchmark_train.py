"""`experiments.benchmark train`: both sides of every ratio compute the same, and a figure is what its name says."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch

from experiments import benchmark, cli
from experiments.speed import seed_training, train, training_sides
from experiments.speed.stopwatch import Speed
from experiments.speed.training_sides import Lengths, draw_batch
from hyperlora.base import nano_model
from hyperlora.inject import adapter_parameters
from hyperlora.losses import IGNORE

SHORT = Lengths((5, 9), (2, 4))
TINY = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture
def base():
    return nano_model(hidden=16, layers=2, heads=2, intermediate=24, seed=3)


@pytest.fixture
def batch():
    return draw_batch(SHORT, 125, seed=1)


@pytest.fixture
def tiny(monkeypatch):
    """The whole suite within a second or two; the bars that depend on time are met by anything."""
    monkeypatch.setattr(train, "VOCABULARY", 4001)
    monkeypatch.setattr(train, "WIDE", TINY)
    monkeypatch.setattr(train, "LAYERS", 1)
    monkeypatch.setattr(train, "BANK", 2)
    monkeypatch.setattr(train, "LENGTHS", SHORT)
    monkeypatch.setattr(train, "NANO_LENGTHS", SHORT)
    monkeypatch.setattr(train, "smollm2_installed", lambda: False)
    for bar in ("PEFT_BAR", "SEED_BAR", "BANK_BAR"):
        monkeypatch.setattr(train, bar, 0.0)


def call(*options: str) -> None:
    cli.main(benchmark.Settings, benchmark.run, ["train", "--seconds", "1e-6", "--json", *options])


# ── what is compared ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_have_the_lengths_asked_for():
    lengths = Lengths((20, 40), (3, 6))
    first = draw_batch(lengths, 50, seed=0)
    assert not torch.equal(first.ids, draw_batch(lengths, 50, seed=1).ids)
    assert torch.equal(first.ids, draw_batch(lengths, 50, seed=0).ids)
    for ids, mask, labels in zip(first.ids, first.mask, first.labels, strict=True):
        whole, targets = int(mask.sum()), labels != IGNORE
        assert 3 <= int(targets.sum()) <= 6
        assert 20 <= whole - int(targets.sum()) <= 40
        assert targets[whole - int(targets.sum()) : whole].all()
        assert torch.equal(labels[targets], ids[targets])
        assert (ids[:whole] > 0).all()
        assert (ids[whole:] == 0).all()
    assert first.mask.any(dim=0).all()
    assert (first.targets, first.rho.shape) == (int((first.labels != IGNORE).sum()), (training_sides.ROWS, 1))


def test_the_reference_is_the_equation():
    linear, condition = torch.nn.Linear(6, 5), seed_training.Condition(torch.tensor([[0.1], [0.9]]))
    layer = seed_training.SeedLinear(linear, condition, rank=3, alpha=6.0, hidden=4)
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), linear(x))
    with torch.no_grad():
        for drawn in (layer.lora_A, layer.lora_B):
            drawn.normal_(generator=torch.Generator().manual_seed(1))
    gates = layer.hyper_net(condition.rho)
    assert (gates[0] - gates[1]).abs().max() > 1e-3
    for row, gate in enumerate(gates):
        weight = linear.weight + 6.0 / 3 * layer.lora_B @ torch.diag(gate) @ layer.lora_A
        torch.testing.assert_close(layer(x)[row], x[row] @ weight.T + linear.bias, atol=1e-5, rtol=0)


def test_the_seeds_loop_computes_what_ours_does(base, batch):
    alone = copy.deepcopy(base)
    seed_training.inject_seed(alone, ("q_proj", "down_proj"), rank=2, alpha=4.0, hidden=3, rho=batch.rho)
    trained = {name.partition("proj.")[2] for name, p in alone.named_parameters() if p.requires_grad}
    nets = {f"hyper_net.net.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    assert trained == {"lora_A", "lora_B"} | nets
    own = training_sides.ours(base, seed=2)
    loop = training_sides.seed_loop(base, own, batch)
    training_sides.require_same(own, loop, batch, batch.rho)
    layer = loop.model.get_submodule("model.layers.1.mlp.down_proj")
    with torch.no_grad():
        layer.hyper_net.net[4].bias.add_(1.0)
    with pytest.raises(RuntimeError, match="the seed's loop computes another"):
        training_sides.require_same(own, loop, batch, batch.rho)


def test_peft_computes_what_ours_does_at_one_rho(base, batch):
    pytest.importorskip("peft")
    own = training_sides.ours(base, seed=2)
    peft = training_sides.peft_lora(base, own, 0.3)
    training_sides.require_same(own, peft, batch, torch.full((1, 1), 0.3))
    for other in (torch.full((1, 1), 0.8), batch.rho):
        with pytest.raises(RuntimeError, match="PEFT LoRA computes another"):
            training_sides.require_same(own, peft, batch, other)


def test_another_loss_is_found_out(base, batch):
    own = training_sides.ours(base, seed=2)
    loop = training_sides.seed_loop(base, own, batch)
    shifted = training_sides.Side("shifted", loop.model, lambda b: loop.loss(b) * 1.001, loop.down, loop.bound)
    with pytest.raises(RuntimeError, match="shifted computes another loss than ours"):
        training_sides.require_same(own, shifted, batch, batch.rho)


def test_a_step_trains_the_adapter_and_nothing_else(base, batch):
    own = training_sides.ours(base, seed=2)
    sides = [own, training_sides.peft_lora(base, own, 0.3), training_sides.seed_loop(base, own, batch)]
    frozen = copy.deepcopy(base.state_dict())
    for side in filter(None, sides):
        before = [a.detach().clone() for a in side.down.values()]
        assert training_sides.step(side, batch)() == 1.0
        assert all(not torch.equal(a, b) for a, b in zip(side.down.values(), before, strict=True))
        assert all(parameter.grad is None for parameter in side.model.parameters())
    shared = {id(parameter) for parameter in base.parameters()}
    assert shared <= {id(parameter) for parameter in own.model.parameters()}
    assert all(torch.equal(value, frozen[name]) for name, value in base.state_dict().items())


def test_every_ratio_of_steps_is_checked_first(tiny, monkeypatch, base):
    pytest.importorskip("peft")
    checked = []
    monkeypatch.setattr(train, "require_same", lambda one, other, *_: checked.append((one.name, other.name)))
    assert next(train.against_peft("tiny", base, SHORT, 1e-6, 0)).ratio
    assert checked == [("ours", "PEFT LoRA")]
    assert next(train.against_both(1e-6, 0)).ratio
    assert checked[1:] == [("ours", "PEFT LoRA"), ("ours", "the seed's loop")]


def test_other_gates_are_found_out(monkeypatch, tiny):
    right = train.batch_gates
    monkeypatch.setattr(train, "batch_gates", lambda model, rho: right(model, rho) + 1e-3)
    with pytest.raises(RuntimeError, match="other gates"):
        list(train.gates(1e-6, seed=0))


def test_the_loop_over_gates_has_a_network_for_every_layer(tiny):
    bank, nets = train._bank(seed=0)
    assert len(nets) == 2 * 7
    ours = sum(p.numel() for name, p in adapter_parameters(bank).items() if "lora_" not in name)
    assert ours == sum(p.numel() for net in nets for p in net.parameters())


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_logits_are_counted_in_bytes(base, batch):
    model = base.eval()
    few, loss = training_sides.logits_bytes(model, lambda: training_sides.target_mean(model, batch))
    full, same = training_sides.logits_bytes(model, lambda: training_sides.full_mean(model, batch))
    assert (few, full) == (batch.targets * 131 * 4, batch.ids.numel() * 131 * 4)
    assert loss == pytest.approx(same, rel=1e-5)
    assert not model.get_output_embeddings()._forward_hooks


def test_what_is_kept_is_counted_once_and_without_weights(batch):
    model, x = torch.nn.Linear(4, 3, bias=False), torch.randn(5, 4, requires_grad=True)

    def loss(_):
        y = model(x)
        return (y * y + y.square()).sum()

    assert training_sides.kept_bytes(training_sides.Side("", model, loss, {}), batch) == (5 * 4 + 5 * 3) * 4


def test_full_logits_are_kept_for_the_backward_pass(tiny):
    base, batch = train.qwen2(0, layers=1, **TINY), draw_batch(SHORT, 4001, seed=1)
    own = training_sides.ours(base, seed=2)
    loop = training_sides.seed_loop(base, own, batch)
    few, full = (training_sides.kept_bytes(side, batch) for side in (own, loop))
    assert few == training_sides.kept_bytes(own, batch)
    assert few > batch.targets * 4001 * 4
    assert full - few > 0.5 * (batch.ids.numel() - batch.targets) * 4001 * 4


def test_logits_that_grow_with_the_row_miss_their_bar(monkeypatch, tiny):
    assert [speed.meets for speed in train.logits(seed=0)] == [True] * 3
    monkeypatch.setattr(train, "target_mean", train.full_mean)
    assert [speed.meets for speed in train.logits(seed=0)] == [False] * 3


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command(tiny, capsys, tmp_path):
    pytest.importorskip("peft")
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    try:
        call("--check", "--out", str(tmp_path))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), random)
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "benchmark.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]
    by_name = {speed["name"]: speed for speed in found["speeds"]}
    assert len(by_name) == len(found["speeds"])
    for speed in by_name.values():
        assert speed["rate"] > 0
        assert speed["ratio"] > 0
        assert speed["meets"] is (None if speed["bar"] is None else True)
        assert speed["unit"] in ("passes/s", "steps/s", "bytes")
    wide = f"Qwen2 {TINY['hidden_size']} wide, 1 layers"
    assert [name for name in by_name if name.startswith((wide, "janus-nano"))] == [
        "janus-nano, step, to PEFT LoRA",
        f"{wide}, step, to PEFT LoRA",
        f"{wide}, step, to the seed's loop",
        f"{wide}, kept, to PEFT LoRA",
        f"{wide}, kept, to the seed's loop",
    ]
    assert by_name[f"{wide}, kept, to the seed's loop"]["ratio"] > 1


@pytest.mark.parametrize(
    ("bar", "missed"),
    [("PEFT_BAR", "PEFT LoRA"), ("SEED_BAR", "the seed's loop"), ("BANK_BAR", "gates of"), ("LOGITS_SHARE", "logits")],
)
def test_check_exits_with_one_below_a_bar(tiny, monkeypatch, capsys, bar, missed):
    monkeypatch.setattr(train, bar, 1e9)
    if bar == "PEFT_BAR":
        pytest.importorskip("peft")
    with pytest.raises(SystemExit) as stopped:
        call("--check")
    assert stopped.value.code == 1
    named = capsys.readouterr().err.partition("below the bar: ")[2]
    assert missed in named


def test_without_peft_the_row_says_so(tiny, monkeypatch, base):
    monkeypatch.setitem(sys.modules, "peft", None)
    (speed,) = train.against_peft("tiny", base, SHORT, 1e-6, 0)
    assert (speed.ratio, speed.meets) == (None, None)
    assert "not installed" in speed.reference
    assert [speed.name.rpartition("to ")[2] for speed in train.against_both(1e-6, 0)] == [
        "PEFT LoRA",
        "the seed's loop",
        "the seed's loop",
    ]


def test_smollm2_is_measured_where_it_is_installed(tiny, monkeypatch, base):
    monkeypatch.setattr(train, "_load", lambda spec: base)
    without = [speed.name for speed in train.measure(1e-6, 0)]
    monkeypatch.setattr(train, "smollm2_installed", lambda: True)
    assert [speed.name for speed in train.measure(1e-6, 0)] == [*without, "SmolLM2-135M, step, to PEFT LoRA"]


def test_slow_things_and_sizes_are_readable():
    speeds = [Speed("fast", 2e6, "moves/s"), Speed("slow", 0.25, "steps/s"), Speed("size", 19_447_808, "bytes")]
    assert [benchmark._each(speed) for speed in speeds] == ["500 ns", "4,000.00 ms", ""]
    assert [benchmark._rate(speed.rate) for speed in speeds] == ["2.00 M", "0.25", "19.45 M"]
    assert [benchmark._rate(rate) for rate in (45.44, 1216.3, 99_500)] == ["45.4", "1,216", "100 k"]
