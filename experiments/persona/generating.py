"""Training a hypernetwork: it sees the first offers of a persona's game and is judged on decisions of its other games."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from bargain_env.errors import InputError
from experiments.persona.arms import Arms
from experiments.persona.folder import PersonaData
from experiments.persona.support import SPREAD, Support
from experiments.stages import require_least
from hyperlora.adapters.hypernetwork import HyperNetwork, update_norm
from hyperlora.adapters.likelihood import row_losses, under_adapters
from hyperlora.adapters.offer_embedding import OfferEmbedding
from hyperlora.adapters.rows import bind_adapters
from hyperlora.data import HyperLoRACollator
from hyperlora.losses import target_loss
from hyperlora.plan import TrainSettings, learning_rate
from hyperlora.train import TrainingDiverged

Ints = NDArray[np.int64]
SEEN_OFFERS = 5
"""What instant experts are made of: the first five offers of one game."""


@dataclass(frozen=True, slots=True)
class Hypernetwork:
    """Train a network that writes an adapter from a persona's first offers, and judge it on unseen personas."""

    data: tyro.conf.Positional[Path]
    """Folder of ``make`` that ``train`` has been through."""
    out: Path | None = None
    """Where the network and its results go; DATA by default."""
    bottleneck_dim: int = 32
    """Width of what the network makes of an embedding."""
    head_rank: int | None = None
    """Width of what its heads share, for a smaller network; the bottleneck itself by default."""
    steps: int = 1500
    """Optimizer steps; the best on validation games is kept."""
    personas_per_step: int = 16
    """Seen personas in a step, each under its own generated adapter."""
    rows_per_persona: int = 8
    """Decisions of each of them, from games that its embedding does not show."""
    support_games: int = 3
    """Most games that a training embedding shows."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Of AdamW."""
    warmup_steps: int = 50
    """Linear warm-up; then linear decay."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    penalty: float = 0.0
    """Weight of the mean squared norm of the updates that adapters make, beside nats a token."""
    pooled_start: bool = True
    """Start from the adapter that is trained for all seen personas together; else from the base."""
    evaluate_every: int = 100
    """Steps between evaluations on validation games of seen personas."""
    val_rows: int = 2000
    """Most decisions of such an evaluation, spread over the personas."""
    draws: int = 4
    """Embeddings of each unseen persona, from different training games, that results are averaged over."""
    seed: int = 0
    """Of initial weights, draws and intervals."""
    threads: int = 2
    """CPU threads."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the results as JSON instead of text."""

    def check(self) -> None:
        """Raise `InputError` where a setting is out of range."""
        least = dict.fromkeys(("bottleneck_dim", "steps", "personas_per_step", "rows_per_persona", "support_games",
                               "evaluate_every", "val_rows", "draws"), 1)  # fmt: skip
        require_least(self, {**least, "warmup_steps": 0, "seed": 0})
        if self.head_rank is not None and self.head_rank < 1:
            raise InputError(f"--head-rank {self.head_rank} must be at least 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name} {getattr(self, name)} must be positive and finite")
        for name in ("weight_decay", "penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} must be 0 or more, and finite")


FREE = ("data", "out", "draws", "threads", "quiet", "json")
"""Settings that leave the weights as they are, but for their last bits."""


def identity(settings: Hypernetwork) -> dict[str, Any]:
    """What decides the weights, beside data and base."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__ if name not in FREE}


def seen_personas(data: PersonaData) -> list[int]:
    """Who may be learned from.

    Raises:
        InputError: nobody.
    """
    seen = [k for k, persona in enumerate(data.personas) if not persona.unseen]
    if not seen:
        raise InputError(f"all personas in {data.folder} are unseen; make others with a smaller --unseen")
    return seen


class Lessons:
    """What a step sees: a pure function of (seed, step).

    Args:
        data: the personas; only rows of seen ones are ever drawn, and only training games.
        support: what embeddings show.
        embedding: how.
        settings: of the training.
    """

    def __init__(self, data: PersonaData, support: Support, embedding: OfferEmbedding, settings: Hypernetwork) -> None:
        self.support, self.embedding, self.settings = support, embedding, settings
        self.seen = seen_personas(data)
        self.rows = {k: data.rows("train", k) for k in self.seen}
        self.game = {k: data.game[rows] for k, rows in self.rows.items()}

    def take(self, step: int) -> tuple[Tensor, Ints, Ints]:
        """Embeddings ``[P, dim]``, rows ``[K]``, and the number of the embedding that each row is judged under ``[K]``."""
        draw = np.random.default_rng([self.settings.seed, step])
        count = min(self.settings.personas_per_step, len(self.seen))
        embeddings, rows, owner = [], [], []
        for i, k in enumerate(draw.permutation(self.seen)[:count].tolist()):
            known = self.support.games[k]
            most = min(
                self.settings.support_games, len(known), len(np.unique(self.game[k])) - 1
            )  # one is left to predict
            games = draw.permutation(known)[: draw.integers(1, most + 1) if most > 0 else 0].tolist()
            offers = int(draw.choice((0, *SPREAD)))
            others = self.rows[k][~np.isin(self.game[k], games)]
            mine = draw.permutation(others)[: self.settings.rows_per_persona]
            embeddings.append(self.support.embed(self.embedding, k, games, offers))
            rows.append(mine)
            owner.append(np.full(len(mine), i))
        return torch.stack(embeddings), np.concatenate(rows), np.concatenate(owner)


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A trained hypernetwork.

    Attributes:
        network: with the weights of the best evaluation.
        record: JSON-ready account of the training.
    """

    network: HyperNetwork
    record: dict[str, Any]


