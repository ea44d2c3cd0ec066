"""Trains in child processes that are killed (SIGKILL) at a chosen event, then resumed; run by test_killed_training.py.

    python tests/killed_training.py DATA BASE OUT SEED [SEED ...]

Prints a JSON line for each seed: the event at which it was killed, and the digest of the final weights after resuming;
first one for the run that nobody kills. Children are forked after the imports, before anything has computed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers.models.qwen2.modeling_qwen2  # noqa: F401  (before forking, or every child would import it)
from killing import Trap, forked

import hyperlora.checkpoint
import hyperlora.train
from experiments import train
from experiments.keeper import Keeper
from hyperlora.checkpoint import WEIGHTS

STEPS = 9


def halfway_through_saving(trap: Trap) -> None:
    """Between the two halves of every weights file there is an event."""
    inner = safetensors.torch.save_file

    def save(tensors: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        inner(tensors, path, *args, **kwargs)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        trap.event("half of a file")
        Path(path).write_bytes(whole)

    hyperlora.checkpoint.save_file = save


def child(settings: train.Settings, at: int | None) -> list[str]:
    """Run in a fork; the names of its events, or nothing if it was killed."""

    def run() -> list[str]:
        torch.set_num_threads(1)
        trap = Trap(at)
        trap.around(torch.optim.AdamW, "step")
        trap.around(Path, "replace")
        trap.around(hyperlora.train.Loop, "gradients")
        trap.around(Keeper, "on_step")
        halfway_through_saving(trap)
        train.run(settings)
        return trap.names

    return forked(run, must_end=at is None) or []


def main(data: str, base: str, out: str, *seeds: str) -> None:
    """See the top of the file."""

    def settings(name: str) -> train.Settings:
        return train.Settings(
            data=Path(data), out=Path(out) / name, model_name=base, max_steps=STEPS, save_every=2, eval_every=4,
            play_games=0, patience=50, rank=2, batch_size=4, grad_accum=2, lr=3e-3, warmup_steps=2, dropout=0.1,
            lambda_sep=0.1, resume="latest", quiet=True, device="cpu",
            token_cache=str(Path(out) / f"{name}-tokens"),  # each its own: who finds one made has fewer events
        )  # fmt: skip

    def digest(name: str) -> str:
        return hashlib.sha256((Path(out) / name / "final" / WEIGHTS).read_bytes()).hexdigest()

    names = child(settings("whole"), None)
    print(json.dumps({"killed_at": None, "digest": digest("whole"), "events": len(names)}), flush=True)
    for seed, name in zip(seeds, itertools.count(), strict=False):
        at = random.Random(int(seed)).randrange(1, len(names) + 1)
        folder = f"killed-{name}"
        survived = child(settings(folder), at)
        child(settings(folder), None)
        print(
            json.dumps({"killed_at": names[at - 1], "survived": bool(survived), "digest": digest(folder)}), flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
