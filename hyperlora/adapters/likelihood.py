"""What each decision of a data set costs a model, row by row, with an adapter of its own for each row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from hyperlora.data import HyperLoRACollator, NegotiationDataset
from hyperlora.evaluate import evaluation_mode
from hyperlora.losses import IGNORE, target_logits

from .rows import Weights, bind_adapters

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Binding = Callable[[Ints], contextlib.AbstractContextManager[None]]
"""From numbers of a batch's rows, places in ``rows``, to a block in which the model runs as they want it."""

BATCH_ROWS = 128


@torch.no_grad()
def row_losses(
    model: nn.Module, dataset: NegotiationDataset, rows: Ints, bound: Binding | None = None
) -> tuple[Floats, Ints]:
    """The loss of each row's target.

    Args:
        model: a causal LM.
        dataset: decisions.
        rows: ``[K]`` numbers of its rows; a row may come several times.
        bound: what the model is bound to for a batch; nothing by default.

    Returns:
        The *sum* of the token losses of each row in nats ``[K]``, which is -log P(target, end of sequence | prompt), and its
        number of target tokens ``[K]``.
    """
    order = np.argsort(dataset.lengths[rows], kind="stable")
    collate, device = HyperLoRACollator(dataset.pad_token_id), next(model.parameters()).device
    loss, tokens = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    with evaluation_mode(model):
        for start in range(0, len(rows), BATCH_ROWS):
            places = order[start : start + BATCH_ROWS]
            batch = collate([dataset[int(row)] for row in rows[places]])
            ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)
            wanted = labels[:, 1:] != IGNORE
            with contextlib.nullcontext() if bound is None else bound(places):
                logits = target_logits(model, ids, wanted)
            each = torch.zeros(wanted.shape, device=device)
            each[wanted] = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
            loss[places] = each.sum(dim=1).double().cpu().numpy()
            tokens[places] = wanted.sum(dim=1).cpu().numpy()
    return loss, tokens


def under_adapters(model: nn.Module, weights: Weights, which: Ints, scaling: float = 1.0) -> Binding:
    """A `Binding` of ``which`` ``[K]``, the adapter of each row, -1 for none; see `bind_adapters`."""
    return lambda places: bind_adapters(model, weights, which[places].tolist(), scaling)
