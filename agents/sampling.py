"""Random members of a family, for populations larger than the registered one."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any
from zlib import crc32

import numpy as np

from bargain_env import Policy, rng
from bargain_env.errors import InputError, unknown

from .ranges import Range
from .registry import StrategyInfo, describe, list_strategies, make

NEUTRAL = ("assumed_zopa_width", "acceptance", "knows")
"""What any member may be told, whatever its family's ranges: what it assumes, what it accepts, what it knows."""


def sample_strategies(family: str, n: int, seed: int = 0, *, held_out: bool = False, **params: Any) -> list[Policy]:
    """``n`` members of ``family`` with parameters drawn within its ranges.

    The k-th is a pure function of family, seed and k; a family without ranges gives n alike. Each is named after its
    parameters, to the last digit. Members of a family that trains are never like its held-out variant.

    Args:
        family: of `StrategyInfo`.
        n: how many.
        seed: of the draw.
        held_out: allow what is held out of training data: such a family, or parameters outside the ranges.
        **params: for every one of them, for example ``assumed_zopa_width=500``; not drawn. A parameter of the rule must lie
            in its range or, where it has none, be that of a registered member that trains.

    Raises:
        InputError: unknown family, one that is held out of training data or parameters that are, or a number of members
            that is none.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 0:
        raise InputError(f"n {n} must be a whole number of members, 0 or more")
    kinds = _kinds(family, held_out)
    if not held_out:
        _refuse_untrained(family, kinds, params)
    # The turn tells families apart: where opponents are drawn it is otherwise unused.
    tag = crc32(family.encode()) & 0xFFFFFF
    most = max(len(info.ranges) for info in kinds)
    members = []
    for row in rng.uniform(seed, np.arange(n), turn=tag, stream=rng.Stream.PAIRING, n=1 + most):
        info = kinds[int(row[0] * len(kinds))]
        drawn = {name: span.at(u) for (name, span), u in zip(info.ranges.items(), row[1:].tolist(), strict=False)}
        policy = make(info.name, **{**drawn, **params})
        given = {name: value for name, value in params.items() if name in info.ranges or name not in NEUTRAL}
        policy.name = label(family if len(kinds) == 1 else info.name, {**drawn, **given})
        members.append(policy)
    return members


def label(name: str, params: Mapping[str, Any]) -> str:
    """The member ``name(parameter=value, …)``, as `agents.make` builds it again, to the last digit."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in params.items())})"


def _kinds(family: str, held_out: bool) -> list[StrategyInfo]:
    """One strategy for each rule of the family; those that share a rule differ in what is drawn."""
    names = list_strategies(family=family) or list_strategies(family=family, teaching=True)
    found = [describe(name) for name in names]
    if not found:
        raise unknown("family", family, {describe(name).family for name in list_strategies()})
    trained = [info for info in found if info.may_train]
    if not trained and not held_out:
        raise InputError(f"family {family!r} is held out of training data; pass held_out=True to sample it to evaluate")
    return list({id(info.factory): info for info in trained or found}.values())


def _refuse_untrained(family: str, kinds: list[StrategyInfo], params: dict[str, Any]) -> None:
    """Raise `InputError` for a parameter that would make a member unlike those that train."""
    way_out = "pass held_out=True to sample it to evaluate"
    for name, value in params.items():
        spans = [info.ranges[name] for info in kinds if name in info.ranges]
        if spans:
            if not all(span.holds(value) for span in spans):
                shown = " and ".join(f"{span.low:g} to {span.high:g}" for span in spans)
                raise InputError(f"{name} {value!r} of family {family!r} is outside what trains, {shown}; {way_out}")
        elif name not in NEUTRAL and not _is_registered(family, name, value):
            raise InputError(
                f"{name} {value!r} is that of no member of {family!r} that trains, which draws {_ranges(kinds)}; {way_out}"
            )


def _is_registered(family: str, name: str, value: Any) -> bool:
    members = (describe(member) for member in list_strategies(family=family, split="train"))
    return any(name in info.defaults and info.defaults[name] == value for info in members)


def _ranges(kinds: list[StrategyInfo]) -> str:
    spans: dict[str, Range] = {name: span for info in kinds for name, span in info.ranges.items()}
    return ", ".join(f"{name} from {span.low:g} to {span.high:g}" for name, span in spans.items()) or "nothing"
