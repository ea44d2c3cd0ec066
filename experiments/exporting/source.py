"""A folder of `experiments.prepare`, read game by game in bounded memory: `Source`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bargain_env.errors import InputError
from bargain_env.files import sha256
from experiments.corpus import manifest, records, splits

STEPS_FILE, EPISODES_FILE = "steps.parquet", "episodes.parquet"
SPLITS = (splits.TRAIN, splits.EVAL, splits.TEST)
BATCH = 65_536
"""Rows of either table that are read at a time."""
_AGAIN = "make it again with `python -m experiments.prepare`"


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive games, whole.

    Attributes:
        episodes: E rows of `records.EPISODES`.
        steps: their N rows of `records.STEPS`, in the same order, then by turn.
        first: ``[E + 1]`` first step of each game, and N.
    """

    episodes: pa.Table
    steps: pa.Table
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return self.episodes.num_rows

    @property
    def episode(self) -> NDArray[np.int64]:
        """``[N]`` row of ``episodes`` of each step."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def take(self, games: NDArray[np.bool_]) -> Block:
        """The games where the mask ``[E]`` is true."""
        if games.all():
            return self
        lengths = np.diff(self.first)
        rows = np.flatnonzero(np.repeat(games, lengths))
        first = np.concatenate([[0], np.cumsum(lengths[games])])
        return Block(self.episodes.take(np.flatnonzero(games)), self.steps.take(rows), first)

    def of_split(self, split: str) -> Block:
        """The games of one split."""
        return self.take(np.asarray(self.episodes["split"].to_pylist(), dtype=object) == split)


class Source:
    """A folder that `experiments.prepare` wrote.

    Args:
        folder: holds ``steps.parquet``, ``episodes.parquet`` and ``manifest.json``.

    Raises:
        InputError: it does not, the files are not those that the manifest speaks of, or it has other columns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (STEPS_FILE, EPISODES_FILE, manifest.NAME):
            if not (folder / name).is_file():
                raise InputError(f"{folder} holds no {name}; give a folder of `python -m experiments.prepare`")
        self.manifest = _manifest(folder)
        self.digests = {name: sha256(folder / name) for name in (STEPS_FILE, EPISODES_FILE, manifest.NAME)}
        for name in (STEPS_FILE, EPISODES_FILE):
            if self.digests[name] != self.manifest.get("files", {}).get(name, {}).get("sha256"):
                raise InputError(f"{folder / name} is not what was written (SHA-256); {_AGAIN}")
        for name, schema in ((STEPS_FILE, records.STEPS), (EPISODES_FILE, records.EPISODES)):
            _check_columns(folder / name, schema)

    def longest(self) -> int:
        """The largest ``max_turns`` of any game."""
        return max((int(np.max(part["max_turns"])) for part in self._parts(EPISODES_FILE, ["max_turns"])), default=2)

    def blocks(self, episodes: int | None = None) -> Iterator[Block]:
        """All games, or the first ``episodes`` of them, some at a time.

        Raises:
            InputError: the two tables are not about the same games in the same order, or games are not split.
        """
        waiting = records.EPISODES.empty_table()
        described, left = self._parts(EPISODES_FILE), episodes
        for steps, names, first in self._whole_games():
            while waiting.num_rows < len(names) and (more := next(described, None)) is not None:
                waiting = pa.concat_tables([waiting, more])
            block = Block(waiting.slice(0, len(names)), steps, first)
            self._check(block, names)
            waiting = waiting.slice(len(names))
            if left is not None and left < len(block):
                block = block.take(np.arange(len(block)) < left)
            if len(block):
                yield block
            left = None if left is None else left - len(block)
            if left == 0:
                return
        if waiting.num_rows or next(described, None) is not None:
            raise InputError(f"{self.folder / STEPS_FILE} lacks games of {EPISODES_FILE}; {_AGAIN}")

    def _whole_games(self) -> Iterator[tuple[pa.Table, list[str], NDArray[np.int64]]]:
        """Steps of whole games, the ids of these, and where each begins."""
        held: list[pa.Table] = []
        for part in self._parts(STEPS_FILE):
            table = pa.concat_tables([*held, part])
            names, first = _games(table)
            end = int(first[-2])  # the last game may go on in the next batch
            if end:
                yield table.slice(0, end), names[:-1], first[:-1]
            held = [table.slice(end)]
        if held:
            yield held[0], *_games(held[0])

    def _parts(self, name: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.folder / name) as file:
            for batch in file.iter_batches(BATCH, columns=columns):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)

    def _check(self, block: Block, names: list[str]) -> None:
        if block.episodes["trajectory_id"].to_pylist() != names:
            raise InputError(
                f"{self.folder}: {STEPS_FILE} and {EPISODES_FILE} differ from game {names[0]!r} on; {_AGAIN}"
            )
        split = block.episodes["split"].to_numpy()
        unknown = set(split.tolist()) - set(SPLITS)
        if unknown:
            raise InputError(f"{self.folder}: split {min(unknown)!r} is none of {', '.join(SPLITS)}; {_AGAIN}")
        if (split[block.episode] != block.steps["split"].to_numpy()).any():
            raise InputError(f"{self.folder}: steps and episodes disagree on the split of a game; {_AGAIN}")


def _games(table: pa.Table) -> tuple[list[str], NDArray[np.int64]]:
    """The ids of the games of a steps table, in order, and ``[E + 1]`` the first row of each, with the number of rows."""
    runs = pc.run_end_encode(table["trajectory_id"].combine_chunks(), run_end_type=pa.int64())
    return runs.values.to_pylist(), np.concatenate([[0], runs.run_ends.to_numpy()])


def _manifest(folder: Path) -> dict[str, Any]:
    found = manifest.read(folder)
    if found.get("command") != "prepare":
        raise InputError(f"{folder} was not written by experiments.prepare; run that on it first")
    if found.get("schema_version") != records.SCHEMA_VERSION:
        raise InputError(
            f"{folder} has schema version {found.get('schema_version')}, not {records.SCHEMA_VERSION}; {_AGAIN}"
        )
    return found


def _check_columns(path: Path, schema: pa.Schema) -> None:
    try:
        found = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}); {_AGAIN}") from error
    if not found.equals(schema):
        odd = [field.name for field in schema if field.name not in found.names or found.field(field.name) != field]
        raise InputError(f"{path} has other columns than this version writes, such as {odd or found.names}; {_AGAIN}")
