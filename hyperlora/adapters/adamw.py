"""AdamW over a stack of adapters, each with a learning rate of its own, which torch's optimizer does not have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(slots=True, eq=False)
class Moments:
    """Running means of a stack's gradients and of their squares, each of the stack's shape."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, stack: Tensor) -> Moments:
        """Before the first step."""
        return cls(torch.zeros_like(stack), torch.zeros_like(stack))

    def take(self, index: Tensor) -> Moments:
        """A copy of some adapters' moments."""
        return Moments(self.first[index], self.second[index])

    def put(self, index: Tensor, moments: Moments) -> None:
        """Put some adapters' moments back."""
        self.first[index], self.second[index] = moments.first, moments.second


@torch.no_grad()
def adamw(value: Tensor, gradient: Tensor, moments: Moments, lr: Tensor, step: int, weight_decay: float) -> None:
    """One step in place (Loshchilov and Hutter 2019, algorithm 2), elementwise, so that adapters do not mix.

    Args:
        value: ``[N, …]`` parameters of N adapters.
        gradient: of the same shape.
        moments: of ``value``; updated.
        lr: ``[N]``.
        step: from 1.
        weight_decay: decoupled.
    """
    rate = lr.to(value.dtype).view(-1, *(1,) * (value.ndim - 1))
    value.mul_(1.0 - rate * weight_decay)
    moments.first.lerp_(gradient, 1.0 - BETAS[0])
    moments.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
    spread = (moments.second.sqrt() / (1.0 - BETAS[1] ** step) ** 0.5).add_(EPSILON)
    value.sub_(rate / (1.0 - BETAS[0] ** step) * moments.first / spread)
