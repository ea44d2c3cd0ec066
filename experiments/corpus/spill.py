"""Tables on disk for a while: streams of Arrow batches in a folder that goes away, whatever happens."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa

_COMPRESSION = "lz4" if pa.Codec.is_available("lz4") else None


class Stream:
    """A file that tables are appended to, and then read back from in batches of at most ``most`` rows."""

    def __init__(self, path: Path, schema: pa.Schema, most: int | None = None) -> None:
        self._path, self._most, self.rows = path, most, 0
        self._writer = pa.ipc.new_stream(str(path), schema, options=pa.ipc.IpcWriteOptions(compression=_COMPRESSION))
        self._schema = schema

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more to append."""
        self._writer.close()

    def append(self, table: pa.Table) -> None:
        """Add rows; none are no batch."""
        if len(table):
            self._writer.write_table(table.cast(self._schema).combine_chunks(), max_chunksize=self._most)
            self.rows += len(table)

    def tables(self) -> Iterator[pa.Table]:
        """What was appended, once the stream is closed."""
        if self.rows:
            with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield pa.table(batch)


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A folder next to ``beside``, or where that will be; it is removed with all it holds when the block ends."""
    parent = beside.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    with tempfile.TemporaryDirectory(prefix=f".{beside.name}.", dir=parent) as name:
        yield Path(name)
