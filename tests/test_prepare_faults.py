"""`experiments.prepare` on logs with damaged lines: each is reported by its number, and no episode without one is lost.

The oracle is the rules once more, for one game in plain Python.
"""

import json
import math
import random

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bargain_env.errors import InputError
from experiments import collect, prepare
from experiments.corpus import jsonl, line_faults
from experiments.corpus.claims import FAULTS


def run(source, out, **options):
    return prepare.run(prepare.Settings(input=source, out=out, quiet=True, **options))


def problems(out):
    return {p["kind"]: p for p in json.loads((out / "problems.json").read_text())["problems"]}


def numbers(problem):
    """Lines of the only file."""
    (runs,) = problem["rows"].values()
    return [number for first, last in runs for number in range(first, last + 1)]


def kept(out):
    return set(pq.read_table(out / "episodes.parquet")["trajectory_id"].to_pylist())


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    collect.run(collect.Settings(episodes=650, seed=8, jsonl=True, out=out, quiet=True))
    return (out / "log" / "part-00000.jsonl").read_bytes().splitlines()


def put(record, path, value):
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


def drop(record, path):
    for key in path[:-1]:
        record = record[key]
    del record[path[-1]]


FIELDS = [path for _, path in line_faults.FIELDS.values()] + [("state", "offer_history")]
NULLABLE = [path for allowed, path in line_faults.FIELDS.values() if type(None) in allowed]
NUMBERS = [path for allowed, path in line_faults.FIELDS.values() if float in allowed]


def edited(line, change):
    record = json.loads(line)
    change(record)
    return json.dumps(record).encode()


def cut(line, rng):
    return line[: rng.randrange(1, len(line))], "not_json"


def noise(line, rng):
    return rng.choice([b"hello", b"{", b"\x00\xff\xfe", b"[" * 5000, line + line, line[1:], b"\xef" + line]), "not_json"


def no_object(line, rng):
    return rng.choice([b"null", b"3", b"[]", b'"text"', b"{}", b"[[1, 2], 3]", b"true"]), None


def without_field(line, rng):
    path = rng.choice([path for path in FIELDS if path[-1] != 0])
    return edited(line, lambda record: drop(record, path)), "missing_field" if path[-1] != 1 else None


def without_branch(line, rng):
    return edited(
        line, lambda record: drop(record, (rng.choice(["state", "action", "meta", "agent"]),))
    ), "missing_field"


def null(line, rng):
    path = rng.choice([path for path in FIELDS if path not in NULLABLE])
    return edited(line, lambda record: put(record, path, None)), None


def other_type(line, rng):
    path = rng.choice(FIELDS)
    value = rng.choice([{}, {"a": 1}, [1, 2, 3], [[]], [["buyer", "1"]], [["cat", 1.0]], "", "cat"])
    if path == ("agent", "strategy") and isinstance(value, str):
        value = 5
    if path == ("trajectory_id",) and value == "cat":
        value = ["cat"]
    return edited(line, lambda record: put(record, path, value)), "wrong_type"


def truth(line, rng):
    path = rng.choice([path for path in FIELDS if path[-1] != "agreement_bool"])
    return edited(line, lambda record: put(record, path, rng.choice([True, False]))), "wrong_type"


def infinite(line, rng):
    path = rng.choice(NUMBERS)
    return edited(line, lambda record: put(record, path, rng.choice([math.inf, -math.inf, math.nan]))), "not_finite"


def enormous(line, rng):
    value = rng.choice([10**30, -(10**19), 2**63, 2**31])
    return edited(
        line, lambda record: put(record, rng.choice([("turn",), ("state", "max_turns")]), value)
    ), "wrong_type"


def half_a_letter(line, rng):
    return edited(line, lambda record: put(record, ("trajectory_id",), "\ud800")), "not_json"


DAMAGES = [
    cut, noise, no_object, without_field, without_branch, null, other_type, truth, infinite, enormous, half_a_letter,
]  # fmt: skip


