"""Train a teacher: a goal-conditioned player that learns by playing which moves bring a settlement near its goal.

    python -m experiments.teacher --scenario paper,hidden --out runs/teacher.safetensors
    python -m experiments.collect --scenario paper,hidden --teacher runs/teacher.safetensors --teacher-share 0.6

It plays both seats against all strategies that train, new members of their families every few rounds, scripted
target-seeking players, and sparring partners without habits to learn (`experiments.teacher_opponents`); never against what
is held out or validates. Goals are drawn evenly from [0, 1] and its ends. The reward of a game is ``-|ρ - ρ*|``, or
``-impasse_cost``: hindsight tells it the ZOPA, and its critic the opponent too; its moves are made from what its seat knows.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

import bargain_env
from agents.teacher import FAR, SUFFIX
from bargain_env import Preset, Scenarios, Seat, preset
from bargain_env.errors import InputError
from bargain_env.policy import Floats
from experiments import cli
from experiments.actor_critic import ActorCritic, Explorer, Learner, Played
from experiments.match import pairs
from experiments.match.specs import split
from experiments.teacher_opponents import TRAIN, Opponents, registered

SCALE = 500.0
"""Currency units of a demand of 1: the width of the ZOPA in the preset ``paper``, more than most in the others."""
FIRST_ID = 20_000_000
"""Its games are others than any that are collected or played in tournaments with the same seed."""
ROUND_NUMBER = 0.3
"""Share of the goals that are multiples of .1, as people ask for."""
BEYOND = 0.15
"""Goals are drawn from so far beyond 0 and 1, and brought back. People ask for the ends, and only there does a gamble on the
last turn look good: where they were as rare as other goals, it was never unlearned."""
MOST_SEEDS = 2**43
"""Opponents are drawn with seeds of their own, a million for each of these, and they have 63 bits."""
_GAME = ("width of the ZOPA", "whether there is one", "preset")
"""What the critic is told of a game besides the opponent."""
_TOLD_EVERY = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Train a goal-conditioned player by playing."""

    out: Path = Path("runs/teacher.safetensors")
    """File to write."""
    scenario: str = "paper,hidden"
    """Presets that its games come from, a comma list; it is not told which, and has to see it."""
    opponents: str = TRAIN
    """Who sits opposite, besides the drawn ones below: train (every registered strategy that is not held out) or names,
    a comma list. Alone with one opponent (and --drawn 0 --seekers 0 --sparring 0) it shows what can be had of that one."""
    rounds: int = 200
    """Rounds of play and learning."""
    games: int = 8192
    """Games a round, as many of each preset and in each seat."""
    hidden: int = 192
    """Width of its two hidden layers."""
    impasse_cost: float = 1.2
    """What an impasse costs; the worst deal costs 1, so that the end of a deadline is no place to gamble."""
    drawn: int = 20
    """Drawn members among the opponents, besides those that are registered."""
    seekers: int = 4
    """Scripted target-seeking players among the opponents."""
    sparring: float = 0.35
    """Share of the games against a sparring partner, whose temper is drawn for each game (`agents.scripted.sparring`)."""
    redraw_every: int = 4
    """Rounds with the same opponents."""
    priority: float = 3.0
    """How much more often those of --opponents are met whose games cost more than others': 1 + PRIORITY * cost / mean cost
    times; 0 for all alike."""
    max_turns: int = 20
    """Moves of both seats together."""
    seed: int = 0
    """Of games, opponents, goals, moves and initial weights."""
    threads: int = 2
    """CPU threads; the weights depend on it in their last bits."""
    quiet: bool = False
    """Print nothing but errors."""


def run(settings: Settings) -> Path:
    """Train; returns the file.

    Raises:
        InputError: a setting is out of range.
    """
    presets = _check(settings)
    console = cli.console(settings.quiet)
    cli.output_folder(settings.out.parent)
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(settings.seed)
    opponents = opponents_of(settings)
    model = ActorCritic(settings.hidden, len(opponents.kinds) + len(_GAME), generator)
    learner = Learner(model, settings.rounds, generator)
    costs: list[float] = []
    started = time.monotonic()
    for index in range(settings.rounds):
        played = _play(settings, presets, model, opponents, index, generator)
        learner.learn(index, played)
        costs.append(-float(torch.cat([games.reward for games in played]).mean()))
        if (index + 1) % _TOLD_EVERY == 0 or index == settings.rounds - 1:
            mean, costs = float(np.mean(costs)), []
            passed = time.monotonic() - started
            console.print(f"round {index + 1} of {settings.rounds}: mean cost of a game {mean:.4f}, {passed:.0f} s")
    model.published(SCALE, settings.scenario).save(settings.out)
    console.print(f"wrote {settings.out}", soft_wrap=True)
    console.print(
        f"next: python -m experiments.collect --scenario {settings.scenario} --teacher {settings.out} --teacher-share 1",
        soft_wrap=True,
    )
    return settings.out


