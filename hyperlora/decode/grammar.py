"""The two legal answers, spelled in any tokenizer: ``ACCEPT`` and ``OFFER d.dddd``, as a trie of tokens.

A node is a legal beginning of an answer. Its children are the only tokens that may follow, so a decision is a walk from
the root to a leaf, and the probabilities of all leaves sum to 1 once each node's children are normalised. Where a node has
one child, or one that nearly all prices lie below, there is little to choose: such tokens are forced runs, fed together.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError

from ..tokens import encode

DECIMALS = 4
"""Decimals of a normalised price."""
ROOT = 0

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Grammar:
    """The trie of a tokenizer as arrays over its N nodes; the children of a node follow each other, cheapest first.

    Attributes:
        start: ``[N]`` where a node's children begin in ``children`` and ``tokens``.
        count: ``[N]`` how many it has; 0 at a leaf.
        children: ``[N - 1]`` nodes.
        tokens: ``[N - 1]`` the token that leads to each.
        low: ``[N]`` smallest normalised price below the node; NaN on the way to ACCEPT.
        high: ``[N]`` largest.
        accept: position, among the root's children, of the one that ACCEPT begins with.
        lead: tokens that every answer begins with; the root is behind them.
        forced: tokens of the branch that holds most prices, from the root to where the first digit is chosen: scored
            together with the prompt, in one call.
        forced_nodes: the nodes on that branch, the root first: one more than ``forced``.
        ordered: whether the children of every node share out its prices in consecutive ranges, as digits do.
    """

    start: Ints
    count: Ints
    children: Ints
    tokens: Ints
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    accept: int
    lead: tuple[int, ...]
    forced: tuple[int, ...]
    forced_nodes: tuple[int, ...]
    ordered: bool

    @cached_property
    def middle(self) -> NDArray[np.float64]:
        """``[N]`` mean of the equally spaced prices below each node; 0 on the way to ACCEPT."""
        return np.nan_to_num((self.low + self.high) / 2.0)

    def is_leaf(self, nodes: Ints) -> NDArray[np.bool_]:
        """Where an answer is complete."""
        return np.asarray(self.count[nodes] == 0)

    def below(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Children of ``nodes`` ``[…]`` and the tokens that lead to them, ``[…, C]``; -1 and 0 where there are fewer."""
        place = np.arange(max(1, int(self.count[nodes].max(initial=0))))
        there = place < self.count[nodes][..., None]
        at = np.where(there, self.start[nodes][..., None] + place, 0)
        return np.where(there, self.children[at], -1), np.where(there, self.tokens[at], 0)

    @cached_property
    def child(self) -> Ints:
        """``[N, C]`` node of each child, -1 where there are fewer."""
        return self.below(np.arange(len(self.count)))[0]

    @cached_property
    def token(self) -> Ints:
        """``[N, C]`` its token; 0 where there is none."""
        return self.below(np.arange(len(self.count)))[1]


@dataclass(slots=True)
class _Node:
    number: int
    children: dict[int, _Node] = field(default_factory=dict)
    low: float = np.nan
    high: float = np.nan
    leaves: int = 0
    ends: bool = False


_COMPILED: weakref.WeakKeyDictionary[Any, tuple[int, Grammar]] = weakref.WeakKeyDictionary()


def compile_grammar(tokenizer: Any) -> Grammar:
    """The trie of ``tokenizer``; compiled once for a tokenizer, and anew when it has learned tokens since.

    Raises:
        InputError: the tokenizer cannot spell the answers exactly, or does not tell ACCEPT from OFFER by a token.
    """
    size = len(tokenizer)
    known = _COMPILED.get(tokenizer)
    if known is None or known[0] != size:
        known = _COMPILED[tokenizer] = (size, _compile(tokenizer))
    return known[1]


def _compile(tokenizer: Any) -> Grammar:
    prices = np.arange(10**DECIMALS + 1) / 10**DECIMALS
    texts = ["ACCEPT", *(f"OFFER {price:.{DECIMALS}f}" for price in prices)]
    spelled = encode(tokenizer, texts)
    for text, back in zip(texts, tokenizer.batch_decode(spelled), strict=True):
        if back.strip() != text:
            raise InputError(
                f"this tokenizer cannot play: it spells {text!r} as {back.strip()!r}; give one that spells letters and "
                "digits exactly"
            )
    lead = _common(min(spelled), max(spelled))
    accept, *offers = (ids[len(lead) :] for ids in spelled)
    nodes = [_Node(ROOT)]
    for ids, text, price in zip([accept, *offers], texts, [np.nan, *prices.tolist()], strict=True):
        if not _insert(nodes, ids, price):
            raise InputError(f"this tokenizer cannot play: in its tokens {text!r} is the beginning of another answer")
    if accept[0] in {ids[0] for ids in offers}:
        raise InputError(
            "this tokenizer cannot play: ACCEPT and some offers begin with the same token and others do not; give one that "
            "spells the two words apart"
        )
    return _as_arrays(nodes, accept[0], lead)


def _common(first: list[int], last: list[int]) -> tuple[int, ...]:
    """What two spellings begin with; of the first and the last in order, what all between them begin with too."""
    return tuple(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _insert(nodes: list[_Node], ids: list[int], price: float) -> bool:
    """Add an answer; False where it is the beginning of another, or another is the beginning of it."""
    node, fresh = nodes[ROOT], False
    for token in [*ids, None]:
        node.leaves += 1
        node.low, node.high = float(np.fmin(node.low, price)), float(np.fmax(node.high, price))
        if node.ends:
            return False
        if token is not None:
            fresh = token not in node.children
            if fresh:
                node.children[token] = _Node(len(nodes))
                nodes.append(node.children[token])
            node = node.children[token]
    node.ends = True
    return fresh


def _as_arrays(nodes: list[_Node], accept: int, lead: tuple[int, ...]) -> Grammar:
    count = np.array([len(node.children) for node in nodes], dtype=np.int64)
    path = _forced(nodes[ROOT], accept)
    return Grammar(
        start=np.cumsum(count) - count,
        count=count,
        children=np.array([child.number for node in nodes for child in node.children.values()], dtype=np.int64),
        tokens=np.array([token for node in nodes for token in node.children], dtype=np.int64),
        low=np.array([node.low for node in nodes]),
        high=np.array([node.high for node in nodes]),
        accept=list(nodes[ROOT].children).index(accept),
        lead=lead,
        forced=tuple(t for t, _ in path),
        forced_nodes=(ROOT, *(node.number for _, node in path)),
        ordered=all(_shares_out(node) for node in nodes),
    )


def _shares_out(node: _Node) -> bool:
    """Whether the prices below each child are all below those of the next; ACCEPT, which has none, may stand anywhere."""
    priced = [child for child in node.children.values() if child.low == child.low]
    return all(one.high < other.low for one, other in itertools.pairwise(priced))


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
