"""Parts of a collection: a fixed number of consecutive games each, played and put into the bytes of their files.

A part's files are a function of the games alone. Which parts are played together, by whom and when changes nothing; only a
language model's logits may differ in the last bit between batches, so where one plays batches have a fixed size too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import bargain_env
from agents.teacher import teacher_file
from bargain_env import IMPASSE_RHO, PRESETS, MoveKind, Trajectories
from bargain_env.play import concatenate
from experiments.plugins import load_plugin

from . import cast, records, teachers
from .cast import Cast
from .dataset_writer import log_chunks
from .game_rows import rows_of_games
from .parquet_stream import ParquetStream
from .step_rows import StepRows, encoded_steps, episodes_table

GROUP_GAMES = 5_000
"""Games of a row group of the steps, and those that are worked on at a time: their columns fit into cache."""
MODEL_GAMES = 512
"""Games of one batch where a language model plays."""
STEPS, EPISODES, LOG = "steps", "episodes", "log"
"""Folders of a collection, one for each kind of file."""


@dataclass(frozen=True, slots=True)
class Games:
    """What is played, whatever the number of games.

    Attributes:
        seed: run seed.
        presets: where scenarios come from; of several each has two games in turn, one for each seat to start.
        cast: who plays.
        max_turns: moves of both seats together.
        teacher_share: see `experiments.corpus.teachers`.
        teacher: file or folder of trained ones; None for scripted ones.
        sparring_share: of the seats that no teacher has.
    """

    seed: int
    presets: tuple[str, ...]
    cast: Cast
    max_turns: int
    teacher_share: float = 0.0
    teacher: Path | None = None
    sparring_share: float = 0.0

    def play(self, ids: NDArray[np.int64]) -> tuple[Trajectories, NDArray[np.object_]]:
        """The games of these scenario ids ``[B]``, and ``[B, 2]`` the names of buyer and seller."""
        players = np.empty((len(ids), 2), dtype=object)
        parts, order = [], []
        for k, name in enumerate(self.presets):
            rows = np.flatnonzero(ids // 2 % len(self.presets) == k)
            if len(rows):
                result, players[rows] = self._play_preset(name, ids[rows])
                parts.append(result)
                order.append(rows)
        if len(parts) == 1:
            return parts[0], players
        return concatenate(parts).take(np.argsort(np.concatenate(order))), players

    def _play_preset(self, name: str, ids: NDArray[np.int64]) -> tuple[Trajectories, NDArray[np.object_]]:
        games = bargain_env.sample(name, seed=self.seed, ids=ids, max_turns=self.max_turns)
        trained = None if self.teacher is None else teacher_file(self.teacher, name)
        players = teachers.sparred(self.cast.draw(games), games, self.sparring_share)
        players = teachers.seated(players, games, self.teacher_share, trained=trained is not None)
        order = _by_pair(players)  # who plays many games finds them side by side in memory
        seats = (cast.policy(players[order, seat], PRESETS[name], trained) for seat in (0, 1))
        return bargain_env.play(games.take(order), *seats).take(np.argsort(order)), players


@dataclass(frozen=True, slots=True)
class Part:
    """Games that share files.

    Attributes:
        number: from 0.
        first: scenario id of the first.
        games: how many.
    """

    number: int
    first: int
    games: int

    def file(self, kind: str) -> str:
        """Its file of a kind (`STEPS`, `EPISODES`, `LOG`), below the folder of the collection."""
        return f"{kind}/part-{self.number:05d}.{'jsonl' if kind == LOG else 'parquet'}"


def parts_of(episodes: int) -> list[Part]:
    """All parts of a collection of so many games."""
    size = records.PART_GAMES
    return [Part(n, first, min(size, episodes - first)) for n, first in enumerate(range(0, episodes, size))]


@dataclass(slots=True)
class Content:
    """A file in the making, or on its way to who writes it; a log travels compressed.

    Attributes:
        rows: of the table or log.
        size: bytes.
        digest: SHA-256 of them.
        pieces: the bytes.
        sizes: of each piece where it is compressed; empty where it is not.
    """

    rows: int = 0
    size: int = 0
    digest: str = ""
    pieces: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file, in order."""
        if not self.sizes:
            yield from self.pieces
            return
        codec = pa.Codec("lz4")
        for piece, size in zip(self.pieces, self.sizes, strict=True):
            yield codec.decompress(piece, decompressed_size=size, asbytes=True)

    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"sha256": self.digest, "rows": self.rows, "bytes": self.size}


@dataclass(frozen=True, slots=True)
class Played:
    """A part that was played.

    Attributes:
        part: which.
        counts: see `counted`.
        files: by path below the folder of the collection.
    """

    part: Part
    counts: dict[str, Any]
    files: dict[str, Content]


