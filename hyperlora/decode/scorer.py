"""Decisions for many prompts at once: P(ACCEPT), the price distribution, and what a decode mode makes of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bargain_env.errors import InputError

from . import free
from .batches import Halving, micro_batches
from .beginnings import Beginnings
from .cache import PrefixCache
from .choices import AtQuantile, Chooser, Root, drawn, likeliest, root_choice
from .grammar import compile_grammar
from .head import LegalHead, NonFiniteLogits
from .modes import MODES as MODES
from .modes import Mode
from .precision import in_precision
from .price import beam, chosen_price
from .questions import Questions
from .results import Decisions, DecodeStats, PriceDistribution
from .tree import PromptTree

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
T = TypeVar("T")

UNIFORMS = 32
"""Uniform numbers a sampled decision may use: one for the form, one a token of the price."""
MAX_TOKENS = {"cpu": 16_384}
"""Tokens of a forward pass by default: more only push each other out of a CPU's cache."""
OTHER_MAX_TOKENS = 65_536
ROOM = 8
"""Tokens that a price is expected to need at most behind its forced run."""
WORTH_LEAVING = 0.25
"""Share of a batch that must want no offer before the rest goes on without it: that copies keys and values."""


class Scorer:
    """Constrained decoding over ``ACCEPT`` and ``OFFER d.dddd``.

    One thread at a time, as with everything that binds ρ to a model.

    Args:
        model: causal LM, with or without a HyperLoRA.
        tokenizer: its tokenizer.
        mode: a `Mode`, or what `Mode.parse` makes one of: ``greedy``, ``sample:0.7``, ``mean``, ``median``,
            ``quantile:0.3``, ``free``.
        batch_size: prompts a forward pass, at most.
        levels: ``mean`` only: digits resolved by the model beyond the first; each costs one call.
        width: ``mean`` only: candidates expanded a level.
        max_tokens: tokens a forward pass, at most; None for what suits the device. Batches that do not fit into memory are
            halved, with a warning.
        precision: ``own``, ``auto``, ``fp32`` or ``bf16``; see `in_precision`.
        prefixes: keeps beginnings of prompts between calls; None keeps nothing.
        head: how the model is run; with an `AdapterHead` a row's ``rho`` is the number of its adapter.

    Attributes:
        mode: name of the mode, without its number.
        decoding: the `Mode`.
        stats: what decisions have cost; assign a fresh `DecodeStats` to count anew.

    Raises:
        InputError: unknown mode or precision; the tokenizer cannot spell the answers, or not in the order of prices, which
            quantiles need.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        mode: str | Mode = "mean",
        batch_size: int = 256,
        levels: int = 2,
        width: int = 12,
        *,
        max_tokens: int | None = None,
        precision: str = "own",
        prefixes: PrefixCache | None = None,
        head: LegalHead | None = None,
    ) -> None:
        self.decoding = Mode.parse(mode)
        self.mode = self.decoding.kind
        self.grammar = compile_grammar(tokenizer)
        if self.mode == "quantile":
            self._refuse_unordered()
        self.model, self.tokenizer = in_precision(model, precision), tokenizer
        self.batch_size, self.levels, self.width = batch_size, levels, width
        self.head = LegalHead(self.model) if head is None else head
        self.max_tokens = max_tokens or MAX_TOKENS.get(self.head.device.type, OTHER_MAX_TOKENS)
        self.pad_token_id = int(tokenizer.pad_token_id)
        self.stats = DecodeStats()
        self._beginnings = Beginnings(self.head, prefixes)
        self._halving = Halving()

    @property
    def prefixes(self) -> PrefixCache | None:
        """What keeps beginnings of prompts between calls; may be replaced."""
        return self._beginnings.store

    @prefixes.setter
    def prefixes(self, store: PrefixCache | None) -> None:
        self._beginnings.store = store

    def decide(
        self,
        prompts: Sequence[list[int]],
        rho: Floats | None,
        may_accept: Bools,
        uniforms: Floats | None = None,
        offers: Bools | bool = True,
    ) -> Decisions:
        """Decide for B prompts; those that ask the same are answered once.

        Args:
            prompts: token ids.
            rho: ``[B]`` bound to the gates; None for a bare base model.
            may_accept: ``[B]`` whether ACCEPT is legal.
            uniforms: ``[B, UNIFORMS]`` in [0, 1), for mode ``sample``; not read otherwise.
            offers: ``[B]``, or one for all: whether to compute the offer of a row even if it accepts. Without, the price of
                a row that accepts is NaN, and a batch in which everybody accepts takes a single pass.

        Raises:
            ValueError: lengths differ, a prompt is empty, or ``sample`` has no ``uniforms``.
            InputError: the model's logits are not finite, or a single prompt does not fit into memory.
        """
        if self.decoding.draws and uniforms is None:
            raise ValueError(f"mode {self.decoding} needs uniforms [{len(prompts)}, {UNIFORMS}]")
        wanted = np.broadcast_to(np.asarray(offers, dtype=bool), len(prompts))
        asked = Questions(prompts, rho, may_accept, wanted, uniforms if self.decoding.draws else None)
        found = self._each(asked, self._written if self.mode == "free" else self._decided)
        return Decisions.of_rows(found)

    def distribution(
        self, prompts: Sequence[list[int]], rho: Floats | None, may_accept: Bools, levels: int = 3, width: int = 100
    ) -> list[PriceDistribution]:
        """The price distribution of each prompt's offer, exact over a beam of the digit tree.

        Args:
            prompts: token ids.
            rho: ``[B]``; None for a bare base model.
            may_accept: ``[B]`` whether ACCEPT is legal, which says what P(ACCEPT) is.
            levels: digits resolved beyond the first; each costs one call.
            width: beginnings of a price that are continued on each level, the most probable ones.

        Raises:
            ValueError, InputError: as `decide`.
        """

        def work(some: Questions) -> list[PriceDistribution]:
            with self._tree(some, levels * width) as tree:
                accept = np.where(some.may_accept, np.exp(root_choice(tree, self.grammar).log_accept), 0.0)
                return beam(tree, self.grammar, levels, width).distributions(self.grammar, accept)

        return self._each(Questions(prompts, rho, may_accept, np.ones(len(prompts), dtype=bool)), work, levels * width)

    def price_quantile(self, prompts: Sequence[list[int]], rho: Floats | None, q: float | Floats) -> Floats:
        """The lowest normalised price ``[B]`` that is not exceeded with probability ``q`` by each prompt's offer.

        It is exact: the digit tree is descended along the cumulative distribution, one call a digit.

        Args:
            prompts: token ids.
            rho: ``[B]``; None for a bare base model.
            q: in (0, 1); one, or ``[B]``.

        Raises:
            ValueError, InputError: as `decide`; InputError too for ``q`` out of range, or a tokenizer that does not spell
                prices digit by digit.
        """
        self._refuse_unordered()
        sought = np.broadcast_to(np.asarray(q, dtype=np.float64), len(prompts))
        if not ((sought > 0) & (sought < 1)).all():
            raise InputError(f"quantile {q} must lie between 0 and 1")

        def work(some: Questions) -> list[float]:
            assert some.uniforms is not None
            with self._tree(some, ROOM) as tree:
                return chosen_price(tree, self.grammar, AtQuantile(some.uniforms[:, 0])).tolist()

        everywhere = np.ones(len(prompts), dtype=bool)
        return np.array(self._each(Questions(prompts, rho, everywhere, everywhere, sought[:, None]), work))

    def owner(self) -> str:
        """What keys and values of this model belong to, beside ρ; see `hyperlora.decode.cache.Prefix`."""
        return self._beginnings.owner()

    def _refuse_unordered(self) -> None:
        if not self.grammar.ordered:
            raise InputError(
                "this tokenizer does not spell prices digit by digit, so a quantile cannot be found by descending its tree; "
                "choose mean, greedy or sample"
            )

    def _each(self, asked: Questions, work: Callable[[Questions], Sequence[T]], room: int | None = None) -> list[T]:
        """An answer to each question, in their order; those who ask the same are answered together."""
        began, (distinct, which) = time.perf_counter(), asked.distinct()
        some, askers, answers = asked.take(distinct), np.bincount(which), dict[int, T]()
        extra = len(self.grammar.lead + self.grammar.forced) + (self._room if room is None else room)

        def run(rows: Ints) -> None:
            passes = self.head.passes
            try:
                found = work(some.take(rows))
            except NonFiniteLogits as error:
                raise InputError(self._not_finite(asked, int(distinct[rows[error.row]]))) from error
            answers.update(zip(rows.tolist(), found, strict=True))
            self.stats.waits += (self.head.passes - passes) * int(askers[rows].sum())
            self.stats.passes += self.head.passes - passes

        if len(some):
            self.head.try_on(some.prompts[0])
        for rows in micro_batches(some.prompts, some.keys, self.batch_size, self.max_tokens, extra):
            self._halving.run(rows, run)
        self.stats.decisions += len(asked)
        self.stats.repeated += len(asked) - len(some)
        self.stats.prompt_tokens += sum(map(len, asked.prompts))
        self.stats.seconds += time.perf_counter() - began
        return [answers[i] for i in which.tolist()]

    @contextlib.contextmanager
    def _tree(self, some: Questions, room: int) -> Iterator[PromptTree]:
        """The prompts in a cache with ``room`` for candidates, ρ bound."""
        grammar, fed = self.grammar, self._beginnings.fed
        with torch.inference_mode():
            begun = self._beginnings.of(some)
            with self.head.bound(some.rho):
                shared, keep = grammar.lead + grammar.forced, len(grammar.forced)
                tree = PromptTree(self.head, some.prompts, shared, self.pad_token_id, keep, room, begun)
                self._beginnings.keep(some, tree)
                yield tree
        self.stats.fed_prompt_tokens += tree.prompt_tokens + self._beginnings.fed - fed
        self.stats.answer_tokens += tree.answer_tokens

    @property
    def _room(self) -> int:
        return self.levels * self.width if self.mode == "mean" else ROOM

    def _decided(self, some: Questions) -> list[tuple[Any, ...]]:
        """Rows of `Decisions`."""
        count, grammar = len(some), self.grammar
        price, covered = np.full(count, np.nan), np.full(count, np.nan)
        with self._tree(some, self._room) as tree:
            root = root_choice(tree, grammar)
            accept = some.may_accept & self._accepts(tree, root, some)
            wanted = some.offers | ~accept
            if wanted.all():
                price, covered = self._offer(tree, some)
            elif wanted.any():
                rows = np.flatnonzero(wanted) if (~wanted).mean() >= WORTH_LEAVING else np.arange(count)
                price[rows], covered[rows] = self._offer_of(tree, some, rows)
        price[~wanted] = covered[~wanted] = np.nan
        log_accept = np.where(some.may_accept, root.log_accept, -np.inf)
        log_offer = np.where(some.may_accept, root.log_offer, 0.0)
        columns = (np.exp(log_accept), price, covered, accept, log_accept, log_offer)
        return [(*row, False, "") for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _offer_of(self, tree: PromptTree, some: Questions, rows: Ints) -> tuple[Floats, Floats]:
        """`_offer` of some rows, while the others leave the batch."""
        if len(rows) == len(some):
            return self._offer(tree, some)
        tree.only(rows)
        staying = some.take(rows)
        try:
            with self.head.bound(staying.rho):
                return self._offer(tree, staying)
        except NonFiniteLogits as error:
            raise NonFiniteLogits(int(rows[error.row])) from error

    def _accepts(self, tree: PromptTree, root: Root, some: Questions) -> Bools:
        if some.uniforms is not None:
            return some.uniforms[:, 0] < np.exp(root_choice(tree, self.grammar, self.decoding.temperature).log_accept)
        if self.mode == "greedy":
            return root.log_accept >= root.log_best_offer
        return np.exp(root.log_accept) >= 0.5

    def _offer(self, tree: PromptTree, some: Questions) -> tuple[Floats, Floats]:
        """Price and covered mass ``[B]``."""
        if self.mode == "mean":
            found = beam(tree, self.grammar, self.levels, self.width)
            return found.mean(self.grammar), found.covered
        choose: Chooser = likeliest
        if some.uniforms is not None:
            choose = drawn(some.uniforms[:, 1:])
        elif self.mode == "quantile":
            choose = AtQuantile(np.full(len(some), self.decoding.q))
        return chosen_price(tree, self.grammar, choose, self.decoding.temperature), np.ones(len(some))

    def _written(self, some: Questions) -> list[tuple[Any, ...]]:
        """Rows of `Decisions`, from what the model writes."""
        with self.head.bound(some.rho):
            answers = free.write(self.model, some.prompts, self.pad_token_id, self.tokenizer.eos_token_id)
        self.head.passes += max(map(len, answers))
        self.stats.fed_prompt_tokens += sum(map(len, some.prompts))
        self.stats.answer_tokens += sum(map(len, answers))
        rows = []
        for text, legal in zip(
            self.tokenizer.batch_decode(answers, skip_special_tokens=True), some.may_accept, strict=True
        ):
            answer = free.read_answer(text)
            lost = not answer.understood or (answer.accept and not legal)
            price = np.nan if answer.price is None else answer.price
            rows.append((np.nan, price, np.nan, answer.accept and bool(legal), np.nan, np.nan, lost, text))
        return rows

    def _not_finite(self, asked: Questions, row: int) -> str:
        text = self.tokenizer.decode(asked.prompts[row])
        rho = "off" if asked.rho is None else f"{asked.rho[row]:g}"
        return (
            f"the model gives NaN or infinity instead of logits for prompt {row} of {len(asked)} (rho {rho}, "
            f"{text[:40]!r}…): its weights or its adapter are broken, or the precision is too low; load another checkpoint, "
            "or decode in fp32"
        )
