"""Speed of what feeds training: decisions to token ids, and rows to padded batches.

Seconds are of CPU time of all threads. The references are the plain ways: every prompt written out and tokenised, and
every row a dictionary of tensors that the collator pads. Both give the same bits; this is checked before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from experiments import collect, prepare
from experiments.speed.stopwatch import Speed, Work, rates
from hyperlora.data import HyperLoRACollator, NegotiationDataset, read_steps
from hyperlora.token_cache import TokenCache
from hyperlora.tokenise import Spelling, in_pieces, whole
from hyperlora.tokens import build_nano_tokenizer

GAMES, REFERENCE_ROWS, BATCH, BATCHES = 20_000, 2_000, 16, 50
WHOLE, COLLATED = "whole prompts, one by one", "rows, collated"
GOAL = 20_000
"""Prompts a second that were asked for, on two cores."""


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """Prompts a second and batches a second; about ``seconds`` each, and the time to play the games.

    Raises:
        RuntimeError: the two ways differ.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        collect.run(collect.Settings(episodes=GAMES, seed=seed, out=folder / "raw", quiet=True))
        prepare.run(prepare.Settings(folder / "raw", folder / "ready", quiet=True))
        table = read_steps(folder / "ready")
        said = table["rho_train"].to_numpy().astype(np.float32)
        how, cache = Spelling(build_nano_tokenizer(), 8, 1024, 4), TokenCache(folder / "tokens")
        few = min(REFERENCE_ROWS, table.num_rows)
        dataset = NegotiationDataset(table.slice(0, few), how.tokenizer, prompt_format=4, rho=said[:few], cache=cache)
        pieces, kept = f"tokens of {table.num_rows:,} rows, in pieces", f"tokens of {table.num_rows:,} rows, kept"
        works: dict[str, Work] = {
            pieces: lambda: float(sum(len(part.lengths) for part in in_pieces(table, said, how))),
            kept: lambda: float(len(cache.sequences(table, said, how).lengths)),
            WHOLE: lambda: float(sum(len(part.lengths) for part in whole(table.slice(0, few), said[:few], how))),
        }
        found = rates(works, seconds, clock=time.process_time)
    for line in (pieces, kept):
        yield Speed(line, found[line], "prompts/s", WHOLE, found[line] / found[WHOLE], goal=GOAL)
    yield Speed(WHOLE, found[WHOLE], "prompts/s")
    gathered = f"batches of {BATCH}, gathered"
    both = _batches(dataset, seed)
    found = rates({gathered: both[0], COLLATED: both[1]}, seconds, clock=time.process_time)
    yield Speed(gathered, found[gathered], "batches/s", COLLATED, found[gathered] / found[COLLATED])
    yield Speed(COLLATED, found[COLLATED], "batches/s")


def _batches(dataset: NegotiationDataset, seed: int) -> tuple[Work, Work]:
    rows = np.random.default_rng(seed).integers(0, len(dataset), (BATCHES, BATCH))
    collate = HyperLoRACollator(dataset.pad_token_id)
    mine, theirs = dataset.batch(rows[0]), collate([dataset[int(row)] for row in rows[0]])
    if not all(torch.equal(mine[name], value) for name, value in theirs.items()):
        raise RuntimeError("gathered and collated batches differ; their speeds say nothing")

    def gathered() -> float:
        for part in rows:
            dataset.batch(part)
        return float(BATCHES)

    def collated() -> float:
        for part in rows:
            collate([dataset[int(row)] for row in part])
        return float(BATCHES)

    return gathered, collated
