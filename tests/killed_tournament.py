"""Tournaments in child processes that are killed (SIGKILL) at a chosen event, then run again; for test_killed_tournament.py.

    python tests/killed_tournament.py KIND OUT SEED [SEED ...]

KIND is ``scripts`` or ``janus``. Prints a JSON line for each seed: the event at which it was killed, how many shards the run
after it found finished, and the digests of all files; first one for the run that nobody kills. Children are forked after the
imports, before anything has computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from killing import Trap, forked

from bargain_env.files import replacing
from experiments import tournament
from experiments.match import arena, shard_player, store

KINDS: dict[str, dict[str, Any]] = {
    "scripts": {"agents": "script:fair,script:linear_standard", "opponents": "fair,tit_for_tat", "games": 20},
    "janus": {
        "agents": "janus-nano,script:fair",
        "opponents": "tit_for_tat",
        "rho": "0.2,0.8",
        "games": 8,
        "threads": 1,
    },
}


def halfway_through_removing(trap: Trap) -> None:
    """When one of the files of a folder is gone and the others are not, there is an event."""
    inner = shutil.rmtree

    def remove(path: Any, **kwargs: Any) -> None:
        files = sorted(Path(path).iterdir(), reverse=True) if Path(path).is_dir() else []
        if files:
            files[0].unlink()
            trap.event("half of a folder")
        inner(path, **kwargs)

    store.shutil.rmtree = remove  # type: ignore[attr-defined, assignment]


def child(settings: tournament.Settings, at: int | None) -> tuple[list[str], int]:
    """Run in a fork; the names of its events and how many shards it found finished, or nothing if it was killed."""

    def run() -> tuple[list[str], int]:
        arena.SCRIPT_ROWS, arena.BLOCK_ROWS = 8, 4
        tournament.report.write = page  # drawing takes seconds and is the same in all runs
        tournament.landmarks.GAMES = 1
        trap, found = Trap(at), list[int]()
        trap.around(os, "fsync")
        trap.around(Path, "replace")
        trap.around(shard_player.ShardPlayer, "play")
        trap.around(shard_player, "encode")
        trap.around(tournament.results, "write_pieces")
        halfway_through_removing(trap)
        resume = store.ShardStore.resume

        def noted(self: store.ShardStore) -> Any:
            kept = resume(self)
            found.append(len(kept))
            return kept

        store.ShardStore.resume = noted  # type: ignore[method-assign]
        tournament.run(settings)
        return trap.names, found[0]

    names, kept = forked(run, must_end=at is None) or ([], 0)
    return names, kept


def page(found: Any, episodes: Any, folder: Path) -> Path:
    """Stands in for the report."""
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(str(episodes.stat().st_size))
    return folder / "report.html"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, but for temporary ones beside the results: a kill may leave one behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(kind: str, out: str, *seeds: str) -> None:
    """See the top of the file."""
    if kind == "janus":
        import torch
        import transformers.models.qwen2.modeling_qwen2  # noqa: F401  (before forking, or every child would import it)

        torch.set_num_threads(1)

    def run(name: str, at: int | None) -> tuple[list[str], int]:
        settings = tournament.Settings(**KINDS[kind], scenario="paper", out=Path(out) / name, quiet=True)
        return child(settings, at)

    names, _ = run("whole", None)
    print(json.dumps({"events": names, "digests": digests(Path(out) / "whole")}), flush=True)
    for seed in seeds:
        at = random.Random(int(seed)).randrange(1, len(names) + 1)
        survived, _ = run(seed, at)
        again, kept = run(seed, None)
        row = {"killed_at": names[at - 1], "survived": bool(survived), "kept": kept, "events": len(again)}
        print(json.dumps({**row, "digests": digests(Path(out) / seed)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
