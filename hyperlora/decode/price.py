"""The price of an offer, from the distribution over the digit tree: its mean, its likeliest path, or a draw."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .grammar import Grammar
from .tree import PromptTree

Floats = NDArray[np.float64]
Nodes = NDArray[np.int64]


def child_probabilities(grammar: Grammar, logits: torch.Tensor, nodes: Nodes) -> Floats:
    """Probabilities ``[…, C]`` of the legal children of ``nodes`` ``[…]``, given next-token logits ``[…, V]``.

    Only legal tokens compete, so each row sums to 1; a leaf's row is all 0.
    """
    tokens = torch.from_numpy(grammar.token[nodes]).to(logits.device)
    legal = torch.from_numpy(grammar.child[nodes] >= 0).to(logits.device)
    scores = torch.take_along_dim(logits, tokens, dim=-1).double().masked_fill(~legal, -torch.inf)
    return np.nan_to_num(torch.softmax(scores, dim=-1).cpu().numpy())


def _shared_level(tree: PromptTree, grammar: Grammar, level: int) -> tuple[Nodes, Floats]:
    """Children of the forced branch's node at ``level``: ``[C]``, and their probabilities ``[B, C]`` without ACCEPT."""
    node = grammar.forced_nodes[level]
    batch = len(tree.logits)
    probabilities = child_probabilities(grammar, tree.logits[:, level], np.full(batch, node))
    if level == 0:
        probabilities[:, grammar.accept] = 0.0
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return grammar.child[node], probabilities


def expected_price(tree: PromptTree, grammar: Grammar, levels: int, width: int) -> tuple[Floats, Floats]:
    """E[price | OFFER] of each prompt.

    The digit tree is expanded for ``levels`` digits beyond the first, ``width`` candidates a level, the most probable
    ones; what is left unexpanded counts at the middle of its interval.

    Returns:
        ``[B]`` normalised expected price and ``[B]`` the share of mass that was expanded at every level.
    """
    middle = np.nan_to_num(grammar.middle)
    batch, forced = len(tree.logits), len(grammar.forced)
    total, mass = np.zeros(batch), np.ones(batch)
    for level in range(forced):
        children, probabilities = _shared_level(tree, grammar, level)
        on_branch = children == grammar.forced_nodes[level + 1]
        total += mass * (probabilities[:, ~on_branch] @ middle[children[~on_branch]])
        mass = mass * probabilities[:, on_branch][:, 0]
    children, probabilities = _shared_level(tree, grammar, forced)
    nodes = np.broadcast_to(children, (batch, len(children)))
    weights = mass[:, None] * probabilities
    tokens = np.broadcast_to(grammar.token[grammar.forced_nodes[forced]], nodes.shape)
    parents = np.zeros_like(nodes)
    covered = np.ones(batch)
    for _ in range(levels):
        complete = grammar.is_leaf(nodes)
        total += np.where(complete, weights * middle[nodes], 0.0).sum(axis=1)
        weights = np.where(complete, 0.0, weights)
        if not weights.any():
            break
        kept = np.argsort(-weights, axis=1, kind="stable")[:, : min(width, weights.shape[1])]
        rest = weights.copy()
        np.put_along_axis(rest, kept, 0.0, axis=1)
        total += (rest * middle[nodes]).sum(axis=1)
        covered -= rest.sum(axis=1)
        nodes, weights, tokens, parents = (
            np.take_along_axis(a, kept, axis=1) for a in (nodes, weights, tokens, parents)
        )
        following = child_probabilities(grammar, tree.feed(tokens, parents), nodes)
        shape = (batch, nodes.shape[1], grammar.child.shape[1])
        parents = np.broadcast_to(np.arange(shape[1])[None, :, None], shape).reshape(batch, -1)
        weights = (weights[:, :, None] * following).reshape(batch, -1)
        tokens, nodes = grammar.token[nodes].reshape(batch, -1), grammar.child[nodes].reshape(batch, -1)
    return total + (weights * middle[nodes]).sum(axis=1), covered


def chosen_price(tree: PromptTree, grammar: Grammar, uniforms: Floats | None) -> Floats:
    """One complete price for each prompt.

    Args:
        tree: fresh.
        grammar: of the tokenizer.
        uniforms: ``[B, ≥ depth of the trie]`` numbers that draw one token each; None takes the likeliest token.

    Returns:
        ``[B]`` normalised price.
    """
    batch, forced = len(tree.logits), len(grammar.forced)
    node, token, left_at = np.full(batch, grammar.forced_nodes[0]), np.zeros(batch, dtype=np.int64), np.full(batch, -1)
    for level in range(forced + 1):
        here = left_at < 0
        children, probabilities = _shared_level(tree, grammar, level)
        which = _choose(probabilities, uniforms, level)
        node[here] = children[which[here]]
        token[here] = grammar.token[grammar.forced_nodes[level]][which[here]]
        stays = node == grammar.forced_nodes[level + 1] if level < forced else np.zeros(batch, dtype=bool)
        left_at[here & ~stays] = level
    draw = forced + 1
    while not (grammar.low[node] == grammar.high[node]).all():
        logits = tree.feed(token[:, None], np.zeros((batch, 1), dtype=np.int64), shared_used=left_at)
        which = _choose(child_probabilities(grammar, logits[:, 0], node), uniforms, draw)
        open_ = ~grammar.is_leaf(node)
        token = np.where(open_, grammar.token[node, which], token)
        node = np.where(open_, grammar.child[node, which], node)
        draw += 1
    return grammar.low[node]


def _choose(probabilities: Floats, uniforms: Floats | None, draw: int) -> Nodes:
    """Position ``[B]`` of the likeliest child, or of the one that the ``draw``-th uniform falls on."""
    if uniforms is None:
        return probabilities.argmax(axis=1)
    cumulative = probabilities.cumsum(axis=1)
    below = cumulative <= uniforms[:, draw, None] * cumulative[:, -1:]
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1)
