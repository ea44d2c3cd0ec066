"""Named settings of the dial: the ρ that an agent is asked for as buyer and as seller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bargain_env import Seat
from bargain_env.errors import InputError, unknown
from bargain_env.rho_grid import parse_grid, valid_rho

from .specs import split

KNOWN: Mapping[str, tuple[float, float]] = {
    "standard": (0.2, 0.8),
    "extreme": (0.0, 1.0),
    "flipped": (0.8, 0.2),
    "neutral": (0.5, 0.5),
}
"""The published ones. Low ρ is a low price, so ``standard`` bargains for itself from either seat and ``flipped`` against
itself."""
DEFAULT_RHO = "0:1:0.1"

Configurations = dict[str, tuple[float, float]]
"""Name → requested ρ as buyer and as seller."""


def parse(given: Sequence[str]) -> Configurations:
    """Configurations written ``NAME=BUYER/SELLER``, or by a name of `KNOWN` alone; each item may be a comma list.

    Raises:
        InputError: not of that form, an unknown name, a ρ outside [0, 1] ∪ {-1}, or a name given twice with two meanings.
    """
    found: Configurations = {}
    for text in (part for item in given for part in split(item, "--config")):
        name, pair = _one(text)
        if found.setdefault(name, pair) != pair:
            raise InputError(f"--config gives {name!r} twice, as {_said(found[name])} and as {_said(pair)}; rename one")
    return found


def _one(text: str) -> tuple[str, tuple[float, float]]:
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals:
        if name not in KNOWN:
            raise unknown("configuration", name, KNOWN)
        return name, KNOWN[name]
    buyer, slash, seller = values.partition("/")
    if not (name and slash):
        raise InputError(f"--config {text!r} is not NAME=BUYER/SELLER, for example standard=0.2/0.8")
    return name, (valid_rho(buyer.strip(), "--config"), valid_rho(seller.strip(), "--config"))


def _said(pair: tuple[float, float]) -> str:
    return "/".join(f"{rho:g}" for rho in pair)


def grids(rho: str | None, configurations: Configurations) -> dict[Seat, tuple[float, ...]]:
    """ρ to ask for at each seat: the grid, then what the configurations ask for beyond it.

    Args:
        rho: a grid as `bargain_env.rho_grid.parse_grid` reads it; None for `DEFAULT_RHO`, or for no grid where there are
            configurations.
        configurations: of `parse`.

    Raises:
        InputError: the grid cannot be read.
    """
    grid = [] if rho is None and configurations else parse_grid(DEFAULT_RHO if rho is None else rho)
    pairs = list(configurations.values())
    return {seat: _once([*grid, *(pair[seat] for pair in pairs)]) for seat in Seat}


def _once(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(dict.fromkeys(value + 0.0 for value in values))
