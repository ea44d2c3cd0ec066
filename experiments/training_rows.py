"""The decisions that `experiments.train` trains and evaluates on: which rows, with what label, and how much each weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bargain_env.errors import InputError
from experiments.corpus.teachers import asked_rho
from experiments.keeper import Heldout
from hyperlora.data import NegotiationDataset, read_steps
from hyperlora.evaluate import decision_facts
from hyperlora.token_cache import TokenCache

if TYPE_CHECKING:
    from experiments.train import Settings

OPENING = 2
"""Turns on which each seat makes its first decision."""
CLOSING = 1
"""Turns left, at most, when a seat decides for the last time."""


def train_rows(settings: Settings) -> pa.Table:
    """The training rows, or the first of a seeded order of them, in the order of the table.

    Raises:
        InputError: the data cannot be read, or have no label of the kind that is wanted.
    """
    table = _labelled(settings, read_steps(settings.data, "train"))
    if not table.num_rows:
        raise InputError(
            f"--labels asked: no player in {settings.data} was asked for anything; collect games with --teacher"
        )
    wanted = settings.max_train_samples
    if wanted is None or wanted >= table.num_rows:
        return table
    order = np.random.default_rng([settings.seed, table.num_rows]).permutation(table.num_rows)
    return table.take(np.sort(order[:wanted]))


def _labelled(settings: Settings, table: pa.Table) -> pa.Table:
    """The rows that have a label of the kind that is wanted, which becomes their ``rho_train``."""
    if settings.labels == "outcome":
        return table
    if "strategy" not in table.column_names:
        raise InputError(f"--labels asked: {settings.data} does not say who played; make it with experiments.prepare")
    asked = asked_rho(table["strategy"].to_numpy())
    known = np.flatnonzero(~np.isnan(asked))
    column = table.schema.get_field_index("rho_train")
    return table.set_column(column, table.schema.field(column), pa.array(asked)).take(known)


def make_dataset(
    settings: Settings, table: pa.Table, tokenizer: Any, jitter: float = 0.0, cache: TokenCache | None = None
) -> NegotiationDataset:
    """``table`` as sequences of tokens with what each decision is asked for, shifted by up to ``jitter``, and its weight."""
    return NegotiationDataset(
        table,
        tokenizer,
        settings.k_history,
        settings.max_length,
        settings.prompt_format,
        settings.decimal_weights,
        rho=_labels(table, jitter, settings.seed),
        text_rho=settings.text_rho,
        row_weights=row_weights(settings, table),
        cache=cache,
    )


def row_weights(settings: Settings, table: pa.Table) -> NDArray[np.float64]:
    """``[N]`` by which the loss on each decision is weighed; one that is both first and last, by both."""
    turn = table["turn"].to_numpy()
    first, last = turn <= OPENING, table["max_turns"].to_numpy() - turn <= CLOSING
    return np.where(first, settings.opening_weight, 1.0) * np.where(last, settings.closing_weight, 1.0)


def _labels(table: pa.Table, jitter: float, seed: int) -> NDArray[np.float64]:
    """``[N]`` the ρ of each row, shifted by up to ``jitter``; an impasse stays -1."""
    rho = table["rho_train"].to_numpy()
    shift = np.random.default_rng([seed, len(rho)]).uniform(-1.0, 1.0, len(rho)) * jitter
    return np.where(rho >= 0.0, np.clip(rho + shift, 0.0, 1.0), rho)


def heldout_rows(settings: Settings, tokenizer: Any, cache: TokenCache | None = None) -> Heldout | None:
    """The rows of split ``eval``; None where there are none, or no evaluation is wanted.

    Raises:
        InputError: the data cannot be read.
    """
    if not settings.eval_every:
        return None
    table = _labelled(settings, read_steps(settings.data, "eval", allow_empty=True))
    return (
        Heldout(make_dataset(settings, table, tokenizer, cache=cache), decision_facts(table, settings.prompt_format))
        if table.num_rows
        else None
    )
