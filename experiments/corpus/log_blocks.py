"""Logs of decisions in blocks of whole lines, which several processes can read at once.

A block is a range of bytes; its lines are those that begin in it. So nobody need look for line ends beforehand, a line that
is longer than a block belongs to the block in which it begins, and every byte is read by one process, or by two at a border.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from experiments.match import engines

from . import jsonl
from .claims import CLAIMS

BLOCKS_OF_A_WORKER = 64
"""Fewer are read sooner than another process has started."""
_AHEAD = 4
"""Blocks for each worker that may be read before the first of them is: what memory depends on."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of a log.

    Attributes:
        file: index of the log.
        path: of the log.
        start: first byte in which a line of the block may begin.
        stop: the byte behind the last such one.
    """

    file: int
    path: Path
    start: int
    stop: int

    def __str__(self) -> str:
        return f"bytes {self.start:,} to {self.stop:,} of {self.path}"

    def lines(self) -> list[bytes]:
        """The lines, with their ends."""
        before = self.start > 0  # whether the byte before the block ends a line
        with self.path.open("rb") as file:
            file.seek(self.start - before)
            found = file.read(self.stop - self.start + before)
            if before:
                end = found.find(b"\n", 0, self.stop - self.start)
                if end < 0:
                    return []
                found = found[end + 1 :]
            if not found.endswith(b"\n"):
                found += file.readline()
        return io.BytesIO(found).readlines()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a block says.

    Attributes:
        number: of the block.
        table: `experiments.corpus.claims.CLAIMS`, ``place`` being the number of the line in the block, from 1.
        lines: of the block; blank ones are no records, but they count.
    """

    number: int
    table: pa.Table
    lines: int


class Parser:
    """Reads any block of some logs.

    Args:
        blocks: of them.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.shards = blocks

    def play(self, number: int) -> Parsed:
        """The block of that number."""
        block = self.shards[number]
        lines = block.lines()
        table = jsonl.read_lines(lines, is_beginning=block.start == 0) if lines else CLAIMS.empty_table()
        return Parsed(number, table, len(lines))


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker is told.

    Attributes:
        blocks: see `Parser`.
    """

    blocks: Sequence[Block]

    def player(self) -> Parser:
        """Who does it."""
        return Parser(self.blocks)


def read_logs(
    files: Sequence[Path], workers: int, warn: engines.Warn
) -> Generator[tuple[Block, pa.Table, int], None, None]:
    """Every block of the logs in order, at least one for each log.

    Args:
        files: the logs.
        workers: processes that read at once, at most.
        warn: told of a worker that died.

    Yields:
        The block, its `experiments.corpus.claims.CLAIMS` with the numbers of the lines in their log (from 1) for places,
        and how many lines of that log there were so far.

    Raises:
        WorkersDiedError: none is left to go on.
        OSError: a log cannot be read.
    """
    blocks = [block for number, file in enumerate(files) for block in _blocks(number, file)]
    workers = max(1, min(workers, len(blocks) // BLOCKS_OF_A_WORKER))
    job, waiting, wanted, done = Job(blocks), dict[int, Parsed](), 0, 0
    parsed = engines.play(job.player(), job, range(len(blocks)), workers, "process", warn, ahead=_AHEAD * workers)
    with contextlib.closing(parsed):
        for found in parsed:
            waiting[found.number] = found
            while (next_one := waiting.pop(wanted, None)) is not None:
                block, table = blocks[wanted], next_one.table
                before = done if block.start else 0
                done, wanted = before + next_one.lines, wanted + 1
                yield block, table.set_column(0, CLAIMS.field("place"), pc.add(table["place"], before)), done


def _blocks(number: int, file: Path) -> list[Block]:
    size = file.stat().st_size
    starts = range(0, max(size, 1), jsonl.BATCH_BYTES)
    return [Block(number, file, start, min(start + jsonl.BATCH_BYTES, size)) for start in starts]
