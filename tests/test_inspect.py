"""`experiments.inspect`: what it counts is what is there, and the command, its page and its complaints."""

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bargain_env import rng
from experiments import collect, prepare
from experiments.inspecting import games, models, moves, provenance, sample, source
from experiments.inspecting.card import Options
from experiments.inspecting.card import card as card_of
from experiments.inspecting.digests import digest


def rows_of(folder, table):
    """A table of a data set as a list of dicts, whether in one file or many."""
    return [row for path in getattr(source.located(folder), table) for row in pq.read_table(path).to_pylist()]


def inspected(folder, **options):
    """The card, without its page."""
    return card_of(source.located(folder), Options(**{"sample": 10_000, "seed": 0, "verify": True, **options}), str)


def verdicts(card):
    return {check["name"]: check["verdict"] for check in card["checks"]}


def copied(folder, to, edit, table="steps"):
    """The data set with rows of a table changed in place by ``edit``, without its manifest."""
    to.mkdir()
    for name in ("steps", "episodes"):
        path = source.located(folder).folder / f"{name}.parquet"
        rows, schema = pq.read_table(path).to_pylist(), pq.read_schema(path)
        if name == table:
            edit(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), to / f"{name}.parquet")
    return to


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Prepared games of ``hidden``."""
    base = tmp_path_factory.mktemp("hidden")
    collect.run(collect.Settings(episodes=700, seed=3, out=base / "raw", quiet=True))
    prepare.run(prepare.Settings(input=base / "raw", out=base / "ready", test_share=0.1, quiet=True))
    return base / "ready"


@pytest.fixture(scope="module")
def raw(ready):
    """The same games as collected."""
    return ready.parent / "raw"


@pytest.fixture(scope="module")
def card(ready):
    return inspected(ready)


# ── counts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_by_hand(ready, card):
    episodes, steps = rows_of(ready, "episodes"), rows_of(ready, "steps")
    assert (card["games"], card["decisions"]) == (len(episodes), len(steps)) == (700, len(steps))
    assert card["impasse_share"] == sum(not e["agreement"] for e in episodes) / 700
    splits = Counter(e["split"] for e in episodes)
    assert {s["split"]: s["games"] for s in card["splits"]} == splits
    assert len(splits) == 3
    assert {s["split"]: s["decisions"] for s in card["splits"]} == Counter(s["split"] for s in steps)
    assert {s["split"]: s["deals"] for s in card["splits"]} == Counter(e["split"] for e in episodes if e["agreement"])
    accepts = Counter(s["role"] for s in steps if s["target_action"] == "ACCEPT")
    assert {seat: card["accepts"][seat] for seat in ("buyer", "seller")} == accepts
    turns = {t["turns"]: (t["impasses"], t["deals"]) for t in card["turns"]}
    assert turns[20][0] == sum(not e["agreement"] for e in episodes)
    assert {t: deals for t, (_, deals) in turns.items() if deals} == Counter(
        e["turns"] for e in episodes if e["agreement"]
    )
    offers = [s["target_price"] for s in steps if s["target_price"] is not None]
    assert card["prices"]["offers"] == {"least": min(offers), "most": max(offers), "outside_range": 0}


def test_pairs_and_strategies_by_hand(ready, card):
    episodes = rows_of(ready, "episodes")
    pairs = Counter((e["buyer_strategy"], e["seller_strategy"]) for e in episodes)
    found = card["strategies"]
    assert {(p["buyer"], p["seller"]): p["games"] for p in found["pairs"]} == pairs
    failed = Counter((e["buyer_strategy"], e["seller_strategy"]) for e in episodes if not e["agreement"])
    assert {(p["buyer"], p["seller"]): p["impasses"] for p in found["pairs"] if p["impasses"]} == failed
    assert found["most_games"]["games"] == max(pairs.values())
    assert found["least_games"]["games"] == min(pairs.values())
    assert {n["strategy"]: n["as_seller"] for n in found["names"]} == Counter(e["seller_strategy"] for e in episodes)
    assert found["pairs_possible"] == len(found["names"]) ** 2 == 23**2


def test_rho_by_seat_and_starter_by_hand(ready, card):
    steps = rows_of(ready, "steps")
    for row in card["rho"]:
        mine = [s["rho_train"] for s in steps if (s["role"], s["starter"]) == (row["seat"], row["starter"])]
        assert row["decisions"] == len(mine) > 500
        assert row["impasse"] == mine.count(-1.0) > 0
        labels = [rho for rho in mine if rho != -1.0]
        assert row["counts"] == np.histogram(labels, bins=row["edges"])[0].tolist()
        assert len(set(row["counts"])) > 3


def test_classes_of_rho():
    rho = np.array([0.0, 0.0499, 0.05, 1.0, -1.0, np.nan, -0.2, 1.01])
    expected = [0, 0, 1, moves.BINS - 1, moves.IMPASSE, moves.NO_LABEL, moves.BELOW, moves.ABOVE]
    assert moves.rho_class(rho).tolist() == expected


def test_widths_by_hand(ready, card):
    width = [e["buyer_max"] - e["seller_min"] for e in rows_of(ready, "episodes")]
    zopa = card["zopa"]
    assert (zopa["least"], zopa["most"]) == pytest.approx((min(width), max(width)))
    assert (zopa["mean"], zopa["sd"]) == pytest.approx((np.mean(width), np.std(width)))
    for row in zopa["widths"]:
        inside = [w for w in width if row["over"] * 1300 < w <= row["up_to"] * 1300]
        assert row["impasses"] + row["deals"] == len(inside)


def test_parameters_are_left_out_of_names_but_not_of_the_held_out_check(ready, tmp_path):
    def edit(rows):
        rows[0]["buyer_strategy"] = "micro(step=12.5)"
        rows[1]["buyer_strategy"] = "micro(step=13)"
        rows[2]["seller_strategy"] = None
        rows[3]["scenario_id"] = None

    found = inspected(copied(ready, tmp_path / "a", edit, "episodes"))
    names = {n["strategy"]: n for n in found["strategies"]["names"]}
    assert names["micro"]["as_buyer"] == 2
    assert names[games.UNKNOWN]["as_seller"] == 1
    scenarios = next(check for check in found["checks"] if check["name"] == "split_by_scenario")
    assert scenarios["figures"]["games_of_unknown_scenario"] == 1


def test_what_prepare_holds_out_never_trains_either(ready, tmp_path):
    for name in ("steps", "episodes"):
        shutil.copy(ready / f"{name}.parquet", tmp_path / f"{name}.parquet")
    assert games.tally(source.located(tmp_path)).held_out == {}
    (tmp_path / "manifest.json").write_text('{"settings": {"holdout": ["fair_fast"]}}')
    seats = Counter(
        e["split"] for e in rows_of(ready, "episodes") for seat in games.SEATS if e[f"{seat}_strategy"] == "fair_fast"
    )
    assert games.tally(source.located(tmp_path)).held_out == {(split, "fair_fast"): n for split, n in seats.items()}


# ── streaming ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_do_not_matter(ready, monkeypatch):
    found = source.located(ready)
    whole = moves.tally(found), games.tally(found)
    monkeypatch.setattr(source, "BATCH", 37)
    parts = moves.tally(found), games.tally(found)
    for one, other in zip(whole, parts, strict=True):
        for name in one.__dataclass_fields__:
            a, b = getattr(one, name), getattr(other, name)
            assert np.allclose(a, b, rtol=1e-12) if name == "extent" else np.array_equal(a, b), name
    assert len(np.unique(whole[0].played)) == len(np.unique(whole[0].names)) == 700


def test_digests():
    one = digest([[1.0, 2.0, np.nan, 0.0], [5.0, 6.0, 3.0, 4.0]])
    assert len(set(one.tolist())) == 4
    assert (one != digest([[5.0, 6.0, 3.0, 4.0], [1.0, 2.0, np.nan, 0.0]])).all()  # the order of columns matters
    many = rng.uniform(1, np.arange(20_000), n=2)
    assert len(np.unique(digest(many.T))) == len(np.unique(digest(many[:, ::-1].T))) == 20_000
    coarse = np.stack([np.arange(20_000) % 200, np.arange(20_000) // 200])
    assert (
        len(np.unique(digest([*coarse, many[:, 0]]))) == len(np.unique(digest([*coarse, np.zeros(20_000)]))) == 20_000
    )
    assert (one == digest([[1.0, 2.0, -np.nan, -0.0], [5.0, 6.0, 3.0, 4.0]])).all()


def test_a_sample_is_whole_games_and_a_function_of_the_seed(ready):
    found = source.located(ready)
    steps = Counter(s["trajectory_id"] for s in rows_of(ready, "steps"))
    every = sample.draw(found, 700, 10_000, 0)
    assert Counter(every.ids[k] for k in every.game) == steps
    some = sample.draw(found, 700, 300, 0)
    assert 240 < len(some.ids) < 360
    assert (some.turn[:3] == [1, 2, 3]).all()
    assert Counter(some.ids[k] for k in some.game) == {name: steps[name] for name in some.ids}
    assert sample.draw(found, 700, 300, 0).ids == some.ids
    assert sample.draw(found, 700, 300, 1).ids != some.ids


def test_what_is_seen_is_what_the_columns_say(ready):
    rows = rows_of(ready, "steps")
    drawn = sample.draw(source.located(ready), 700, 10_000, 0)
    for k in range(0, len(rows), 61):
        row, seen = rows[drawn.row[k]], dict(zip(sample.SEEN, drawn.seen[k].tolist(), strict=True))
        own = row["reservation_price"]
        assert (seen["turn"], seen["own limit"]) == (row["turn"], own)
        past = [price - own for price in row["history_prices"][::-1]]
        found = [seen[f"offer {age} ago"] for age in range(1, 9)]
        assert found == pytest.approx(past + [np.nan] * (8 - len(past)), nan_ok=True)
        assert seen["own offers"] == row["history_roles"].count(row["role"])
        limit = row["zopa_low"] if row["role"] == "buyer" else row["zopa_high"]
        assert drawn.other[k] == limit != own


def test_the_other_limit_is_not_among_what_is_seen(ready, tmp_path):
    def edit(rows):
        for row in rows:
            row["zopa_low" if row["role"] == "buyer" else "zopa_high"] = 777.0

    one = sample.draw(source.located(ready), 700, 10_000, 0)
    other = sample.draw(source.located(copied(ready, tmp_path / "a", edit)), 700, 10_000, 0)
    assert set(other.other.tolist()) == {777.0} != set(one.other.tolist())
    assert np.array_equal(one.seen, other.seen, equal_nan=True)


def test_parts_are_read_as_one_file(ready, card, tmp_path):
    for name in ("steps", "episodes"):
        table = pq.read_table(ready / f"{name}.parquet")
        (tmp_path / name).mkdir()
        for k, start in enumerate(range(0, table.num_rows, 3001)):
            pq.write_table(table.slice(start, 3001), tmp_path / name / f"part-{k:05d}.parquet", row_group_size=500)
    assert len(source.located(tmp_path).steps) > 1
    again = inspected(tmp_path)
    for name in ("games", "decisions", "rho", "turns", "strategies", "splits", "accepts"):
        assert again[name] == card[name]
    assert verdicts(again) | {"checksums": "ok"} == verdicts(card)
    some = sample.draw(source.located(tmp_path), 700, 40, 0)  # of some of the row groups
    assert 10 < len(some.ids) < 100
    rows = {row["trajectory_id"] for row in rows_of(tmp_path, "steps")}
    assert set(some.ids) < rows
    assert (np.diff(some.row) > 0).all()


# ── verdicts on whole data sets ───────────────────────────────────────────────────────────────────────────────────────


def test_a_sound_data_set(card):
    found = verdicts(card)
    if models.boosting_is_here():
        assert set(found.values()) == {"ok"} == {card["verdict"]}
    assert {name for name, verdict in found.items() if verdict == "leak"} == set()
    assert card["presets"] == [{"preset": "hidden", "sampled_games": card["sample"]["games"],
                                "impasse_share": pytest.approx(card["impasse_share"], abs=0.1)}]  # fmt: skip


def test_planted_faults_are_found_and_nothing_else(ready, tmp_path):
    def same_scenario(rows):
        names = ("scenario_id", "seed", "buyer_max", "seller_min")
        train, test = (next(r for r in rows if r["split"] == s) for s in ("train", "test"))
        test.update({name: train[name] for name in names})

    def held_out(rows):
        next(r for r in rows if r["split"] == "train")["seller_strategy"] = "modelling_counter"

    def two_splits(rows):
        rows[1]["split"] = {"train": "test"}.get(rows[1]["split"], "train")

    def future(rows):
        opening = next(r for r in rows if r["turn"] == 1)
        opening["last_offer_price"] = 700.0

    def success(rows):
        rows[0]["success"] = not rows[0]["success"]

    def lost(rows):
        del rows[-1]

    plants = {
        "split_by_scenario": same_scenario,
        "held_out_strategies": held_out,
        "split_by_episode": two_splits,
        "label_future_offers": future,
        "label_success": success,
        "counts": lost,
    }

    def episodes(rows):
        same_scenario(rows)
        held_out(rows)

    def steps(rows):
        for edit in (two_splits, future, success, lost):
            edit(rows)

    one = copied(ready, tmp_path / "one", episodes, "episodes")
    found = verdicts(inspected(copied(one, tmp_path / "two", steps)))
    assert {name for name, verdict in found.items() if verdict == "leak"} == set(plants)


def test_what_is_not_split_yet_is_no_leak(raw):
    found = inspected(raw)
    assert "leak" not in verdicts(found).values()
    assert [s["split"] for s in found["splits"]] == [""]
    assert "not split yet" in str(found["checks"])


def test_files_that_are_not_those_of_the_manifest(ready, tmp_path):
    def verdict(**options):
        found = source.located(tmp_path)
        tallies = games.tally(found), moves.tally(found)
        checks = provenance.provenance_checks(found, *tallies, **{"verify": True, **options})
        return next(check.verdict for check in checks if check.name == "checksums")

    for path in ready.iterdir():
        if path.suffix != ".html":
            shutil.copy(path, tmp_path / path.name)
    assert verdict() == "ok"
    pq.write_table(pq.read_table(tmp_path / "steps.parquet"), tmp_path / "steps.parquet", compression="none")
    assert verdict() == "leak"
    assert verdict(verify=False) == "note"
    (tmp_path / "manifest.json").unlink()
    assert verdict() == "note"
