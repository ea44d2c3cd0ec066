"""Finished shards of a tournament that is not finished: a folder of Parquet files, each whole, checked and in its place.

``OUT/shards/plan.json`` says what tournament they are of (see `experiments.match.identity`). A shard's file is named by
its number and by the SHA-256 of its bytes, holds the digest of its specification, and comes into being by a rename: what
is under such a name is what was written, or is found out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bargain_env.errors import InputError
from bargain_env.files import refuse_foreign, replacing

from .arena import Shard
from .identity import Identity
from .live import Tally, tally

FOLDER, PLAN = "shards", "plan.json"
GROUP_ROWS = 2048
"""Rows of a row group of a shard: the least that a reader of it holds."""
NAME = re.compile(r"(\d{6})-([0-9a-f]{32})\.parquet")
KEY = b"shard"
WORDS = ("agent", "agent_seat", "opponent", "opponent_split", "starter", "outcome")
"""Columns of few different texts. Dictionaries of others cost more time in a file that is soon read and removed."""


def encode(table: pa.Table, digest: str) -> bytes:
    """A shard's file.

    Args:
        table: its games.
        digest: of its specification.
    """
    buffer = io.BytesIO()
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: digest.encode()})
    pq.write_table(
        marked,
        buffer,
        compression="lz4",
        row_group_size=GROUP_ROWS,
        use_dictionary=list(WORDS),
        write_statistics=False,
    )
    return buffer.getvalue()


class ShardStore:
    """The folder of finished shards.

    Args:
        out: the tournament's folder.
        identity: of the tournament.
        shards: all of its plan.
        warn: told, in one line each, of what was found and cannot be used.
        fresh: drop what another tournament, or this one, left here.

    Raises:
        InputError: there are shards of another tournament, or something that is none of ours.
    """

    def __init__(
        self,
        out: Path,
        identity: Identity,
        shards: Sequence[Shard],
        warn: Callable[[str], None],
        *,
        fresh: bool = False,
    ) -> None:
        self.folder, self._identity, self._shards, self._warn = out / FOLDER, identity, shards, warn
        self.paths: dict[int, Path] = {}
        """Where each finished shard is, by its number."""
        self._trash = out / f".{FOLDER}.discarded"
        shutil.rmtree(self._trash, ignore_errors=True)
        if self.folder.is_dir() and all(path.name.startswith(".") for path in self.folder.iterdir()):
            shutil.rmtree(self.folder)  # killed before anything was kept
        refuse_foreign(self.folder, PLAN)
        if fresh:
            self.discard()
        if self.folder.exists():
            self._refuse_other()
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / PLAN) as temporary:
            temporary.write_text(json.dumps(identity.document, indent=1) + "\n", encoding="utf-8")

    def _refuse_other(self) -> None:
        """Shards of another plan may be hours of work: they are not dropped unasked."""
        try:
            document = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        except ValueError:
            document = {}
        other = self._identity.differs(document) if isinstance(document, dict) else [PLAN]
        if other and any(self.folder.glob("*.parquet")):
            raise InputError(
                f"{self.folder} holds unfinished shards of another tournament (different: {', '.join(other)}); "
                "choose another --out, give that one's options to finish it, or discard them with --fresh"
            )

    def resume(self) -> dict[int, list[Tally]]:
        """Find what an earlier run has finished; what cannot be used is named, removed and missing from the result."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            if path.name == PLAN:
                continue
            number, trouble = self._examine(path)
            if not trouble and number not in found:
                try:
                    found[number] = tally(pq.ParquetFile(path).read())
                    self.paths[number] = path
                    continue
                except (pa.ArrowInvalid, OSError) as error:
                    trouble = f"cannot be read ({error})"
            self._drop(path, trouble or "is there twice", number)
        return found

    def _examine(self, path: Path) -> tuple[int, str]:
        """The number of the shard in a file, and what is wrong with it; -1 where it has none."""
        name = NAME.fullmatch(path.name)
        if path.name.startswith("."):
            return -1, "is half written"
        if name is None or int(name[1]) >= len(self._shards):
            return -1, "is no shard of this tournament"
        number, content = int(name[1]), path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:32] != name[2]:
            return number, "is corrupt: its bytes are not those that were written"
        try:
            mark = (pq.read_schema(io.BytesIO(content)).metadata or {}).get(KEY, b"").decode()
        except pa.ArrowInvalid:
            mark = ""
        return number, "" if mark == self._identity.of(self._shards[number]) else "is of another tournament"

    def _drop(self, path: Path, trouble: str, number: int) -> None:
        again = f": {self._shards[number]} is played again" if number >= 0 else ""
        self._warn(f"{path} {trouble}; removed{again}")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def put(self, number: int, content: bytes) -> None:
        """Keep a finished shard, safe from a crash of the machine too.

        Args:
            number: of the shard.
            content: what `encode` made.
        """
        path = self.folder / f"{number:06d}-{hashlib.sha256(content).hexdigest()[:32]}.parquet"
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.paths[number] = path

    def close(self) -> None:
        """Leave finished shards behind for the next run, and nothing at all where there are none."""
        if not self.paths:
            self.discard()

    def discard(self) -> None:
        """Remove the folder: its games are in the results, or nobody wants them."""
        if self.folder.exists():  # renamed first: without its plan, what is left of it would be nobody's
            self.folder.replace(self._trash)
            shutil.rmtree(self._trash)
