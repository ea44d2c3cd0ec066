"""Held-out loss of a model on decisions, per row, by outcome and by ρ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .binding import bind_rho
from .data import HyperLoRACollator, NegotiationDataset
from .losses import IGNORE

BUCKETS = 10


@torch.no_grad()
def evaluate_loss(
    model: Any, dataset: NegotiationDataset, batch_size: int = 64, max_rows: int = 2048
) -> dict[str, Any]:
    """Mean target loss of the first ``max_rows`` rows, in nats a target token.

    Returns:
        ``eval_loss``, ``eval_perplexity``, ``eval_loss_success``, ``eval_loss_failure`` (None where there are no such
        rows), ``rho_bucket_losses`` (ten of width .1, each over its own rows) and ``rows``.
    """
    was_training = model.training
    model.eval()
    count = min(max_rows, len(dataset))
    losses, tokens = [], []
    for start in range(0, count, batch_size):
        batch = HyperLoRACollator(dataset.pad_token_id)(
            [dataset[i] for i in range(start, min(start + batch_size, count))]
        )
        loss, n = _row_losses(model, batch)
        losses.append(loss)
        tokens.append(n)
    model.train(was_training)
    loss, n, rho = np.concatenate(losses), np.concatenate(tokens), dataset.rho[:count]

    def mean(rows: np.ndarray) -> float | None:
        return float(loss[rows].sum() / n[rows].sum()) if rows.any() else None

    overall = float(loss.sum() / n.sum())
    bucket = np.minimum((rho * BUCKETS).astype(int), BUCKETS - 1)
    return {
        "eval_loss": overall,
        "eval_perplexity": float(np.exp(overall)),
        "eval_loss_success": mean(rho >= 0),
        "eval_loss_failure": mean(rho < 0),
        "rho_bucket_losses": {
            f"{k / BUCKETS:.1f}-{(k + 1) / BUCKETS:.1f}": mean((rho >= 0) & (bucket == k)) for k in range(BUCKETS)
        },
        "rows": count,
    }


def _row_losses(model: Any, batch: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    device = next(model.parameters()).device
    ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)
    wanted = labels[:, 1:] != IGNORE
    keep = F.pad(wanted, (0, 1))
    if hasattr(model, "hyperlora_binding"):
        with bind_rho(model, batch["rho"]):
            out = model(input_ids=ids, logits_to_keep=keep, use_cache=False)
    else:
        out = model(input_ids=ids, logits_to_keep=keep, use_cache=False)
    logits = out.logits.reshape(-1, out.logits.shape[-1]).float()
    per_token = torch.zeros(wanted.shape, device=device)
    per_token[wanted] = F.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
    return per_token.sum(dim=1).cpu().numpy(), wanted.sum(dim=1).cpu().numpy()
