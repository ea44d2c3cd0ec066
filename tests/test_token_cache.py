"""Kept token ids: found again for the same decisions only, checked, made again when damaged, and never in the way."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from experiments import kept_tokens, train
from hyperlora import NegotiationDataset, build_nano_tokenizer, token_cache
from hyperlora.checkpoint import read_state
from hyperlora.token_cache import ENTRY, TokenCache

TOKENIZER = build_nano_tokenizer()
TABLES = ("ids", "places", "lengths", "prompt_lengths")


@pytest.fixture
def table(steps):
    return steps.slice(0, 120)


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    return TokenCache(tmp_path / "kept", said.append)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in TABLES)


def dataset(table, cache, **options):
    return NegotiationDataset(table, TOKENIZER, cache=cache, **options)


def entries(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def no_tokenizing(monkeypatch):
    def refuse(*_):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(token_cache, "in_pieces", refuse)
    monkeypatch.setattr(token_cache, "whole", refuse)


def test_the_second_time_nothing_is_tokenised(table, cache, said, monkeypatch):
    first = dataset(table, cache)
    assert same(first, dataset(table, None))
    no_tokenizing(monkeypatch)
    again = dataset(table, TokenCache(cache.folder, said.append))
    assert same(first, again)
    rows = np.arange(7)
    assert all(torch.equal(value, again.batch(rows)[name]) for name, value in first.batch(rows).items())
    assert torch.equal(first[3]["input_ids"], again[3]["input_ids"])
    scattered = pa.concat_tables([table.slice(0, 50), table.slice(50)]).replace_schema_metadata({"made": "otherwise"})
    assert same(first, dataset(scattered, cache))
    assert said == []


def changed(table, name, row, value):
    values = table[name].to_pylist()
    values[row] = value
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda t: changed(t, "reservation_price", 7, 801.25), {}),
        (lambda t: changed(t, "turn", 5, 9), {}),
        (lambda t: changed(t, "rho_train", 3, 0.123), {}),
        (lambda t: t.slice(0, 119), {}),
        (lambda t: t.take(pa.array([1, 0, *range(2, 120)])), {}),
        (lambda t: t, {"prompt_format": 3}),
        (lambda t: t, {"prompt_format": 4}),
        (lambda t: t, {"k_history": 4}),
        (lambda t: t, {"max_length": 60}),
        (lambda t: t, {"text_rho": 0.5}),
    ],
)
def test_anything_else_is_another_entry(table, cache, change, options):
    dataset(table, cache)
    other = dataset(change(table), cache, **options)
    assert same(other, dataset(change(table), None, **options))
    assert len(entries(cache)) == 2


def test_another_tokenizer_is_another_entry(table, cache):
    dataset(table, cache)
    other = build_nano_tokenizer()
    other.add_tokens(["EMPTY:"])
    NegotiationDataset(table, other, cache=cache)
    assert len(entries(cache)) == 2


def test_what_does_not_touch_the_tokens_is_the_same_entry(table, cache):
    dataset(table, cache)
    extra = table.append_column("note", pa.array(["x"] * len(table)))
    dataset(extra, cache, decimal_weights=(1.0, 0.5, 0.1, 0.1), prompt_weight=0.1)
    assert len(entries(cache)) == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [f"{name}.npy" for name in TABLES])
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-5]), os.unlink])
def test_a_damaged_entry_is_reported_and_made_again(table, cache, said, name, damage):
    wanted = dataset(table, None)
    dataset(table, cache)
    (entry,) = cache.folder.iterdir()
    damage(entry / name)
    assert same(wanted, dataset(table, cache))
    assert len(said) == 1
    assert str(entry) in said[0]
    assert "damaged" in said[0]
    assert same(wanted, dataset(table, cache))
    assert len(said) == 1


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"key": {}, "arrays": {}}'])
def test_a_description_that_is_none_is_damage(table, cache, said, text):
    dataset(table, cache)
    (entry,) = cache.folder.iterdir()
    (entry / ENTRY).write_text(text)
    assert same(dataset(table, cache), dataset(table, None))
    assert len(said) == 1
    assert json.loads((entry / ENTRY).read_text())["arrays"]


def test_an_unfinished_entry_is_finished(table, cache, said):
    dataset(table, cache)
    (entry,) = cache.folder.iterdir()
    (entry / ENTRY).unlink()
    (entry / "ids.npy").write_bytes(b"")
    assert same(dataset(table, cache), dataset(table, None))
    assert said == []


def test_many_at_once_write_one_entry(steps, cache, said):
    table = steps.slice(0, 300)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: dataset(table, TokenCache(cache.folder, said.append)), range(4)))
    wanted = dataset(table, None)
    assert all(same(wanted, one) for one in made)
    (entry,) = cache.folder.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == sorted([ENTRY, *(f"{name}.npy" for name in TABLES)])
    assert said == []


def test_a_folder_that_cannot_be_made_is_said_once_and_done_without(table, tmp_path, said):
    (tmp_path / "kept").write_text("a file")
    cache = TokenCache(tmp_path / "kept", said.append)
    for part in (table, table.slice(0, 60)):
        assert same(dataset(part, cache), dataset(part, None))
    assert len(said) == 1
    assert "cannot be kept" in said[0]


def test_a_full_disk_is_said_and_leaves_nothing_half_written(table, cache, said, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_cache._Npy, "append", full)
    assert same(dataset(table, cache), dataset(table, None))
    assert said == [
        f"tokens cannot be kept in {cache.folder} (No space left on device); every run will make them again"
    ]
    (entry,) = cache.folder.iterdir()
    assert list(entry.iterdir()) == []


def test_the_oldest_entries_make_room_and_nothing_else_does(steps, cache, monkeypatch):
    monkeypatch.setattr(token_cache, "KEPT", 2)
    cache.folder.mkdir()
    (cache.folder / "mine").mkdir()
    parts = [steps.slice(0, n) for n in (10, 20, 30)]
    for age, part in enumerate(parts[:2]):
        before = set(entries(cache))
        dataset(part, cache)
        (new,) = set(entries(cache)) - before
        os.utime(cache.folder / new / ENTRY, (1000 + age, 1000 + age))
        parts[age] = part, new
    dataset(parts[0][0], cache)  # now the other is the one that was used longest ago
    dataset(parts[2], cache)
    left = entries(cache)
    assert len(left) == 3
    assert {"mine", parts[0][1]} < set(left)
    assert parts[1][1] not in left


def settings(data, base, out, **changes):
    options = {"max_steps": 2, "save_every": 1, "eval_every": 2, "rank": 2, "batch_size": 4, "grad_accum": 1,
               "play_games": 0, "quiet": True, **changes}  # fmt: skip
    return train.Settings(data=data, out=out, model_name=str(base), **options)


def test_training_is_the_same_with_kept_tokens(steps, tiny_base, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    column = steps.column_names.index("split")
    split = pa.array(["eval"] * 40 + ["train"] * (steps.num_rows - 40))
    pq.write_table(steps.set_column(column, "split", split), data / "steps.parquet")
    fresh = train.run(settings(data, tiny_base, tmp_path / "a", token_cache="none"))
    elsewhere = str(tmp_path / "elsewhere")
    kept = train.run(settings(data, tiny_base, tmp_path / "b", token_cache=elsewhere))
    assert [path.name for path in data.iterdir()] == ["steps.parquet"]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2
    no_tokenizing(monkeypatch)
    step = str(tmp_path / "a" / "step-000001")
    again = train.run(settings(data, tiny_base, tmp_path / "c", token_cache=elsewhere, resume=step))
    wanted = read_state(fresh)
    for folder in (kept, again):
        assert all(torch.equal(value, wanted[name]) for name, value in read_state(folder).items())


def test_commands_keep_tokens_beside_the_data_unless_told_otherwise(training_data):
    console = Console(quiet=True)
    for data in (training_data, training_data / "steps.parquet"):
        assert kept_tokens.token_cache("auto", data, console).folder == training_data / ".tokens"
    assert kept_tokens.token_cache("some/folder", training_data, console).folder == Path("some/folder")
    assert kept_tokens.token_cache("none", training_data, console) is None
