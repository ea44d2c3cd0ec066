"""A small prepared data set for the tests of exports, made by the commands that users run."""

from pathlib import Path

import pyarrow.parquet as pq

from experiments import collect, prepare


def ready(folder: Path, episodes: int = 400) -> Path:
    """A folder of experiments.prepare with games of many strategies."""
    raw = folder / "raw"
    collect.run(collect.Settings(episodes=episodes, seed=3, out=raw, quiet=True))
    prepare.run(prepare.Settings(input=raw, out=folder / "ready", eval_share=0.1, test_share=0.05, quiet=True))
    return folder / "ready"


def rows(data: Path, name: str, split: str) -> list[dict]:
    """The rows of one split of a prepared table, in order."""
    return [row for row in pq.read_table(data / f"{name}.parquet").to_pylist() if row["split"] == split]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
