"""What a collection shows while it is made, and the figures of the whole, from those of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console

from experiments.progress import progress

from .parts import Played


def shown(parts: Iterable[Played], total: int, done: int, console: Console) -> Iterator[Played]:
    """The parts as they come, and how far they are.

    Args:
        parts: as they are played.
        total: games of the collection.
        done: games of those parts that were there before.
        console: where to.
    """
    with progress("collect", "games", console, total, done) as tell:
        for played in parts:
            yield played
            done += played.part.games
            tell(done, total)


def summary(entries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and settlements of all parts together.

    Mean and spread are combined part by part in the order of their numbers (T. F. Chan, G. H. Golub, R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979, equation 2.1), so that they are the
    same to the last bit in whatever order the parts were played.

    Args:
        entries: `experiments.corpus.parts.counted` of each part, by its number.
    """
    ordered = [entries[number] for number in sorted(entries)]
    episodes, agreements = (sum(entry[name] for entry in ordered) for name in ("episodes", "agreements"))
    n, mean, squares = 0, 0.0, 0.0
    for count, here, around in (entry["rho"] for entry in ordered):
        if count:
            distance = here - mean
            squares += around + distance**2 * (n * count / (n + count))
            mean += distance * (count / (n + count))
            n += count
    return {
        "episodes": episodes,
        "steps": sum(entry["steps"] for entry in ordered),
        "left_out_for_invalid_moves": sum(entry["left_out"] for entry in ordered),
        "agreement_rate": agreements / episodes if episodes else None,
        "rho_mean": mean if n else None,
        "rho_sd": math.sqrt(squares / n) if n else None,
    }
