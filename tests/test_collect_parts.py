"""Parts of a collection: what is kept and what is played again, what is refused, one collector at a time, full disks."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import cli, collect, verify
from experiments.corpus import part_store, parts, records

ROOT = Path(__file__).resolve().parents[1]
PART = 20
KINDS = {"steps": "parquet", "episodes": "parquet", "log": "jsonl"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """And code that is the same from one end of the tests to the other, whoever works on it meanwhile."""
    monkeypatch.setattr(records, "PART_GAMES", PART)
    monkeypatch.setattr(collect, "tree_digest", lambda _: "code")


def settings(out, **options):
    usual = {"episodes": 50, "scenario": "paper", "strategies": "fair,linear_standard,noisy_boulware_firm", "seed": 3}
    return collect.Settings(**{**usual, "out": out, "quiet": True, **options})


def collected(out, **options):
    return collect.run(settings(out, **options))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PART_GAMES", PART)
        patch.setattr(collect, "tree_digest", lambda _: "code")
        collected(out, jsonl=True)
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture
def played(monkeypatch):
    """Numbers of the parts that are played."""
    numbers, usual = [], parts.PartPlayer._made

    def noted(self, part, *rest):
        numbers.append(part.number)
        return usual(self, part, *rest)

    monkeypatch.setattr(parts.PartPlayer, "_made", noted)
    return numbers


def unfinished(folder, keep, torn=b""):
    """Make of a finished collection one that was interrupted when it had written the parts ``keep``, and half a line."""
    manifest = json.loads((folder / "manifest.json").read_text())
    store = part_store.PartStore.__new__(part_store.PartStore)
    store.folder = folder
    store._identity = {key: manifest[key] for key in ("schema_version", "settings", "part_games", "code", "libraries")}
    identity, entries = store._manifest()
    lines = [identity, *(entries[number] for number in keep)]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "manifest.json").unlink()
    (folder / part_store.JOURNAL).write_bytes(text + torn)
    for number in {0, 1, 2} - set(keep):
        for kind, suffix in KINDS.items():
            (folder / kind / f"part-0000{number}.{suffix}").unlink()


def test_the_folder(whole):
    names = {f"{kind}/part-0000{n}.{suffix}" for kind, suffix in KINDS.items() for n in range(3)}
    assert set(files(whole)) == {"manifest.json", *names}
    manifest = json.loads((whole / "manifest.json").read_text())
    assert set(manifest["files"]) == names
    assert [part["games"] for part in manifest["parts"]] == [20, 20, 10]
    for name, said in manifest["files"].items():
        rows = (
            len(pq.read_table(whole / name))
            if name.endswith("parquet")
            else len((whole / name).read_bytes().splitlines())
        )
        assert (said["rows"], said["bytes"]) == (rows, (whole / name).stat().st_size)
    episodes = pq.read_table(whole / "episodes")
    assert episodes["scenario_id"].to_pylist() == list(range(50))
    rho = [value for value in episodes["rho"].to_pylist() if value != -1]
    assert manifest["rho_mean"] == pytest.approx(sum(rho) / len(rho), rel=1e-14)
    assert manifest["rho_sd"] == pytest.approx(np.std(rho), rel=1e-12)
    assert manifest["agreement_rate"] == len(rho) / 50


def test_a_longer_run_begins_with_a_shorter_one(whole, copy, tmp_path, played):
    before = files(copy)
    collected(copy, episodes=75, jsonl=True)
    assert played == [2, 3]
    after = files(copy)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"manifest.json", *(f"{kind}/part-00002.{suffix}" for kind, suffix in KINDS.items())}
    collected(tmp_path / "at once", episodes=75, jsonl=True)
    assert files(tmp_path / "at once") == after
    assert pq.read_table(copy / "steps").slice(0, 300).equals(pq.read_table(whole / "steps").slice(0, 300))


def test_what_is_complete_is_not_played_again(whole, copy, played):
    collected(copy, jsonl=True)
    assert played == []
    assert files(copy) == files(whole)


@pytest.mark.parametrize("torn", [b"", b'{"number": 2, "fir'])
def test_an_interrupted_run_continues(whole, copy, played, torn):
    unfinished(copy, (1,), torn)
    (copy / "steps" / ".part-00002.parquet.ab12").write_bytes(b"half")
    (copy / ".manifest.json.x1").write_bytes(b"half")
    assert files(copy) != files(whole)
    collected(copy, jsonl=True)
    assert played == [0, 2]
    assert files(copy) == files(whole)


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
                                  lambda path: path.write_bytes(path.read_bytes()[:-1])])  # fmt: skip
@pytest.mark.parametrize("name", ["steps/part-00001.parquet", "log/part-00001.jsonl"])
def test_a_part_that_was_harmed_is_played_again(whole, copy, played, name, harm, capsys):
    harm(copy / name)
    assert files(copy) != files(whole)
    collected(copy, jsonl=True, quiet=False)
    assert played == [1]
    assert files(copy) == files(whole)
    assert f"{name} is not what was written; its games are played again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 4, "scenario": "hidden"}, "scenario, seed"), ({"strategies": "fair"}, "strategies"),
     ({"max_turns": 8}, "max_turns"), ({"jsonl": False}, "jsonl"), ({"teacher_share": 0.5}, "teacher_share")],
)  # fmt: skip
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_by_name(copy, tmp_path, changes, named, finished):
    if not finished:
        unfinished(copy, (0,))
    before = files(copy)
    with pytest.raises(
        InputError, match=rf"other settings \(different: {named}\); choose another --out, or .* --fresh"
    ):
        collected(copy, **{"jsonl": True, **changes})
    assert files(copy) == before
    collected(copy, **{"jsonl": True, "fresh": True, **changes})
    collected(tmp_path / "other", **{"jsonl": True, **changes})
    assert files(copy) == files(tmp_path / "other") != before


def test_other_code_is_refused(copy, monkeypatch):
    monkeypatch.setattr(collect, "tree_digest", lambda _: "other code")
    with pytest.raises(InputError, match=r"\(different: code\)"):
        collected(copy, jsonl=True)


def test_fewer_games_are_refused(copy):
    with pytest.raises(InputError, match=r"holds 50 games, and --episodes 49 are fewer; .* --fresh"):
        collected(copy, episodes=49, jsonl=True)
    collected(copy, episodes=49, jsonl=True, fresh=True)
    assert len(pq.read_table(copy / "episodes")) == 49


@pytest.mark.parametrize("name", ["steps.parquet", "episodes.jsonl", "steps/mine.parquet"])
@pytest.mark.parametrize("fresh", [True, False])
def test_what_others_wrote_is_left_alone(copy, name, fresh):
    (copy / name).write_text("mine")
    before = files(copy)
    with pytest.raises(InputError, match=f"{name} is no part of a collection; move it away"):
        collected(copy, jsonl=True, fresh=fresh)
    assert files(copy) == before


def test_parts_that_no_manifest_speaks_of(copy, whole):
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"without its manifest.json; .* --fresh"):
        collected(copy, jsonl=True)
    collected(copy, jsonl=True, fresh=True)
    assert files(copy) == files(whole)


def test_a_manifest_of_another_command(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"command": "prepare"}))
    with pytest.raises(InputError, match=r"data set of experiments.prepare; choose another --out"):
        collected(tmp_path)


@pytest.mark.parametrize("engine", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_change_no_byte(whole, tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    collected(tmp_path / "out", jsonl=True, workers=2, engine=engine)
    assert files(tmp_path / "out") == files(whole)


FIRST_LINES = """
import os, resource
from pathlib import Path
from experiments import cli, collect
from experiments.corpus import records
"""


def elsewhere(out, between="None", **options):
    """Exit code and message of a collection in another process, which does ``between`` once everything is loaded."""
    chosen = settings(out, **options)
    given = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name != "out"}
    code = [
        FIRST_LINES,
        f"records.PART_GAMES, collect.tree_digest = {PART}, lambda _: 'code'",
        f"chosen = collect.Settings(out=Path({str(out)!r}), **{given!r})",
        f"cli.main(collect.Settings, lambda _: (({between}), collect.run(chosen)), [])",
    ]
    command = [sys.executable, "-c", "\n".join(code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    return done.returncode, done.stderr.splitlines()


def test_a_collector_at_work_keeps_others_out(copy, monkeypatch):
    """The second is told at once; when the first was killed, nothing is left of its lock."""
    usual, told = part_store.PartStore.put, []

    def put(self, part):
        told.append(elsewhere(copy, episodes=75, jsonl=True))
        return usual(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(part_store.PartStore, "put", put)
        collected(copy, episodes=60, jsonl=True)
    assert told == [(2, [f"error: another collector is writing to {copy}; wait for it, or choose another --out"])]
    (copy / collect.LOCK).write_text("")  # as a killed one leaves it
    collected(copy, episodes=75, jsonl=True)
    assert not (copy / collect.LOCK).exists()


@pytest.mark.parametrize("size", [300, 12000])
def test_a_disk_that_is_full(whole, tmp_path, size):
    """No file can grow beyond ``size``: the journal, a table or the log is what cannot be written."""
    out = tmp_path / "out"
    code, said = elsewhere(out, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))", jsonl=True)
    assert (code, len(said)) == (2, 1)
    assert f"error: cannot write {out}" in said[0]
    assert os.strerror(errno.EFBIG) in said[0]
    assert "of 3 parts are kept: make room" in said[0]
    finished = files(whole)
    left = {name: content for name, content in files(out).items() if name != part_store.JOURNAL}
    assert left.items() <= finished.items(), "nothing half-written under a final name"
    with pytest.raises(InputError, match=r"not finished|no manifest.json"):
        verify.run(verify.Settings(out, quiet=True))
    collected(out, jsonl=True)
    assert files(out) == finished


def test_a_folder_that_is_read_only(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    nobody = "os.getuid() or (os.setgid(65534), os.setuid(65534))"  # permissions do not hold for root
    code, said = elsewhere(out, between=nobody)
    assert (code, len(said)) == (2, 1)
    assert f"output folder {out}" in said[0]
    assert said[0].endswith("choose another --out")
    assert not list(out.iterdir())


def test_interrupted_by_its_user(copy, whole, monkeypatch):
    unfinished(copy, ())
    usual = part_store.PartStore.put

    def put(self, part):
        if self.entries:
            raise KeyboardInterrupt
        usual(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(part_store.PartStore, "put", put)
        with pytest.raises(
            KeyboardInterrupt, match="interrupted; 1 of 3 parts are kept; continue with: python -m"
        ) as stop:
            collected(copy, jsonl=True)
    words = str(stop.value).split("experiments.collect ")[1].split()
    assert cli.parse(collect.Settings, words) == settings(copy, jsonl=True)
    collected(copy, jsonl=True)
    assert files(copy) == files(whole)


def test_what_is_said(tmp_path, capsys):
    out = tmp_path / "out"
    collected(out, quiet=False)
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("50 games, ")
    assert first[0].endswith(" games/s)")
    assert f"wrote {out}: 3 parts in episodes, steps (" in first[2]
    assert first[3:] == [
        f"check: python -m experiments.verify {out}",
        f"next: python -m experiments.prepare {out} --out {tmp_path / 'ready'}",
    ]
    collected(out, quiet=False, episodes=60)
    assert capsys.readouterr().out.splitlines()[0] == "continuing: 2 of 3 parts are there"
