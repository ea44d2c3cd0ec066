"""Two micro-batches forward and backward before the long part: what cannot work fails in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import NegotiationDataset
from .plan import TrainSettings
from .train import Loop, checkpointing, make_state
from .workers import Workers


def rehearse(model: Any, dataset: NegotiationDataset, settings: TrainSettings, workers: Workers | None = None) -> None:
    """Run two micro-batches, the one with the longest rows first, and forget their gradients.

    Raises:
        TrainingDiverged: as `hyperlora.train.train`.
    """
    workers = workers or Workers()
    loop = Loop(model, dataset, settings, make_state(model, settings), workers)
    longest = np.argsort(-dataset.lengths, kind="stable")[: settings.batch_size]
    was_training = model.training
    model.train()
    try:
        with checkpointing(model, settings.gradient_checkpointing), loop.own_randomness():
            for rows in (longest, np.arange(min(settings.batch_size, len(dataset)))):
                batches = [loop.batch(rows)] * workers.count
                losses, _, _ = loop.gradients(batches, first=0)
                loop.require_sane(0, losses, batches)
    finally:
        for parameter in loop.trainable:
            parameter.grad = None
        model.train(was_training)
