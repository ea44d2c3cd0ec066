"""Who the personas are: a strategy with drawn parameters, a preset and a seat."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import agents
from bargain_env import rng
from bargain_env.errors import InputError, unknown

_UNSEEN_TURN = 11
"""Where `agents.sample_strategies` and pairs draw too, they do with other turns."""


@dataclass(frozen=True, slots=True)
class Persona:
    """A counterpart.

    Attributes:
        id: ``persona_000``, …
        strategy: name that plays it again, with its parameters.
        family: of the strategy.
        preset: where its games come from.
        seat: ``buyer`` or ``seller``.
        unseen: kept back from whatever learns to make adapters for personas that it never saw.
    """

    id: str
    strategy: str
    family: str
    preset: str
    seat: str
    unseen: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def training_families() -> list[str]:
    """Families some of whose members may train, in the order of the registry."""
    kinds = [agents.describe(name) for name in agents.list_strategies(split="train")]
    return list(dict.fromkeys(info.family for info in kinds))


def sample_personas(
    count: int, seed: int, families: Sequence[str], presets: Sequence[str], unseen: float
) -> list[Persona]:
    """``count`` different personas.

    Families take turns; within one, presets and seats do. So every family has as many personas as any other, give or take
    one, and sits on all presets and seats; only one without parameters ends after one of each. All but ``unseen`` is a
    pure function of seed, families, presets and the persona's number.

    Args:
        count: how many.
        seed: of the parameters, and of who is unseen.
        families: that train.
        presets: names.
        unseen: share that is marked so.

    Raises:
        InputError: a family that is unknown or held out, a family or preset named twice, or too few different personas.
    """
    for what, names in (("family", families), ("preset", presets)):
        if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
            raise InputError(
                f"{what} {twice[0]} is named twice, which would draw the same personas twice; name it once"
            )
    known = training_families()
    for family in families:
        if family not in known:
            agents.sample_strategies(family, 1, seed)  # says whether it is unknown or held out
            raise unknown("family", family, known)
    places = list(itertools.product(presets, ("buyer", "seller")))
    each = -(-count // len(families)) + len(places)
    members = {family: _members(family, each + count, seed) for family in families}
    found: list[tuple[str, str, str, str]] = []
    for turn in itertools.count():
        before = len(found)
        for number, family in enumerate(families):
            names = members[family]
            preset, seat = places[(turn + number) % len(places)]
            if turn < (len(names) if len(names) > 1 else len(places)):
                found.append((names[turn % len(names)], family, preset, seat))
        if len(found) >= count:
            break
        if len(found) == before:
            raise InputError(f"only {before} different personas can be drawn from {', '.join(families)}; ask for fewer")
    hidden = _unseen(count, seed, unseen)
    width = max(3, len(str(count - 1)))
    return [Persona(f"persona_{k:0{width}d}", *found[k], unseen=k in hidden) for k in range(count)]


def _members(family: str, count: int, seed: int) -> list[str]:
    """Different members; one where the family has no parameters."""
    names = [policy.name.removesuffix("()") for policy in agents.sample_strategies(family, count, seed)]
    return [name for name in dict.fromkeys(names) if agents.describe(name).may_train]


def _unseen(count: int, seed: int, share: float) -> set[int]:
    draws = rng.uniform(seed, np.arange(count), turn=_UNSEEN_TURN, stream=rng.Stream.SPLIT)[:, 0]
    return set(np.argsort(draws, kind="stable")[: round(share * count)].tolist())
