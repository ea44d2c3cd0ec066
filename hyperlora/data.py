"""Decisions as token sequences: `NegotiationDataset` over a steps table, and its collator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bargain_env.errors import InputError

from .losses import IGNORE
from .prompt import K_HISTORY
from .token_cache import TokenCache, tokenised
from .tokenise import FACTS, Spelling, texts

__all__ = ["REQUIRED", "HyperLoRACollator", "NegotiationDataset", "StepSampler", "read_steps", "steps_file", "texts"]

REQUIRED = ("rho_train", *FACTS)
_BATCH = 65_536
"""Rows that are decoded at a time."""


def steps_file(data: Path) -> Path:
    """The steps table ``data`` names: a Parquet file, or a folder that holds ``steps.parquet``.

    Raises:
        InputError: neither.
    """
    if data.is_file():
        return data
    if not data.is_dir():
        raise InputError(f"{data} does not exist; make it with `python -m experiments.prepare`")
    if not (data / "steps.parquet").is_file():
        raise InputError(f"{data} holds no steps.parquet; make it with `python -m experiments.prepare`")
    return data / "steps.parquet"


def read_steps(path: Path, split: str = "train", allow_empty: bool = False) -> pa.Table:
    """The rows of one split of a steps table; a table without splits is all ``train``.

    Args:
        path: Parquet file, or a folder that holds ``steps.parquet``.
        split: ``train``, ``eval`` or ``test``.
        allow_empty: give an empty table, not an error, where there are no such rows.

    Raises:
        InputError: no such file, not Parquet, empty, or a column is missing.
    """
    source = steps_file(path)
    try:
        with pq.ParquetFile(source, memory_map=True) as file:
            names, rows = file.schema_arrow.names, file.metadata.num_rows
            missing = [name for name in REQUIRED if name not in names]
            if missing:
                raise InputError(f"{source} lacks columns {missing}; make it with `python -m experiments.prepare`")
            table = pa.Table.from_batches(_of_split(file, split), file.schema_arrow)
    except pa.ArrowInvalid as error:
        raise InputError(f"{source} is not a readable Parquet file ({error}); make it again") from error
    if table.num_rows:
        return _sound(table, source)
    if allow_empty and rows:
        return table
    raise InputError(f"{source} has no rows of split {split!r}; make it with `python -m experiments.prepare`")


def _of_split(file: pq.ParquetFile, split: str) -> Iterator[pa.RecordBatch]:
    """The rows of a split, a batch at a time, so that those of the others are never in memory together."""
    if "split" in file.schema_arrow.names:
        for batch in file.iter_batches(_BATCH):
            yield batch.filter(pa.compute.equal(batch["split"], split))
    elif split == "train":
        yield from file.iter_batches(_BATCH)


def _sound(table: pa.Table, source: Path) -> pa.Table:
    """``table``, or an `InputError` that names the first row that cannot become a prompt and its answer."""
    optional = ("last_offer_price", "target_price")
    for name in REQUIRED:
        bad = pa.compute.is_null(table[name], nan_is_null=True) if name not in optional else None
        if bad is not None and pa.compute.any(bad).as_py():
            row = pa.compute.index(bad, True).as_py()
            raise InputError(f"{source}, row {row}: {name} is missing; run `python -m experiments.prepare` on it")
    offers = pa.compute.equal(table["target_action"], "OFFER")
    priceless = pa.compute.and_(offers, pa.compute.is_null(table["target_price"], nan_is_null=True))
    if pa.compute.any(priceless).as_py():
        row = pa.compute.index(priceless, True).as_py()
        raise InputError(
            f"{source}, row {row}: an OFFER has no target_price; run `python -m experiments.prepare` on it"
        )
    return table


class NegotiationDataset(Dataset):
    """Prompt and target of every decision, tokenised once.

    Rows with a degenerate price range (high - low ≤ 1e-6) are dropped and counted in ``dropped``.

    Args:
        table: a steps table or the path of one.
        tokenizer: whose ids to use.
        k_history: history slots.
        max_length: longest sequence; a longer prompt loses tokens at its front, the target never does.
        prompt_format: 1, 2, 3 or 4; the last needs the column ``role``.
        decimal_weights: weight of the loss on each decimal of a price. The last ones are mostly noise: prices of the
            games that people train on are known to a share of the range, not to 1e-4 of it.
        prompt_weight: weight of the loss on each prompt token; above 0 only to pretrain a base, which learns to read
            numbers sooner when it must also predict the offers in its history.
        rho: ``[N]`` labels that replace ``rho_train`` (for ρ-blind pretraining and ablations).
        row_weights: ``[N]`` by which the loss on each row's tokens is weighed.
        text_rho: ρ that every prompt says in place of its row's, which the gates alone see then (for ablations).
        cache: where token ids are kept; by default nowhere.

    Raises:
        InputError: the table is unusable, or a target does not fit in ``max_length``.
    """

    def __init__(
        self,
        table: pa.Table | Path | str,
        tokenizer: Any,
        k_history: int = K_HISTORY,
        max_length: int = 1024,
        prompt_format: int = 2,
        decimal_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        prompt_weight: float = 0.0,
        rho: NDArray[np.float64] | None = None,
        text_rho: float | None = None,
        row_weights: NDArray[np.float64] | None = None,
        cache: TokenCache | None = None,
    ) -> None:
        if not isinstance(table, pa.Table):
            table = read_steps(Path(table))
        labels = table["rho_train"].to_numpy() if rho is None else np.asarray(rho)
        width = table["price_high"].to_numpy() - table["price_low"].to_numpy()
        keep = np.flatnonzero(width > 1e-6)
        self.dropped = table.num_rows - len(keep)
        table = table if not self.dropped else table.take(keep)
        self.rho = labels[keep].astype(np.float32)
        self.pad_token_id = int(tokenizer.pad_token_id)
        said = self.rho if text_rho is None else np.full_like(self.rho, text_rho)
        if not table.num_rows:
            raise InputError("every row has a degenerate price range; nothing to train on")
        how = Spelling(tokenizer, k_history, max_length, prompt_format)
        made = tokenised(table, said, how) if cache is None else cache.sequences(table, said, how)
        self.ids, self.places, self.lengths, self.prompt_lengths = made
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._weight_of_place = np.array([1.0, *decimal_weights], dtype=np.float32)
        self._prompt_weight = prompt_weight
        weights = np.ones(len(labels)) if row_weights is None else np.asarray(row_weights)
        self._row_weights = weights[keep].astype(np.float32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask``, ``labels`` (-100 over the prompt), ``weights`` ``[S]``, and ``rho`` ``[1]``."""
        here, prompt = slice(self.offsets[row], self.offsets[row + 1]), self.prompt_lengths[row]
        ids = torch.from_numpy(self.ids[here].astype(np.int64))
        labels, weights = ids.clone(), torch.from_numpy(self._weight_of_place[self.places[here]])
        weights[:prompt] = self._prompt_weight
        weights *= float(self._row_weights[row])
        if not self._prompt_weight:
            labels[:prompt] = IGNORE
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
            "weights": weights,
            "rho": torch.tensor([float(self.rho[row])]),
        }

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """``rows`` as `HyperLoRACollator` pads them, bit for bit, with no Python over the rows.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels``, ``weights`` ``[B, S]`` and ``rho`` ``[B, 1]``.
        """
        column = np.arange(int(self.lengths[rows].max()))
        real = column < self.lengths[rows, None]
        learnt = real if self._prompt_weight else real & (column >= self.prompt_lengths[rows, None])
        where = np.where(real, self.offsets[rows, None] + column, 0)
        ids = np.where(real, self.ids[where], self.pad_token_id).astype(np.int64, copy=False)
        weights = self._weight_of_place[self.places[where]]
        weights[column < self.prompt_lengths[rows, None]] = self._prompt_weight
        weights = np.where(real, weights * self._row_weights[rows, None], np.float32(0.0))
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "labels": torch.from_numpy(np.where(learnt, ids, IGNORE)),
            "weights": torch.from_numpy(weights),
            "rho": torch.from_numpy(self.rho[rows, None]),
        }


