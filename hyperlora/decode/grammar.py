"""The two legal answers, spelled in any tokenizer: ``ACCEPT`` and ``OFFER d.dddd``, as a trie of tokens.

A node is a legal beginning of an answer. Its children are the only tokens that may follow, so a decision is a walk from
the root to a leaf, and the probabilities of all leaves sum to 1 once each node's children are normalised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError

from ..tokens import encode

DECIMALS = 4
"""Decimals of a normalised price."""
ROOT = 0


@dataclass(frozen=True, slots=True)
class Grammar:
    """The trie of a tokenizer as arrays over its N nodes; C is the largest number of children.

    Attributes:
        child: ``[N, C]`` node of each child, -1 where there are fewer.
        token: ``[N, C]`` its token; 0 where there is none.
        low: ``[N]`` smallest normalised price below the node; NaN on the way to ACCEPT.
        high: ``[N]`` largest.
        accept: position, among the root's children, of the one that ACCEPT begins with.
        forced: tokens of the branch that holds most prices, from the root to where the first digit is chosen: scored
            together with the prompt, in one call.
        forced_nodes: the nodes on that branch, the root first: one more than ``forced``.
    """

    child: NDArray[np.int64]
    token: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    accept: int
    forced: tuple[int, ...]
    forced_nodes: tuple[int, ...]

    @property
    def middle(self) -> NDArray[np.float64]:
        """``[N]`` mean of the equally spaced prices below each node."""
        return (self.low + self.high) / 2.0

    def is_leaf(self, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where an answer is complete."""
        return np.asarray((self.child[nodes] < 0).all(axis=-1))


@dataclass(slots=True)
class _Node:
    number: int
    children: dict[int, _Node] = field(default_factory=dict)
    low: float = np.nan
    high: float = np.nan
    leaves: int = 0


def compile_grammar(tokenizer: Any) -> Grammar:
    """The trie of ``tokenizer``.

    Raises:
        InputError: the tokenizer cannot spell the answers exactly, or ACCEPT and OFFER begin with the same token.
    """
    texts = [f"OFFER {i / 10**DECIMALS:.{DECIMALS}f}" for i in range(10**DECIMALS + 1)]
    accept, *offers = encode(tokenizer, ["ACCEPT", *texts])
    for text, ids in (("ACCEPT", accept), (texts[1234], offers[1234]), (texts[-1], offers[-1])):
        if tokenizer.decode(ids).strip() != text:
            raise InputError(f"this tokenizer spells {text!r} as {tokenizer.decode(ids)!r}; it cannot play")
    if accept[0] in {ids[0] for ids in offers}:
        raise InputError("ACCEPT and OFFER begin with the same token in this tokenizer; it cannot play")
    nodes = [_Node(ROOT)]
    _insert(nodes, accept, np.nan)
    for i, ids in enumerate(offers):
        _insert(nodes, ids, i / 10**DECIMALS)
    return _as_arrays(nodes, accept[0])


def _insert(nodes: list[_Node], ids: list[int], price: float) -> None:
    node = nodes[ROOT]
    for token in [*ids, None]:
        node.leaves += 1
        node.low, node.high = float(np.fmin(node.low, price)), float(np.fmax(node.high, price))
        if token is not None:
            if token not in node.children:
                node.children[token] = _Node(len(nodes))
                nodes.append(node.children[token])
            node = node.children[token]


def _as_arrays(nodes: list[_Node], accept: int) -> Grammar:
    width = max(len(node.children) for node in nodes)
    child, token = np.full((len(nodes), width), -1), np.zeros((len(nodes), width), dtype=np.int64)
    for node in nodes:
        for i, (t, c) in enumerate(node.children.items()):
            child[node.number, i], token[node.number, i] = c.number, t
    path = _forced(nodes[ROOT], accept)
    return Grammar(
        child=child.astype(np.int64),
        token=token,
        low=np.array([node.low for node in nodes]),
        high=np.array([node.high for node in nodes]),
        accept=list(nodes[ROOT].children).index(accept),
        forced=tuple(t for t, _ in path),
        forced_nodes=(ROOT, *(node.number for _, node in path)),
    )


def _forced(root: _Node, accept: int) -> list[tuple[int, _Node]]:
    """The path on which more than half of all prices still lie."""
    path: list[tuple[int, _Node]] = []
    node = root
    while True:
        token, child = max(((t, c) for t, c in node.children.items() if t != accept), key=lambda item: item[1].leaves)
        if 2 * child.leaves <= node.leaves:
            return path
        path.append((token, child))
        node = child
