"""The calibrated dial of an adapter: which ρ to set, so that games settle on average at the ρ that was asked for.

A map for each seat, from the requested ρ to an internal one, linear between knots; where several scenario presets were
played to fit it, one for each of them beside one for all. Which preset is played is public, as the ZOPA width that scripts
are told. The dial belongs to the adapter, as ``dial`` of its config, and to nothing that a model computes: prompt, gates
and exports know internal values only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bargain_env.core import Seat
from bargain_env.errors import InputError, unknown

Floats = NDArray[np.float64]

KEY, FITTED, SCENARIOS = "dial", "fitted", "scenarios"
"""Entry of an adapter's config, and what stands in it beside the seats: how they were fitted, and maps of single presets."""
SEATS = tuple(seat.label for seat in Seat)


@dataclass(frozen=True, slots=True)
class Knots:
    """The map of one seat.

    Attributes:
        asked: requested ρ, from 0 to 1, ascending.
        internal: what to set instead, each in [0, 1], nowhere falling.

    Raises:
        InputError: they are not that.
    """

    asked: tuple[float, ...]
    internal: tuple[float, ...]

    def __post_init__(self) -> None:
        asked, internal = np.array(self.asked), np.array(self.internal)
        if asked.shape != internal.shape or len(asked) < 2:
            raise InputError(
                f"{len(asked)} knots 'asked' and {len(internal)} 'internal'; give as many of both, 2 at least"
            )
        if not (asked[0] == 0.0 and asked[-1] == 1.0 and (np.diff(asked) > 0).all()):
            raise InputError("'asked' must rise from 0 to 1, each knot above the one before")
        if not ((internal >= 0.0) & (internal <= 1.0)).all():
            raise InputError("'internal' must lie in [0, 1]")
        if not (np.diff(internal) >= 0).all():
            raise InputError("'internal' falls from one knot to the next; a dial must be monotone")

    def __call__(self, rho: ArrayLike) -> Floats:
        """The internal ρ of each request; -1 (impasse) is no point of the dial and stays."""
        requested = np.asarray(rho, dtype=np.float64)
        return np.where(requested < 0, requested, np.interp(requested, self.asked, self.internal))


@dataclass(frozen=True, slots=True)
class Dial:
    """The maps of both seats, and where they come from.

    Attributes:
        buyer: of the buyer's seat.
        seller: of the seller's.
        fitted: how they were fitted; JSON-ready.
        scenarios: by scenario preset, what holds there in their place.
    """

    buyer: Knots
    seller: Knots
    fitted: Mapping[str, Any] = field(default_factory=dict)
    scenarios: Mapping[str, Dial] = field(default_factory=dict)

    def of(self, seat: Seat, scenario: str | None = None) -> Knots:
        """The map of ``seat`` in games of ``scenario``: its own, or where it has none, the one for all."""
        here = self if scenario is None else self.scenarios.get(scenario, self)
        return here.buyer if seat == Seat.BUYER else here.seller

    def as_config(self) -> dict[str, Any]:
        """What an adapter's config holds as `KEY`."""
        single = {name: _written(dial) for name, dial in self.scenarios.items()}
        return {**_written(self), **({SCENARIOS: single} if single else {}), FITTED: dict(self.fitted)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Dial | None:
        """The dial of an adapter; None where its config has none.

        Raises:
            InputError: what it holds is no dial.
        """
        entry = config.get(KEY)
        if entry is None:
            return None
        maps = _maps(entry, (SCENARIOS, FITTED))
        fitted, single = entry.get(FITTED, {}), entry.get(SCENARIOS, {})
        if not isinstance(fitted, Mapping):
            raise _broken(f"has {fitted!r} where it should say how it was fitted")
        if not isinstance(single, Mapping):
            raise _broken(f"has {single!r} where maps of scenario presets should be")
        return cls(
            *maps, dict(fitted), {str(name): cls(*_maps(one, (), f"of {name!r} ")) for name, one in single.items()}
        )


def _written(dial: Dial) -> dict[str, Any]:
    maps = {seat.label: dial.of(seat) for seat in Seat}
    return {label: {"asked": list(m.asked), "internal": list(m.internal)} for label, m in maps.items()}


def _maps(entry: Any, beside: Sequence[str], where: str = "") -> tuple[Knots, Knots]:
    """Of the buyer and the seller, in an entry that may hold ``beside`` too."""
    if not isinstance(entry, Mapping):
        raise _broken(f"{where}is {entry!r}, not a map for each seat")
    for name in entry:
        if name not in (*SEATS, *beside):
            raise _broken(f"{where}has an {unknown('seat', str(name), SEATS)}")
    missing = [label for label in SEATS if label not in entry]
    if missing:
        raise _broken(f"{where}lacks the seat {missing[0]!r}")
    buyer, seller = (_knots(f"{where}of the {label}", entry[label]) for label in SEATS)
    return buyer, seller


def _knots(whose: str, entry: Any) -> Knots:
    if not isinstance(entry, Mapping) or set(entry) != {"asked", "internal"}:
        raise _broken(f"{whose} must hold 'asked' and 'internal', nothing else")
    try:
        return Knots(*(_numbers(entry[name]) for name in ("asked", "internal")))
    except (TypeError, ValueError) as error:  # an InputError is a ValueError
        raise _broken(f"{whose}: {error}") from None


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    if isinstance(values, str) or any(isinstance(value, bool | str) for value in values):
        raise TypeError(f"{values!r} is no list of numbers")
    return tuple(float(value) for value in values)


def _broken(what: str) -> InputError:
    return InputError(
        f"the adapter's config: its {KEY!r} {what}; fit it again with `python -m experiments.calibrate`, or play with "
        "--raw-dial"
    )