def test_five_thousand_damaged_lines(lines, tmp_path):
    rng = random.Random(1)
    ids = [json.loads(line)["trajectory_id"] for line in lines]
    unlucky = set(rng.sample(sorted(set(ids)), 400))
    chosen = rng.sample([i for i, name in enumerate(ids) if name in unlucky], 5000)
    damaged, expected = list(lines), {}
    for i in chosen:
        damaged[i], expected[i + 1] = rng.choice(DAMAGES)(lines[i], rng)
    assert all(damaged[i] != lines[i] for i in chosen)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(damaged))
    run(log, tmp_path / "out")
    found = problems(tmp_path / "out")
    reported = {number: kind for kind in FAULTS if kind in found for number in numbers(found[kind])}
    assert set(reported) == set(expected)
    wrong = {n: (reported[n], kind) for n, kind in expected.items() if kind is not None and reported[n] != kind}
    assert not wrong
    assert kept(tmp_path / "out") == set(ids) - {ids[i] for i in chosen}
    assert len(kept(tmp_path / "out")) >= 250
    with pytest.raises(InputError, match="nothing written"):
        run(log, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


# ── lines that can be read but say something else ─────────────────────────────────────────────────────────────────────


def sound(game):
    """Whether records, in the order of the file, are one game by the rules, with labels that follow from its moves."""
    game = sorted(game, key=lambda record: record["turn"])
    first, standing, offers, limits, last = game[0], None, [], {}, len(game) - 1
    for k, r in enumerate(game):
        state, action, seat = r["state"], r["action"], r["state"]["role"]
        fixed = ("max_turns", "price_range")
        if r["turn"] != k + 1 or any(state[name] != first["state"][name] for name in fixed):
            return False
        if r["turn"] > state["max_turns"] or (k and seat == game[k - 1]["state"]["role"]):
            return False
        low, high = state["price_range"]
        if high - low <= 1e-6 or limits.setdefault(seat, state["reservation_price"]) != state["reservation_price"]:
            return False
        if state["last_offer_price"] != standing or state["offer_history"][-8:] != offers[-8:]:
            return False
        if action["type"] == "ACCEPT":
            if k != last or standing is None:
                return False
            if action["price"] is not None and abs(action["price"] - standing) > 0.01:
                return False
        elif (
            action["price"] is None or not low <= action["price"] <= high or (k == last and k + 1 < state["max_turns"])
        ):
            return False
        else:
            standing = action["price"]
            offers.append([seat, standing])
    return labelled(game, limits, standing)


def labelled(game, limits, standing):
    meta, names = game[0]["meta"], {}
    high, low = limits.get("buyer", meta["zopa_high"]), limits.get("seller", meta["zopa_low"])
    deal = game[-1]["action"]["type"] == "ACCEPT"
    if deal and (high <= low or not low - 0.01 <= standing <= high + 0.01):
        return False
    rho, slack = ((standing - low) / (high - low), 0.02 / max(abs(high - low), 0.01)) if deal else (-1.0, 0.0)
    for r in game:
        name = r["agent"]["strategy"]
        if name is not None and names.setdefault(r["state"]["role"], name) != name:
            return False
        claimed = [r["meta"]["zopa_high"], r["meta"]["zopa_low"]]
        if any(c is not None and abs(c - limit) > 0.01 for c, limit in zip(claimed, (high, low), strict=True)):
            return False
        outcome = r["meta"]["episode_outcome"]
        if r["rho"] is None or abs(r["rho"] - rho) > 1e-4 + slack or outcome["num_turns"] != len(game):
            return False
        if outcome["agreement_bool"] != deal:
            return False
    return True


def other_value(record, rng, names):
    """Change one thing to another that it could be."""
    path = rng.choice(FIELDS)
    value = record
    for key in path:
        value = value[key]
    if path == ("trajectory_id",):
        value = rng.choice([rng.choice(names), "another"])
    elif path == ("state", "role"):
        value = {"buyer": "seller", "seller": "buyer"}[value]
    elif path == ("action", "type"):
        value = {"OFFER": "ACCEPT", "ACCEPT": "OFFER"}[value]
    elif path == ("agent", "strategy"):
        value = rng.choice(["somebody", None])
    elif path == ("state", "offer_history"):
        value = [*value[:-1], ["buyer", 1.0]]
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, int):
        value += rng.choice([-2, -1, 1, 2])
    else:
        value = rng.choice([None, 700.0, 1e-9, -5.0]) if path in NULLABLE else rng.choice([700.0, 0.0, 1e9])
    put(record, path, value)


def flipped(line, rng):
    """One byte changed, such that the line can still be read."""
    for _ in range(500):
        at = rng.randrange(len(line))
        changed = line[:at] + bytes([rng.choice(b'0123456789.-e"xabcder,:')]) + line[at + 1 :]
        try:
            record = orjson.loads(changed)
        except ValueError:
            continue
        if line_faults.fault_of(record) is None and changed != line:
            return changed
    return line


def test_lines_that_say_something_else(lines, tmp_path):
    """One of each of some games. A game is kept if and only if it still keeps to the rules, and a line that made it worse is
    among the reported ones; a line with the id of another game costs that game nothing.
    """
    rng = random.Random(2)
    records = [json.loads(line) for line in lines]
    names = list(dict.fromkeys(record["trajectory_id"] for record in records))
    of = {name: [i for i, record in enumerate(records) if record["trajectory_id"] == name] for name in names}
    damaged, changed = list(lines), {}
    for k, name in enumerate(rng.sample(names, 240)):
        i = rng.choice(of[name])
        if k % 2:
            damaged[i] = flipped(lines[i], rng)
        else:
            other_value(record := json.loads(lines[i]), rng, names)
            damaged[i] = json.dumps(record).encode()
        changed[i] = json.loads(damaged[i])
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(damaged) + b"\n")
    run(log, tmp_path / "out")
    found = problems(tmp_path / "out")
    assert not set(found) & set(FAULTS)
    expected, worse = set(), set()
    for name, rows in of.items():
        own = [(i, changed.get(i, records[i])) for i in rows]
        game = [record for _, record in own if record["trajectory_id"] == name]
        if len(game) == len(own) and sound(game):
            expected.add(name)
        else:
            worse |= {i + 1 for i, _ in own if i in changed}
    lost = expected - kept(tmp_path / "out")
    held_out = set(found.get("held_out_strategy", {"examples": []})["examples"])
    assert kept(tmp_path / "out") <= expected
    assert lost == held_out & expected
    assert 400 < len(expected) < 550
    assert "stray" in found
    reported = {number for problem in found.values() for number in numbers(problem)}
    assert worse
    assert not worse - reported


