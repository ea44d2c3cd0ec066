"""What two tournaments have in common, so that they can be compared, and what one of them alone has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bargain_env.errors import InputError
from experiments.match.results import EPISODES

from . import summary
from .columns import Columns, Floats, Index

SIDES = ("one", "two")
_LIMITS = ("buyer_max", "seller_min")
_SUBJECTS = {"agents": "agent", "rho": "rho_requested", "opponents": "opponent", "seats": "agent_seat"}


@dataclass(frozen=True, slots=True)
class Tournament:
    """One of the two.

    Attributes:
        path: its folder.
        document: its summary.
        columns: its games.
        limits: ``[S, 3]`` of each scenario: the buyer's limit, the seller's, and 1 where the buyer starts, 0 where not.
    """

    path: Path
    document: Mapping[str, Any]
    columns: Columns
    limits: Floats

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        found: Mapping[str, Any] = self.document["settings"]
        return found

    def played(self, name: str) -> list[Any]:
        """What its cells have as ``name``, once each."""
        return list(dict.fromkeys(getattr(cell, name) for cell in self.columns.cells))


Pair: TypeAlias = tuple[Tournament, Tournament]


def read(folder: Path) -> Tournament:
    """One of the two.

    Raises:
        InputError: the folder holds no tournament, or one whose games contradict each other.
    """
    document, path = summary.read(folder), folder / EPISODES
    if not path.is_file():
        raise InputError(f"no {EPISODES} in {folder}; give the --out folder of a finished tournament")
    try:
        columns = Columns.of(path)
        return Tournament(folder, document, columns, _limits(path, columns.scenarios))
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} is not readable as episodes ({error}); run the tournament again") from error


def _limits(path: Path, scenarios: Index) -> Floats:
    """`Tournament.limits`, a batch at a time.

    Raises:
        InputError: two games of one scenario have not the same.
    """
    found = np.full((len(scenarios), len(_LIMITS) + 1), np.nan)
    with pq.ParquetFile(path, read_dictionary=["starter"], pre_buffer=False) as file:
        for batch in file.iter_batches(columns=["scenario_id", *_LIMITS, "starter"]):
            starts = pc.equal(batch.column("starter").cast(pa.string()), "buyer").to_numpy(zero_copy_only=False)
            values = np.stack([*(batch.column(name).to_numpy() for name in _LIMITS), starts], axis=1)
            rows = np.searchsorted(scenarios, batch.column("scenario_id").to_numpy())
            new = np.isnan(found[rows, 0])
            found[rows[new]] = values[new]
            wrong = (found[rows] != values).any(axis=1)
            if wrong.any():
                number = scenarios[rows[wrong.argmax()]]
                raise InputError(
                    f"{path}: games of scenario {number} differ in limits or starter; run the tournament again"
                )
    return found


def names_of(one: Path, two: Path) -> list[str]:
    """What the folders are called: no more of their paths than tells them apart."""
    short = [path.name for path in (one, two)]
    return short if all(short) and short[0] != short[1] else [os.fspath(path) for path in (one, two)]


def pairing(sides: Pair) -> tuple[bool, Index]:
    """Whether scenarios are paired, and the ids of those that both have and that are the same games."""
    ids = [t.columns.scenarios for t in sides]
    common = np.intersect1d(ids[0], ids[1])
    one, two = (t.limits[np.searchsorted(t.columns.scenarios, common)] for t in sides)
    same = (one == two).all(axis=1)
    return bool(len(common) and same.all()), common[same]


def in_scenarios(columns: Columns, ids: Index) -> Columns:
    """The games of those scenarios; what was added up over all of them is left out."""
    if len(ids) == len(columns.scenarios):
        return replace(columns, totals={})
    places = np.searchsorted(columns.scenarios, ids)
    names = ("scenarios", "utility", "opponent_utility", "rho", "agreement")
    return replace(columns, totals={}, **{name: getattr(columns, name)[..., places] for name in names})


def agents_of(sides: Pair) -> list[tuple[str, str]]:
    """Labels that both have; without one, the first agents that are under test."""
    labels = []
    for t in sides:
        present = t.played("agent")
        labels.append([a for a in t.settings.get("agents", []) if a in present] or present)
    both = [(label, label) for label in labels[0] if label in labels[1]]
    if both:
        return both
    one, two = (
        next((a for a in found if a not in t.settings.get("controls", [])), found[0])
        for found, t in zip(labels, sides, strict=True)
    )
    return [(one, two)]


def require_opponents(sides: Pair, names: Sequence[str]) -> None:
    """Refuse two tournaments that no opponent played in both.

    Raises:
        InputError: that is so.
    """
    one, two = (t.played("opponent") for t in sides)
    if not set(one) & set(two):
        told = "; ".join(f"{name} has {_listed(found)}" for name, found in zip(names, (one, two), strict=True))
        raise InputError(f"no opponent in common: {told}; play one of them again with the --opponents of the other")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def only(sides: Pair) -> dict[str, dict[str, list[Any]]]:
    """What one of the two alone has, by subject and side."""
    found = {}
    for subject, field in _SUBJECTS.items():
        have = [[value for value in t.played(field) if value is not None] for t in sides]
        alone = [[v for v in mine if v not in other] for mine, other in (have, have[::-1])]
        found[subject] = dict(zip(SIDES, alone, strict=True))
    return found
