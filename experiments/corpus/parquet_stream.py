"""Parquet files whose bytes do not depend on how many rows arrive at a time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 65536


class ParquetStream:
    """Writes tables one after another, always in row groups of `ROW_GROUP` rows.

    Args:
        path: the file.
        schema: of every table.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._waiting: list[pa.Table] = [schema.empty_table()]
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> ParquetStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(pa.concat_tables(self._waiting))
        self._writer.close()

    def append(self, table: pa.Table) -> None:
        """Add rows; whole row groups go to the file."""
        self.rows += table.num_rows
        self._waiting.append(table)
        pending = pa.concat_tables(self._waiting)
        whole = pending.num_rows // ROW_GROUP * ROW_GROUP
        for start in range(0, whole, ROW_GROUP):
            self._write(pending.slice(start, ROW_GROUP))
        self._waiting = [pending.slice(whole)]

    def _write(self, table: pa.Table) -> None:
        if table.num_rows:
            self._writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
