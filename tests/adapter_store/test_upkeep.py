"""Keeping a store of adapters: pointers, verify, prune, diff, and the command over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored import STEM, WEIGHTS, adapter, called

from bargain_env.errors import InputError
from hyperlora.adapters.diff import diff
from hyperlora.adapters.pointers import MAP
from hyperlora.adapters.prune import prune
from hyperlora.adapters.store import PUBLISHING
from hyperlora.adapters.verify import verify_pointers


def test_aliases_and_going_back(store, source):
    for _ in range(3):
        store.publish(source, "buyer", "it")
    store.alias("buyer", "stable", STEM)
    assert store.resolve("buyer@stable").name == STEM
    assert store.resolve("buyer").name == f"{STEM}-3"
    store.alias("buyer", "latest", f"{STEM}-2")
    assert store.resolve("buyer").name == store.resolve("buyer@latest").name == f"{STEM}-2"
    assert store.publish(source, "buyer", "it").name == f"{STEM}-4" == store.resolve("buyer").name
    with pytest.raises(InputError, match="unknown version"):
        store.alias("buyer", "stable", "v1")
    store.publish(source, "buyer", "it", version="first")
    with pytest.raises(InputError, match="has a version"):
        store.alias("buyer", "first", STEM)


def test_no_alias_hides_an_automatic_version(store, source):
    store.publish(source, "buyer", "it", version="first")
    for alias in (STEM, f"{STEM}-2", STEM.upper()):
        with pytest.raises(InputError, match="looks like an automatic version"):
            store.alias("buyer", alias, "first")
    (store.root / "buyer" / "aliases" / STEM).write_text("first\n")  # as older stores may have it
    assert store.planned_version("buyer") == f"{STEM}-2"
    assert store.resolve(str(store.publish(source, "buyer", "it"))).name == f"{STEM}-2"


def test_a_publication_that_fails_leaves_no_agent(store, source):
    store.publish(source, "seller", "it")
    (source / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError):
        store.publish(source, "Buyer", "it")
    with pytest.raises(InputError):
        store.publish(source, "seller", "it")
    assert store.agents() == ["seller"]
    assert store.planned_version("buyer") == STEM


def test_the_map_keeps_other_agents(store, source):
    store.publish(source, "buyer", "it")
    store.publish(source, "seller", "it")
    assert sorted(store.agent_map()) == ["buyer", "seller"]


def test_a_damaged_map_stops_publishing_before_anything_appears(store, source):
    store.publish(source, "buyer", "it")
    (store.root / MAP).write_text("[]")
    with pytest.raises(InputError, match="no map of agents"):
        store.publish(source, "buyer", "it")
    assert store.version_names("buyer") == [STEM]


def flip(path):
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen(path):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")


DAMAGE = {
    "a flipped bit": (WEIGHTS, flip, "is corrupt"),
    "a flipped bit deeper": ("deeper/note.txt", flip, "is corrupt"),
    "longer": (WEIGHTS, lengthen, "bytes, not the"),
    "missing": (WEIGHTS, Path.unlink, "is missing"),
    "extra": ("more.txt", lambda p: p.write_text("x"), "was not published"),
    "manifest": ("manifest.json", flip, "not what was written"),
    "no manifest": ("manifest.json", Path.unlink, "has no manifest.json"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_verify_names_version_and_file(how, store, source, capsys):
    store.publish(source, "buyer", "it")
    good = store.publish(source, "buyer", "it")
    assert called("verify", "--store", store.root) == 0
    name, damage, words = DAMAGE[how]
    damage(store.root / "buyer" / STEM / name)
    capsys.readouterr()
    assert called("verify", "--store", store.root) == 1
    out = capsys.readouterr().out
    assert f"buyer@{STEM}: {name}: " in out
    assert words in out
    assert called("verify", f"buyer@{good.name}", "--store", store.root) == 0
    assert called("verify", f"buyer@{STEM}", "--store", store.root, "--json") == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["problems"][0]["file"] == name


def test_verify_finds_pointers_to_nothing_and_strangers(store, source):
    store.publish(source, "buyer", "it")
    (store.root / "buyer" / "aliases" / "old").write_text("v1\n")
    (store.root / "buyer" / "thesis.tex").write_text("x")
    assert {p.file for p in verify_pointers(store)} == {"aliases/old", "thesis.tex"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("path", "buyer/elsewhere"), ("manifest_digest", "0" * 64), ("base_digest", "0" * 64), ("more", 1)],
)
def test_verify_compares_the_map_with_the_version_it_points_to(key, value, store, source):
    store.publish(source, "buyer", "it")
    assert verify_pointers(store) == []
    entries = store.agent_map()
    entries["buyer"][key] = value
    (store.root / MAP).write_text(json.dumps(entries))
    (found,) = verify_pointers(store)
    assert (found.version, found.file) == ("buyer", MAP)
    assert f"says {key} {value!r}" in found.what
    store.alias("buyer", "latest", STEM)
    assert verify_pointers(store) == []


def test_prune_keeps_the_last_and_what_is_pointed_to(store, source):
    for _ in range(5):
        store.publish(source, "buyer", "it")
    store.alias("buyer", "stable", f"{STEM}-2")
    (store.root / "buyer" / f"{PUBLISHING}dead").mkdir()
    before = sorted(p.name for p in (store.root / "buyer").rglob("*"))
    said = prune(store, keep=2, dry_run=True)
    assert sorted(p.name for p in (store.root / "buyer").rglob("*")) == before
    gone = prune(store, keep=2)
    assert [str(v) for v in gone.versions] == [str(v) for v in said.versions] == [f"buyer@{STEM}", f"buyer@{STEM}-3"]
    assert [p.name for p in gone.leftovers] == [f"{PUBLISHING}dead"]
    assert store.version_names("buyer") == [f"{STEM}-2", f"{STEM}-4", f"{STEM}-5"]
    assert not list((store.root / "buyer").glob(".*"))
    store.alias("buyer", "latest", f"{STEM}-2")
    assert [v.name for v in prune(store, keep=1).versions] == [f"{STEM}-4"]
    with pytest.raises(InputError, match="at least 1"):
        prune(store, keep=0)


def test_prune_leaves_a_living_publisher_alone(store, source):
    store.publish(source, "buyer", "it")
    with store._workspace("buyer") as work:
        assert prune(store, keep=1).leftovers == []
        assert work.is_dir()


def test_diff_tells_settings_files_and_tensors(store, source, tmp_path):
    a = store.publish(source, "buyer", "it")
    other = adapter(tmp_path / "other", value=1.5)
    (other / "card.md").write_text("x")
    b = store.publish(other, "buyer", "it2")
    found = diff(a, b)
    assert found.said == {"adapter_name": ("it", "it2")}
    assert found.files == {WEIGHTS: "changed", "card.md": "added"}
    assert [(t.name, t.relative) for t in found.tensors] == [("lora_A", 0.5), ("lora_B", 0.0)]
    c = store.publish(adapter(tmp_path / "third", r=2), "buyer", "it")
    assert len(diff(a, c).unlike) == 2
    assert diff(a, c).said["hyperparameters.r"] == (4, 2)
    assert diff(a, a).as_dict() == {"said": {}, "files": {}, "tensors": [], "unlike": []}


def test_the_command_lists_shows_resolves_points_and_prunes(store, source, capsys):
    for _ in range(2):
        found = store.publish(source, "buyer", "it")
    where = ("--store", store.root)
    assert called("list", *where, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(v["version"], v["aliases"], v["in_map"]) for v in listed] == [
        (STEM, [], False),
        (found.name, ["latest"], True),
    ]
    assert called("resolve", "buyer", *where) == 0
    assert capsys.readouterr().out.strip() == str(found.path.resolve())
    assert called("alias", "buyer", "stable", STEM, *where) == 0
    assert called("resolve", "buyer@stable", *where, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["version"] == STEM
    for line in (
        ("list",),
        ("show", "buyer"),
        ("diff", "buyer@stable", "buyer"),
        ("prune", "--keep", "1", "--dry_run"),
    ):
        assert called(*line, *where) == 0
        assert capsys.readouterr().out
        assert called(*line, *where, "--quiet") == 0
        assert capsys.readouterr().out == ""
    assert called("resolve", "../buyer", *where) == 2
    assert called("prune", *where) == 2
