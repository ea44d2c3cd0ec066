"""Speed of `experiments.prepare`: a data set from Parquet and from its log, against the same rules one record at a time.

Seconds are of CPU time of all threads, so a rate is that of one core, one worker; or by the clock on the wall, with a worker
for each core, where a line says so. Nothing is left out: reading, checking, splitting, writing. A rate by the wall is to be
read on a machine that does nothing else, and the smallest table has no bar: most of its time is that of beginning.

The reference takes the log apart as the published preparation of this kind of data does (`json.loads`, a dictionary of
trajectories, a list of rows, one table at the end) and checks nothing. Two more lines say what is hard to go below: Arrow
alone reading and writing the same steps, and orjson alone reading the same lines.

For orientation only, since another machine measured it: the published preparation took 118 µs a step, 8,500 steps a second.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bargain_env import IMPASSE_RHO
from experiments import collect, prepare
from experiments.corpus import records
from experiments.corpus.parquet_stream import ParquetStream
from experiments.speed.stopwatch import Speed, Work, rates

GAMES = (550, 5_500, 55_000)
"""Some 10^4, 10^5 and 10^6 steps."""
LOG_GAMES = 5_500
WALL_LOG_GAMES = 27_500
"""A log so long that starting the workers matters little."""
REFERENCE_GAMES = 550
GOAL = {"table": 1_000_000, "log": 100_000}
BAR = {"table": 20.0, "log": 3.0}
"""Least ratio to the reference."""
WORKERS = os.cpu_count() or 1
"""Where time is taken from the wall."""
REFERENCE = "one record at a time, plain Python"
_TEXTS = [field.name for field in records.STEPS if pa.types.is_string(field.type)]
ARROW, ORJSON = "Arrow alone: read and write the tables", "orjson alone: read the lines"


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """Steps a second; about ``seconds`` each and for each clock, and the time to collect what is prepared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = {games: _collected(folder, games, seed) for games in sorted({*GAMES, *_with_log()})}
        reference = _one_by_one(data[REFERENCE_GAMES] / "log", folder / "reference.parquet")
        yield from _by_processor(data, folder, reference, seconds)
        yield from _by_the_wall(data, folder, reference, seconds)


def _by_processor(data: dict[int, Path], folder: Path, reference: Work, seconds: float) -> Iterator[Speed]:
    log = data[LOG_GAMES] / "log"
    works: dict[str, Work] = {f"Parquet, {_steps(data[games]):,} steps": _ours(data[games], folder) for games in GAMES}
    tables = list(works)
    jsonl = f"JSONL, {_steps(data[LOG_GAMES]):,} steps"
    works[jsonl] = _ours(log, folder)
    works[ARROW] = _arrow_alone(data[GAMES[-1]], folder / "copy.parquet")
    works[ORJSON] = _orjson_alone(log)
    works[REFERENCE] = reference
    found = rates(works, seconds, clock=time.process_time)
    for name in tables:
        ratio = found[name] / found[REFERENCE]
        bar = None if name == tables[0] else BAR["table"]
        yield Speed(name, found[name], "steps/s", REFERENCE, ratio, bar=bar, goal=GOAL["table"])
    ratio = found[jsonl] / found[REFERENCE]
    yield Speed(jsonl, found[jsonl], "steps/s", REFERENCE, ratio, bar=BAR["log"], goal=GOAL["log"])
    yield Speed(tables[-1], found[tables[-1]], "steps/s", ARROW, found[tables[-1]] / found[ARROW])
    yield Speed(tables[-1], found[tables[-1]], "steps/s", tables[0], found[tables[-1]] / found[tables[0]])
    for name in (ARROW, ORJSON, REFERENCE):
        yield Speed(name, found[name], "steps/s")


def _by_the_wall(data: dict[int, Path], folder: Path, reference: Work, seconds: float) -> Iterator[Speed]:
    inputs = {"Parquet": data[GAMES[-1]], "JSONL": data[WALL_LOG_GAMES] / "log"}
    works: dict[str, Work] = {name: _ours(path, folder, WORKERS) for name, path in inputs.items()}
    found = rates({**works, REFERENCE: reference}, seconds)
    for (name, rate), path, kind in zip(found.items(), (data[GAMES[-1]], data[WALL_LOG_GAMES]), GOAL, strict=False):
        label = f"{name}, {_steps(path):,} steps, wall, {WORKERS} workers"
        yield Speed(label, rate, "steps/s", REFERENCE, rate / found[REFERENCE], bar=BAR[kind], goal=GOAL[kind])
    yield Speed(f"{REFERENCE}, wall", found[REFERENCE], "steps/s")


def _with_log() -> set[int]:
    return {LOG_GAMES, WALL_LOG_GAMES, REFERENCE_GAMES}


def _collected(folder: Path, games: int, seed: int) -> Path:
    out = folder / f"raw-{games}"
    collect.run(collect.Settings(episodes=games, seed=seed, jsonl=games in _with_log(), out=out, quiet=True))
    return out


def _steps(data: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (data / "steps").iterdir())


def _ours(data: Path, folder: Path, workers: int = 1) -> Work:
    settings = prepare.Settings(data, folder / "ready", quiet=True, workers=workers)
    return lambda: float(prepare.run(settings)["steps"])


def _arrow_alone(data: Path, copy: Path) -> Work:
    def work() -> float:
        done = 0
        with ParquetStream(copy, records.STEPS) as stream:
            for path in sorted((data / "steps").iterdir()):
                table = pq.read_table(path, use_threads=False, read_dictionary=_TEXTS)
                stream.append(table)
                done += len(table)
        return done

    return work


def _orjson_alone(log: Path) -> Work:
    def work() -> float:
        done = 0
        for path in sorted(log.iterdir()):
            with path.open("rb") as file:
                for line in file:
                    orjson.loads(line)
                    done += 1
        return done

    return work


def _one_by_one(log: Path, out: Path) -> Work:
    def work() -> float:
        rows = [row for path in sorted(log.iterdir()) for row in _prepared(path)]
        pq.write_table(pa.Table.from_pylist(rows), out)
        return len(rows)

    return work


def _prepared(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log by the rules of the seed, without a check and without splits."""
    trajectories: dict[str, list[dict[str, Any]]] = {}
    with path.open() as file:
        for line in file:
            record = json.loads(line)
            trajectories.setdefault(record["trajectory_id"], []).append(record)
    for name, game in trajectories.items():
        game.sort(key=lambda record: record["turn"])
        success = any(record["action"]["type"] == "ACCEPT" for record in game)
        if not success and len(game) != game[0]["state"]["max_turns"]:
            continue
        for record in game:
            state, action = record["state"], record["action"]
            recent = state["offer_history"][-records.HISTORY_LENGTH :]
            yield {
                "trajectory_id": name,
                "turn": record["turn"],
                "role": state["role"],
                "max_turns": state["max_turns"],
                "turns_remaining": state["max_turns"] - record["turn"],
                "reservation_price": state["reservation_price"],
                "price_low": state["price_range"][0],
                "price_high": state["price_range"][1],
                "last_offer_price": state["last_offer_price"],
                "history_roles": [role for role, _ in recent],
                "history_prices": [price for _, price in recent],
                "target_action": action["type"],
                "target_price": action["price"],
                "success": success,
                "rho_train": record["rho"] if success else IMPASSE_RHO,
            }
