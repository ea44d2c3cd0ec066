"""Held-out evaluation on decisions: loss per row by outcome, ρ and action; the decisions themselves against the targets.

Both measures take whole episodes, spread evenly over the table by a fixed draw, so that every evaluation of a run looks
at the same rows and no part of the table counts for more than its size. Neither leaves a trace in the model: modes,
gradients, bound ρ and the global random state stay as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bargain_env import rng
from bargain_env.errors import InputError
from bargain_env.policy import Bools, Floats, Ints

from .binding import bind_rho
from .data import NegotiationDataset
from .decode.scorer import Scorer
from .losses import IGNORE, target_logits
from .prompt import price_axis

BUCKETS = 10


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """What the N rows of a dataset are, beside their tokens.

    Attributes:
        may_accept: ``[N]`` whether an offer stands, so that ACCEPT is legal.
        episode: ``[N]`` number of the row's episode; None makes each row an episode of its own.
        last_offer: ``[N]`` the decider's own latest offer, normalised; NaN before its first. None where roles are unknown.
    """

    may_accept: Bools
    episode: Ints | None = None
    last_offer: Floats | None = None


def decision_facts(table: pa.Table, prompt_format: int = 2) -> DecisionFacts:
    """The facts of a steps table, row for row those of ``NegotiationDataset(table, …)``: degenerate rows are left out.

    Prices are normalised as prompts of this format say them. Episodes are numbered in the order of their ids, not of the
    rows, so a shuffled table gives the same sample.
    """
    low, high, limit = (table[name].to_numpy() for name in ("price_low", "price_high", "reservation_price"))
    keep = high - low > 1e-6  # the rule of `NegotiationDataset`
    known, episode, last = set(table.column_names), None, None
    if "trajectory_id" in known:
        ids = table["trajectory_id"].to_numpy(zero_copy_only=False)
        episode = np.unique(ids[keep], return_inverse=True)[1].astype(np.int64)
    if "role" in known:
        sides = [price_axis(prompt_format, low[keep], high[keep], limit[keep], seat) for seat in ("buyer", "seller")]
        price, buys = _own_last_price(table)[keep], table["role"].to_numpy(zero_copy_only=False)[keep] == "buyer"
        last = np.where(buys, *(np.clip((price - axis.origin) / axis.span, 0.0, 1.0) for axis in sides))
    nothing_stands = pyarrow.compute.is_null(table["last_offer_price"], nan_is_null=True).to_numpy()
    return DecisionFacts(~nothing_stands[keep], episode, last)


def _own_last_price(table: pa.Table) -> Floats:
    """``[N]`` price of the decider's own latest offer in the row's history, NaN where there is none."""
    roles, prices = (table[name].combine_chunks() for name in ("history_roles", "history_prices"))
    row = np.repeat(np.arange(table.num_rows), roles.value_lengths().to_numpy())
    own = roles.flatten().to_numpy(zero_copy_only=False) == table["role"].to_numpy(zero_copy_only=False)[row]
    last = np.full(table.num_rows, np.nan)
    last[row[own]] = prices.flatten().to_numpy()[own]  # histories run forward, and the last assignment to a row stays
    return last


def sample_rows(count: int, max_rows: int, episode: Ints | None = None) -> Ints:
    """Rows to evaluate, ascending: all, or whole episodes spread evenly over the table, about ``max_rows`` rows in all.

    One episode is drawn from each of equal stretches of the table. The draw is fixed, and it is a draw because a constant
    stride would beat with what alternates in a table: seats from row to row, starters from episode to episode.

    Args:
        count: rows of the table.
        max_rows: at most so many rows, but at least one episode.
        episode: ``[count]`` episode of each row; None samples single rows.

    Raises:
        InputError: ``max_rows`` is below 1.
    """
    if max_rows < 1:
        raise InputError(f"an evaluation over {max_rows} rows measures nothing; ask for at least 1")
    if count <= max_rows:
        return np.arange(count)
    if episode is None:
        return _one_of_each_stretch(count, max_rows)
    _, number, sizes = np.unique(episode, return_inverse=True, return_counts=True)
    wanted = max(1, max_rows * len(sizes) // count)
    while wanted > 1 and sizes[_one_of_each_stretch(len(sizes), wanted)].sum() > max_rows:
        wanted -= 1
    return np.flatnonzero(np.isin(number, _one_of_each_stretch(len(sizes), wanted)))


def _one_of_each_stretch(count: int, wanted: int) -> Ints:
    """``[wanted]`` numbers below ``count``, one from each of ``wanted`` stretches whose lengths differ by at most 1."""
    edges = np.arange(wanted + 1) * count // wanted
    draw = rng.uniform(0, np.arange(wanted), stream=rng.Stream.SPLIT)[:, 0]
    return edges[:-1] + (draw * np.diff(edges)).astype(np.int64)


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Within the block ``model`` is in eval mode; after it every module is in the mode that it was in before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])  # for modules that do more than to note their mode
        for module, training in modes:
            module.training = training


@torch.no_grad()
def evaluate_loss(
    model: Any,
    dataset: NegotiationDataset,
    batch_size: int = 64,
    max_rows: int = 2048,
    facts: DecisionFacts | None = None,
) -> dict[str, Any]:
    """Mean target loss of an even sample of the dataset, in nats a target token.

    Args:
        model: causal LM; where it carries a HyperLoRA, each row runs at its own ρ.
        dataset: decisions.
        batch_size: rows a forward pass.
        max_rows: see `sample_rows`.
        facts: from `decision_facts`; with them the sample is of whole episodes.

    Returns:
        ``eval_loss``, ``eval_perplexity``, ``eval_loss_success``, ``eval_loss_failure`` (rows labelled as an impasse; None
        where there are no such rows), ``rho_bucket_losses`` (ten of width .1, each over its own rows),
        ``rho_bucket_rows``, ``by_action`` (of ACCEPT and OFFER rows) and ``rows``.

    Raises:
        ValueError: ``facts`` belong to another dataset.
    """
    rows = _rows_by_length(dataset, max_rows, facts)
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(rows), batch_size):
            parts.append(_row_losses(model, dataset.batch(rows[start : start + batch_size])))
    loss, n = (np.concatenate(column) for column in zip(*parts, strict=True))
    rho, accept = dataset.rho[rows], _accepts(dataset)[rows]

    def mean(of: Bools) -> float | None:
        return float(loss[of].sum() / n[of].sum()) if of.any() else None

    overall, failed = float(loss.sum() / n.sum()), _impasse(rho)
    bucket = np.where(failed, -1, np.clip((rho * BUCKETS).astype(int), 0, BUCKETS - 1))
    names = [f"{k / BUCKETS:.1f}-{(k + 1) / BUCKETS:.1f}" for k in range(BUCKETS)]
    return {
        "eval_loss": overall,
        "eval_perplexity": float(np.exp(overall)),
        "eval_loss_success": mean(~failed),
        "eval_loss_failure": mean(failed),
        "rho_bucket_losses": {name: mean(bucket == k) for k, name in enumerate(names)},
        "rho_bucket_rows": {name: int((bucket == k).sum()) for k, name in enumerate(names)},
        "by_action": {"ACCEPT": mean(accept), "OFFER": mean(~accept)},
        "rows": len(rows),
    }


def _rows_by_length(dataset: NegotiationDataset, max_rows: int, facts: DecisionFacts | None) -> Ints:
    """The sampled rows, short ones first: batches of one length need no padding."""
    if facts is not None and len(facts.may_accept) != len(dataset):
        raise ValueError(f"facts of {len(facts.may_accept)} rows do not belong to a dataset of {len(dataset)}")
    rows = sample_rows(len(dataset), max_rows, facts.episode if facts else None)
    return rows[np.argsort(dataset.lengths[rows], kind="stable")]


def _impasse(rho: NDArray[np.float32]) -> Bools:
    """Where the label reads as an impasse, by the rule of `hyperlora.prompt.is_failure`."""
    return rho <= -0.5


def _accepts(dataset: NegotiationDataset) -> Bools:
    """``[N]`` whether the target is ACCEPT: the only answer that spells no decimals."""
    return np.maximum.reduceat(dataset.places, dataset.offsets[:-1]) == 0


def _row_losses(model: Any, batch: dict[str, torch.Tensor]) -> tuple[Floats, Ints]:
    device = next(model.parameters()).device
    ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)
    wanted = labels[:, 1:] != IGNORE
    bound = bind_rho(model, batch["rho"]) if hasattr(model, "hyperlora_binding") else contextlib.nullcontext()
    with bound:
        logits = target_logits(model, ids, wanted)
    per_token = torch.zeros(wanted.shape, device=device)
    per_token[wanted] = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
    return per_token.sum(dim=1).double().cpu().numpy(), wanted.sum(dim=1).cpu().numpy()


def evaluate_decisions(
    model: Any,
    tokenizer: Any,
    dataset: NegotiationDataset,
    facts: DecisionFacts,
    *,
    max_rows: int = 512,
    batch_size: int = 128,
) -> dict[str, Any]:
    """What the model would do at an even sample of the dataset's decisions, greedily decoded, against what was done.

    Args:
        model: causal LM; where it carries a HyperLoRA, each row runs at its own ρ.
        tokenizer: that of the dataset.
        dataset: decisions.
        facts: of the dataset, from `decision_facts`.
        max_rows: see `sample_rows`.
        batch_size: prompts a forward pass.

    Returns:
        `_Answers.figures` over rows of deals; the same over impasse rows (ρ = -1) under ``impasse``, apart because nobody
        accepts in an impasse, so that they would only dilute; and ``rows``, how many both are over.

    Raises:
        ValueError: ``facts`` belong to another dataset.
    """
    rows = _rows_by_length(dataset, max_rows, facts)
    starts, ends = dataset.offsets[rows], dataset.offsets[rows + 1]
    answers_at, may_accept = starts + dataset.prompt_lengths[rows], facts.may_accept[rows]
    prompts = [dataset.ids[a:b].tolist() for a, b in zip(starts, answers_at, strict=True)]
    texts = [tokenizer.decode(dataset.ids[a : b - 1].tolist()) for a, b in zip(answers_at, ends, strict=True)]
    rho = dataset.rho[rows].astype(np.float64) if hasattr(model, "hyperlora_binding") else None
    with evaluation_mode(model):
        decided = Scorer(model, tokenizer, "greedy", batch_size).decide(prompts, rho, may_accept)
    accept, failed = _accepts(dataset)[rows], _impasse(dataset.rho[rows])
    price = [np.nan if a else float(text.strip().removeprefix("OFFER")) for a, text in zip(accept, texts, strict=True)]
    last = np.full(len(rows), np.nan) if facts.last_offer is None else facts.last_offer[rows]
    answers = _Answers(accept, np.array(price), decided.accept, decided.price, may_accept, last)
    return {**answers.figures(~failed), "impasse": answers.figures(failed), "rows": len(rows)}


@dataclass(frozen=True, slots=True)
class _Answers:
    """Targets and answers, each ``[N]``; prices normalised, ``price`` and ``last_offer`` NaN where there is none."""

    accept: Bools
    price: Floats
    accepted: Bools
    offered: Floats
    may_accept: Bools
    last_offer: Floats

    def figures(self, of: Bools) -> dict[str, float | int | None]:
        """Figures over the rows ``of``; None where nothing is there to measure.

        ``action_accuracy`` is over all ``n`` rows, ``majority_baseline`` that of always the commoner action.
        ``choice_accuracy``, ``choice_majority_baseline`` and ``choices`` are the same over rows where ACCEPT is legal:
        elsewhere the grammar leaves nothing to get wrong. ``accept_targets`` and ``accept_answers`` are the counts behind
        ``accept_precision``, ``accept_recall`` and ``accept_f1``. ``price_mae`` is in shares of the price range, over the
        ``price_n`` rows where target and answer both offer, a share ``price_coverage`` of those where the target does.
        ``last_offer_baseline`` is the error of repeating the own latest offer, over the ``last_offer_n`` of those rows
        that have one, and ``price_mae_beside_baseline`` the model's over the same rows.
        """
        right, choice = self.accept == self.accepted, of & self.may_accept
        targets, answers, both = of & self.accept, of & self.accepted, of & ~self.accept & ~self.accepted
        error, repeated = np.abs(self.offered - self.price), both & ~np.isnan(self.last_offer)
        named = int(targets.sum() + answers.sum())  # F1 = 2 hits / (targets + answers), which needs no precision
        return {
            "n": int(of.sum()),
            "action_accuracy": _mean(right, of),
            "majority_baseline": _commoner(_mean(self.accept, of)),
            "choices": int(choice.sum()),
            "choice_accuracy": _mean(right, choice),
            "choice_majority_baseline": _commoner(_mean(self.accept, choice)),
            "accept_targets": int(targets.sum()),
            "accept_answers": int(answers.sum()),
            "accept_precision": _mean(self.accept, answers),
            "accept_recall": _mean(self.accepted, targets),
            "accept_f1": 2 * int((targets & answers).sum()) / named if named else None,
            "price_n": int(both.sum()),
            "price_mae": _mean(error, both),
            "price_coverage": _mean(~self.accepted, of & ~self.accept),
            "last_offer_n": int(repeated.sum()),
            "last_offer_baseline": _mean(np.abs(self.last_offer - self.price), repeated),
            "price_mae_beside_baseline": _mean(error, repeated),
        }


def _mean(values: NDArray[Any], of: Bools) -> float | None:
    return float(values[of].mean()) if of.any() else None


def _commoner(share: float | None) -> float | None:
    return None if share is None else max(share, 1.0 - share)
