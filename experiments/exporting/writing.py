"""Tables by split as sharded Parquet, and what a manifest says of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.corpus import manifest

ROW_GROUP = 65_536
SHARD = 16 * ROW_GROUP
"""Rows of a shard; every one but the last of a split has as many."""


def described(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """A schema whose columns say what they mean, in their metadata under ``description``."""
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns])


class ShardWriter:
    """Writes tables one after another to ``FOLDER/PREFIX-00000.parquet``, ``…-00001.parquet`` and so on.

    The files depend on the rows alone, not on how many arrive at a time. No row, no file.

    Args:
        folder: where to; it is made with the first row.
        prefix: how file names begin.
        schema: of every table.
    """

    def __init__(self, folder: Path, prefix: str, schema: pa.Schema) -> None:
        self.folder, self.prefix, self.schema = folder, prefix, schema
        self.rows = 0
        self._waiting = [schema.empty_table()]
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Add rows; whole row groups go to the file."""
        self.rows += table.num_rows
        pending = pa.concat_tables([*self._waiting, table])
        whole = pending.num_rows // ROW_GROUP * ROW_GROUP
        for start in range(0, whole, ROW_GROUP):
            self._write(pending.slice(start, ROW_GROUP), self.rows - pending.num_rows + start)
        self._waiting = [pending.slice(whole)]

    def close(self) -> None:
        """Write what is left."""
        rest = pa.concat_tables(self._waiting)
        if rest.num_rows:
            self._write(rest, self.rows - rest.num_rows)
        if self._writer is not None:
            self._writer.close()

    def _write(self, group: pa.Table, first: int) -> None:
        """Write one row group, whose first row has the number ``first``; where a shard begins, so does a file."""
        shard, before = divmod(first, SHARD)
        if not before:
            if self._writer is not None:
                self._writer.close()
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{self.prefix}-{shard:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self.schema, compression="zstd")
        assert self._writer is not None
        self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP)


def files_below(folder: Path) -> dict[str, dict[str, Any]]:
    """What a manifest says of every file below ``folder``, by its path from there."""
    return {
        path.relative_to(folder).as_posix(): manifest.described(path, _rows(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _rows(path: Path) -> int | None:
    return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
