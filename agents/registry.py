"""Strategies by name: what `make` builds and what `list_strategies` lists."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from bargain_env import Policy, Preset
from bargain_env.errors import InputError, unknown

from .learned import LearnedPolicy
from .ranges import Range
from .validation import OPPONENTS as VALIDATION_OPPONENTS
from .validation import VALIDATION

LEARNED = "learned:"
"""``learned:PATH`` is a strategy too, which nobody registers by name: the `LearnedPolicy` of that file."""
TRAIN, HELD_OUT = "train", "held_out"
SPLITS = (TRAIN, HELD_OUT)
NO_FAMILY = "custom"
"""The family of strategies that are registered without one; they need have nothing in common."""


@dataclass(frozen=True, slots=True)
class StrategyInfo:
    """What is known of a registered strategy; not to be changed, nor are its mappings.

    Attributes:
        name: what command lines call it.
        factory: builds a new, independent `Policy`; keyword arguments override ``defaults``.
        family: strategies of one family share their rule and differ in parameters.
        description: one line.
        defaults: parameters that make this member of its family.
        source: where the rule is published.
        stochastic: whether its moves depend on the seed.
        uses_history: whether its moves depend on more than the clock and the standing offer.
        evaluable: whether tournaments that ask for ``all`` include it (False: used for training data only).
        split: ``train`` or ``held_out``; held-out strategies never enter training data, and neither do the drawn members of
            `agents.validation`, whose split is ``validation``.
        ranges: of the parameters that `sample_strategies` draws.
        cheating: whether it is told what no seat can know; such are in no list and play only when they are named.
        teaching: whether it is only there to make training data; such are in no list that does not ask for them, so that no
            pool, population or collection has them by the way.
    """

    name: str
    factory: Callable[..., Policy]
    family: str
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    stochastic: bool = False
    uses_history: bool = False
    evaluable: bool = True
    split: str = TRAIN
    ranges: Mapping[str, Range] = field(default_factory=dict)
    cheating: bool = False
    teaching: bool = False

    def __post_init__(self) -> None:
        for name in ("defaults", "ranges"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self) -> tuple[Any, ...]:
        """Read-only views can neither be copied nor pickled; what they show can."""
        values = (getattr(self, f.name) for f in fields(self))
        return StrategyInfo, tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)

    @property
    def may_train(self) -> bool:
        """Whether its games may be training data."""
        return self.split == TRAIN and not self.cheating


_REGISTRY: dict[str, StrategyInfo] = {}
_FORMS: dict[str, Callable[[str], StrategyInfo]] = {}


def register(name: str, factory: Callable[..., Policy], *, family: str = NO_FAMILY, **info: Any) -> StrategyInfo:
    """Add a strategy, so that it plays in every command.

    What has been held out stays held out: a family none of whose members may train takes none that may, and neither does a
    factory, under whatever family.

    Args:
        name: must not be taken.
        factory: called with ``info["defaults"]`` overridden by the arguments of `make`; returns a new `Policy`.
        family: see `StrategyInfo`.
        **info: the remaining fields of `StrategyInfo`.

    Raises:
        InputError: the name is taken, the split is none, or the strategy would train though it is held out.
    """
    if name in _REGISTRY:
        raise InputError(f"strategy {name!r} is already registered; choose another name")
    added = StrategyInfo(name=name, factory=factory, family=family, **info)
    if added.split not in SPLITS:
        raise InputError(f"strategy {name!r}: split {added.split!r} must be one of {', '.join(SPLITS)}")
    if added.may_train:
        _refuse_held_out(added)
    _REGISTRY[name] = added
    return added


def _refuse_held_out(added: StrategyInfo) -> None:
    kin = [info for info in _REGISTRY.values() if info.family == added.family != NO_FAMILY]
    if kin and not any(info.may_train for info in kin):
        raise InputError(
            f"strategy {added.name!r}: family {added.family!r} is held out of training data; register it with "
            'split="held_out", or in a family of its own'
        )
    twins = [info for info in _REGISTRY.values() if _innermost(info.factory) == _innermost(added.factory)]
    if twins and not any(info.may_train for info in twins):
        raise InputError(
            f"strategy {added.name!r} is built as {twins[0].name!r} of the family {twins[0].family!r}, which is held out of "
            'training data; register it with split="held_out"'
        )


def _innermost(factory: Callable[..., Policy]) -> Callable[..., Policy]:
    while isinstance(factory, partial):
        factory = factory.func
    return factory


def register_form(prefix: str, described: Callable[[str], StrategyInfo]) -> None:
    """Understand every name that starts with ``prefix``; ``described`` says what is known of it."""
    _FORMS[prefix] = described


def make(name: str, **params: Any) -> Policy:
    """A new policy of the strategy ``name``.

    Args:
        name: one of `list_strategies`.
        **params: override the defaults, for example ``assumed_zopa_width=500``.

    Raises:
        InputError: unknown strategy (lists the known ones, suggests the nearest) or unknown parameter.
    """
    info = describe(name)
    try:
        policy = info.factory(**{**info.defaults, **params})
    except TypeError as error:
        raise InputError(f"strategy {name!r} does not take these parameters: {error}") from error
    policy.name = name
    return policy


def make_for(preset: Preset, name: str, **params: Any) -> Policy:
    """`make`, telling the strategy what it takes: the ZOPA width where ``preset`` makes it common knowledge, and to one
    that cheats the preset itself.

    Raises:
        InputError: as `make`.
    """
    info = describe(name)
    told: dict[str, Any] = {"assumed_zopa_width": preset.known_width} if assumes_width(info) else {}
    return make(name, **told, **({"knows": preset} if info.cheating else {}), **params)


def assumes_width(info: StrategyInfo) -> bool:
    """Whether the strategy can be told the width of the ZOPA."""
    accepted = inspect.signature(info.factory).parameters.values()
    return any(p.name == "assumed_zopa_width" or p.kind is p.VAR_KEYWORD for p in accepted)


def describe(name: str) -> StrategyInfo:
    """What is known of ``name``: a registered one, one of a form such as ``learned:PATH``, or the label of a member that
    `agents.sample_strategies` drew, such as ``micro(step=12.5)``.

    Raises:
        InputError: unknown strategy, or a learned policy that cannot be played.
    """
    for prefix, described in _FORMS.items():
        if name.startswith(prefix):
            return described(name)
    if name.endswith(")"):
        return _member(name)
    if name not in _REGISTRY:
        raise unknown("strategy", name, _REGISTRY)
    return _REGISTRY[name]


def _member(label: str) -> StrategyInfo:
    """``NAME(parameter=value, …)`` of a strategy or, where its family has one rule, of the family; its split is that of
    `_drawn`.
    """
    info, params, split = _drawn(label)
    return replace(info, name=label, defaults={**info.defaults, **params}, split=split)


def _drawn(label: str) -> tuple[StrategyInfo, Mapping[str, Any], str]:
    """Whose member ``NAME(parameter=value, …)`` is, its parameters and its split.

    It is of the split of its family, held out too where a parameter is outside the range that trains, and of ``validation``
    where it is one of `agents.validation`.
    """
    name, params = _parsed(label)
    kin = [_REGISTRY[name]] if name in _REGISTRY else [info for info in _REGISTRY.values() if info.family == name]
    if not kin:
        raise unknown("strategy", label, _REGISTRY)
    if params is None:
        raise InputError(f"strategy {label!r} is not written NAME(parameter=value, parameter=value)")
    info = ([one for one in kin if one.may_train] or kin)[-1]
    within = all(info.ranges[key].holds(value) for key, value in params.items() if key in info.ranges)
    split = VALIDATION if label in VALIDATION_OPPONENTS else info.split if within else HELD_OUT
    return info, params, split


@lru_cache(maxsize=65_536)
def _parsed(label: str) -> tuple[str, Mapping[str, Any] | None]:
    """Name and parameters of ``NAME(parameter=value, …)``, None where they are not written so.

    What a label says does not change, and logs name the same players again and again.
    """
    name, _, given = label[:-1].partition("(")
    try:
        pairs = [part.split("=") for part in given.split(",") if part.strip()]
        return name, MappingProxyType({key.strip(): ast.literal_eval(value.strip()) for key, value in pairs})
    except (ValueError, SyntaxError):
        return name, None


def is_held_out(label: str) -> bool:
    """Whether ``label``, the name of a player in a log, is that of a strategy which never trains.

    A member that `sample_strategies` drew, ``NAME(parameters)``, is what its strategy or family is, and held out too where a
    parameter is outside the range that trains or it is one of `agents.validation`; a label that nobody here knows is not
    held out.
    """
    if any(label.startswith(prefix) for prefix in _FORMS):
        return not label.startswith(LEARNED)  # the other forms cheat, whatever they are formed of
    name, drawn, _ = label.partition("(")
    if label.endswith(")"):
        with contextlib.suppress(InputError):
            info, _, split = _drawn(label)
            return split != TRAIN or info.cheating
    if name in _REGISTRY:
        return not _REGISTRY[name].may_train
    family = [info for info in _REGISTRY.values() if drawn and info.family == name]
    return bool(family) and not any(info.may_train for info in family)


def _learned(name: str) -> StrategyInfo:
    policy = partial(LearnedPolicy, name.removeprefix(LEARNED))
    policy()  # whoever names a bad file hears of it now
    about = "learned with Stable-Baselines3"
    return StrategyInfo(name, policy, family="learned", description=about, uses_history=True, evaluable=False)


register_form(LEARNED, _learned)


def list_strategies(
    *,
    split: str | None = None,
    family: str | None = None,
    evaluable: bool | None = None,
    cheating: bool = False,
    teaching: bool = False,
) -> list[str]:
    """Names of the registered strategies, in order of registration, narrowed by the given fields of `StrategyInfo`."""
    return [
        s.name
        for s in _REGISTRY.values()
        if s.cheating == cheating
        and s.teaching == teaching
        and (split is None or s.split == split)
        and (family is None or s.family == family)
        and (evaluable is None or s.evaluable == evaluable)
    ]
