"""Speed of the zoo: random pairs of all strategies in one batch, against one game at a time in plain Python.

Seconds are of CPU time, which a busy machine does not stretch. Nothing is left out of an episode but writing: drawing the
game and the pair, building the strategies, playing, ρ and both utilities. The reference plays one cheap pair; the same pair
in a batch is what it compares with like for like.

For orientation only, since other machines measured it: the published engine of the single-price domain played some 16,000
games a CPU second without logging, NegMAS some 170 negotiations, and that does general multi-issue work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import agents
import bargain_env
from bargain_env import PRESETS, Moves, Policy, RoutedPolicy, SeatGames, SeatView, Trajectories
from experiments.match import pairs
from experiments.speed import scalar
from experiments.speed.stopwatch import ROUNDS, Speed, Work, rates

BATCH = 65_536
MEASURED = ("paper", "hidden")
GOAL = 100_000
REFERENCE = "one game at a time, plain Python"
REFERENCE_PAIR = {"boulware_conceding": 0.5, "boulware_firm": 2.0}
"""The reference's buyer and seller, with β: 11.5 turns a game, about what a random pair takes."""
REFERENCE_GAMES = 500


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """Episodes a second of CPU time, then what a row costs in each strategy and around them; about ``seconds`` each."""
    yield from episodes(seconds, seed)
    yield from rows(seconds, seed)


def episodes(seconds: float, seed: int) -> Iterator[Speed]:
    """Episodes a second of random pairs, by preset."""
    names = agents.list_strategies()
    works = {f"{len(names)} strategies, {preset}": _random_pairs(names, preset, seed) for preset in MEASURED}
    works["the reference's pair, paper"] = _one_pair(seed)
    found = rates({**works, REFERENCE: _one_by_one(seed)}, seconds, clock=time.process_time)
    reference = found[REFERENCE]
    for name in works:
        goal = GOAL if "strategies" in name else None
        yield Speed(name, found[name], "episodes/s", REFERENCE, found[name] / reference, goal=goal)
    yield Speed(REFERENCE, reference, "episodes/s")


def _random_pairs(names: list[str], preset: str, seed: int) -> Work:
    def work() -> float:
        games = bargain_env.sample(preset, BATCH, seed=seed)
        pair = pairs.draw(games, len(names))
        buyer, seller = (pairs.routed(names, pair[:, seat], PRESETS[preset]) for seat in (0, 1))
        _figures(bargain_env.play(games, buyer, seller))
        return BATCH

    return work


def _one_pair(seed: int) -> Work:
    def work() -> float:
        buyer, seller = (agents.make_for(PRESETS["paper"], name) for name in REFERENCE_PAIR)
        _figures(bargain_env.play(bargain_env.sample("paper", BATCH, seed=seed), buyer, seller))
        return BATCH

    return work


def _figures(played: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """What an episode is played for."""
    return played.rho, played.utilities


def _one_by_one(seed: int) -> Work:
    buyer, seller = map(scalar.time_dependent, REFERENCE_PAIR.values())
    return lambda: float(len(scalar.games(REFERENCE_GAMES, seed, buyer, seller)))


# ── where the time goes ───────────────────────────────────────────────────────────────────────────────────────────────


class Timed:
    """A policy with a stopwatch: how long it took and how many rows it was asked for."""

    def __init__(self, policy: Policy) -> None:
        self.name, self._policy = policy.name, policy
        self.seconds, self.rows = 0.0, 0

    def reset(self, games: SeatGames) -> None:
        """As the policy."""
        started = time.process_time()
        self._policy.reset(games)
        self.seconds += time.process_time() - started

    def act(self, view: SeatView) -> Moves:
        """As the policy."""
        started = time.process_time()
        moves = self._policy.act(view)
        self.seconds += time.process_time() - started
        self.rows += len(view)
        return moves


def rows(seconds: float, seed: int, preset: str = "paper") -> Iterator[Speed]:
    """Rows a second of each strategy, the dearest first, and moves a second of all that is not a strategy.

    On each turn the past is laid out once for a whole seat, when first asked for: whoever comes first pays for all.
    """
    names = agents.list_strategies()
    best: dict[str, float] = {}
    until = time.process_time() + seconds
    for done in range(10**6):
        for name, rate in timed(names, preset, seed).items():
            best[name] = max(best.get(name, 0.0), rate)
        if done >= ROUNDS - 1 and time.process_time() > until:
            break
    around = best.pop("")
    for name in sorted(best, key=lambda name: best[name]):
        yield Speed(name, best[name], "rows/s")
    yield Speed("all but the strategies", around, "moves/s")


def timed(names: list[str], preset: str, seed: int) -> dict[str, float]:
    """Rows a second of each strategy in one batch of random pairs; under ``""`` moves a second of all the rest.

    Raises:
        RuntimeError: a strategy was asked for a row that it does not play.
    """
    games = bargain_env.sample(preset, BATCH, seed=seed)
    pair = pairs.draw(games, len(names))
    players = [[Timed(agents.make_for(PRESETS[preset], name)) for name in names] for _ in (0, 1)]
    started = time.process_time()
    buyer, seller = (RoutedPolicy(list[Policy](side), pair[:, seat]) for seat, side in enumerate(players))
    played = bargain_env.play(games, buyer, seller)
    total = time.process_time() - started
    for seat, side in enumerate(players):
        moved = (played.kinds != bargain_env.MoveKind.NONE) & (played.sides() == seat)
        own = np.bincount(pair[:, seat], weights=moved.sum(axis=1), minlength=len(names)).astype(int).tolist()
        if own != [player.rows for player in side]:
            raise RuntimeError("a strategy was asked for rows that it does not play")
    both = [(name, a.rows + b.rows, a.seconds + b.seconds) for name, a, b in zip(names, *players, strict=True)]
    inside, moves = sum(spent for _, _, spent in both), sum(n for _, n, _ in both)
    return {name: n / spent for name, n, spent in both if n} | {"": moves / (total - inside)}
