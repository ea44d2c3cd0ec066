"""Check a folder of data against its manifest: checksums, columns and counts.

    python -m experiments.verify data/raw

Reads what `experiments.collect`, `experiments.prepare` and `experiments.on_policy` wrote, and names every file that is not
what they wrote, with what to do about it. Exit code 2 if there is any problem.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from bargain_env.errors import InputError
from bargain_env.files import sha256
from experiments import cli
from experiments.corpus import manifest, records
from experiments.corpus.part_store import JOURNAL

SCHEMAS = {"steps": records.STEPS, "episodes": records.EPISODES}
"""Columns of the Parquet files under this name, or in a folder of this name."""
DATA = (".parquet", ".jsonl", ".ndjson")
"""Suffixes of what readers of the folder would take for data."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Check a folder of data against its manifest: checksums, columns and counts."""

    data: tyro.conf.Positional[Path]
    """Folder that experiments.collect or experiments.prepare wrote."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print what was checked and found as JSON."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written.

    Attributes:
        file: below the folder.
        what: is wrong with it.
    """

    file: str
    what: str


def run(settings: Settings) -> dict[str, Any]:
    """Check; returns what was found, if that is nothing.

    Raises:
        InputError: the folder has no manifest or one that is not what was written, or a file has a problem.
    """
    folder, console = settings.data, cli.console(settings.quiet or settings.json)
    document = _manifest(folder)
    problems = []
    for problem in _problems(folder, document):
        problems.append(problem)
        console.out(f"{folder / problem.file}: {problem.what}")
    files, size = document["files"], sum(file["bytes"] for file in document["files"].values())
    if settings.json:
        print(json.dumps({"files": len(files), "bytes": size, "problems": [asdict(problem) for problem in problems]}))
    if problems:
        named = ", ".join(dict.fromkeys(problem.file for problem in problems))
        raise InputError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in {folder} ({named}); {_remedy(folder, document)}"
        )
    rows = " and ".join(f"{document[name]:,} {name}" for name in SCHEMAS if name in document)
    console.out(f"{folder}: {len(files):,} files, {size / 1e6:,.1f} MB, {rows}: all as they were written")
    return {"files": len(files), "bytes": size, "problems": []}


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one that experiments.collect or experiments.prepare wrote")
    if (folder / JOURNAL).exists():
        raise InputError(
            f"{folder} is not finished ({JOURNAL}); give the command that makes it again, and it continues"
        )
    document = manifest.read(folder)
    path, version = folder / manifest.NAME, document.get("schema_version")
    if version != records.SCHEMA_VERSION:
        raise InputError(f"{path} has schema version {version}, not {records.SCHEMA_VERSION}; make the data again")
    if manifest.DIGEST not in document or not isinstance(document.get("files"), dict):
        made = f" with experiments.{document['command']}" if isinstance(document.get("command"), str) else ""
        raise InputError(
            f"{path} names no files with checksums, as an earlier version wrote it: nothing can be checked; "
            f"make the data again{made}"
        )
    return document


def _problems(folder: Path, document: Mapping[str, Any]) -> Iterator[Problem]:
    files: Mapping[str, Mapping[str, Any]] = document["files"]
    for name, said in files.items():
        path = folder / name
        if not path.is_file():
            yield Problem(name, "is missing")
        elif path.stat().st_size != said["bytes"]:
            yield Problem(name, f"has {path.stat().st_size:,} bytes, not the {said['bytes']:,} that were written")
        elif sha256(path) != said["sha256"]:
            yield Problem(name, "is corrupt: its bytes are not those that were written (SHA-256)")
        elif path.suffix == ".parquet":
            yield from _in_table(folder, name, said["rows"])
    for name in _stray(folder):
        if name not in files:
            yield Problem(
                name, f"is not in {manifest.NAME}, and readers might take it for part of the data; move it away"
            )
    for kind in SCHEMAS:
        rows = sum(said["rows"] for name, said in files.items() if _kind(name) == kind)
        if rows != document.get(kind, 0):
            yield Problem(manifest.NAME, f"counts {document.get(kind, 0):,} {kind}, its files hold {rows:,}")


def _in_table(folder: Path, name: str, rows: int) -> Iterator[Problem]:
    """What a Parquet file says of itself, against the manifest and the columns that it should have."""
    try:
        file = pq.ParquetFile(folder / name)
    except (pa.ArrowException, OSError) as error:
        yield Problem(name, f"cannot be read ({str(error).splitlines()[0]})")
        return
    with file:
        schema, found = file.schema_arrow, file.metadata.num_rows
    if found != rows:
        yield Problem(name, f"has {found:,} rows, not {rows:,}")
    expected = SCHEMAS.get(_kind(name), schema)
    if not schema.equals(expected, check_metadata=False):
        wrong = [f.name for f in expected if f.name not in schema.names or schema.field(f.name).type != f.type]
        more = [n for n in schema.names if n not in expected.names]
        yield Problem(
            name, f"has other columns than this version writes ({', '.join([*wrong, *more]) or 'their order'})"
        )


def _kind(name: str) -> str:
    """``steps`` for ``steps/part-00000.parquet`` and for ``steps.parquet``."""
    path = Path(name)
    return (path.parts[0] if len(path.parts) > 1 else path.stem) if path.suffix == ".parquet" else ""


def _stray(folder: Path) -> list[str]:
    """Files that a reader of the folder would find, here or one folder down."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return sorted(str(path.relative_to(folder)) for path in found if path.suffix in DATA and path.is_file())


def _remedy(folder: Path, document: Mapping[str, Any]) -> str:
    if document.get("command") == "collect":
        return f"experiments.collect with the same settings and --out {folder} plays damaged parts again"
    return f"make the data again with experiments.{document.get('command')}"


if __name__ == "__main__":
    cli.main(Settings, run)
