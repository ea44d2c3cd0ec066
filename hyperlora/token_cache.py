"""Token sequences kept on disk, so that the next run on the same decisions begins at once.

An entry is a folder named by what its sequences follow from: every value of the columns that prompts are made of, the ρ that
they say, the whole tokenizer, the prompt's format and lengths. A changed row is another entry, so nothing in here can be out
of date. Arrays are read memory-mapped, and several processes share them. Two that write one entry write the same bytes, each
file appears whole, and ``entry.json``, which says what all of them hold, appears last: no lock is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from bargain_env.files import replacing

from .slots import Unspellable
from .tokenise import CHUNK, SPELLING, Sequences, Spelling, in_pieces, used_columns, whole
from .tokens import spelling_digest

ENTRY = "entry.json"
KEPT = 8
"""Entries in one folder; those that were used longest ago make room."""
_NAME = re.compile(r"[0-9a-f]{64}")
_BLOCK = 2**24


class TokenCache:
    """A folder of sequences.

    Args:
        folder: made when it is needed; it may be removed at any time. One that cannot be written is done without.
        say: told, once each, that an entry is damaged or that nothing can be kept; warnings by default.
    """

    def __init__(self, folder: Path | str, say: Callable[[str], object] = warnings.warn) -> None:
        self.folder, self._say, self._silent = Path(folder), say, False

    def sequences(self, table: pa.Table, said: NDArray[np.float32], how: Spelling) -> Sequences:
        """The sequences of a table, read or made; arguments and errors as in `hyperlora.tokenise.whole`."""
        key = _key(table, said, how)
        if key is None:
            return tokenised(table, said, how)
        entry = self.folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        found = self._read(entry, key)
        if found is not None:
            return found
        try:
            self._write(entry, key, table, said, how)
        except _Unkept as error:
            self._unkept(error)
            return tokenised(table, said, how)
        return self._read(entry, key) or tokenised(table, said, how)

    def _unkept(self, error: _Unkept) -> None:
        if not self._silent:
            self._say(f"tokens cannot be kept in {self.folder} ({error}); every run will make them again")
        self._silent = True

    def _read(self, entry: Path, key: dict[str, Any]) -> Sequences | None:
        """The arrays of an entry; None where there is none, or where it is not what was written."""
        try:
            described = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None  # nobody has made it, or somebody has not finished
        except (OSError, ValueError):
            self._damaged(entry)
            return None
        try:
            arrays = [np.asarray(np.load(entry / f"{name}.npy", mmap_mode="r")) for name in Sequences._fields]
            sound = described["key"] == key and all(
                described["arrays"][name] == _facts(a) for name, a in zip(Sequences._fields, arrays, strict=True)
            )
        except (OSError, ValueError, KeyError, TypeError):
            self._damaged(entry)
            return None
        if not sound:
            self._damaged(entry)
            return None
        with suppress(OSError):  # of a folder that is only read
            os.utime(entry / ENTRY)  # when it was used last
        return Sequences(*arrays)

    def _damaged(self, entry: Path) -> None:
        self._say(f"{entry} is damaged; its tokens are made again")

    def _write(
        self, entry: Path, key: dict[str, Any], table: pa.Table, said: NDArray[np.float32], how: Spelling
    ) -> None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            for chunks in (in_pieces, whole):
                try:
                    facts = _written(entry, chunks(table, said, how), how)
                    break
                except Unspellable:
                    continue
            with replacing(entry / ENTRY) as temporary:
                temporary.write_text(json.dumps({"key": key, "arrays": facts}, indent=1) + "\n", encoding="utf-8")
            self._make_room()
        except OSError as error:
            raise _Unkept(error.strerror or error) from error

    def _make_room(self) -> None:
        """Remove what was used longest ago; whoever has it mapped keeps it until the end."""

        def used(entry: Path) -> float:
            try:
                return (entry / ENTRY if (entry / ENTRY).exists() else entry).stat().st_mtime
            except OSError:
                return 0.0  # another process has removed it

        entries = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        for entry in sorted(entries, key=used)[:-KEPT]:
            shutil.rmtree(entry, ignore_errors=True)


class _Unkept(Exception):
    """The folder cannot be written."""


def tokenised(table: pa.Table, said: NDArray[np.float32], how: Spelling) -> Sequences:
    """The sequences of a table, made in memory; arguments and errors as in `hyperlora.tokenise.whole`."""
    try:
        chunks = list(in_pieces(table, said, how))
    except Unspellable:
        chunks = list(whole(table, said, how))
    return Sequences(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _key(table: pa.Table, said: NDArray[np.float32], how: Spelling) -> dict[str, Any] | None:
    """What sequences follow from; None where the tokenizer cannot say what it is."""
    spelling = spelling_digest(how.tokenizer)
    if spelling is None:
        return None
    digest = hashlib.sha256()
    for name in used_columns(table, how.prompt_format):
        digest.update(f"{name}\n".encode())
        for start in range(0, table.num_rows, CHUNK):
            _add(digest, pa.concat_arrays(table[name].slice(start, CHUNK).chunks))
    return {
        "spelling": SPELLING,
        "tokenizer": spelling,
        "prompt_format": how.prompt_format,
        "k_history": how.k_history,
        "max_length": how.max_length,
        "rows": table.num_rows,
        "columns": digest.hexdigest(),
        "rho": hashlib.sha256(np.ascontiguousarray(said).data).hexdigest(),
    }


def _add(digest: Any, values: pa.Array) -> None:
    """Add an array to a digest: its type, where it has values, and these, however Arrow holds them."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    digest.update(f"{values.type} {len(values)}\n".encode())
    digest.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).data)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        digest.update(np.ascontiguousarray(values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)).data)
        _add(digest, values.flatten())
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        digest.update(pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False).data)
        whole_text = pa.ListArray.from_arrays([0, len(values)], values.fill_null(""))
        digest.update(pc.binary_join(whole_text, "")[0].as_buffer())
    else:
        numbers = values.fill_null(0) if values.null_count else values
        digest.update(np.ascontiguousarray(numbers.to_numpy(zero_copy_only=False)).data)


