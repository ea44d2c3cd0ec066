"""Rows to train on, from JSONL, JSON and Parquet files or a data set: each read strictly, bad ones named by file and line.

A row is one of

    {"text": …}                                    trained on as a whole
    {"prompt": …, "response": …}                   trained on the response; ``completion`` is the same (TRL's name)
    {"messages": [{"role", "content"}, …]}         a chat that ends with the assistant; trained on what it says last

with texts as values. Other fields are ignored.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bargain_env.errors import InputError
from bargain_env.files import sha256

SHOWN = 10
"""Bad rows that an error names; all are counted."""
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what.

    Attributes:
        text: a whole text.
        prompt: what a response answers.
        response: names of which the first that a row has holds the response.
        messages: a chat.
    """

    text: str = "text"
    prompt: str = "prompt"
    response: tuple[str, ...] = ("response", "completion")
    messages: str = "messages"


@dataclass(frozen=True, slots=True)
class Row:
    """A row to train on: either ``text``, or ``prompt`` and ``response``, or ``messages``.

    Attributes:
        place: its file and line, for errors.
    """

    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    place: str = field(default="", compare=False)

    def canonical(self) -> bytes:
        """The same bytes for the same row, wherever it stands."""
        return json.dumps([self.text, self.prompt, self.response, self.messages]).encode()


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be trained on.

    Attributes:
        file: it is in, or the data set's name.
        line: from 1; of a JSON array or a table, the number of the row.
        what: is wrong with it.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


@dataclass(slots=True)
class Rows:
    """What was read.

    Attributes:
        good: rows, in order.
        bad: the others.
        source: files with their SHA-256, or the data set's name.
    """

    good: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)

    def refuse_bad(self) -> None:
        """Raise `InputError` where there are bad rows, or no good ones."""
        if self.bad:
            named = "; ".join(map(str, self.bad[:SHOWN]))
            more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
            plural = "s" * (len(self.bad) > 1)
            raise InputError(
                f"{len(self.bad)} bad row{plural} of {len(self.bad) + len(self.good)}: {named}{more}; mend them, or leave "
                "them out with --skip-bad-rows"
            )
        self.refuse_empty()

    def refuse_empty(self) -> None:
        """Raise `InputError` where no row is good."""
        if not self.good:
            raise InputError(f"no rows to train on in {self._name()}; give files with text, or prompt and response")

    def _name(self) -> str:
        return ", ".join(self.source.get("files", {})) or str(self.source.get("dataset"))

    def digest(self) -> str:
        """SHA-256 of the good rows in order: what is trained on, whatever files it lies in."""
        digest = hashlib.sha256()
        for row in self.good:
            part = row.canonical()
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def draw(self, wanted: int | None, seed: int) -> None:
        """Keep the first ``wanted`` of a seeded order, as they lie; a larger number holds the smaller one."""
        if wanted is not None and wanted < len(self.good):
            order = np.random.default_rng([seed, len(self.good)]).permutation(len(self.good))
            self.good = [self.good[i] for i in sorted(order[:wanted])]


def read_files(patterns: Sequence[str], fields: Fields) -> Rows:
    """All rows of files.

    Args:
        patterns: paths, or patterns as a shell has them.
        fields: names of fields.

    Raises:
        InputError: no such file, or not one of JSONL, JSON and Parquet.
    """
    rows = Rows(source={"files": {}})
    for path in _paths(patterns):
        rows.source["files"][str(path)] = sha256(path)
        _sort(rows, str(path), _records(path), fields)
    return rows


def read_dataset(name: str, split: str, fields: Fields) -> Rows:
    """All rows of a data set: a folder, as ``experiments.export --to trl`` writes them, or a Hugging Face id.

    It is streamed, so that nothing is written to the cache of the library for it.

    Raises:
        InputError: the library is missing, or there is no such data set or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"--dataset-name needs datasets ({error}); pip install 'bargain-lab[adapters]'") from error
    rows = Rows(source={"dataset": name, "split": split})
    try:
        stream: Iterable[Any] = datasets.load_dataset(name, split=split, streaming=True)
        _sort(rows, f"{name}[{split}]", ((i, row) for i, row in enumerate(stream, 1)), fields)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"data set {name!r}, split {split!r}, cannot be read: {reason}; check both names") from error
    return rows


def _paths(patterns: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        matches = [Path(pattern)] if Path(pattern).is_file() else [Path(p) for p in sorted(glob.glob(pattern))]
        if not matches:
            raise InputError(f"--train-files {pattern}: no such file; give paths of {', '.join(_SUFFIXES)} files")
        found += matches
    for path in found:
        if path.is_dir() or path.suffix not in _SUFFIXES:
            raise InputError(
                f"--train-files {path} is no {', '.join(_SUFFIXES)} file; for a folder give --dataset-name"
            )
    return list(dict.fromkeys(found))


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Line, and what stands there: an object, or a text that says what is wrong."""
    if path.suffix == ".parquet":
        yield from _table(path)
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON ({error}); give an array of rows, or JSON lines as .jsonl") from error
        if not isinstance(content, list):
            raise InputError(f"{path} holds no array of rows; give one, or JSON lines as .jsonl")
        yield from enumerate(content, 1)
    else:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parsed(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "is not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})"


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); write it again") from error


def _sort(rows: Rows, file: str, records: Iterable[tuple[int, Any]], fields: Fields) -> None:
    for line, record in records:
        row = record if isinstance(record, str) else _row(record, fields)
        if isinstance(row, str):
            rows.bad.append(BadRow(file, line, row))
        else:
            rows.good.append(replace(row, place=f"{file}:{line}"))


def _row(record: Any, fields: Fields) -> Row | str:
    """The row, or what is wrong with it."""
    if not isinstance(record, dict):
        return f"is a {type(record).__name__}, not an object"
    has = {key for key, value in record.items() if value is not None}  # tables have every column in every row
    answer = next((name for name in fields.response if name in has), None)
    if fields.prompt in has or answer is not None:
        if answer is None or fields.prompt not in has:
            lacking = fields.prompt if answer is not None else " or ".join(fields.response)
            return f"has no {lacking}"
        wrong = _not_text(record, fields.prompt) or _not_text(record, answer, filled=True)
        return wrong or Row(prompt=record[fields.prompt], response=record[answer])
    if fields.messages in has:
        return _chat(record[fields.messages], fields.messages)
    if fields.text in has:
        return _not_text(record, fields.text, filled=True) or Row(text=record[fields.text])
    return f"has neither {fields.text}, nor {fields.prompt} and {fields.response[0]}, nor {fields.messages}"


def _not_text(record: dict[str, Any], name: str, filled: bool = False) -> str:
    value = record[name]
    if not isinstance(value, str):
        return f"{name} is a {type(value).__name__}, not a text"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{name} holds half of a character (a lone surrogate)"
    return f"{name} is empty" if filled and not value.strip() else ""


def _chat(messages: Any, name: str) -> Row | str:
    if not isinstance(messages, list) or not messages:
        return f"{name} is no list of messages"
    for k, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            return f"{name}: message {k} has no role and content"
        if message["role"] not in _ROLES:
            return f"{name}: message {k} has role {message['role']!r}, not one of {', '.join(_ROLES)}"
        if wrong := _not_text(message, "content", filled=message["role"] == "assistant"):
            return f"{name}: message {k}: {wrong}"
    if messages[-1]["role"] != "assistant":
        return f"{name} ends with {messages[-1]['role']}, so there is no answer to learn"
    return Row(messages=tuple((message["role"], message["content"]) for message in messages))
