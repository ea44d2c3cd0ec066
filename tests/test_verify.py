"""`experiments.verify`: what was written passes, and whatever has changed since is named, down to one bit in any file."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import cli, collect, prepare, verify
from experiments.corpus import manifest, part_store, records

FILES = ("steps/part-00000.parquet", "episodes/part-00001.parquet", "log/part-00000.jsonl")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PART_GAMES", 30)
        collect.run(
            collect.Settings(
                50, seed=3, scenario="paper", strategies="fair,linear_standard", out=out, jsonl=True, quiet=True
            )
        )
    return out


@pytest.fixture(scope="module")
def ready(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("ready")
    prepare.run(prepare.Settings(raw, out, quiet=True))
    return out


@pytest.fixture
def copy(raw, tmp_path):
    return shutil.copytree(raw, tmp_path / "copy")


def verified(folder):
    return verify.run(verify.Settings(folder, quiet=True))


def resealed(folder, change):
    """Change the manifest as somebody would who knows how it is sealed."""
    document = manifest.read(folder)
    change(document)
    manifest.write(folder, document)


def test_what_was_written_passes(raw, ready, capsys):
    assert verified(raw)["files"] == 6
    assert verified(ready)["problems"] == []
    verify.run(verify.Settings(raw))
    assert "6 files" in (said := capsys.readouterr().out)
    assert "50 episodes: all as they were written" in said


@pytest.mark.parametrize("which", ["raw", "ready"])
def test_one_bit_in_any_file_is_noticed(which, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(which), tmp_path / "copy")
    verified(folder)
    draw = np.random.default_rng(0)
    for name in (*manifest.read(folder)["files"], manifest.NAME):
        content = (folder / name).read_bytes()
        for place in draw.integers(8 * len(content), size=12).tolist():
            changed = bytearray(content)
            changed[place // 8] ^= 1 << place % 8
            (folder / name).write_bytes(changed)
            with pytest.raises(InputError, match=name):
                verified(folder)
        (folder / name).write_bytes(content)
    verified(folder)


def test_every_bit_of_the_manifest_counts(copy):
    path = copy / manifest.NAME
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 37):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"manifest.json"):
            manifest.read(copy)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "bytes, not the"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), r"is corrupt: .* \(SHA-256\)"),
    ],
)
def test_every_problem_is_named(copy, harm, said, capsys):
    for name in FILES:
        harm(copy / name)
    with pytest.raises(InputError, match=r"^3 problems") as error:
        verify.run(verify.Settings(copy))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for name in FILES:
        assert name in str(error.value)
        assert [line for line in lines if line.startswith(f"{copy / name}: ")]
    assert "experiments.collect with the same settings" in str(error.value)
    with pytest.raises(InputError, match=r"^3 problems"):
        verified(copy)
    assert all(re.search(said, line) for line in lines)


def test_the_exit_code_is_two(copy, capsys):
    cli.main(verify.Settings, verify.run, [str(copy), "--json"])
    assert json.loads(capsys.readouterr().out)["problems"] == []
    (copy / FILES[0]).unlink()
    with pytest.raises(SystemExit) as stop:
        cli.main(verify.Settings, verify.run, [str(copy), "--json"])
    shown = capsys.readouterr()
    assert stop.value.code == 2
    assert json.loads(shown.out)["problems"] == [{"file": FILES[0], "what": "is missing"}]
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["steps/part-00002.parquet", "steps.parquet", "log/extra.jsonl"])
def test_data_that_the_manifest_does_not_speak_of(copy, name):
    shutil.copy(copy / FILES[0], copy / name)
    with pytest.raises(InputError, match=name):
        verified(copy)


def test_rows_and_columns(copy):
    """Files whose checksums agree, by a manifest that was made for them."""
    path = copy / FILES[0]
    table = pq.read_table(path)
    for other, said in ((table.slice(1), "1 problem"), (table.drop_columns(["rho_train"]), "1 problem")):
        pq.write_table(other, path)
        rows = manifest.read(copy)["files"][FILES[0]]["rows"]
        resealed(copy, lambda d, rows=rows: d["files"].update({FILES[0]: manifest.described(path, rows)}))
        with pytest.raises(InputError, match=f"{said} in .*{FILES[0]}"):
            verified(copy)


@pytest.mark.parametrize("kind", ["steps", "episodes"])
def test_counts(copy, kind):
    resealed(copy, lambda document: document.update({kind: document[kind] + 1}))
    with pytest.raises(InputError, match=r"1 problem .*manifest.json"):
        verified(copy)


def test_other_versions_and_folders(copy, tmp_path):
    resealed(copy, lambda document: document.update(schema_version=99))
    with pytest.raises(InputError, match="has schema version 99, not"):
        verified(copy)
    resealed(copy, lambda document: document.update(schema_version=records.SCHEMA_VERSION))
    verified(copy)
    (copy / manifest.NAME).write_text(json.dumps({"schema_version": records.SCHEMA_VERSION}))
    with pytest.raises(InputError, match="names no files with checksums, as an earlier version wrote it"):
        verified(copy)
    (copy / part_store.JOURNAL).write_text("")
    with pytest.raises(InputError, match="is not finished"):
        verified(copy)
    with pytest.raises(InputError, match=r"has no manifest.json"):
        verified(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        verified(tmp_path / "nowhere")
