"""Parquet files of the tables in `experiments.corpus.records`, written fast and always the same way.

Texts are few and repeat, so they arrive as dictionaries or are made to: Arrow then writes the dictionary and small numbers,
and no text is compared or copied again. Prices are many and do not repeat: a dictionary would only cost time, and they are
most of the file, so they alone are worth the slower of two compressions. What is read back has the declared types, for the
file says so (``ARROW:schema``) whatever the form that its columns were written from.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from .step_rows import encoded

ROW_GROUP = 65536
"""Rows of a row group where nothing else divides them."""
STATISTICS = ("scenario_id",)
"""Columns with least and largest value in each row group: those in whose order the rows are."""

REPEATED = ("price_low", "price_high", "reservation_price", "zopa_low", "zopa_high", "rho_train")
"""Numbers that are the same in many rows of an episode."""


class ParquetStream:
    """Writes tables one after another; `append` cuts them into groups of `ROW_GROUP` rows, however they come.

    Args:
        sink: a path, or a binary file.
        schema: of every table; texts may be dictionaries instead.
    """

    def __init__(self, sink: Path | BinaryIO, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = encoded(schema)
        self._waiting: list[pa.Table] = [self._schema.empty_table()]
        columns = list(_columns(schema))
        self._writer = pq.ParquetWriter(
            sink,
            self._schema,
            compression={path: "zstd" if _is_price(path, kind) else "lz4" for path, kind in columns},
            compression_level={path: 1 for path, kind in columns if _is_price(path, kind)},
            use_dictionary=[path for path, kind in columns if not pa.types.is_floating(kind)],
            write_batch_size=16384,
            write_statistics=[path for path, _ in columns if path in STATISTICS],
            store_schema=False,
        )
        declared = {"ARROW:schema": base64.b64encode(schema.serialize()).decode()}
        self._writer.add_key_value_metadata({**declared, **_text(schema.metadata)})

    def __enter__(self) -> ParquetStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.write_group(pa.concat_tables(self._waiting))
        self._writer.close()

    def append(self, table: pa.Table) -> None:
        """Add rows; whole row groups go to the file."""
        self._waiting.append(self._encoded(table))
        pending = pa.concat_tables(self._waiting)
        whole = pending.num_rows // ROW_GROUP * ROW_GROUP
        for start in range(0, whole, ROW_GROUP):
            self.write_group(pending.slice(start, ROW_GROUP))
        self._waiting = [pending.slice(whole)]

    def write_group(self, table: pa.Table) -> None:
        """Write rows as one row group, at once; none are no group."""
        if table.num_rows:
            self.rows += table.num_rows
            self._writer.write_table(self._encoded(table).combine_chunks(), row_group_size=table.num_rows)

    def _encoded(self, table: pa.Table) -> pa.Table:
        return table if table.schema.equals(self._schema) else table.cast(self._schema)


def _columns(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's path and the type of each leaf."""
    for field in schema:
        if pa.types.is_list(field.type):
            yield f"{field.name}.list.element", field.type.value_type
        else:
            yield field.name, field.type


def _is_price(path: str, kind: pa.DataType) -> bool:
    """Whether a column has another number in nearly every row."""
    return pa.types.is_floating(kind) and path not in REPEATED


def _text(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}
