"""Speed of the environment: the AEC face against PettingZoo's tictactoe, the vector face against Gymnasium's CartPole."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

import agents  # noqa: F401  (opponents by name)
from bargain_env import bargain_v0
from experiments.speed.stopwatch import Speed, Work, rates

Report = Callable[[Speed], None]
SIZES = (1, 8, 64, 256, 1024, 4096, 16384)
BARRED = (1024, 16384)
OPPONENTS = ("linear_standard", "boulware_hard", "tit_for_tat", "micro_moderate", "charging_boul")
SCRIPTS = 256
BIDS = 60
"""Bidding actions are drawn below this one: offers in the lower 45 % of the range, as a buyer makes them."""


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """All speeds, one by one; ``seconds`` each."""
    yield from aec(seconds, seed)
    yield from vector(seconds, seed)
    yield from opponents(seconds, seed)


# ── AEC ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def aec(seconds: float, seed: int) -> Iterator[Speed]:
    """Moves a second of whole games with `last()`, actions drawn beforehand, wrapped and raw."""
    rng = np.random.default_rng(seed)
    bids = [[int(rng.integers(1, 132)), *rng.integers(0, 132, 19).tolist()] for _ in range(SCRIPTS)]
    fills = [rng.permutation(9).tolist() for _ in range(SCRIPTS)]
    for name, ours, theirs, bar in (
        ("AEC wrapped", bargain_v0.env(), _tictactoe(raw=False), 2.0),
        ("AEC raw", bargain_v0.raw_env(), _tictactoe(raw=True), 3.0),
    ):
        works = {"ours": _games(ours, bids, seed)}
        if theirs is not None:
            works["reference"] = _games(theirs, fills, seed)
        found = rates(works, seconds)
        yield _compared(name, found, "moves/s", f"PettingZoo tictactoe_v3 {name.split()[1]}", bar)


def _tictactoe(raw: bool) -> Any:
    """PettingZoo's environment, or None where pygame, which it draws with, is missing."""
    try:
        import pettingzoo
        from pettingzoo.classic.tictactoe.tictactoe import raw_env
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return raw_env() if raw else pettingzoo.make("aec", "classic/tictactoe-v3")


def _games(env: Any, scripts: list[list[int]], seed: int) -> Work:
    """Work that plays the scripts one after another, each until its game is over."""
    env.reset(seed=seed)
    order = itertools.cycle(scripts)

    def play() -> float:
        script, played = next(order), 0
        env.reset()
        for _ in env.agent_iter():
            _, _, termination, truncation, _ = env.last()
            if termination or truncation:
                env.step(None)
            else:
                env.step(script[played])
                played += 1
        return played

    return play


def _compared(name: str, found: dict[str, float], unit: str, reference: str, bar: float | None) -> Speed:
    if "reference" not in found:
        return Speed(name, found["ours"], unit, f"{reference}: not installed, needs pygame", None, bar)
    return Speed(name, found["ours"], unit, reference, found["ours"] / found["reference"], bar)


# ── vector ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def vector(seconds: float, seed: int) -> Iterator[Speed]:
    """Moves a second by batch size, with full observations and masks, against CartPole's steps a second."""
    for n in SIZES:
        for label, highest in (("bids", BIDS), ("uniform", 132)):
            ours = gymnasium.make_vec("bargain_env:Bargain-v0", n)
            works = {"ours": _bargains(ours, highest, seed), "reference": _cart_poles(n, seed)}
            bar = (0.5 if n == BARRED[0] else 0.25) if label == "bids" and n in BARRED else None
            reference = f"Gymnasium CartPole, {n} games"
            yield _compared(f"vector, {n} games, {label}", rates(works, seconds), "moves/s", reference, bar)


def opponents(seconds: float, seed: int, n: int = 1024) -> Iterator[Speed]:
    """Moves a second against different scripts."""
    for name in OPPONENTS:
        env = gymnasium.make_vec("bargain_env:Bargain-v0", n, opponent=name)
        found = rates({"ours": _bargains(env, BIDS, seed)}, seconds)
        yield Speed(f"vector, {n} games, against {name}", found["ours"], "moves/s")


def _bargains(env: VectorEnv, highest: int, seed: int) -> Work:
    n, steps = env.num_envs, 32
    actions = list(np.random.default_rng(seed).integers(1 if highest == BIDS else 0, highest, (steps, n)))
    env.reset(seed=seed)
    moves = [_moves(env, actions) for _ in range(1 + 4 * (n < 1024))][-1]  # the first round starts all games together

    def play() -> float:
        for action in actions:
            env.step(action)
        return moves

    return play


def _moves(env: VectorEnv, actions: list[np.ndarray]) -> float:
    """Moves that both seats make in one round of ``actions``, read off the clock that the learner sees."""
    max_turns = env.unwrapped.settings.max_turns  # type: ignore[attr-defined]
    before, over, moves = None, np.zeros(env.num_envs, dtype=bool), 0.0
    for action in actions:
        seen, _, terminated, _, _ = env.step(action)
        played = (seen["observation"][:, 1] + 1.0) / 2.0 * max_turns
        if before is not None:
            moves += float(np.where(over, played, played - before).sum())
        before, over = played, terminated
    return moves * len(actions) / (len(actions) - 1)


def _cart_poles(n: int, seed: int) -> Work:
    env = gymnasium.make_vec("CartPole-v1", n, vectorization_mode="vector_entry_point")
    actions = list(np.random.default_rng(seed).integers(0, 2, (32, n)))
    env.reset(seed=seed)

    def play() -> float:
        for action in actions:
            env.step(action)
        return float(n * len(actions))

    return play
