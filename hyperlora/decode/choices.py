"""One level of the digit tree: the log-probabilities of the legal tokens, and how one of them is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .grammar import Grammar
from .head import NonFiniteLogits
from .tree import PromptTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def log_children(tree: PromptTree, grammar: Grammar, states: Tensor, nodes: Ints, temperature: float = 1.0) -> Floats:
    """Log-probabilities ``[B, …, C]`` of the legal children of ``nodes`` ``[B, …]`` after ``states`` ``[B, …, ·]``.

    Only legal tokens compete, so the probabilities of a node's children sum to 1; where there is no child it is -∞.

    Raises:
        NonFiniteLogits: as `LegalHead.logits`.
    """
    children, tokens = grammar.below(nodes)
    legal = children >= 0
    distinct, place = np.unique(tokens[legal], return_inverse=True)
    at = np.zeros(tokens.shape, dtype=np.int64)
    at[legal] = place
    device = states.device
    logits = tree.head.logits(states, torch.from_numpy(distinct).to(device)).double() / temperature
    logits = torch.take_along_dim(logits, torch.from_numpy(at).to(device), dim=-1)
    found = torch.log_softmax(logits.masked_fill(~torch.from_numpy(legal).to(device), -torch.inf), dim=-1)
    scores: Floats = np.where(legal, found.cpu().numpy(), -np.inf)
    if np.isnan(scores).any():
        raise NonFiniteLogits(int(np.argwhere(np.isnan(scores))[0, 0]))
    return scores


@dataclass(frozen=True, slots=True)
class Root:
    """The choice between the two forms, ``[B]`` each: log P(ACCEPT), log P(OFFER), and the likeliest token of an offer."""

    log_accept: Floats
    log_offer: Floats
    log_best_offer: Floats


def root_choice(tree: PromptTree, grammar: Grammar, temperature: float = 1.0) -> Root:
    """Of each prompt, where both forms are legal."""
    scores = log_children(tree, grammar, tree.states[:, 0], np.zeros(len(tree.states), dtype=np.int64), temperature)
    offers = np.delete(scores, grammar.accept, axis=1)
    return Root(scores[:, grammar.accept], np.logaddexp.reduce(offers, axis=1), offers.max(axis=1))


def forced_choice(tree: PromptTree, grammar: Grammar, level: int, temperature: float = 1.0) -> tuple[Ints, Floats]:
    """Children ``[C]`` of the forced branch's node at ``level`` and their probabilities ``[B, C]``, given OFFER."""
    node, batch = grammar.forced_nodes[level], len(tree.states)
    scores = log_children(tree, grammar, tree.states[:, level], np.full(batch, node), temperature)
    if level == 0:
        scores[:, grammar.accept] = -np.inf
        scores -= np.logaddexp.reduce(scores, axis=1)[:, None]
    return grammar.below(np.array(node))[0], np.exp(scores)


Chooser = Callable[[Floats, int, Ints], Ints]
"""Probabilities ``[n, C]``, the number of the choice, and which rows ``[n]`` choose → position ``[n]`` of a child."""


def likeliest(probabilities: Floats, _choice: int, _rows: Ints) -> Ints:
    """The child of the highest probability, the first of equals."""
    return probabilities.argmax(axis=1)


def drawn(uniforms: Floats) -> Chooser:
    """The child that a uniform number falls on, one number of ``uniforms`` ``[B, n]`` for each choice."""

    def choose(probabilities: Floats, choice: int, rows: Ints) -> Ints:
        cumulative = probabilities.cumsum(axis=1)
        below = cumulative <= uniforms[rows, choice, None] * cumulative[:, -1:]
        return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)

    return choose


class AtQuantile:
    """The child that holds the ``q`` quantile of the price; what is left of ``q`` within it goes to the next choice.

    Args:
        q: ``[B]``; the price sought is the lowest whose cumulative probability reaches it.
    """

    def __init__(self, q: Floats) -> None:
        self._q = q.copy()

    def __call__(self, probabilities: Floats, _choice: int, rows: Ints) -> Ints:
        """As `Chooser`; children must be in the order of their prices."""
        cumulative = probabilities.cumsum(axis=1)
        sought = self._q[rows] * cumulative[:, -1]
        here = np.minimum((cumulative < sought[:, None]).sum(axis=1), probabilities.shape[1] - 1)
        share, reached = (np.take_along_axis(a, here[:, None], axis=1)[:, 0] for a in (probabilities, cumulative))
        self._q[rows] = np.clip((sought - reached + share) / np.maximum(share, np.finfo(float).tiny), 0.0, 1.0)
        return here
