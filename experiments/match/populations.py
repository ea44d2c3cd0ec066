"""Opponents beyond the registered ones: members of the families with drawn parameters."""

from __future__ import annotations

import itertools

import agents
from bargain_env.errors import InputError, unknown

POPULATION = "population:"
FORMS = "population:N, population:N@train or population:N@held_out"
MOST = 10_000


def population(spec: str, seed: int) -> list[str]:
    """The names of ``population:N``: N members, dealt in turn to every family that has parameters to draw.

    Families come in the order of the registry. The k-th member of a family is a pure function of family, seed and k, and a
    larger N holds the smaller one. Its name, ``micro(step=12.5)`` for example, is all that it takes to play it again.

    Args:
        spec: ``population:N``; ``@train`` leaves families out that are held out of training data, ``@held_out`` the others.
            Members of a family that trains are drawn within its trained ranges.
        seed: of the draw.

    Raises:
        InputError: not of that form, or there is nobody to draw from.
    """
    count, split = _read(spec)
    families = [family for family in _families() if split in ("", "train" if _trains(family) else "held_out")]
    each = [_drawn(family, count, seed) for family in families]
    dealt = [name for names in itertools.zip_longest(*each) for name in names if name is not None]
    if len(dealt) < count:
        raise InputError(f"--opponents {spec!r}: {len(dealt)} different members can be drawn; ask for fewer")
    return dealt[:count]


def _read(spec: str) -> tuple[int, str]:
    number, mark, split = spec.removeprefix(POPULATION).partition("@")
    if not number.isdecimal() or not 1 <= int(number) <= MOST:
        raise InputError(f"--opponents {spec!r} is not {FORMS} with N from 1 to {MOST}")
    if mark and split not in ("train", "held_out"):
        raise unknown("split", split, ("train", "held_out"))
    return int(number), split


def _families() -> list[str]:
    """Those with something to draw whose members play in tournaments."""
    kinds = (agents.describe(name) for name in agents.list_strategies(evaluable=True))
    return list(dict.fromkeys(info.family for info in kinds if info.ranges))


def _trains(family: str) -> bool:
    return any(agents.describe(name).may_train for name in agents.list_strategies(family=family))


def _drawn(family: str, count: int, seed: int) -> list[str]:
    """Up to ``count`` different members; rules without parameters and repeated draws of whole numbers give way."""
    members = agents.sample_strategies(
        family, 2 * count + 16, seed, held_out=True
    )  # those that train stay within ranges
    return list(dict.fromkeys(member.name for member in members if not member.name.endswith("()")))[:count]
