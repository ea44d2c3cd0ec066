"""A store of adapters: versions appear whole, never change, survive whoever is killed; bad names and links are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bargain_env.errors import InputError
from experiments import adapters as command
from experiments import cli
from hyperlora.adapters.diff import diff
from hyperlora.adapters.names import valid_name, version_at
from hyperlora.adapters.pointers import MAP
from hyperlora.adapters.prune import prune
from hyperlora.adapters.store import PUBLISHING, AdapterStore
from hyperlora.adapters.verify import verify, verify_pointers

SCRIPT = Path(__file__).parent / "killed_publish.py"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEM = "v20260102-0304"
WEIGHTS = "adapter_model.safetensors"


def adapter(folder, value=1.0, r=4):
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "janus-nano", "r": r, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {"lora_A": torch.full((r, 3), value), "lora_B": torch.zeros(5, r)}
    save_file(tensors, folder / WEIGHTS)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "note.txt").write_text("kept")
    return folder


@pytest.fixture
def source(tmp_path):
    return adapter(tmp_path / "source")


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "store", clock=lambda: NOW)


def called(*arguments):
    """The command's standard exit code."""
    try:
        cli.main(command.Settings, command.run, [str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


# ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── pointers, verify, prune, diff ─────────────────────────────────────────────────────────────────────────────────────


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


# ── more than one process ─────────────────────────────────────────────────────────────────────────────────────────────

PUBLISHER = """
import sys
from datetime import UTC, datetime
from hyperlora.adapters.store import AdapterStore
store = AdapterStore(sys.argv[1], clock=lambda: datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    print(store.publish(sys.argv[2], "buyer", sys.argv[3]).name)
"""


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}


def test_two_publishers_in_the_same_minute_both_succeed(store, source):
    command_line = [sys.executable, "-c", PUBLISHER, str(store.root), str(source)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    two = [subprocess.Popen([*command_line, name], **pipes) for name in ("first", "second")]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    for process in two:
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate()[0].split() for process in two]
    assert [process.returncode for process in two] == [0, 0]
    names = [name for names in printed for name in names]
    assert len(names) == len(set(names)) == 8 == len(store.versions("buyer"))
    for adapter_name, mine in zip(("first", "second"), printed, strict=True):
        assert {store.version("buyer", name).manifest["adapter_name"] for name in mine} == {adapter_name}
    assert all(not verify(store, "buyer", name) for name in names)
    newest = store.versions("buyer")[-1].name
    assert store.resolve("buyer").name == store.resolve("buyer@latest").name == newest


def test_a_kill_at_any_write_loses_nothing_and_shows_nothing_half_made(source, tmp_path):
    line = [sys.executable, str(SCRIPT), str(source), str(tmp_path / "work")]
    (tmp_path / "work").mkdir()
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    events = {row["event"] for row in rows}
    assert len(rows) > 30
    assert {"open", "os.mkdir", "os.rename", "os.chmod", "fsync"} <= events
    seen = set()
    for k, row in enumerate(rows, 1):
        after, then = row["after"], row["then"]
        assert not row["survived"], (k, row)
        assert after["problems"] == then["problems"] == [], (k, row)
        assert after["names"] == after["versions"], (k, row)
        assert after["versions"] in ([STEM], [STEM, f"{STEM}-2"]), (k, row)
        assert {after["resolved"], after["latest"]} <= set(after["versions"]), (k, row)
        assert then["versions"] == [*after["versions"], row["again"]], (k, row)
        assert then["resolved"] == then["latest"] == row["again"], (k, row)
        assert row["hidden"] == [], (k, row)
        seen.add(len(after["versions"]))
    assert seen == {1, 2}  # killed before it appeared, and after