def _facts(values: NDArray[Any]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for start in range(0, len(values), _BLOCK):
        digest.update(np.ascontiguousarray(values[start : start + _BLOCK]).data)
    return {"type": values.dtype.str, "size": len(values), "sha256": digest.hexdigest()}


class _Npy:
    """A one-dimensional array that is written as it comes; its header, of one length for all sizes, is filled in last."""

    def __init__(self, file: BinaryIO, kind: DTypeLike) -> None:
        self._file, self._kind, self._size, self._digest = file, np.dtype(kind), 0, hashlib.sha256()
        self._header()
        self._begin = file.tell()

    def _header(self) -> None:
        shape = {"descr": self._kind.str, "fortran_order": False, "shape": (self._size,)}
        np.lib.format.write_array_header_1_0(self._file, shape)

    def append(self, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, dtype=self._kind).data
        self._file.write(data)
        self._digest.update(data)
        self._size += len(values)

    def finish(self) -> dict[str, Any]:
        """As `_facts` of the whole array."""
        self._file.seek(0)
        self._header()
        if self._file.tell() != self._begin:
            raise ValueError("numpy reserves no room for growing arrays; a newer one does")
        return {"type": self._kind.str, "size": self._size, "sha256": self._digest.hexdigest()}


def _written(entry: Path, chunks: Iterator[Sequences], how: Spelling) -> dict[str, dict[str, Any]]:
    """Write the arrays of an entry as they come; nothing is seen of them unless all is well."""
    with ExitStack() as stack:
        files = [stack.enter_context(replacing(entry / f"{name}.npy")) for name in Sequences._fields]
        with ExitStack() as opened:
            arrays = [
                _Npy(opened.enter_context(path.open("wb")), kind)
                for path, kind in zip(files, (how.id_type, np.int8, np.int32, np.int32), strict=True)
            ]
            for chunk in chunks:
                for array, name in zip(arrays, Sequences._fields, strict=True):
                    array.append(getattr(chunk, name))
            return {name: array.finish() for name, array in zip(Sequences._fields, arrays, strict=True)}
