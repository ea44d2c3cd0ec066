"""Prompts to decide on, with what belongs to each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """B prompts.

    Attributes:
        prompts: token ids.
        rho: ``[B]``; None for a bare base model.
        may_accept: ``[B]`` whether ACCEPT is legal.
        offers: ``[B]`` whether the offer is wanted even where the model accepts.
        uniforms: ``[B, n]`` in [0, 1); None where nothing is drawn.

    Raises:
        ValueError: lengths differ, or a prompt is empty.
    """

    prompts: Sequence[list[int]]
    rho: Floats | None
    may_accept: Bools
    offers: Bools
    uniforms: Floats | None = None

    def __post_init__(self) -> None:
        for name in ("rho", "may_accept", "offers", "uniforms"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.prompts):
                raise ValueError(f"{name} has {len(given)} rows for {len(self.prompts)} prompts; give one a prompt")
        if not all(self.prompts):
            raise ValueError(f"prompt {next(i for i, p in enumerate(self.prompts) if not p)} is empty")

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Ints) -> Questions:
        """These rows, in this order."""
        return Questions(
            [self.prompts[i] for i in rows],
            *(None if a is None else a[rows] for a in (self.rho, self.may_accept, self.offers, self.uniforms)),  # type: ignore[arg-type]
        )

    @property
    def keys(self) -> list[float | None]:
        """ρ of each, as the gates see it: equal beginnings have equal keys and values where these are equal."""
        return [None] * len(self) if self.rho is None else self.rho.astype(np.float32).tolist()

    def distinct(self) -> tuple[Ints, Ints]:
        """A row of each distinct question ``[U]``, and which of them each row asks ``[B]``; drawn ones are all distinct."""
        if self.uniforms is not None:
            return np.arange(len(self)), np.arange(len(self))
        number: dict[Hashable, int] = {}
        asked = zip(self.keys, self.may_accept.tolist(), self.offers.tolist(), map(tuple, self.prompts), strict=True)
        which = np.array([number.setdefault(question, len(number)) for question in asked], dtype=np.int64)
        return np.unique(which, return_index=True)[1], which
