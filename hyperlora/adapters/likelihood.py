"""What each decision of a data set costs a model, row by row, with an adapter of its own for each row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bargain_env.errors import InputError
from hyperlora.data import HyperLoRACollator, NegotiationDataset
from hyperlora.evaluate import evaluation_mode
from hyperlora.losses import IGNORE, target_logits
from hyperlora.tokens import encode

from .rows import Weights, bind_adapters

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Binding = Callable[[Ints], contextlib.AbstractContextManager[None]]
"""From numbers of a batch's rows, places in ``rows``, to a block in which the model runs as they want it."""

Answered = tuple[list[int], int]
"""Token ids of a prompt, its answer and the end-of-sequence token, and where the answer begins."""

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


def with_answers(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int = 1024) -> list[Answered]:
    """Prompts and their answers as trained; a sequence longer than ``max_length`` loses tokens at its front.

    Raises:
        InputError: an answer does not fit in ``max_length``.
    """
    prompts = encode(tokenizer, [prompt for prompt, _ in pairs])
    answers = encode(tokenizer, [answer for _, answer in pairs])
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        room = max_length - len(answer) - 1
        if room < 1:
            raise InputError(f"an answer of {len(answer)} tokens leaves no room for its prompt; raise max_length")
        shown = prompt[-room:]
        rows.append(([*shown, *answer, int(tokenizer.eos_token_id)], len(shown)))
    return rows


@torch.no_grad()
def answer_log_likelihoods(model: Any, rows: Sequence[Answered], pad: int) -> list[float]:
    """Log P(answer, end of sequence | prompt) of each row in nats, in one pass; rows are padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORE)
    for i, (ids, begins) in enumerate(rows):
        row = torch.tensor(ids)
        input_ids[i, : len(ids)] = row
        labels[i, begins : len(ids)] = row[begins:]
    device = next(model.parameters()).device
    wanted = (labels[:, 1:] != IGNORE).to(device)
    logits = target_logits(model, input_ids.to(device), wanted)
    targets = labels[:, 1:].to(device)[wanted]
    chosen: Tensor = logits.double().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    owner = torch.nonzero(wanted)[:, 0]
    return torch.zeros(len(rows), dtype=torch.float64, device=device).index_add(0, owner, chosen).tolist()
