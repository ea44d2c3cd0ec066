"""Proximal policy optimization of a goal-conditioned player whose games end with one reward.

J. Schulman, F. Wolski, P. Dhariwal, A. Radford and O. Klimov, "Proximal Policy Optimization Algorithms" (2017), equations 7
and 9, with generalised advantages (equation 11, no discount). The critic is told what the actor must do without, such as who
sits opposite (L. Pinto et al., "Asymmetric Actor Critic for Image-Based Robot Learning", 2018): most of what games differ by
is whom they are played against, and a critic that knows it leaves what the moves did. Games are played in batches of
thousands by `bargain_env.play`, which learners made for a few environments at a time cannot use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.teacher import ACCEPT, AT_GOAL, CONCESSIONS, FEATURES, MOVES, TeacherNetwork, features, legal, moves
from bargain_env.policy import Floats, Moves, SeatGames, SeatView

NEVER = -1e9
"""Score of what is not legal."""
PATIENT = (-1.0, 2.5, 0.5, 1.5)
"""Scores that learning starts from: of accepting, of conceding nothing, of conceding a little (less than `LITTLE`), and of
demanding the goal. A player that conceded at random would always have given up before it could see what waiting brings."""
LITTLE = 0.12


@dataclass(frozen=True, slots=True)
class LearningRates:
    """How it learns.

    Attributes:
        lr: of Adam at the start; falls linearly to a fiftieth.
        entropy: weight of the entropy bonus at the start; falls linearly to 0.
        clip: the furthest that a probability ratio counts.
        epochs: passes over the decisions of a round.
        batch_size: decisions a step.
        gradient: norm to which gradients are clipped.
        value: weight of the critic's squared error.
        lam: λ of the advantages: 1 compares a decision with how its game ended, 0 with what the critic expects after it.
    """

    lr: float = 1e-3
    entropy: float = 0.01
    clip: float = 0.2
    epochs: int = 3
    batch_size: int = 2048
    gradient: float = 0.5
    value: float = 2.0
    lam: float = 0.9


class ActorCritic(nn.Module):
    """Scores of moves and the expected reward, two networks of two hidden layers.

    Args:
        hidden: width of the layers.
        told: how many numbers the critic is told besides what the actor sees.
        generator: of the initial weights.
    """

    def __init__(self, hidden: int, told: int, generator: torch.Generator) -> None:
        super().__init__()
        self.actor = _network(FEATURES, hidden, MOVES, generator)
        self.critic = _network(FEATURES + told, hidden, 1, generator)
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias[ACCEPT], last.bias[1] = PATIENT[0], PATIENT[1]
            last.bias[AT_GOAL] = PATIENT[3]
            last.bias[2 : 1 + int((CONCESSIONS < LITTLE).sum())] = PATIENT[2]

    def scores(self, seen: Tensor, allowed: Tensor) -> Tensor:
        """``[b, MOVES]`` log-probabilities."""
        masked: Tensor = self.actor(seen).masked_fill(~allowed, NEVER)
        return masked.log_softmax(dim=1)

    def values(self, seen: Tensor, told: Tensor) -> Tensor:
        """``[b]`` the reward that is expected; ``told`` is ``[b, told]``."""
        expected: Tensor = self.critic(torch.cat([seen, told], dim=1))
        return expected[:, 0]

    def published(self, scale: float, scenario: str) -> TeacherNetwork:
        """The actor, to be played."""
        layers = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        arrays = ((x.weight.detach().double().numpy(), x.bias.detach().double().numpy()) for x in layers)
        return TeacherNetwork(tuple(arrays), scale, scenario)


def _network(into: int, hidden: int, out: int, generator: torch.Generator) -> nn.Sequential:
    sizes = [into, hidden, hidden, out]
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Decided(NamedTuple):
    """Decisions of a round: ``[N, …]`` what was seen, what was legal, what was chosen and its log-probability."""

    seen: Tensor
    allowed: Tensor
    chosen: Tensor
    log_probability: Tensor


class Played(NamedTuple):
    """B finished games.

    Attributes:
        decided: decisions in order of play, and the rows of their games; a row may be in some and not in others.
        told: ``[B, told]`` what the critic is told of each game.
        reward: ``[B]``.
    """

    decided: Sequence[tuple[NDArray[np.intp], Decided]]
    told: Tensor
    reward: Tensor


class Explorer:
    """A `bargain_env.Policy` that plays what it has learned so far, draws its moves and keeps what it decided.

    Attributes:
        decided: of each turn, the rows of the batch and their decisions.
    """

    name = "explorer"
    mixed_turns = True

    def __init__(self, model: ActorCritic, goal: Floats, scale: float, generator: torch.Generator) -> None:
        self.model, self.goal, self.scale, self.generator = model, goal, scale, generator
        self.decided: list[tuple[NDArray[np.intp], Decided]] = []

    def reset(self, games: SeatGames) -> None:
        """Forget."""
        self.decided = []

    def act(self, view: SeatView) -> Moves:
        """Draw moves."""
        goal = self.goal[view.rows]
        seen = torch.from_numpy(features(view, goal, self.scale))
        allowed = torch.from_numpy(legal(view, self.scale))
        with torch.no_grad():
            scores = self.model.scores(seen, allowed)
            chosen = torch.multinomial(scores.exp(), 1, generator=self.generator)
        self.decided.append((view.rows.copy(), Decided(seen, allowed, chosen, scores.gather(1, chosen))))
        return moves(view, chosen[:, 0].numpy(), goal, self.scale)


class Learner:
    """Improves an `ActorCritic` round by round.

    Args:
        model: to improve.
        rounds: how many there will be.
        generator: of the order of decisions.
        rates: how it learns.
    """

    def __init__(
        self, model: ActorCritic, rounds: int, generator: torch.Generator, rates: LearningRates | None = None
    ) -> None:
        self.model, self.rounds, self.generator = model, rounds, generator
        self.rates = rates or LearningRates()
        self._optimizer = torch.optim.Adam(model.parameters(), self.rates.lr, eps=1e-5)

    def learn(self, index: int, played: Sequence[Played]) -> None:
        """Take the steps of round ``index``, from 0, with its games."""
        left = 1.0 - index / self.rounds
        for group in self._optimizer.param_groups:
            group["lr"] = self.rates.lr * (0.02 + 0.98 * left)
        decided = Decided(*map(torch.cat, zip(*(one for games in played for _, one in games.decided), strict=True)))
        told = torch.cat([games.told[rows] for games in played for rows, _ in games.decided])
        advantage, returned = map(torch.cat, zip(*(self._estimates(games) for games in played), strict=True))
        advantage = advantage / (advantage.std() + 1e-6)
        for _ in range(self.rates.epochs):
            order = torch.randperm(len(returned), generator=self.generator)
            for rows in order.split(self.rates.batch_size):
                some = Decided(*(column[rows] for column in decided))
                self._step(some, told[rows], returned[rows], advantage[rows], left)

    @torch.no_grad()
    def _estimates(self, games: Played) -> tuple[Tensor, Tensor]:
        """``[N]`` advantages of the decisions, and the returns that the critic learns."""
        expected = [self.model.values(one.seen, games.told[rows]) for rows, one in games.decided]
        later, ahead = games.reward.clone(), torch.zeros(len(games.reward))
        advantages: list[Tensor] = []
        for (rows, _), value in zip(reversed(games.decided), reversed(expected), strict=True):
            advantage = later[rows] - value + self.rates.lam * ahead[rows]
            later[rows], ahead[rows] = value, advantage
            advantages.append(advantage)
        advantages.reverse()
        return torch.cat(advantages), torch.cat([a + v for a, v in zip(advantages, expected, strict=True)])

    def _step(self, decided: Decided, told: Tensor, returned: Tensor, advantage: Tensor, left: float) -> None:
        rates = self.rates
        scores = self.model.scores(decided.seen, decided.allowed)
        ratio = (scores.gather(1, decided.chosen) - decided.log_probability).exp()[:, 0]
        gain = torch.min(ratio * advantage, ratio.clamp(1 - rates.clip, 1 + rates.clip) * advantage).mean()
        entropy = -(scores.exp() * scores.clamp_min(-50.0)).sum(dim=1).mean()
        missed = (self.model.values(decided.seen, told) - returned).square().mean()
        self._optimizer.zero_grad()
        (rates.value * missed - gain - rates.entropy * left * entropy).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), rates.gradient)
        self._optimizer.step()
