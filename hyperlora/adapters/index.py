"""The index of an adapter directory: what was read from each folder, so that it is read again only where it changed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from bargain_env.errors import InputError
from bargain_env.files import replacing

from ..adapter_files import adapter_folder
from .folders import Stamp, read_spec, stamp
from .spec import AdapterSpec

INDEX = "adapter_index.json"
SCHEMA_VERSION = 1

logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """One folder of an adapter directory.

    Attributes:
        stamp: of its files when it was read.
        spec: the adapter; None where it cannot be used.
        problem: why not; empty where it can.
    """

    stamp: Stamp
    spec: AdapterSpec | None
    problem: str = ""


def scan(directory: Path) -> dict[str, Found]:
    """Every folder in ``directory`` by name, sorted; those that did not change since the last scan come from the index.

    Names that begin with a dot are passed over, because adapters that are being written have such names. Nothing but the
    index is written, and a directory that cannot be written to is served without one.
    """
    known = _read(directory)
    found: dict[str, Found] = {}
    for place in sorted(directory.iterdir(), key=lambda path: path.name):
        if place.name.startswith(".") or not place.is_dir():
            continue
        entry = known.get(place.name)
        now = stamp(adapter_folder(place))
        found[place.name] = entry if entry is not None and now and entry.stamp == now else _look(place)
    if found != known:
        _write(directory, found)
    return found


def _look(place: Path) -> Found:
    files = stamp(adapter_folder(place))  # before they are read: what is written meanwhile is read next time
    try:
        return Found(files, read_spec(place))
    except (InputError, OSError) as error:  # whatever is wrong with one folder, the others are served
        logger.warning("adapter %s is left out: %s", place.name, error)
        return Found(files, None, str(error))


def _read(directory: Path) -> dict[str, Found]:
    """The index as it was written; empty where there is none that can be used."""
    path = directory / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["schema_version"] != SCHEMA_VERSION or index["directory"] != str(directory):
            return {}  # a copied or moved directory: its specs name folders of the old place
        return {name: _found(entry) for name, entry in index["adapters"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be used (%s) and is made again", path, error)
        return {}


def _found(entry: dict[str, Any]) -> Found:
    spec = None if entry["spec"] is None else AdapterSpec.from_json(entry["spec"])
    return Found(entry["stamp"], spec, entry["problem"])


def _write(directory: Path, found: dict[str, Found]) -> None:
    adapters = {
        name: {"stamp": f.stamp, "spec": None if f.spec is None else f.spec.as_json(), "problem": f.problem}
        for name, f in found.items()
    }
    index = {"schema_version": SCHEMA_VERSION, "directory": str(directory), "adapters": adapters}
    try:
        with replacing(directory / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("no index is kept in %s: %s", directory, error)