@dataclass(frozen=True, slots=True)
class Finished:
    """A shard of `PartPlayer` that was played."""

    number: int
    parts: list[Played]


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker is told.

    Attributes:
        games: what is played.
        shards: parts that are played together; each is consecutive.
        run: see `records.run_name`.
        log: whether the log is wanted.
        plugin: run first.
    """

    games: Games
    shards: Sequence[Sequence[Part]]
    run: str
    log: bool
    plugin: Path | None = None

    def player(self) -> PartPlayer:
        """Who does it."""
        if self.plugin is not None:
            load_plugin(self.plugin)
        return PartPlayer(self)


class PartPlayer:
    """Plays any shard of a job.

    Args:
        job: what to play.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.shards = [f"games {shard[0].first:,} to {shard[-1].first + shard[-1].games - 1:,}" for shard in job.shards]

    def play(self, number: int) -> Finished:
        """The shard of that number."""
        shard = self._job.shards[number]
        first, end = shard[0].first, shard[-1].first + shard[-1].games
        if self._job.games.cast.scripted:
            result, players = self._job.games.play(np.arange(first, end))
            return Finished(number, [self._made(part, result, players, part.first - first) for part in shard])
        return Finished(number, [self._made(part, *self._in_batches(part), 0) for part in shard])

    def _in_batches(self, part: Part) -> tuple[Trajectories, NDArray[np.object_]]:
        end = part.first + part.games
        starts = range(part.first, end, MODEL_GAMES)
        batches = [self._job.games.play(np.arange(first, min(first + MODEL_GAMES, end))) for first in starts]
        return concatenate([result for result, _ in batches]), np.concatenate([players for _, players in batches])

    def _made(self, part: Part, result: Trajectories, players: NDArray[np.object_], start: int) -> Played:
        """The files of a part, whose games are those of ``result`` from number ``start`` on."""
        buffers = {kind: io.BytesIO() for kind in (STEPS, EPISODES)}
        log, rho, rows_written = _Log() if self._job.log else None, [], 0
        legal = ~(result.kinds == MoveKind.INVALID).any(axis=1)
        with (
            ParquetStream(buffers[STEPS], records.STEPS) as steps,
            ParquetStream(buffers[EPISODES], records.EPISODES) as episodes,
        ):
            end = start + part.games
            for first in range(start, end, GROUP_GAMES):
                at = first + np.flatnonzero(legal[first : min(first + GROUP_GAMES, end)])
                rows = rows_of_games(result.take(at), self._job.run, *players[at].T)
                steps.write_group(encoded_steps(rows))
                episodes.append(episodes_table(rows))
                if log is not None:
                    log.append(rows)
                rho.append(rows.rho)
                rows_written += len(rows)
        counts = counted(part, np.concatenate(rho), rows_written)
        files = {part.file(STEPS): _whole(buffers[STEPS], rows_written)}
        files[part.file(EPISODES)] = _whole(buffers[EPISODES], counts["episodes"])
        if log is not None:
            files[part.file(LOG)] = log.finished()
        return Played(part, counts, files)


def counted(part: Part, rho: NDArray[np.float64], steps: int) -> dict[str, Any]:
    """What is known of a part: numbers of games and moves, and of the settlements number, mean and sum of squared distances.

    Args:
        part: which.
        rho: ``[E]`` of the games that were kept.
        steps: their moves.
    """
    deals = rho != IMPASSE_RHO
    settled = rho[deals & ~np.isnan(rho)]
    mean = float(settled.mean()) if len(settled) else 0.0
    return {
        "first": part.first,
        "games": part.games,
        "episodes": len(rho),
        "steps": steps,
        "left_out": part.games - len(rho),
        "agreements": int(deals.sum()),
        "rho": [len(settled), mean, float(((settled - mean) ** 2).sum())],
    }


class _Log:
    """The log of a part, compressed as it grows."""

    def __init__(self) -> None:
        self._codec, self._digest, self._content = pa.Codec("lz4"), hashlib.sha256(), Content()

    def append(self, rows: StepRows) -> None:
        content = self._content
        content.rows += len(rows)
        for chunk in log_chunks(rows):
            self._digest.update(chunk)
            content.size += len(chunk)
            content.sizes.append(len(chunk))
            content.pieces.append(self._codec.compress(chunk, asbytes=True))

    def finished(self) -> Content:
        self._content.digest = self._digest.hexdigest()
        return self._content


def _whole(buffer: io.BytesIO, rows: int) -> Content:
    content = buffer.getvalue()
    return Content(rows, len(content), hashlib.sha256(content).hexdigest(), [content])


def _by_pair(players: NDArray[np.object_]) -> NDArray[np.intp]:
    """An order of the games in which those of the same buyer follow each other, and of these those of the same seller."""
    codes = [pa.array(side, pa.string()).dictionary_encode().indices.to_numpy() for side in players.T]
    return np.lexsort(codes[::-1])
