"""The price of an offer, from the distribution over the digit tree: its expectation, or one complete path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .choices import Chooser, forced_choice, log_children
from .grammar import Grammar
from .results import PriceDistribution
from .tree import PromptTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Beam:
    """All prices of B offers, shared out among K nodes of the trie; columns that a row does not use have probability 0.

    Attributes:
        nodes: ``[B, K]``.
        probability: ``[B, K]`` given OFFER; each row sums to 1.
        covered: ``[B]`` share that was expanded at every level.
    """

    nodes: Ints
    probability: Floats
    covered: Floats

    def mean(self, grammar: Grammar) -> Floats:
        """``[B]`` E[price | OFFER]; what is not resolved counts at the middle of its interval."""
        expected: Floats = (self.probability * grammar.middle[self.nodes]).sum(axis=1)
        return expected

    def distributions(self, grammar: Grammar, accept_probability: Floats) -> list[PriceDistribution]:
        """Each row's, cheapest first; ``accept_probability`` is ``[B]``."""
        found = []
        for row, probability, covered, accept in zip(
            self.nodes, self.probability, self.covered.tolist(), accept_probability.tolist(), strict=True
        ):
            used = np.flatnonzero(probability > 0)
            used = used[np.argsort(grammar.low[row[used]], kind="stable")]
            nodes = row[used]
            width = grammar.high[nodes] - grammar.low[nodes]
            found.append(PriceDistribution(grammar.middle[nodes], probability[used], width, covered, accept))
        return found


def beam(tree: PromptTree, grammar: Grammar, levels: int, width: int) -> Beam:
    """Expand the digit tree for ``levels`` digits beyond the first, the ``width`` most probable candidates a level.

    Args:
        tree: fresh.
        grammar: of the tokenizer.
        levels: each costs a call.
        width: candidates expanded a level.
    """
    nodes, weights, parts = _on_the_branch(tree, grammar)
    tokens = np.broadcast_to(grammar.below(np.array(grammar.forced_nodes[-1]))[1], nodes.shape)
    parents, covered = np.zeros_like(nodes), np.ones(len(nodes))
    for _ in range(levels):
        open_ = np.where(grammar.is_leaf(nodes), 0.0, weights)
        if not open_.any():
            break
        kept = np.argsort(-open_, axis=1, kind="stable")[:, : min(width, open_.shape[1])]
        rest = open_.copy()
        np.put_along_axis(rest, kept, 0.0, axis=1)
        covered -= rest.sum(axis=1)
        parts.append((nodes, weights - open_ + rest))
        nodes, weights, tokens, parents = (np.take_along_axis(a, kept, axis=1) for a in (nodes, open_, tokens, parents))
        scores = log_children(tree, grammar, tree.feed(tokens, parents), nodes)
        following = np.where(grammar.is_leaf(nodes)[:, :, None], 0.0, np.exp(scores))
        children, tokens = grammar.below(nodes)
        batch, shape = len(nodes), children.shape
        parents = np.broadcast_to(np.arange(shape[1])[None, :, None], shape).reshape(batch, -1)
        weights = (weights[:, :, None] * following).reshape(batch, -1)
        tokens, nodes = tokens.reshape(batch, -1), children.reshape(batch, -1)
    parts.append((nodes, weights))
    nodes, weights = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return Beam(nodes, weights, covered)


def _on_the_branch(tree: PromptTree, grammar: Grammar) -> tuple[Ints, Floats, list[tuple[Ints, Floats]]]:
    """Children ``[B, C]`` of the end of the forced branch and their probabilities; beside them what leaves it before."""
    mass, aside = np.ones(len(tree.states)), []
    for level, following in enumerate(grammar.forced_nodes[1:]):
        children, probabilities = forced_choice(tree, grammar, level)
        stays = children == following
        nodes = np.broadcast_to(children[~stays], (len(mass), int((~stays).sum())))
        aside.append((nodes, mass[:, None] * probabilities[:, ~stays]))
        mass = mass * probabilities[:, stays][:, 0]
    children, probabilities = forced_choice(tree, grammar, len(grammar.forced))
    nodes = np.broadcast_to(children, (len(mass), len(children)))
    return nodes, mass[:, None] * probabilities, aside


def chosen_price(tree: PromptTree, grammar: Grammar, choose: Chooser, temperature: float = 1.0) -> Floats:
    """One complete price for each prompt, chosen token by token.

    Args:
        tree: fresh.
        grammar: of the tokenizer.
        choose: takes one child at each choice.
        temperature: logits are divided by it.

    Returns:
        ``[B]`` normalised price.
    """
    batch, forced = len(tree.states), len(grammar.forced)
    node, token, left_at = np.zeros(batch, dtype=np.int64), np.zeros(batch, dtype=np.int64), np.full(batch, -1)
    for level, here_node in enumerate(grammar.forced_nodes):
        rows = np.flatnonzero(left_at < 0)
        children, probabilities = forced_choice(tree, grammar, level, temperature)
        which = choose(probabilities[rows], level, rows)
        node[rows], token[rows] = children[which], grammar.below(np.array(here_node))[1][which]
        leaves = node != grammar.forced_nodes[level + 1] if level < forced else np.ones(batch, dtype=bool)
        left_at[(left_at < 0) & leaves] = level
    choice = forced + 1
    while not (grammar.low[node] == grammar.high[node]).all():
        states = tree.feed(token[:, None], np.zeros((batch, 1), dtype=np.int64), used=left_at)
        probabilities = np.exp(log_children(tree, grammar, states[:, 0], node, temperature))
        rows = np.flatnonzero(~grammar.is_leaf(node))
        which = choose(probabilities[rows], choice, rows)
        children, tokens = grammar.below(node)
        node[rows], token[rows] = children[rows, which], tokens[rows, which]
        choice += 1
    return grammar.low[node]
