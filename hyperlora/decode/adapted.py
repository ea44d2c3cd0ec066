"""Constrained decoding under an adapter a row: what a `Scorer` calls the condition of a row is here its adapter's number.

>>> head = AdapterHead(model, weights)      # A and B of N adapters
>>> Scorer(model, tokenizer, "median", head=head).decide(prompts, np.array([0.0, 2.0, -1.0]), may_accept)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.rows import Weights, bind_adapters
from .head import LegalHead


class AdapterHead(LegalHead):
    """A `LegalHead` whose rows run under plain adapters (`hyperlora.adapters.rows`) instead of at a ρ.

    Args:
        model: from `hyperlora.adapters.inject_rows`.
        weights: of N adapters, from `stack_adapters`.
    """

    def __init__(self, model: Any, weights: Weights) -> None:
        super().__init__(model)
        self.weights = weights

    @contextlib.contextmanager
    def bound(self, rho: NDArray[np.float64] | None) -> Iterator[None]:
        """Within the block each row runs under its adapter: ``[B]`` numbers, -1 for none; None for none anywhere."""
        rows = [-1] if rho is None else rho.astype(np.int64).tolist()
        with bind_adapters(self.model, self.weights, rows):
            yield
