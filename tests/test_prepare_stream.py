"""`experiments.prepare` on more than fits a batch: what comes out does not depend on how the input was cut or spread."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from experiments import collect, prepare
from experiments.corpus import grouping, jsonl, parquet_claims, sifting
from experiments.corpus.grouping import ScatteredError
from experiments.corpus.hashing import text_hashes

FILES = ("steps.parquet", "episodes.parquet", "problems.json")


def run(source, out, **options):
    return prepare.run(prepare.Settings(input=source, out=out, quiet=True, **options))


def outcome(source, out, **options):
    run(source, out, **options)
    return [(out / name).read_bytes() for name in FILES]


def problems(out):
    return {p["kind"]: p for p in json.loads((out / "problems.json").read_text())["problems"]}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    collect.run(collect.Settings(episodes=160, seed=5, jsonl=True, out=out, quiet=True))
    return out


@pytest.fixture(scope="module")
def table(raw):
    return pq.read_table(raw / "steps" / "part-00000.parquet")


@pytest.fixture(scope="module")
def troubled(table, tmp_path_factory):
    """Sound games, pairs of games under one id, records that are there twice, and rows with all kinds of trouble."""
    games = {}
    for row in table.to_pylist():
        games.setdefault(row["trajectory_id"], []).append(row)
    games = list(games.values())
    for k in range(0, 80, 4):
        games[k][-1] = {**games[k][-1], "history_prices": [1.0], "history_roles": ["buyer"]}
        games[k + 1] = [{**row, "trajectory_id": games[k][0]["trajectory_id"]} for row in games[k + 1]]
    for k, change in enumerate(
        (
            {"role": None},
            {"reservation_price": float("inf")},
            {"target_action": "WAIT"},
            {"history_prices": [1.0], "history_roles": ["buyer"]},
            {"rho_train": 0.5},
            {"last_offer_price": 999.0},
            {"strategy": "micro_giant"},
            {"trajectory_id": None},
        )
    ):
        for game in games[100 + k :: 20]:
            game[min(k, len(game) - 1)].update(change)
    for game in games[119::20]:
        game.append(dict(game[0]))
    path = tmp_path_factory.mktemp("troubled") / "steps.parquet"
    rows = [row for game in games for row in game]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=777)
    return path


def spread_at_once(monkeypatch):
    def refuse(reader, report):
        raise ScatteredError

    monkeypatch.setattr(sifting, "contiguous", refuse)


def cut_small(monkeypatch, rows):
    monkeypatch.setattr(grouping, "BATCH", rows)
    monkeypatch.setattr(sifting, "BATCH", rows)
    monkeypatch.setattr(grouping, "PARTITION", 4 * rows)
    monkeypatch.setattr(parquet_claims, "BATCH_ROWS", rows)
    monkeypatch.setattr(jsonl, "BATCH_BYTES", 400 * rows)  # about half as many lines
    monkeypatch.setattr(sifting, "_GAMES_AT_A_TIME", 3)


@pytest.mark.parametrize("repair", [False, True])
def test_the_way_and_the_batches_make_no_difference(troubled, tmp_path, monkeypatch, repair):
    expected = outcome(troubled, tmp_path / "whole", repair=repair)
    kinds = problems(tmp_path / "whole")
    assert {"missing_field", "not_finite", "wrong_type", "held_out_strategy", "duplicate", "merged_episodes"} <= set(
        kinds
    )
    assert {"last_offer", "history", "rho", "standing_offer"} <= set(kinds)
    assert outcome(troubled, tmp_path / "other", repair=not repair) != expected
    for rows in (150, 700):
        with monkeypatch.context() as patch:
            cut_small(patch, rows)
            assert outcome(troubled, tmp_path / f"cut{rows}", repair=repair) == expected
            spread_at_once(patch)
            assert outcome(troubled, tmp_path / f"spread{rows}", repair=repair) == expected
    with monkeypatch.context() as patch:
        spread_at_once(patch)
        assert outcome(troubled, tmp_path / "spread", repair=repair) == expected
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("rows", [64, 65_536])
def test_a_log_in_pieces_is_the_same_log(raw, tmp_path, monkeypatch, rows):
    lines = (raw / "log" / "part-00000.jsonl").read_bytes().splitlines(keepends=True)
    parts = tmp_path / "parts" / "log"
    parts.mkdir(parents=True)
    for k, start in enumerate(range(0, len(lines), 1003)):  # an episode may begin in one and end in the next
        (parts / f"part-{k:05d}.jsonl").write_bytes(b"".join(lines[start : start + 1003]))
    expected = outcome(raw / "steps" / "part-00000.parquet", tmp_path / "table")
    cut_small(monkeypatch, rows)
    assert outcome(tmp_path / "parts", tmp_path / "log") == expected


def test_rows_in_any_order_come_out_by_first_appearance(table, tmp_path, monkeypatch):
    order = np.random.default_rng(1).permutation(len(table))
    mixed = table.take(order)
    pq.write_table(mixed, tmp_path / "mixed.parquet")
    cut_small(monkeypatch, 300)
    run(tmp_path / "mixed.parquet", tmp_path / "out", strict=True)
    found = pq.read_table(tmp_path / "out" / "steps.parquet")
    names = list(dict.fromkeys(mixed["trajectory_id"].to_pylist()))
    assert names != list(dict.fromkeys(table["trajectory_id"].to_pylist()))
    assert list(dict.fromkeys(found["trajectory_id"].to_pylist())) == names
    assert pq.read_table(tmp_path / "out" / "episodes.parquet")["trajectory_id"].to_pylist() == names
    keys = [("trajectory_id", "ascending"), ("turn", "ascending")]
    assert found.drop("split").sort_by(keys).equals(table.drop("split").sort_by(keys))


def test_an_id_that_comes_back_late_is_found(table, tmp_path, monkeypatch):
    """The last row of the first game comes last: its id seemed finished long before."""
    late = pa.concat_tables([table.slice(0, 1), table.slice(2), table.slice(1, 1)])
    pq.write_table(late, tmp_path / "late.parquet")
    pq.write_table(table, tmp_path / "table.parquet")
    cut_small(monkeypatch, 100)
    for name in ("late", "table"):
        run(tmp_path / f"{name}.parquet", tmp_path / name, strict=True)
    tables = [pq.read_table(tmp_path / name / "steps.parquet") for name in ("late", "table")]
    assert not late.equals(table)
    assert tables[0].equals(tables[1])


def test_temporary_files_go_away_on_an_error(table, tmp_path, monkeypatch):
    pq.write_table(table, tmp_path / "steps.parquet")
    before = sorted(tmp_path.rglob("*"))

    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(prepare, "rho_of", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        run(tmp_path / "steps.parquet", tmp_path / "deep" / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_row_numbers_are_those_of_each_file(table, tmp_path):
    """The parts of a data set count their rows for themselves."""
    folder = tmp_path / "data" / "steps"
    folder.mkdir(parents=True)
    rows = table.to_pylist()
    rows[7]["role"], rows[1000]["role"], rows[1001]["role"] = "cat", None, None
    for name, part in (("a", rows[:900]), ("b", rows[900:])):
        pq.write_table(pa.Table.from_pylist(part, schema=table.schema), folder / f"{name}.parquet")
    run(tmp_path / "data", tmp_path / "out")
    found = problems(tmp_path / "out")
    assert found["wrong_type"]["rows"] == {"steps/a.parquet": [[7, 7]]}
    assert found["wrong_type"]["first"] == "steps/a.parquet:row 7"
    assert found["missing_field"]["rows"] == {"steps/b.parquet": [[100, 101]]}
    assert found["missing_field"]["examples"] == list(dict.fromkeys(row["trajectory_id"] for row in rows[1000:1002]))


def test_numbers_are_limited_and_say_so(table, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.corpus.report.MOST_NUMBERS", 10)
    rows = table.to_pylist()
    for row in rows[::3]:
        row["role"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "steps.parquet")
    cut_small(monkeypatch, 50)
    with pytest.raises(prepare.InputError, match="no sound episode is left: missing_field in 160 ids"):
        run(tmp_path / "steps.parquet", tmp_path / "out")
    first = table.filter(pc.equal(table["trajectory_id"], table["trajectory_id"][0]))
    sound = first.set_column(0, table.schema.field(0), pa.array(["sound"] * len(first)))
    pq.write_table(pa.concat_tables([pq.read_table(tmp_path / "steps.parquet"), sound]), tmp_path / "steps.parquet")
    run(tmp_path / "steps.parquet", tmp_path / "out")
    found = problems(tmp_path / "out")["missing_field"]
    assert found["rows"] == {"steps.parquet": [[row, row] for row in range(0, 30, 3)]}
    assert found["rows_left_out"] == found["steps"] - 10 == len(rows[::3]) - 10


def test_hashes_are_of_the_text_alone():
    texts = ["", "a", "b", "ab", "ba", "12345678", "123456789", "1234567890123456", "é" * 9, "run_000001", "run_000002"]
    texts += [f"0-abcdef-{i:06d}" for i in range(5000)]
    hashes = text_hashes(pa.array(texts))
    assert len(np.unique(hashes)) == len(texts)
    assert (text_hashes(pa.array(texts[::-1]))[::-1] == hashes).all()
    assert (text_hashes(pa.array(["x", *texts, "y"]).slice(1, len(texts))) == hashes).all()
    assert (text_hashes(pa.array(texts).dictionary_encode()) == hashes).all()
    assert (text_hashes(pa.array(texts, pa.large_string())) == hashes).all()
    assert (text_hashes(pa.array(["longer than the rest of them", *texts]))[1:] == hashes).all()
    assert (text_hashes(pa.array(texts), salt=1) != hashes).all()
    nulls = pa.array([None, ""])
    assert len(set(text_hashes(nulls).tolist()) | set(text_hashes(nulls.dictionary_encode()).tolist())) == 1
    assert len(text_hashes(pa.array([], pa.string()))) == 0
    spread = Counter((hashes % np.uint64(16)).tolist())
    assert max(spread.values()) < 1.3 * len(texts) / 16


def in_the_peers_form(lines, name):
    """As another writer of the same fields has them: cents, four decimals of ρ, ids from 0 in each run, no ends marked."""
    ids = {}
    for line in lines:
        record = json.loads(line)
        record["trajectory_id"] = name.format(ids.setdefault(record["trajectory_id"], len(ids)))
        record["is_terminal"], record["meta"]["accepted_price"] = False, None
        record["rho"] = round(record["rho"], 4)
        for key in ("buyer_max", "seller_min", "zopa_low", "zopa_high", "zopa_width"):
            record["meta"][key] = round(record["meta"][key], 2)
        yield json.dumps(record, indent=None) + "\r\n"


def test_a_log_in_the_peers_form(raw, tmp_path):
    lines = (raw / "log" / "part-00000.jsonl").read_bytes().splitlines()
    log = tmp_path / "price_domain.jsonl"
    log.write_text("".join(in_the_peers_form(lines, "{:06x}")))
    run(log, tmp_path / "out", strict=True)
    run(raw, tmp_path / "ours")
    theirs, ours = (pq.read_table(tmp_path / name / "steps.parquet") for name in ("out", "ours"))
    same = ["turn", "role", "history_prices", "target_action", "target_price", "success", "rho_train"]
    assert theirs.select(same).equals(ours.select(same))


def test_two_runs_appended_under_the_same_ids(tmp_path):
    """What that writer does when it is started twice: found, and taken apart."""
    texts = []
    for seed in (1, 2):
        out = tmp_path / f"run{seed}"
        collect.run(collect.Settings(episodes=60, seed=seed, scenario="paper", jsonl=True, out=out, quiet=True))
        texts += in_the_peers_form((out / "log" / "part-00000.jsonl").read_bytes().splitlines(), "{:06x}")
    (tmp_path / "log.jsonl").write_text("".join(texts))
    run(tmp_path / "log.jsonl", tmp_path / "out", repair=True)
    found = problems(tmp_path / "out")
    assert found["merged_episodes"]["trajectories"] == 60
    lost = found.get("unlinkable", {"trajectories": 0})["trajectories"]
    assert lost <= 3
    episodes = pq.read_table(tmp_path / "out" / "episodes.parquet")
    assert len(episodes) == 120 - 2 * lost
    assert episodes["trajectory_id"].to_pylist()[:2] == ["000000/0", "000000/1"]


def test_line_numbers_are_those_of_each_file(raw, tmp_path):
    """The last line of one log and the first of the next."""
    lines = (raw / "log" / "part-00000.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.jsonl").write_bytes(b"".join(lines[:499]) + b"{}\n")
    (tmp_path / "log" / "b.jsonl").write_bytes(b"\nnull\n" + b"".join(lines[501:]))
    run(tmp_path / "log", tmp_path / "out")
    found = problems(tmp_path / "out")
    assert found["missing_field"]["rows"] == {"a.jsonl": [[500, 500]]}
    assert found["wrong_type"]["rows"] == {"b.jsonl": [[2, 2]]}


def test_the_width_of_all_other_games_decides(table, tmp_path):
    """Two games with the same opening, accepted at once, under one id: each buyer could have met each seller."""
    first, second = table.slice(0, 2).to_pylist()
    game = {"trajectory_id": "both", "max_turns": 20, "price_low": 200.0, "price_high": 1500.0, "success": True}
    rows = []
    for name, pairs in (
        ("both", ((900.0, 400.0), (950.0, 450.0))),
        ("one", ((800.0, 300.0),)),
        ("two", ((1000.0, 500.0),)),
    ):
        for limits in pairs:
            rho = (600.0 - limits[1]) / 500.0
            for turn, (old, seat) in enumerate(((first, "buyer"), (second, "seller")), start=1):
                shown = [] if turn == 1 else [600.0]
                offer = {"target_action": "OFFER", "target_price": 600.0, "last_offer_price": None}
                accept = {"target_action": "ACCEPT", "target_price": None, "last_offer_price": 600.0}
                rows.append(
                    {
                        **old,
                        **game,
                        "trajectory_id": name,
                        "turn": turn,
                        "role": seat,
                        "reservation_price": limits[turn - 1],
                    }
                    | {"history_prices": shown, "history_roles": ["buyer"] * len(shown), "rho_train": rho}
                    | {"zopa_low": None, "zopa_high": None, "strategy": None, "opponent_strategy": None}
                    | (offer if turn == 1 else accept)
                )
    for name, kept in (("with", rows), ("without", rows[:4])):
        pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), tmp_path / f"{name}.parquet")
    run(tmp_path / "with.parquet", tmp_path / "out", repair=True)
    episodes = pq.read_table(tmp_path / "out" / "episodes.parquet").to_pylist()
    assert [episode["buyer_max"] - episode["seller_min"] for episode in episodes] == [500.0] * 4
    with pytest.raises(prepare.InputError, match="unlinkable in 1 ids"):
        run(tmp_path / "without.parquet", tmp_path / "none", repair=True)
