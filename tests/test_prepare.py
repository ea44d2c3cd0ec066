"""`experiments.prepare`: sound input passes unchanged, every corruption is found, merged runs are taken apart."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import collect, prepare
from experiments.corpus.kinds import STRUCTURE

STEPS, EPISODES, LOG = (
    f"{kind}/part-00000.{suffix}" for kind, suffix in (("steps", "parquet"), ("episodes", "parquet"), ("log", "jsonl"))
)
"""Files of a small collection."""


def run(source, out, **options):
    return prepare.run(prepare.Settings(input=source, out=out, quiet=True, **options))


def problems(out):
    return {p["kind"]: p for p in json.loads((out / "problems.json").read_text())["problems"]}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    collect.run(collect.Settings(episodes=300, seed=3, out=out, jsonl=True, quiet=True))
    return out


def edited(raw, path, edit):
    """The steps of ``raw`` as a list of dicts, changed in place by ``edit``, as a new file."""
    rows = pq.read_table(raw / STEPS).to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(raw / STEPS)), path)
    return path


def test_sound_input_is_kept_whole(raw, tmp_path):
    manifest = run(raw, tmp_path, strict=True)
    assert problems(tmp_path) == {}
    before, after = pq.read_table(raw / STEPS), pq.read_table(tmp_path / "steps.parquet")
    assert after.drop(["split"]).equals(before.drop(["split"]))
    assert manifest["episodes"] == 300
    episodes = pq.read_table(raw / EPISODES).drop(["split"])
    assert pq.read_table(tmp_path / "episodes.parquet").drop(["split"]).equals(episodes)


def test_log_and_table_prepare_to_the_same_bytes(raw, tmp_path):
    run(raw / LOG, tmp_path / "log")
    run(raw / STEPS, tmp_path / "table")
    for name in ("steps.parquet", "episodes.parquet", "problems.json"):
        assert (tmp_path / "log" / name).read_bytes() == (tmp_path / "table" / name).read_bytes()


def test_row_order_makes_no_difference_to_splits(raw, tmp_path):
    table = pq.read_table(raw / STEPS)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), tmp_path / "shuffled.parquet")
    run(raw, tmp_path / "a")
    run(tmp_path / "shuffled.parquet", tmp_path / "b")
    tables = [
        pq.read_table(tmp_path / d / "steps.parquet").sort_by([("trajectory_id", "ascending"), ("turn", "ascending")])
        for d in "ab"
    ]
    assert tables[0].equals(tables[1])


def merge(raw_folders, path, relabel=True):
    """Several collected runs under the ids of the first, interleaved by turn, labels of the first: as the peer did."""
    parts = [pq.read_table(folder / STEPS) for folder in raw_folders]
    names = [pc.replace_substring_regex(p["trajectory_id"], r".*-(\d+)$", r"run_\1") for p in parts]
    parts = [p.set_column(0, "trajectory_id", n) for p, n in zip(parts, names, strict=True)]
    table = pa.concat_tables(parts).sort_by([("trajectory_id", "ascending"), ("turn", "ascending")])
    if relabel:
        rows = table.to_pylist()
        first = {}
        for row in rows:
            row["rho_train"] = first.setdefault(row["trajectory_id"], row["rho_train"])
        table = pa.Table.from_pylist(rows, schema=table.schema)
    pq.write_table(table, path)
    return path


KEY = [
    "turn",
    "role",
    "reservation_price",
    "last_offer_price",
    "history_prices",
    "target_price",
    "rho_train",
    "success",
]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folders = []
    for seed in (11, 12):
        folders.append(tmp_path_factory.mktemp("run"))
        collect.run(collect.Settings(episodes=200, scenario="paper", seed=seed, out=folders[-1], quiet=True))
    return folders


def games_of(table):
    games = {}
    for row in table.to_pylist():
        games.setdefault(row["trajectory_id"], []).append(str([row[k] for k in KEY]))
    return sorted(map(tuple, games.values()))


def test_merged_runs_are_reported_and_dropped(two_runs, tmp_path, capsys):
    path = merge(two_runs, tmp_path / "merged.parquet")
    collect.run(collect.Settings(episodes=20, seed=1, out=tmp_path / "sound", quiet=True))
    tables = [pq.read_table(p) for p in (path, tmp_path / "sound" / STEPS)]
    pq.write_table(pa.concat_tables(tables), path)
    prepare.run(prepare.Settings(input=path, out=tmp_path / "out"))
    found = problems(tmp_path / "out")["merged_episodes"]
    assert (found["trajectories"], found["action"]) == (200, "dropped")
    assert len(pq.read_table(tmp_path / "out" / "episodes.parquet")) == 20
    shown = capsys.readouterr().out
    assert re.search(r"merged_episodes +200 +[\d,]+ +merged.parquet:row \d+ +run_", shown)
    assert "--repair" in shown


def test_repair_recovers_both_runs_exactly(two_runs, tmp_path):
    run(merge(two_runs, tmp_path / "merged.parquet"), tmp_path / "out", repair=True)
    original = pa.concat_tables([pq.read_table(f / STEPS) for f in two_runs])
    repaired = pq.read_table(tmp_path / "out" / "steps.parquet")
    found = problems(tmp_path / "out")
    assert found["merged_episodes"]["trajectories"] == 200
    assert found["rho"]["action"] == "recomputed from the moves"
    lost = found.get("unlinkable", {"trajectories": 0})["trajectories"]
    assert lost <= 4  # nothing tells apart two games with the same opening that are accepted at once
    assert len(set(repaired["trajectory_id"].to_pylist())) == 400 - 2 * lost
    assert set(games_of(repaired)) <= set(games_of(original))
    assert set(repaired["strategy"].to_pylist()) == {None}


def test_repair_of_hidden_widths_never_invents_a_game(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        collect.run(collect.Settings(episodes=200, seed=seed, out=folder, quiet=True))
    run(merge(folders, tmp_path / "merged.parquet"), tmp_path / "out", repair=True)
    original = pa.concat_tables([pq.read_table(f / STEPS) for f in folders])
    repaired = games_of(pq.read_table(tmp_path / "out" / "steps.parquet"))
    assert set(repaired) <= set(games_of(original))
    assert len(repaired) > 340


def test_a_run_appended_to_itself_is_kept_once(raw, tmp_path):
    run(merge([raw, raw], tmp_path / "twice.parquet"), tmp_path / "out", repair=True)
    assert problems(tmp_path / "out")["duplicate"]["trajectories"] == 300
    assert games_of(pq.read_table(tmp_path / "out" / "steps.parquet")) == games_of(pq.read_table(raw / STEPS))


def change(field, value):
    def edit(game):
        game[3][field] = value(game[3][field]) if callable(value) else value

    return edit


def drop_last(game):
    del game[-1]


CORRUPTIONS = {
    "turns": lambda game: game.pop(2),
    "past_deadline": lambda game: [row.update(max_turns=5) for row in game],
    "roles": change("role", lambda role: {"buyer": "seller", "seller": "buyer"}[role]),
    "reservation": change("reservation_price", lambda price: price + 1),
    "settings": change("price_high", 1501.0),
    "price_range": lambda game: [row.update(price_low=500.0, price_high=500.0) for row in game],
    "offer_price": change("target_price", 1600.0),
    "accept_not_last": change("target_action", "ACCEPT"),
    "accept_of_nothing": lambda game: game[0].update(target_action="ACCEPT", target_price=None),
    "accept_price": lambda game: game[-1].update(target_price=game[-1]["last_offer_price"] + 1),
    "last_offer": change("last_offer_price", 777.0),
    "zopa": change("zopa_low", lambda limit: limit - 1),
    "players": change("strategy", "a_stranger"),
    "unfinished": drop_last,
    "no_zopa": lambda game: [
        row.update(reservation_price={"buyer": 500.0, "seller": 600.0}[row["role"]]) for row in game
    ],
    "outside_zopa": lambda game: [
        row.update(reservation_price=game[-1]["last_offer_price"] - {"buyer": 10.0, "seller": 40.0}[row["role"]])
        for row in game
    ],
    "history": change("history_prices", [1.0, 2.0, 3.0]),
    "success": change("success", lambda success: not success),
    "rho": change("rho_train", 0.123),
}


def corrupt(rows, kind):
    """Damage the first deal of more than six turns; returns its id."""
    games = {}
    for row in rows:
        games.setdefault(row["trajectory_id"], []).append(row)
    name = next(n for n, g in games.items() if len(g) > 6 and g[0]["success"])
    CORRUPTIONS[kind](games[name])
    rows[:] = [row for game in games.values() for row in game]
    return name


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_corruption_is_found(raw, tmp_path, kind):
    names = []
    path = edited(raw, tmp_path / "bad.parquet", lambda rows: names.append(corrupt(rows, kind)))
    run(path, tmp_path / "out")
    found = problems(tmp_path / "out")
    assert found[kind]["examples"] == names
    kept = set(pq.read_table(tmp_path / "out" / "steps.parquet")["trajectory_id"].to_pylist())
    assert len(kept) == 299
    assert names[0] not in kept
    manifest = run(path, tmp_path / "mended", repair=True)
    assert manifest["episodes"] == (299 if kind in STRUCTURE else 300)
    with pytest.raises(InputError, match=kind):
        run(path, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


SLY = {
    "a strategy": "exponential_even",
    "a variant": "boulware_immovable",
    "one that cheats": "zopa_split",
    "a best response": "best_response:fair",
    "a drawn member": "exponential(beta=0.5, kappa=0.1)",
}


@pytest.mark.parametrize("name", SLY.values(), ids=SLY.keys())
@pytest.mark.parametrize("column", ["strategy", "opponent_strategy"])
def test_who_is_held_out_never_trains(raw, tmp_path, name, column):
    """Named on any row, from either side; with --repair too."""
    ids = []

    def smuggle(rows):
        games = list(dict.fromkeys(row["trajectory_id"] for row in rows))
        ids.extend((games[3], games[7]))
        for game in ids:
            [row for row in rows if row["trajectory_id"] == game][-1][column] = name

    path = edited(raw, tmp_path / "sly.parquet", smuggle)
    for options in ({}, {"repair": True}):
        out = tmp_path / f"out{len(options)}"
        manifest = run(path, out, **options)
        found = problems(out)["held_out_strategy"]
        assert (found["trajectories"], found["steps"], found["examples"]) == (2, 2, ids)
        assert found["action"] == "dropped"
        assert manifest["episodes"] == 298
        assert not set(pq.read_table(out / "steps.parquet")["trajectory_id"].to_pylist()) & set(ids)
    with pytest.raises(InputError, match=r"held_out_strategy in 2 ids.*run without --strict to drop them"):
        run(path, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_names_that_nobody_knows_are_left_alone(raw, tmp_path):
    def rename(rows):
        for row in rows:
            row["strategy"] = {"buyer": "a_stranger", "seller": None}[row["role"]]
            row["opponent_strategy"] = {"buyer": None, "seller": "a_stranger"}[row["role"]]

    run(edited(raw, tmp_path / "named.parquet", rename), tmp_path / "out", strict=True)
    assert problems(tmp_path / "out") == {}
    assert len(pq.read_table(tmp_path / "out" / "episodes.parquet")) == 300


def test_a_missing_name_is_nobodys(raw, tmp_path):
    """Also where the only name of the file is one of those that are held out."""
    ids = []

    def forget(rows):
        for row in rows:
            row.update(strategy=None, opponent_strategy=None)
        rows[-1]["strategy"] = "micro_giant"
        ids.append(rows[-1]["trajectory_id"])

    run(edited(raw, tmp_path / "few.parquet", forget), tmp_path / "out")
    found = problems(tmp_path / "out")["held_out_strategy"]
    assert (found["steps"], found["examples"]) == (1, ids)


def test_who_is_held_out_is_found_in_a_log_and_under_a_merged_id(raw, two_runs, tmp_path):
    lines = [json.loads(line) for line in (raw / LOG).open()]
    lines[0]["agent"]["strategy"] = "micro_giant"
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(path, tmp_path / "a")["episodes"] == 299
    assert problems(tmp_path / "a")["held_out_strategy"]["examples"] == [lines[0]["trajectory_id"]]
    merged = pq.read_table(merge(two_runs, tmp_path / "merged.parquet"))
    rows = merged.to_pylist()
    rows[0]["strategy"] = "micro_giant"  # of one of the episodes of the id; nobody can say of which rows
    pq.write_table(pa.Table.from_pylist(rows, schema=merged.schema), tmp_path / "merged.parquet")
    run(tmp_path / "merged.parquet", tmp_path / "b", repair=True)
    assert problems(tmp_path / "b")["held_out_strategy"]["trajectories"] == 1
    assert problems(tmp_path / "b")["merged_episodes"]["trajectories"] == 199
    kept = set(pq.read_table(tmp_path / "b" / "steps.parquet")["trajectory_id"].to_pylist())
    assert not any(name.startswith(rows[0]["trajectory_id"]) for name in kept)


def test_nothing_but_held_out_strategies_leaves_nothing(raw, tmp_path):
    path = edited(raw, tmp_path / "all.parquet", lambda rows: [row.update(strategy="micro_giant") for row in rows])
    for options in ({}, {"repair": True}):
        with pytest.raises(InputError, match="no sound episode is left: held_out_strategy in 300 ids"):
            run(path, tmp_path / "out", **options)


def test_every_structural_check_has_a_corruption():
    assert set(STRUCTURE) <= set(CORRUPTIONS)


def test_unusable_files_are_named(raw, tmp_path):
    table = pq.read_table(raw / STEPS)
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    pq.write_table(table.drop(["turn", "rho_train"]), tmp_path / "few.parquet")
    pq.write_table(table.set_column(2, "role", pa.array(["cat"] * len(table))), tmp_path / "cat.parquet")
    pq.write_table(table.set_column(1, "turn", pa.array(["one"] * len(table))), tmp_path / "text.parquet")
    flat = table.column_names.index("history_prices")
    pq.write_table(table.set_column(flat, "history_prices", table["target_price"]), tmp_path / "flat.parquet")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "torn.parquet").write_bytes((raw / STEPS).read_bytes()[:1000])
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("none.parquet", "none.parquet is empty"),
        ("few.parquet", "few.parquet lacks the columns turn, rho_train"),
        ("cat.parquet", r"no sound episode is left: wrong_type in 300 ids.*\(cat.parquet:row 0\)"),
        ("text.parquet", "text.parquet: column turn is string, expected int64"),
        ("flat.parquet", "flat.parquet: column history_prices is double, expected a list"),
        ("empty.jsonl", "empty.jsonl is empty"),
        ("torn.parquet", "torn.parquet is not a readable Parquet file"),
        ("folder", "folder holds none of|holds none of"),
        ("absent", "absent does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_are_checked(raw, tmp_path):
    for options in ({"strict": True, "repair": True}, {"eval_share": 0.6, "test_share": 0.4}, {"eval_share": -0.1}):
        with pytest.raises(InputError):
            run(raw, tmp_path, **options)
    for source, out in ((raw, raw), (raw, raw / "steps"), (raw / STEPS, raw / "steps"), (raw / LOG, raw / "log")):
        with pytest.raises(InputError, match="would be overwritten"):
            run(source, out)


def test_command_line(raw, tmp_path):
    command = [sys.executable, str(collect.__file__).replace("collect.py", "prepare.py"), str(raw)]
    good = subprocess.run([*command, "--out", str(tmp_path), "--eval_share", "0.1"], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert "train 264, eval 30, test 6" in good.stdout
    bad = subprocess.run([*command, "--out", str(raw)], capture_output=True, text=True)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
