"""The folder that the three commands share: its files, written whole, read with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env import IMPASSE_RHO
from bargain_env.errors import InputError
from bargain_env.files import replacing, sha256
from hyperlora.data import NegotiationDataset
from hyperlora.evaluate import DecisionFacts, decision_facts
from hyperlora.outside import OUTSIDE_RHO

from .cast import Persona
from .games import SPLITS

Ints = NDArray[np.int64]

PERSONAS, STEPS, SPLIT_FILE = "personas.json", "steps.parquet", "splits.json"
TRAINED = "train.json"
"""The settings that the adapters were trained with."""
PER_USER, POOLED, HYPERLORA = "lora_per_user", "lora_all", "hyperlora_all"
SCHEMA_VERSION = 1
AGAIN = "make it again"


@dataclass(frozen=True, slots=True, eq=False)
class PersonaData:
    """Personas and their N decisions.

    Attributes:
        folder: where they lie.
        settings: of the command that made them.
        personas: all of them.
        table: a steps table.
        owner: ``[N]`` number of the persona.
        game: ``[N]`` number among the persona's games.
        split: ``[N]``.
        digest: SHA-256 of the table's file.
    """

    folder: Path
    settings: Mapping[str, Any]
    personas: list[Persona]
    table: pa.Table
    owner: Ints
    game: Ints
    split: NDArray[np.str_]
    digest: str

    def rows(self, split: str, persona: int | None = None, games: int | None = None) -> Ints:
        """Numbers of the rows of a split, of one persona or all, ascending; ``games`` takes only its first so many."""
        here = self.split == split
        if persona is not None:
            here &= self.owner == persona
        found = np.flatnonzero(here)
        if games is not None:
            found = found[np.isin(self.game[found], np.unique(self.game[found])[:games])]
        return found

    def mean_rho(self) -> NDArray[np.float64]:
        """``[P]`` where each persona's training games settle on average; -1 for one that never settles in them."""
        train, rho = self.split == "train", self.table["rho_train"].to_numpy()
        _, first = np.unique(self.owner * 1_000_000 + self.game, return_index=True)  # one row a game
        settled = first[train[first] & (rho[first] > IMPASSE_RHO)]
        sums = np.bincount(self.owner[settled], weights=rho[settled], minlength=len(self.personas))
        counts = np.bincount(self.owner[settled], minlength=len(self.personas))
        return np.where(counts > 0, (sums / np.maximum(counts, 1)).clip(0.0, 1.0), IMPASSE_RHO)

    def dataset(self, tokenizer: Any, prompt_format: int) -> NegotiationDataset:
        """The decisions as tokens, row for row; gates see the persona's mean ρ, prompts say `OUTSIDE_RHO`."""
        rho = self.mean_rho()[self.owner]
        return NegotiationDataset(
            self.table, tokenizer, prompt_format=prompt_format, rho=rho, text_rho=OUTSIDE_RHO, max_length=1024
        )

    def facts(self, prompt_format: int) -> DecisionFacts:
        """Whether a row may accept, and what its persona offered last."""
        return decision_facts(self.table, prompt_format)


def write_data(
    folder: Path, personas: Sequence[Persona], table: pa.Table, plan: NDArray[np.str_], settings: Mapping[str, Any]
) -> None:
    """Write what `read_data` reads; the same data give the same bytes.

    Args:
        folder: to write to.
        personas: P of them.
        table: their decisions.
        plan: ``[P, games]`` the split of each game, with and without decisions.
        settings: of the command.
    """
    with replacing(folder / STEPS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    games = {
        persona.id: {split: np.flatnonzero(own == split).tolist() for split in SPLITS}
        for persona, own in zip(personas, plan, strict=True)
    }
    write_json(folder / SPLIT_FILE, games)
    about = {
        "schema_version": SCHEMA_VERSION,
        "settings": dict(settings),
        "files": {name: sha256(folder / name) for name in (STEPS, SPLIT_FILE)},
        "personas": [persona.as_dict() for persona in personas],
    }
    write_json(folder / PERSONAS, about)


def read_data(folder: Path) -> PersonaData:
    """What ``make`` has written.

    Raises:
        InputError: not there, damaged or changed since.
    """
    about, personas = _read_about(folder)
    again, digests = AGAIN, dict(about["files"])
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise InputError(f"{folder / name} is missing or was changed since it was made; {again}")
    table = pq.read_table(folder / STEPS)
    number = {persona.id: k for k, persona in enumerate(personas)}
    owner = np.array([number[name] for name in table["persona"].to_pylist()], dtype=np.int64)
    split = table["split"].to_numpy(zero_copy_only=False).astype(str)
    return PersonaData(
        folder, about["settings"], personas, table, owner, table["game"].to_numpy(), split, digests[STEPS]
    )


def read_personas(folder: Path) -> tuple[Mapping[str, Any], list[Persona]]:
    """The settings of ``make`` and the personas, without their games.

    Raises:
        InputError: not there, or damaged.
    """
    about, personas = _read_about(folder)
    return about["settings"], personas


def _read_about(folder: Path) -> tuple[dict[str, Any], list[Persona]]:
    path = folder / PERSONAS
    if not path.is_file():
        raise InputError(
            f"{folder} holds no {PERSONAS}; make it with `python -m experiments.personas make --out {folder}`"
        )
    try:
        about = json.loads(path.read_text())
        personas = [Persona(**{f.name: entry[f.name] for f in fields(Persona)}) for entry in about["personas"]]
        dict(about["files"])
        dict(about["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); {AGAIN}") from error
    return about, personas


def write_json(path: Path, content: Any) -> None:
    """A readable JSON file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