def test_every_line_is_named_under_strict(lines, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join([*lines[:200], lines[200][:50]]))
    with pytest.raises(
        InputError, match=r"not_json in 1 rows.*log.jsonl:line 201|not_json in 1 ids.*log.jsonl:line 201"
    ):
        prepare.run(prepare.Settings(input=log, out=tmp_path / "out", strict=True))
    assert not (tmp_path / "out").exists()
    assert "not_json" in capsys.readouterr().out


def test_a_log_of_nothing_but_noise(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\xff\xfe{\x00\n\n\nnull\n")
    with pytest.raises(
        InputError, match=r"no sound episode is left: not_json in 1 rows.*line 1.*wrong_type in 1 rows.*line 4"
    ):
        run(log, tmp_path / "out")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60).filter(lambda text: b"\n" not in text),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(["trajectory_id", "state", "action", "meta", "rho", "turn"]), inner
                    ),
                ),
                max_leaves=12,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_nothing_in_a_line_can_break_the_reader(written):
    table = jsonl._table([line + b"\n" for line in written], 1)
    blank = {n for n, line in enumerate(written, start=1) if not line.strip(b" \t\r\n\x0b\x0c")}
    assert set(table["place"].to_pylist()) == set(range(1, len(written) + 1)) - blank
    assert all(table["fault"].to_pylist())


def test_the_batch_and_the_single_line_agree(lines):
    """What `fault_of` finds nothing wrong with can be converted, and what is converted has nothing wrong."""
    rng = random.Random(3)
    for line in rng.sample(lines, 300):
        damaged, _ = rng.choice(DAMAGES)(line, rng)
        for text in (line, damaged, flipped(line, rng)):
            try:
                record = orjson.loads(text)
            except ValueError:
                continue
            (fault,) = jsonl._table([text], 1)["fault"].to_pylist()
            assert (fault == 0) == (line_faults.fault_of(record) is None)


def test_rows_of_a_table_with_holes(lines, tmp_path):
    """Nulls, unknown words and numbers that are none, column by column."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(lines[:2000]))
    run(log, tmp_path / "ready")
    table = pq.read_table(tmp_path / "ready" / "steps.parquet")
    rows, expected, bad_ids = table.to_pylist(), {}, set()
    trouble = {
        "turn": None, "role": "cat", "max_turns": None, "reservation_price": math.nan, "price_low": None,
        "price_high": math.inf, "last_offer_price": math.inf, "history_roles": None, "history_prices": [None],
        "target_action": None, "target_price": -math.inf, "success": None, "rho_train": math.inf, "trajectory_id": None,
    }  # fmt: skip
    kinds = {"cat": "wrong_type", None: "missing_field"}
    for k, (name, value) in enumerate(trouble.items()):
        row = 60 * k + 7
        bad_ids.add(rows[row]["trajectory_id"])
        rows[row][name] = value
        if isinstance(value, list):
            rows[row]["history_roles"] = ["buyer"]
        expected[row] = "not_finite" if isinstance(value, float | list) else kinds[value]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "steps.parquet")
    run(tmp_path / "steps.parquet", tmp_path / "out")
    found = problems(tmp_path / "out")
    reported = {number: kind for kind in FAULTS if kind in found for number in numbers(found[kind])}
    assert reported == expected
    assert kept(tmp_path / "out") == set(table["trajectory_id"].to_pylist()) - bad_ids


def test_numbers_that_pandas_made_of_a_hole(lines, tmp_path):
    """A column of whole numbers with a null becomes one of floats; NaN stands for null where there may be none."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(lines[:400]))
    run(log, tmp_path / "ready")
    table = pq.read_table(tmp_path / "ready" / "steps.parquet")
    floats = table.to_pydict()
    floats["turn"] = [float(turn) for turn in floats["turn"]]
    floats["turn"][5], floats["turn"][40] = None, 3.5
    for name in ("last_offer_price", "target_price"):
        floats[name] = [math.nan if value is None else value for value in floats[name]]
    columns = {name: pa.array(values) if name == "turn" else pa.array(values, table.schema.field(name).type)
               for name, values in floats.items()}  # fmt: skip
    columns["role"] = columns["role"].cast(pa.large_string())
    pq.write_table(pa.table(columns), tmp_path / "steps.parquet")
    run(tmp_path / "steps.parquet", tmp_path / "out")
    found = problems(tmp_path / "out")
    assert (numbers(found["missing_field"]), numbers(found["wrong_type"])) == ([5], [40])
    assert set(found) == {"missing_field", "wrong_type"}
