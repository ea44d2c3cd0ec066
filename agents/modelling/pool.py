"""Whom an opponent may be taken for: persona adapters on disk, and which of them suit a seat and a preset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bargain_env.core import Seat


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A persona that has an adapter.

    Attributes:
        name: unique in its pool.
        folder: of the adapter, in PEFT's format.
        family: of its strategy.
        preset: that its games came from.
        seat: ``buyer`` or ``seller``.
    """

    name: str
    folder: Path
    family: str
    preset: str
    seat: str


@dataclass(frozen=True, slots=True)
class Pool:
    """Adapters of one base.

    Attributes:
        base: what they were trained on, as `hyperlora.base.load_base` understands it.
        base_digest: of it.
        prompt_format: of their training.
        counterparts: in the order of their names.
        pooled: folder of the adapter trained on all of them, the hypothesis that the opponent is nobody in particular; None
            where there is none, and the bare base stands for it.
    """

    base: str
    base_digest: str
    prompt_format: int
    counterparts: tuple[Counterpart, ...]
    pooled: Path | None = None

    def suited(self, seat: Seat, preset: str | None, most: int | None = None) -> tuple[Counterpart, ...]:
        """Those that sit at ``seat`` in games of ``preset``, or in any games where none does; at most ``most``, by name.

        Under the cap families take turns, so that as many styles as possible are told apart.
        """
        seated = [one for one in self.counterparts if one.seat == seat.label]
        here = [one for one in seated if one.preset == preset] or seated
        return tuple(sorted(_in_turn(here)[: len(here) if most is None else most], key=lambda one: one.name))


def _in_turn(some: Sequence[Counterpart]) -> list[Counterpart]:
    """The first of each family, then the second of each, and so on."""
    rank: defaultdict[str, int] = defaultdict(int)
    order = []
    for place, one in enumerate(some):
        order.append((rank[one.family], place, one))
        rank[one.family] += 1
    return [one for _, _, one in sorted(order, key=lambda entry: entry[:2])]
