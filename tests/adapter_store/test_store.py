"""A store of adapters: versions appear whole and never change; bad names, links and sources are refused."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest
import torch
from safetensors.torch import save_file
from stored import NOW, STEM, WEIGHTS, adapter, called

from bargain_env.errors import InputError
from hyperlora.adapters.names import valid_name, version_at
from hyperlora.adapters.pointers import MAP
from hyperlora.adapters.verify import verify, verify_pointers


def test_a_version_holds_what_was_published_and_says_how_it_was_made(store, source):
    found = store.publish(source, "buyer", "first")
    assert found.name == STEM
    files = {str(p.relative_to(found.path)) for p in found.path.rglob("*") if p.is_file()}
    assert files == {"adapter_config.json", WEIGHTS, "deeper/note.txt", "manifest.json"}
    assert all((found.path / name).stat().st_mode & 0o222 == 0 for name in files)
    said = store.resolve("buyer").manifest
    assert said["base"]["name"] == "janus-nano"
    assert said["hyperparameters"]["r"] == 4
    assert said["created"] == "2026-01-02T03:04:05+00:00"
    assert set(said["files"]) == files - {"manifest.json"}
    assert len(said["code"]["hyperlora_sha256"]) == 64
    assert said["packages"]["torch"] != "absent"
    entry = json.loads((store.root / MAP).read_text())["buyer"]
    assert (entry["version"], entry["adapter_name"], entry["base"]) == (STEM, "first", "janus-nano")
    assert store.root / entry["path"] == found.path
    assert verify(store, "buyer", STEM) == verify_pointers(store) == []


def test_what_killed_writers_left_is_not_published(store, source):
    (source / ".writing-abc").mkdir()
    (source / ".writing-abc" / WEIGHTS).write_bytes(b"half")
    (source / "deeper" / ".note.txt.abc").write_text("half")
    found = store.publish(source, "buyer", "it")
    assert sorted(found.manifest["files"]) == ["adapter_config.json", WEIGHTS, "deeper/note.txt"]
    assert not list(found.path.rglob(".*"))


def test_names_of_one_minute_are_counted_on_and_ordered(store, source):
    names = [store.publish(source, "buyer", "it").name for _ in range(11)]
    assert names == [STEM, *(f"{STEM}-{n}" for n in range(2, 12))]
    assert [version.name for version in store.versions("buyer")] == names
    assert store.resolve("buyer").name == store.resolve("buyer@latest").name == names[-1]


def test_an_explicit_version_is_never_overwritten(store, source, tmp_path):
    store.publish(source, "buyer", "it", version="stable-1")
    before = (store.root / "buyer" / "stable-1" / WEIGHTS).read_bytes()
    other = adapter(tmp_path / "other", value=2.0)
    for name in ("stable-1", "Stable-1"):
        with pytest.raises(InputError, match=r"already|in case alone"):
            store.publish(other, "buyer", "it", version=name)
    assert (store.root / "buyer" / "stable-1" / WEIGHTS).read_bytes() == before
    assert store.version_names("buyer") == ["stable-1"]


def test_the_time_of_a_version_is_utc():
    assert version_at(datetime.fromisoformat("2026-01-02T05:04:00+02:00"), []) == STEM
    assert version_at(NOW, [f"{STEM}-7"]) == f"{STEM}-8"
    with pytest.raises(ValueError, match="time zone"):
        version_at(datetime(2026, 1, 2), [])


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "a..b",
        "a.",
        "a\n",
        "a\0b",
        "x" * 65,
        "ä",
        "con",
        "NUL.txt",
    ],
)
@pytest.mark.parametrize("kind", ["agent", "adapter name", "version", "alias"])
def test_names_that_lead_elsewhere_are_refused(name, kind, store, source):
    with pytest.raises(InputError, match=kind):
        valid_name(name, kind)
    places = {"agent": (name, "it", None), "adapter name": ("buyer", name, None), "version": ("buyer", "it", name)}
    if kind in places:
        agent, adapter_name, version = places[kind]
        with pytest.raises(InputError):
            store.publish(source, agent, adapter_name, version=version)
        assert not store.root.exists()


@pytest.mark.parametrize(
    ("kind", "name"), [("version", "latest"), ("version", "Aliases"), ("agent", MAP), ("alias", "aliases")]
)
def test_reserved_names_are_refused(kind, name):
    with pytest.raises(InputError, match="reserved"):
        valid_name(name, kind)


@pytest.mark.parametrize(
    "reference", ["../buyer", "buyer@../..", "buyer@", "buyer@.lock", "@x", "buyr", "buyer@nothing"]
)
def test_references_that_mean_nothing_are_refused(reference, store, source):
    store.publish(source, "buyer", "it")
    with pytest.raises(InputError):
        store.resolve(reference)


def test_agents_that_differ_in_case_alone_are_refused(store, source):
    store.publish(source, "buyer", "it")
    with pytest.raises(InputError, match="in case alone"):
        store.publish(source, "Buyer", "it")
    assert store.agents() == ["buyer"]


def break_weights(folder):
    (folder / WEIGHTS).write_bytes(b"nothing")


def make_nan(folder):
    save_file({"lora_A": torch.tensor([float("nan")])}, folder / WEIGHTS)


BROKEN = {
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "no adapter"),
    "config no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "no JSON object"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "damaged weights": (break_weights, "cannot be read"),
    "not finite": (make_nan, "NaN or infinity"),
    "a link": (lambda f: (f / "link").symlink_to("/etc/hostname"), "symbolic link"),
    "a linked folder": (lambda f: (f / "link").symlink_to("/etc"), "symbolic link"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "neither a file nor a folder"),
    "a manifest": (lambda f: (f / "manifest.json").write_text("{}"), "the store writes itself"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_be_used_is_not_published(how, store, source, tmp_path):
    store.publish(adapter(tmp_path / "good"), "buyer", "it")
    damage, message = BROKEN[how]
    damage(source)
    with pytest.raises(InputError, match=message):
        store.publish(source, "buyer", "it")
    assert store.version_names("buyer") == [STEM]
    assert [p.name for p in (store.root / "buyer").iterdir() if p.name.startswith(".")] == []
    assert verify_pointers(store) == []


@pytest.mark.parametrize("place", ["buyer", f"buyer/{STEM}", "buyer/aliases", "buyer/aliases/latest", MAP])
def test_links_in_the_store_are_refused(place, store, source, tmp_path):
    store.publish(source, "buyer", "it")
    path, away = store.root / place, tmp_path / "away"
    path.rename(away)
    path.symlink_to(away)
    with pytest.raises(InputError, match="symbolic link"):
        store.resolve("buyer")
    with pytest.raises(InputError, match="symbolic link"):
        store.publish(source, "buyer", "it")


def test_a_source_in_the_store_is_refused(store, source):
    found = store.publish(source, "buyer", "it")
    with pytest.raises(InputError, match="lie in each other"):
        store.publish(found.path, "seller", "it")


def test_no_store_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("MODEL_STORE_ROOT", raising=False)
    assert called("list") == 2
    assert "--store DIR or set MODEL_STORE_ROOT" in capsys.readouterr().err
    monkeypatch.setenv("MODEL_STORE_ROOT", str(tmp_path / "nowhere"))
    assert called("list") == 2
    assert "is no store" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
