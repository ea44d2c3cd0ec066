"""Collections in child processes that are killed (SIGKILL) at a chosen event, then run again; for test_killed_collect.py.

    python tests/killed_collect.py OUT SEED [SEED ...]

Prints a JSON line for each seed: the event at which it was killed, how many parts the run after it found finished, and the
digests of all files; first one for the run that nobody kills. Children are forked after the imports, before anything has
been played.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from killing import Trap, forked

from experiments import collect
from experiments.corpus import part_store, parts, records

GAMES, PART = 95, 20


def chunks_with_events(trap: Trap) -> None:
    """When half of a file's bytes are written there is an event."""
    inner = parts.Content.chunks

    def watched(self: parts.Content) -> Iterator[bytes]:
        for chunk in inner(self):
            yield chunk[: len(chunk) // 2]
            trap.event("half of a file")
            yield chunk[len(chunk) // 2 :]

    parts.Content.chunks = watched  # type: ignore[method-assign]


def half_written_journal(trap: Trap) -> None:
    """When half of a line of the journal is on the disk there is an event."""
    inner = part_store._append

    def watched(path: Path, line: str) -> None:
        inner(path, line[: len(line) // 2])
        trap.event("half of a line")
        inner(path, line[len(line) // 2 :])

    part_store._append = watched


def child(out: Path, at: int | None) -> tuple[list[str], int]:
    """Run in a fork; the names of its events and how many parts it found finished, or nothing if it was killed."""

    def run() -> tuple[list[str], int]:
        records.PART_GAMES = PART
        trap, found = Trap(at), list[int]()
        chunks_with_events(trap)
        half_written_journal(trap)
        for name in ("replace", "unlink", "mkdir"):
            trap.around(Path, name)
        trap.around(os, "fsync")
        trap.around(parts.PartPlayer, "play")
        begin = part_store.PartStore._begin

        def noted(self: part_store.PartStore) -> Any:
            found.append(len(self.entries))
            return begin(self)

        part_store.PartStore._begin = noted  # type: ignore[method-assign]
        settings = collect.Settings(GAMES, scenario="paper", strategies="fair,linear_standard,noisy_boulware_firm", out=out,
                                    jsonl=True, quiet=True)  # fmt: skip
        collect.TOGETHER = 2
        collect.run(settings)
        return trap.names, found[0]

    names, kept = forked(run, must_end=at is None) or ([], 0)
    return names, kept


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(out: str, *seeds: str) -> None:
    """See the top of the file."""
    names, _ = child(Path(out) / "whole", None)
    print(json.dumps({"events": names, "digests": digests(Path(out) / "whole")}), flush=True)
    for seed in seeds:
        at = random.Random(int(seed)).randrange(1, len(names) + 1)
        survived, _ = child(Path(out) / seed, at)
        left = sorted(digests(Path(out) / seed)) if (Path(out) / seed).exists() else []
        again, kept = child(Path(out) / seed, None)
        row = {"killed_at": names[at - 1], "survived": bool(survived), "left": left, "kept": kept, "events": len(again)}
        print(json.dumps({**row, "digests": digests(Path(out) / seed)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
