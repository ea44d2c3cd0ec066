"""Random members of a family, for populations larger than the registered one."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np

from bargain_env import Policy, rng
from bargain_env.errors import InputError, unknown

from .registry import StrategyInfo, describe, list_strategies, make


def sample_strategies(family: str, n: int, seed: int = 0, *, held_out: bool = False, **params: Any) -> list[Policy]:
    """``n`` members of ``family`` with parameters drawn within its ranges.

    The k-th is a pure function of family, seed and k, and named after its parameters; a family without ranges gives n
    alike. Members of a family that trains are never like its held-out variant.

    Args:
        family: of `StrategyInfo`.
        n: how many.
        seed: of the draw.
        held_out: allow a family that is held out of training data.
        **params: for every one of them, for example ``assumed_zopa_width=500``; not drawn.

    Raises:
        InputError: unknown family, or one that is held out of training data.
    """
    kinds = _kinds(family, held_out)
    # The turn tells families apart: where opponents are drawn it is otherwise unused.
    tag = crc32(family.encode()) & 0xFFFFFF
    most = max(len(info.ranges) for info in kinds)
    members = []
    for row in rng.uniform(seed, np.arange(n), turn=tag, stream=rng.Stream.PAIRING, n=1 + most):
        info = kinds[int(row[0] * len(kinds))]
        drawn = {name: span.at(u) for (name, span), u in zip(info.ranges.items(), row[1:].tolist(), strict=False)}
        policy = make(info.name, **{**drawn, **params})
        shown = ", ".join(f"{name}={value:.4g}" for name, value in drawn.items() if name not in params)
        policy.name = f"{family if len(kinds) == 1 else info.name}({shown})"
        members.append(policy)
    return members


def _kinds(family: str, held_out: bool) -> list[StrategyInfo]:
    """One strategy for each rule of the family; those that share a rule differ in what is drawn."""
    found = [describe(name) for name in list_strategies(family=family)]
    if not found:
        raise unknown("family", family, {describe(name).family for name in list_strategies()})
    trained = [info for info in found if info.split == "train"]
    if not trained and not held_out:
        raise InputError(f"family {family!r} is held out of training data; pass held_out=True to sample it to evaluate")
    return list({id(info.factory): info for info in trained or found}.values())
