"""Train a teacher: a goal-conditioned player that learns by playing which moves bring a settlement near its goal.

    python -m experiments.teacher --scenario paper,hidden --out runs/teacher.safetensors
    python -m experiments.collect --scenario paper,hidden --teacher runs/teacher.safetensors --teacher-share 0.6

It plays both seats against all strategies that train, new members of their families every few rounds, scripted
target-seeking players, and sparring partners without habits to learn; never against what is held out or validates. Goals are
drawn evenly from [0, 1]. The reward of a game is ``-|ρ - ρ*|``, or ``-impasse_cost``: hindsight tells it the ZOPA, its moves
are made from what its seat knows.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

import agents
import bargain_env
from agents.teacher import SUFFIX
from bargain_env import Preset, Seat, preset
from bargain_env.errors import InputError
from bargain_env.policy import Floats
from experiments import cli
from experiments.actor_critic import ActorCritic, Decided, Explorer, Learner
from experiments.corpus.teachers import SPARRING
from experiments.match import pairs
from experiments.match.populations import population
from experiments.match.specs import split

SCALE = 500.0
"""Currency units of a demand of 1: the width of the ZOPA in the preset ``paper``, more than most in the others."""
FIRST_ID = 20_000_000
"""Its games are others than any that are collected or played in tournaments with the same seed."""
ROUND_NUMBER = 0.3
"""Share of the goals that are multiples of .1, as people ask for."""
MOST_SEEDS = 2**43
"""Opponents are drawn with seeds of their own, a million for each of these, and they have 63 bits."""
_TOLD_EVERY = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Train a goal-conditioned player by playing."""

    out: Path = Path("runs/teacher.safetensors")
    """File to write."""
    scenario: str = "paper,hidden"
    """Presets that its games come from, a comma list; it is not told which, and has to see it."""
    opponents: str = "train"
    """Who sits opposite, besides the drawn ones below: train (every registered strategy that is not held out) or names,
    a comma list. Alone with one opponent (and --drawn 0 --seekers 0 --sparring 0) it shows what can be had of that one."""
    rounds: int = 200
    """Rounds of play and learning."""
    games: int = 8192
    """Games a round, as many of each preset and in each seat."""
    hidden: int = 192
    """Width of its two hidden layers."""
    impasse_cost: float = 1.0
    """What an impasse costs; the worst deal costs 1."""
    drawn: int = 20
    """Drawn members among the opponents, besides those that are registered."""
    seekers: int = 4
    """Scripted target-seeking players among the opponents."""
    sparring: float = 0.35
    """Share of the games against a sparring partner, whose temper is drawn for each game (`agents.scripted.sparring`)."""
    redraw_every: int = 4
    """Rounds with the same opponents."""
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
    model = ActorCritic(settings.hidden, generator)
    learner = Learner(model, settings.rounds, generator)
    costs: list[float] = []
    started = time.monotonic()
    for index, opponents in enumerate(_opponents(settings)):
        decided, returned, cost = _play(settings, presets, model, opponents, index, generator)
        learner.learn(index, decided, returned)
        costs.append(cost)
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
    _registered(settings)
    if settings.seed >= MOST_SEEDS:
        raise InputError(f"--seed {settings.seed} must be below 2**43")
    if not 0 <= settings.sparring <= 1:
        raise InputError(f"--sparring {settings.sparring} must lie in [0, 1]")
    if not 0.0 <= settings.impasse_cost < np.inf:
        raise InputError(f"--impasse-cost {settings.impasse_cost} must be a number, 0 or more")
    if settings.out.is_dir():
        raise InputError(f"--out {settings.out} is a folder; name a file in it, such as teacher{SUFFIX}")
    return presets


def _opponents(settings: Settings) -> Iterator[list[str]]:
    """Their names, round by round."""
    registered = _registered(settings)
    names: list[str] = []
    for index in range(settings.rounds):
        draw, position = divmod(index, settings.redraw_every)
        if position == 0:
            seed = settings.seed * 1_000_003 + draw
            drawn = population(f"population:{settings.drawn}@train", seed) if settings.drawn else []
            names = [*registered, *drawn, *_seekers(settings.seekers, seed)]
        yield names


def _registered(settings: Settings) -> list[str]:
    """The strategies of ``--opponents``."""
    if settings.opponents == "train":
        return agents.list_strategies(split="train")
    names = list(dict.fromkeys(split(settings.opponents, "--opponents")))
    held_out = [name for name in names if not agents.describe(name).may_train]
    if held_out:
        raise InputError(f"strategies {', '.join(held_out)} are held out of training; drop them from --opponents")
    return names


def _seekers(n: int, seed: int) -> list[str]:
    members = agents.sample_strategies("target_seeking", n, seed)
    return [member.name for member in members]


def _play(
    settings: Settings,
    presets: list[Preset],
    model: ActorCritic,
    opponents: list[str],
    index: int,
    generator: torch.Generator,
) -> tuple[Decided, torch.Tensor, float]:
    """The decisions of a round, the reward of each, and the mean cost of a game."""
    rng = np.random.default_rng([settings.seed, index])
    kept: list[Decided] = []
    returned: list[torch.Tensor] = []
    total = 0.0
    each = settings.games // (2 * len(presets))
    for k, (known, seat) in enumerate(product(presets, Seat)):
        first = FIRST_ID + (2 * len(presets) * index + k) * each
        games = bargain_env.sample(known.name, each, seed=settings.seed, first_id=first, max_turns=settings.max_turns)
        goal = rng.random(each)
        goal = np.where(rng.random(each) < ROUND_NUMBER, np.round(goal, 1), goal)
        player = Explorer(model, goal, SCALE, generator)
        chosen = rng.integers(len(opponents), size=each)
        chosen = np.where(rng.random(each) < settings.sparring, len(opponents), chosen)
        other = pairs.routed([*opponents, SPARRING], chosen, known)
        played = bargain_env.play(games, *((player, other) if seat == Seat.BUYER else (other, player)))
        reward = rewards(played.rho, games.has_zopa, goal, settings.impasse_cost)
        total -= float(reward.sum())
        for rows, decided in player.decided:
            kept.append(decided)
            returned.append(torch.from_numpy(reward[rows].astype(np.float32)))
    together = Decided(*(torch.cat(columns) for columns in zip(*kept, strict=True)))
    return together, torch.cat(returned), total / (2 * len(presets) * each)


def rewards(rho: Floats, has_zopa: NDArray[np.bool_], goal: Floats, impasse_cost: float) -> Floats:
    """``[B]`` of finished games; ``rho`` is NaN at an impasse. Where there is no ZOPA nothing can be reached or missed."""
    return np.where(has_zopa, np.where(np.isnan(rho), -impasse_cost, -np.abs(rho - goal)), 0.0)


if __name__ == "__main__":
    cli.main(Settings, run)