class HyperLoRACollator:
    """Pads rows on the right to the longest: ids with the pad token, the mask with 0, labels with -100, weights with 0.

    Args:
        pad_token_id: of the tokenizer.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask``, ``labels``, ``weights`` ``[B, S]`` and ``rho`` ``[B, 1]``."""
        fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "labels": IGNORE, "weights": 0.0}
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)
            for name, value in fill.items()
        }
        return {**batch, "rho": torch.stack([row["rho"] for row in rows])}


class StepSampler:
    """Which rows a training step sees: a pure function of (seed, step), so that a resumed run continues exactly.

    Each epoch is a permutation; within windows of ``window`` batches rows are grouped by length, which saves padding.

    Args:
        lengths: ``[N]`` tokens of each row.
        batch_size: rows a batch.
        seed: of the permutations.
        window: batches that are sorted together.
    """

    def __init__(self, lengths: NDArray[np.integer[Any]], batch_size: int, seed: int, window: int = 32) -> None:
        self.lengths, self.batch_size, self.seed, self.window = lengths, batch_size, seed, window
        self.batches_per_epoch = max(1, len(lengths) // batch_size)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def rows(self, batch: int) -> NDArray[np.int64]:
        """Rows of the ``batch``-th batch since the start of training."""
        epoch, position = divmod(batch, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        size = self.batch_size * self.window
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches = [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
            whole = [b for b in batches if len(b) == self.batch_size]
            rest = [b for b in batches if len(b) < self.batch_size]
            shuffled = [whole[i] for i in random.permutation(len(whole))]
            order[start : start + size] = np.concatenate(shuffled + rest)
        return order
