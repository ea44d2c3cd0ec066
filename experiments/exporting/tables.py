"""Layouts that are Parquet tables by split with a card: what each holds, and how any of them is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bargain_env.files import sha256
from experiments.corpus import records

from .card import card
from .source import SPLITS, Block
from .writing import ShardWriter

Rows = Callable[[Block], tuple[Mapping[str, pa.Table], int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Tables with a card.

    Attributes:
        tables: the columns of each table by its name, the default configuration first.
        rows: ``block -> (tables, left_out)``: the rows of some games, and how many rows or games they leave out.
        text: what the data are, for the card.
        usage: Python that loads the data, for the card.
    """

    tables: Mapping[str, pa.Schema]
    rows: Rows
    text: str
    usage: str


def steps_and_episodes() -> Layout:
    """The prepared tables as they are."""
    return Layout(
        {"steps": records.STEPS, "episodes": records.EPISODES},
        lambda block: ({"steps": block.steps, "episodes": block.episodes}, 0),
        "Games in which a buyer and a seller haggle over one price. `steps` has one row a decision, `episodes` one a game; "
        "`trajectory_id` joins them. A split holds whole games.",
        'from datasets import load_dataset\n\nsteps = load_dataset(DIR, split="train")\n'
        'episodes = load_dataset(DIR, "episodes", split="train")',
    )


def write(layout: Layout, folder: Path, blocks: Iterable[Block]) -> dict[str, Any]:
    """Write the tables of ``blocks`` and the card; returns how many ``rows`` each table has by split and in all, and
    how many were left out.

    The files of a table lie in the folder of its name, ``SPLIT-00000.parquet`` and so on.
    """
    writers = {
        name: {split: ShardWriter(folder / name, split, schema) for split in SPLITS}
        for name, schema in layout.tables.items()
    }
    left_out = 0
    for block in blocks:
        for split in SPLITS:
            tables, lost = layout.rows(block.of_split(split))
            left_out += lost
            for name, table in tables.items():
                writers[name][split].append(table)
    rows = {name: {split: one.rows for split, one in of.items() if one.rows} for name, of in writers.items()}
    for of_table in writers.values():
        for one in of_table.values():
            one.close()
    if any(rows.values()):
        digests = {name: _digest(folder / name) for name in layout.tables}
        text = card(layout.text, layout.usage, layout.tables, rows, digests)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return {"rows": rows, "left_out": left_out, **{name: sum(counts.values()) for name, counts in rows.items()}}


def _digest(folder: Path) -> str:
    """Hex SHA-256 of the names and contents of the files in ``folder``."""
    told = "".join(f"{path.name} {sha256(path)}\n" for path in sorted(folder.iterdir()))
    return hashlib.sha256(told.encode()).hexdigest()