def teach(
    arms: Arms, network: HyperNetwork, support: Support, embedding: OfferEmbedding, settings: Hypernetwork,
    tell: Callable[[str], None],
) -> Taught:  # fmt: skip
    """Train ``network`` on training games of seen personas.

    Raises:
        TrainingDiverged: a loss is not finite.
    """
    arms.model.requires_grad_(False)
    lessons = Lessons(arms.data, support, embedding, settings)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    plan = TrainSettings(max_steps=settings.steps, lr=settings.lr, warmup_steps=settings.warmup_steps)
    losses: list[float] = []
    val: dict[int, float] = {0: validation_loss(arms, network, support, embedding, settings.val_rows)}
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    began = time.monotonic()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, plan)
        optimizer.zero_grad()
        loss, plain = lesson_loss(arms, network, lessons.take(step), settings.penalty)
        if not math.isfinite(plain):
            raise TrainingDiverged(f"the loss of the hypernetwork is {plain} at step {step + 1}; lower --lr")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        losses.append(plain)
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
            now = validation_loss(arms, network, support, embedding, settings.val_rows)
            if now < min(val.values()):
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            val[step + 1] = now
            left = (time.monotonic() - began) / (step + 1) * (settings.steps - step - 1)
            tell(f"hypernetwork: step {step + 1:,} of {settings.steps:,}, validation {now:.4f}, {left:,.0f} s to go")
    network.load_state_dict(best)
    record = {"best_step": min(val, key=lambda step: val[step]), "val_losses": {str(k): v for k, v in val.items()},
              "last_train_loss": float(np.mean(losses[-settings.evaluate_every :]))}  # fmt: skip
    return Taught(network.eval(), record)


def lesson_loss(
    arms: Arms, network: HyperNetwork, lesson: tuple[Tensor, Ints, Ints], penalty: float
) -> tuple[Tensor, float]:
    """What to go down, and its part in nats a target token: rows under different adapters share a forward pass."""
    embeddings, rows, owner = lesson
    device = next(arms.model.parameters()).device
    batch = HyperLoRACollator(arms.dataset.pad_token_id)([arms.dataset[int(row)] for row in rows])
    weights = network(embeddings.to(device))
    with bind_adapters(arms.model, weights, owner.tolist()):
        total, tokens = target_loss(arms.model, batch["input_ids"].to(device), batch["labels"].to(device))
    loss = total / tokens
    plain = loss.item()
    return (loss + penalty * update_norm(weights).mean() if penalty else loss), plain


@torch.no_grad()
def validation_loss(arms: Arms, network: HyperNetwork, support: Support, embedding: OfferEmbedding, most: int) -> float:
    """Nats a target token on validation games of seen personas, after the first five offers of one training game."""
    data, seen = arms.data, seen_personas(arms.data)
    rows = data.rows("val")
    rows = rows[np.isin(data.owner[rows], seen)]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]
    embeddings = torch.stack([support.embed(embedding, k, support.games[k][:1], SEEN_OFFERS) for k in seen])
    which = np.searchsorted(seen, data.owner[rows])
    weights = network(embeddings.to(next(arms.model.parameters()).device))
    loss, tokens = row_losses(arms.model, arms.dataset, rows, under_adapters(arms.model, weights, which))
    return float(loss.sum() / tokens.sum())
