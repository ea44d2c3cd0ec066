"""Speed of `experiments.collect`: data sets on disk, from the whole training pool, against a log written game by game.

Seconds are of CPU time, which a busy machine hardly stretches. Nothing is left out: drawing games and players, playing,
tables, compression, checksums, files, manifest. The reference plays one cheap pair one game at a time in plain Python and
writes each game's steps as JSON when it is over, opening its log anew, as a published collector of such games does. Two more
lines say where the time goes: play alone, and play with all rows and tables but no file.

The last lines show that the cost of an episode does not grow with their number: 10,000, 100,000 and, as far as ten times
``--seconds`` may last, each power of ten beyond.

For orientation only, since another machine measured it: the published collector made 1,800 episodes a second.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import agents
from experiments import collect
from experiments.corpus import cast, records
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.parts import GROUP_GAMES, Games
from experiments.corpus.step_rows import encoded_steps, episodes_table
from experiments.speed import scalar
from experiments.speed.stopwatch import Speed, Work, rates
from experiments.speed.strategies import REFERENCE_PAIR

GAMES, LOGGED_GAMES, REFERENCE_GAMES = 100_000, 25_000, 300
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
ALWAYS = 2
"""Of `SIZES`, how many are measured however long it takes."""
MEASURED = ("paper", "hidden")
GOAL, LOG_GOAL = 100_000, 18_000
BARS = {"Parquet, paper": 8.0, "Parquet, hidden": 6.0, "Parquet and log, paper": 2.5}
"""Least speed, as a multiple of the reference's."""
FLAT = 0.8
"""Least speed of more episodes, as a share of that of fewer."""
REFERENCE = "one game at a time, plain Python, JSON lines"


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """All figures, one by one; about ``seconds`` for each."""
    yield from kinds(seconds, seed)
    yield from sizes(seconds, seed)


def kinds(seconds: float, seed: int) -> Iterator[Speed]:
    """Episodes a second by preset, with and without the log."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        works: dict[str, Work] = {f"Parquet, {name}": _collected(out / name, name, seed, GAMES) for name in MEASURED}
        works["Parquet and log, paper"] = _collected(out / "log", "paper", seed, LOGGED_GAMES, log=True)
        works["play alone, paper"] = _played(seed)
        works["play and tables, paper"] = _played(seed, tables=True)
        found = rates(
            {**works, REFERENCE: _one_by_one(out / "reference.jsonl", seed)}, seconds, clock=time.process_time
        )
    reference = found[REFERENCE]
    for name in works:
        goal = None if name not in BARS else LOG_GOAL if "log" in name else GOAL
        yield Speed(name, found[name], "episodes/s", REFERENCE, found[name] / reference, bar=BARS.get(name), goal=goal)
    yield Speed(REFERENCE, reference, "episodes/s")


def sizes(seconds: float, seed: int) -> Iterator[Speed]:
    """Episodes a second by how many there are, from the second size on compared with the one before; and memory."""
    before, rate = 0.0, 0.0
    for number, size in enumerate(SIZES):
        if number >= ALWAYS and size / rate > 10 * seconds:
            return
        with tempfile.TemporaryDirectory() as folder:
            work = _collected(Path(folder) / "data", "paper", seed, size)
            began = time.process_time()
            work()
            before, rate = rate, size / (time.process_time() - began)
        name = f"Parquet, paper, {size:,} episodes"
        if before:
            yield Speed(name, rate, "episodes/s", f"{SIZES[number - 1]:,} episodes", rate / before, bar=FLAT)
        else:
            yield Speed(name, rate, "episodes/s")
        yield Speed(f"peak memory until then, {size:,} episodes", _peak(), "MiB")


def _collected(out: Path, preset: str, seed: int, episodes: int, *, log: bool = False) -> Work:
    chosen = collect.Settings(episodes, seed, preset, out=out, jsonl=log, fresh=True, quiet=True)

    def work() -> float:
        collect.run(chosen)
        return float(episodes)

    return work


def _played(seed: int, *, tables: bool = False) -> Work:
    """Games as the collector plays them, and their tables if wanted; nothing is written."""
    names = tuple(agents.list_strategies(split="train"))
    games, run = Games(seed, ("paper",), cast.Cast(names), 20), records.run_name(seed, {})

    def work() -> float:
        result, players = games.play(np.arange(GAMES))
        for first in range(0, GAMES if tables else 0, GROUP_GAMES):
            at = np.arange(first, min(first + GROUP_GAMES, GAMES))
            rows = rows_of_games(result.take(at), run, *players[at].T)
            encoded_steps(rows)
            episodes_table(rows)
        return float(GAMES)

    return work


def _one_by_one(path: Path, seed: int) -> Work:
    players = dict(zip(("buyer", "seller"), map(scalar.time_dependent, REFERENCE_PAIR.values()), strict=True))
    names = dict(zip(players, REFERENCE_PAIR, strict=True))

    def work() -> float:
        path.unlink(missing_ok=True)
        for number, record in enumerate(scalar.games(REFERENCE_GAMES, seed, *players.values())):
            with path.open("a", encoding="utf-8") as log:
                for step in _steps(number, record, names):
                    log.write(json.dumps(step) + "\n")
        return float(REFERENCE_GAMES)

    return work


def _steps(number: int, record: scalar.Record, names: dict[str, str]) -> Iterator[dict[str, object]]:
    """The records of one game, with the fields of the seed's log."""
    moves: list[tuple[str, float | None]] = list(record.history)
    if record.agreement:
        moves.append(("seller" if record.history[-1][0] == "buyer" else "buyer", None))
    limits = dict.fromkeys(("buyer_max", "seller_min", "zopa_low", "zopa_high", "zopa_width"), scalar.WIDTH)
    outcome = {"agreement_bool": record.agreement, "price": record.price, "num_turns": record.turns}
    for turn, (role, price) in enumerate(moves, start=1):
        yield {
            "trajectory_id": f"{number:06x}",
            "turn": turn,
            "agent": {"strategy": names[role], "strategy_params": {}},
            "state": {
                "timestep": turn,
                "max_turns": 20,
                "role": role,
                "last_offer_price": record.history[turn - 2][1] if turn > 1 else None,
                "offer_history": record.history[: turn - 1],
                "reservation_price": scalar.LOW,
                "price_range": [scalar.LOW, scalar.HIGH],
            },
            "action": {"type": "ACCEPT" if price is None else "OFFER", "price": price},
            "is_terminal": turn == len(moves),
            "meta": {**limits, "accepted_price": None, "episode_outcome": outcome},
            "rho": record.rho,
        }


def _peak() -> float:
    """Most memory that this process has held so far, in MiB."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 2**20 if sys.platform == "darwin" else held / 2**10
