"""`experiments.prepare` with any number of workers: the same bytes, the same report, and one clear error when they die."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments import collect, prepare
from experiments.corpus import jsonl, log_blocks
from experiments.match import engines

FILES = ("steps.parquet", "episodes.parquet", "problems.json")
BLOCK = 40_000
"""Bytes; the log below has some ten of them."""


def outcome(source, out, workers, **options):
    prepare.run(prepare.Settings(source, out, quiet=True, workers=workers, **options))
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    collect.run(collect.Settings(episodes=45, seed=7, jsonl=True, out=out, quiet=True))
    return out


@pytest.fixture(scope="module")
def damaged(raw, tmp_path_factory):
    """A log whose lines at every border of two blocks are damaged, with a line of three blocks and no end of the last."""
    lines = (raw / "log" / "part-00000.jsonl").read_bytes().splitlines(keepends=True)
    lines[20] = lines[20].replace(b'"turn"', b'"note":"' + b"x" * 3 * BLOCK + b'","turn"', 1)
    at = 0
    for k, line in enumerate(lines):
        before, after = at % BLOCK, (at + len(line)) % BLOCK
        if k != 20 and (after <= before or after < 5):  # it ends in another block, or just where one begins
            lines[k] = (
                b"?" * (len(line) - 1) + b"\n" if k % 2 else b'{"trajectory_id":null' + b" " * (len(line) - 22) + b"\n"
            )
        at += len(line)
    lines[-1] = lines[-1].rstrip(b"\n")
    path = tmp_path_factory.mktemp("damaged") / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n" + b"".join(lines))
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(jsonl, "BATCH_BYTES", BLOCK)
    monkeypatch.setattr(log_blocks, "BLOCKS_OF_A_WORKER", 1)


def test_the_number_of_workers_makes_no_difference_to_a_log(damaged, tmp_path, small_blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BATCH_BYTES", 1 << 30)
        expected = outcome(damaged, tmp_path / "whole", 1)
    assert b'"not_json"' in expected["problems.json"]
    for workers in (1, 2, 3):
        assert outcome(damaged, tmp_path / str(workers), workers) == expected
    assert len(log_blocks._blocks(0, damaged)) > 8


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_makes_no_difference_to_tables(raw, tmp_path, workers):
    assert outcome(raw, tmp_path / "many", workers, repair=True) == outcome(raw, tmp_path / "one", 1, repair=True)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "behind"))] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_log(tmp_path, small_blocks, workers):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.jsonl").write_bytes(b"")
    with pytest.raises(prepare.InputError, match=r"a\.jsonl is empty"):
        outcome(tmp_path, tmp_path / "out", workers)


class Dying(engines.Processes):
    """Workers some of which are killed as soon as they have something to do."""

    dying = 1

    def ask(self, worker, number):
        super().ask(worker, number)
        if worker < self.dying:
            self._workers[worker].kill()
            self._workers[worker].join()


def test_a_worker_that_is_killed_is_done_without(damaged, tmp_path, small_blocks, monkeypatch, capsys):
    expected = outcome(damaged, tmp_path / "one", 1)
    monkeypatch.setattr(engines, "Processes", Dying)
    prepare.run(prepare.Settings(damaged, tmp_path / "two", json=True, workers=2))
    assert {name: (tmp_path / "two" / name).read_bytes() for name in FILES} == expected
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: worker 0 died (process ")
    assert "killed by SIGKILL" in told
    assert "while playing bytes 0 to 40,000 of" in told


def test_when_all_workers_are_killed_nothing_is_written(damaged, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(engines, "Processes", Dying)
    monkeypatch.setattr(Dying, "dying", 3)
    with pytest.raises(prepare.InputError, match=r"died.*; nothing written; try fewer --workers"):
        outcome(damaged, tmp_path / "out", 3)
    assert list(tmp_path.iterdir()) == []


def test_bad_numbers_are_refused(raw, tmp_path):
    with pytest.raises(prepare.InputError, match="--workers 0 must be at least 1"):
        outcome(raw, tmp_path / "out", 0)


FULL = """
import resource, sys
from experiments import cli, prepare
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
cli.main(prepare.Settings, prepare.run, sys.argv[1:])
"""
"""Prepares where no file can grow beyond a size, as on a disk that is full."""


@pytest.mark.parametrize(("size", "workers"), [(2_000, 1), (20_000, 2)])
def test_a_disk_that_is_full(raw, tmp_path, size, workers):
    """The games that wait, or the table, cannot be written: one line that says so, and nothing is left."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    chosen = [str(raw), "--out", str(out), "--workers", str(workers)]
    command = [sys.executable, "-c", FULL, str(size), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: no room to write {out} ({os.strerror(errno.EFBIG)}); nothing written: make room, some twice what the "
        "input takes as Parquet, or choose another --out, and give the command again"
    ]
    assert not list(tmp_path.glob(".out*"))
    assert not out.exists() or not list(out.iterdir())
