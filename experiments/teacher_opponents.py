"""Whom a teacher meets while it learns, and how often.

All strategies that train (or those that were named), members of their families that are drawn anew every few rounds,
scripted target-seeking players, and sparring partners without habits to learn; never who is held out or validates.

A registered opponent is met the more often the more its games have cost, after the prioritised opponents of O. Vinyals et
al., "Grandmaster level in StarCraft II using multi-agent reinforcement learning" (Nature, 2019): most strategies give way to
waiting, and the few that want another answer would be drowned by them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import agents
from bargain_env.errors import InputError
from bargain_env.policy import Floats
from experiments.corpus.teachers import SPARRING, TEACHER
from experiments.match.populations import population
from experiments.match.specs import split

TRAIN = "train"
"""Every registered strategy that trains."""


def registered(names: str) -> list[str]:
    """The strategies of ``train`` or of a comma list.

    Raises:
        InputError: one is unknown or held out of training.
    """
    if names == TRAIN:
        return agents.list_strategies(split=TRAIN)
    chosen = list(dict.fromkeys(split(names, "--opponents")))
    held_out = [name for name in chosen if not agents.describe(name).may_train]
    if held_out:
        raise InputError(f"strategies {', '.join(held_out)} are held out of training; drop them from --opponents")
    return chosen


class Opponents:
    """Draws opponents, and notes what their games cost.

    Args:
        known: the registered ones.
        drawn: how many members of families there are besides.
        seekers: how many scripted target-seeking players.
        sparring: share of the games against a sparring partner.
        redraw_every: rounds with the same opponents.
        priority: how strongly cost counts: a registered opponent is met ``1 + priority · cost / mean cost`` times as often,
            all of them together as often as ever.
        seed: of what is drawn.

    Attributes:
        kinds: what an opponent can be: a registered one, a member of a family, or a sparring partner.
    """

    def __init__(
        self,
        known: Sequence[str],
        *,
        drawn: int,
        seekers: int,
        sparring: float,
        redraw_every: int,
        priority: float,
        seed: int,
    ) -> None:
        self.known, self._sparring, self._priority, self._seed = list(known), sparring, priority, seed
        self._drawn, self._seekers, self._redraw_every = drawn, seekers, redraw_every
        families = {agents.describe(name).family for name in [*agents.list_strategies(split=TRAIN), TEACHER]}
        self.kinds = [*self.known, *sorted(f"a {family}" for family in families), SPARRING]
        self._often = np.ones(len(self.known))
        self._costs = np.zeros((2, len(self.known)))
        self._draw, self._names, self._kind = -1, list[str](), np.zeros(0, dtype=np.intp)

    def start(self, index: int) -> list[str]:
        """The opponents of round ``index``, from 0, in order; the last one is the sparring partner."""
        if index // self._redraw_every != self._draw:
            self._draw = index // self._redraw_every
            self._weigh()
            self._names = [*self.known, *self._members(), SPARRING]
            self._kind = np.array([self._kind_of(name) for name in self._names])
        return self._names

    def choose(self, rng: np.random.Generator, games: int) -> NDArray[np.intp]:
        """``[games]`` who plays each game, of those of the round."""
        others = len(self._names) - 1
        often = np.ones(others)
        often[: len(self.known)] = self._often
        chosen = rng.choice(others, size=games, p=often / often.sum())
        return np.where(rng.random(games) < self._sparring, others, chosen)

    def kind(self, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """``[games, kinds]`` what they are, one-hot."""
        return np.eye(len(self.kinds), dtype=np.float32)[self._kind[chosen]]

    def note(self, chosen: NDArray[np.intp], cost: Floats) -> None:
        """What games, ``[games]``, have cost."""
        mine = chosen < len(self.known)
        self._costs += [np.bincount(chosen[mine], w, len(self.known)) for w in (cost[mine], np.ones(mine.sum()))]

    def _kind_of(self, name: str) -> int:
        alone = name == SPARRING or name in self.known
        return self.kinds.index(name if alone else f"a {agents.describe(name).family}")

    def _weigh(self) -> None:
        """By the costs since the last time; who was not met keeps a mean one's weight."""
        total, met = self._costs
        if met.any():
            cost = np.where(met > 0, total / np.maximum(met, 1), total.sum() / met.sum())
            often = 1.0 + self._priority * cost / max(float(cost.mean()), 1e-9)
            self._often = often / often.mean()
            self._costs[:] = 0.0

    def _members(self) -> list[str]:
        seed = self._seed * 1_000_003 + self._draw
        drawn = population(f"population:{self._drawn}@{TRAIN}", seed) if self._drawn else []
        return [*drawn, *(member.name for member in agents.sample_strategies(TEACHER, self._seekers, seed))]
