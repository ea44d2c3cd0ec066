"""The command and what all layouts share: whole or not at all, the same bytes, nothing lost, bad input refused."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import contents, ready

from bargain_env.errors import InputError
from experiments import export
from experiments.corpus import manifest, records
from experiments.exporting import source, writing

LAYOUTS = ("datasets", "trl", "transitions")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ready(tmp_path_factory.mktemp("export"))


def run(data, to, out, **options):
    return export.run(export.Settings(data=data, to=to, out=out, quiet=True, **options))


def rewrite(data, folder, name, change):
    """A copy of ``data`` with one table changed, as its manifest says."""
    folder.mkdir()
    for file in ("steps.parquet", "episodes.parquet", "manifest.json"):
        (folder / file).write_bytes((data / file).read_bytes())
    table = change(pq.read_table(data / name))
    pq.write_table(table, folder / name)
    document = manifest.read(folder)
    document["files"][name] = manifest.described(folder / name, table.num_rows)
    manifest.write(folder, document)
    return folder


@pytest.mark.parametrize("to", LAYOUTS)
def test_the_same_input_gives_the_same_bytes_whatever_the_batch(data, tmp_path, to, monkeypatch):
    run(data, to, tmp_path / "a")
    monkeypatch.setattr(source, "BATCH", 97)
    run(data, to, tmp_path / "b")
    run(data, to, tmp_path / "fewer", episodes=100)
    assert contents(tmp_path / "a") != contents(tmp_path / "fewer")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("to", LAYOUTS)
def test_the_manifest_tells_every_file_and_its_source(data, tmp_path, to):
    written = run(data, to, tmp_path / "out")
    files = contents(tmp_path / "out")
    assert json.loads(files.pop("manifest.json")) == written
    assert set(written["files"]) == set(files)
    for name, content in files.items():
        told = written["files"][name]
        assert (told["sha256"], told["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert told["rows"] == (None if name == "README.md" else pq.read_table(tmp_path / "out" / name).num_rows)
    for name, digest in written["source"]["sha256"].items():
        assert digest == hashlib.sha256((data / name).read_bytes()).hexdigest()
    assert written["settings"]["to"] == to


def test_shards_split_tables_and_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "ROW_GROUP", 10)
    monkeypatch.setattr(writing, "SHARD", 30)
    table = pa.table({"x": np.arange(95)})
    for size in (1, 7, 95):
        folder = tmp_path / str(size)
        writer = writing.ShardWriter(folder, "train", table.schema)
        for start in range(0, 95, size):
            writer.append(table.slice(start, size))
        writer.close()
        assert writer.rows == 95
    assert [f.name for f in sorted(folder.iterdir())] == [f"train-0000{i}.parquet" for i in range(4)]
    assert [pq.read_table(f).num_rows for f in sorted(folder.iterdir())] == [30, 30, 30, 5]
    assert pa.concat_tables([pq.read_table(f) for f in sorted(folder.iterdir())]).equals(table)
    assert contents(folder) == contents(tmp_path / "1") == contents(tmp_path / "7")
    nothing = writing.ShardWriter(tmp_path / "none", "train", table.schema)
    nothing.append(table.slice(0, 0))
    nothing.close()
    assert not (tmp_path / "none").exists()


def test_blocks_hold_whole_games_in_order(data, monkeypatch):
    steps, episodes = (pq.read_table(data / f"{name}.parquet") for name in ("steps", "episodes"))
    for batch in (1, 97, 10**6):
        monkeypatch.setattr(source, "BATCH", batch)
        blocks = list(source.Source(data).blocks(50 if batch == 1 else None))
        n = sum(len(b) for b in blocks)
        assert n == (50 if batch == 1 else episodes.num_rows)
        joined = pa.concat_tables([b.steps for b in blocks])
        assert joined.to_pylist() == steps.slice(0, joined.num_rows).to_pylist()
        assert pa.concat_tables([b.episodes for b in blocks]).to_pylist() == episodes.slice(0, n).to_pylist()
        for b in blocks:
            named = np.asarray(b.episodes["trajectory_id"].to_pylist(), dtype=object)
            assert (named[b.episode] == b.steps["trajectory_id"].to_numpy()).all()
    assert [len(b) for b in blocks] == [episodes.num_rows - 1, 1]  # the last game might have gone on


def test_an_earlier_export_is_replaced_and_nothing_else_is(data, tmp_path):
    out = tmp_path / "out"
    run(data, "datasets", out)
    (out / "stale").write_text("x")
    run(data, "transitions", out)
    assert not (out / "stale").exists()
    assert not (out / "steps").exists()
    before = contents(data)
    with pytest.raises(InputError, match="prepare, which would be lost"):
        run(data, "datasets", data)
    assert contents(data) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="would be lost"):
        run(data, "datasets", tmp_path / "mine")


def test_what_fails_leaves_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        writing.pq.ParquetWriter, "write_table", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        run(data, "datasets", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("datasets", {"labels": "asked"}, "--labels belongs to --to trl"),
        ("trl", {"n_prices": 27}, "--n-prices belongs to --to minari"),
        ("minari", {"prompt_format": 3}, "--prompt-format belongs to --to trl"),
        ("minari", {"n_prices": 27}, "belongs to --action-mode grid"),
        ("trl", {"prompt_format": 5}, "--prompt-format 5"),
        ("trl", {"k_history": 9}, "--k-history 9"),
        ("trl", {"labels": "asked"}, "no player .* was asked"),
        ("datasets", {"episodes": 0}, "--episodes 0"),
    ],
)
def test_bad_settings_are_refused(data, tmp_path, to, options, message):
    with pytest.raises(InputError, match=message):
        run(data, to, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_prepared_one_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"holds no steps\.parquet"):
        run(tmp_path, "datasets", tmp_path / "out")
    copy = rewrite(data, tmp_path / "copy", "steps.parquet", lambda table: table)
    run(copy, "datasets", tmp_path / "fine")
    flipped = bytearray((copy / "steps.parquet").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (copy / "steps.parquet").write_bytes(flipped)
    with pytest.raises(InputError, match=r"is not what was written \(SHA-256\)"):
        run(copy, "datasets", tmp_path / "out")
    (copy / "manifest.json").write_text('{"command": "collect"}')
    with pytest.raises(InputError, match=r"not written by experiments\.prepare"):
        run(copy, "datasets", tmp_path / "out")
    (copy / "manifest.json").write_text('{"command": "prepare", "schema_version": 0}')
    with pytest.raises(InputError, match="schema version 0"):
        run(copy, "datasets", tmp_path / "out")
    for text in ("no JSON", (data / "manifest.json").read_text().replace('"steps"', '"stairs"')):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(InputError, match="is not what was written; make the data again"):
            run(copy, "datasets", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _other_split(table):
    column = table.column_names.index("split")
    return table.set_column(column, table.schema.field(column), pa.array(["eval"] * table.num_rows))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("episodes.parquet", lambda t: t.slice(1), "differ from game"),
        ("episodes.parquet", lambda t: t.slice(0, t.num_rows - 1), "differ from game"),
        ("steps.parquet", lambda t: t.slice(0, t.num_rows - 60), "lacks games"),
        ("episodes.parquet", _other_split, "disagree on the split"),
        ("steps.parquet", lambda t: t.drop_columns(["starter"]), "such as .'starter'"),
        ("steps.parquet", lambda t: t.set_column(1, "turn", t["turn"].cast(pa.int32())), "such as .'turn'"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(data, tmp_path, name, change, message):
    with pytest.raises(InputError, match=message):
        run(rewrite(data, tmp_path / "copy", name, change), "datasets", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_split_are_refused(data, tmp_path):
    def unsplit(table):
        column = table.column_names.index("split")
        return table.set_column(column, table.schema.field(column), pa.array([""] * table.num_rows))

    copy = rewrite(data, tmp_path / "copy", "episodes.parquet", unsplit)
    with pytest.raises(InputError, match="split '' is none of train, eval, test"):
        run(copy, "datasets", tmp_path / "out")


def test_the_command_says_what_it_wrote(data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.export",
        str(data),
        "--to",
        "datasets",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"episodes: train {340:,}" in done.stdout
    assert "load_dataset" in done.stdout
    done = subprocess.run([*command, "--json"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "manifest.json").read_text())
    done = subprocess.run(
        [*command, "--labels", "asked"], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_schema_of_each_layout_explains_its_columns():
    from experiments.exporting import prompts, transitions

    for schema in (records.STEPS, records.EPISODES, prompts.SCHEMA, transitions.SCHEMA):
        assert all(field.metadata[b"description"] for field in schema)