def _check(settings: Settings) -> list[Preset]:
    presets = [preset(name) for name in split(settings.scenario, "--scenario")]
    for name, least in (("rounds", 1), ("games", 2 * len(presets)), ("hidden", 1), ("drawn", 0), ("seekers", 0),
                        ("redraw_every", 1), ("max_turns", 2), ("seed", 0), ("threads", 1)):  # fmt: skip
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be at least {least}")
    registered(settings.opponents)
    if settings.seed >= MOST_SEEDS:
        raise InputError(f"--seed {settings.seed} must be below 2**43")
    if not 0 <= settings.sparring <= 1:
        raise InputError(f"--sparring {settings.sparring} must lie in [0, 1]")
    for name, number in (("impasse-cost", settings.impasse_cost), ("priority", settings.priority)):
        if not 0.0 <= number < np.inf:
            raise InputError(f"--{name} {number} must be a number, 0 or more")
    if settings.out.is_dir():
        raise InputError(f"--out {settings.out} is a folder; name a file in it, such as teacher{SUFFIX}")
    return presets


def opponents_of(settings: Settings) -> Opponents:
    """Whom it meets."""
    return Opponents(
        registered(settings.opponents), drawn=settings.drawn, seekers=settings.seekers, sparring=settings.sparring,
        redraw_every=settings.redraw_every, priority=settings.priority, seed=settings.seed,
    )  # fmt: skip


def _play(
    settings: Settings,
    presets: list[Preset],
    model: ActorCritic,
    opponents: Opponents,
    index: int,
    generator: torch.Generator,
) -> list[Played]:
    """The games of a round: of each preset, in each seat."""
    rng = np.random.default_rng([settings.seed, index])
    names = opponents.start(index)
    played: list[Played] = []
    each = settings.games // (2 * len(presets))
    for k, (known, seat) in enumerate(product(presets, Seat)):
        first = FIRST_ID + (2 * len(presets) * index + k) * each
        games = bargain_env.sample(known.name, each, seed=settings.seed, first_id=first, max_turns=settings.max_turns)
        goal = goals(rng, each)
        player = Explorer(model, goal, SCALE, generator)
        chosen = opponents.choose(rng, each)
        other = pairs.routed(names, chosen, known)
        result = bargain_env.play(games, *((player, other) if seat == Seat.BUYER else (other, player)))
        reward = rewards(result.rho, games.has_zopa, goal, settings.impasse_cost)
        opponents.note(chosen, -reward)
        told = np.concatenate([opponents.kind(chosen), _facts(games, presets.index(known))], axis=1)
        played.append(Played(player.decided, torch.from_numpy(told), torch.from_numpy(reward.astype(np.float32))))
    return played


def goals(rng: np.random.Generator, games: int) -> Floats:
    """``[games]`` what it is asked for, in [0, 1]: evenly, but for `BEYOND` and `ROUND_NUMBER`."""
    goal = np.clip(rng.uniform(-BEYOND, 1.0 + BEYOND, games), 0.0, 1.0)
    return np.where(rng.random(games) < ROUND_NUMBER, np.round(goal, 1), goal)


def _facts(games: Scenarios, known: int) -> NDArray[np.float32]:
    """``[B, 3]``: `_GAME`."""
    width = np.clip((games.buyer_max - games.seller_min) / SCALE, -FAR, FAR)
    return np.stack([width, games.has_zopa, np.full(len(games), known)], axis=1).astype(np.float32)


def rewards(rho: Floats, has_zopa: NDArray[np.bool_], goal: Floats, impasse_cost: float) -> Floats:
    """``[B]`` of finished games; ``rho`` is NaN at an impasse. Where there is no ZOPA nothing can be reached or missed."""
    return np.where(has_zopa, np.where(np.isnan(rho), -impasse_cost, -np.abs(rho - goal)), 0.0)


if __name__ == "__main__":
    cli.main(Settings, run)
