"""`experiments.collect --teacher-share`: who teaches, that names play again, and that without teachers nothing changed."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import agents
import bargain_env as be
from bargain_env import PRESETS
from bargain_env.errors import InputError
from experiments import collect, nano_card, pipeline, prepare, stages
from experiments.corpus import teachers
from experiments.match import pairs

N = 1500
SHARE = 0.3


def collected(out, **options):
    usual = {"episodes": N, "scenario": "paper", "seed": 5, "out": out, "quiet": True}
    collect.run(collect.Settings(**{**usual, **options}))
    return pq.read_table(out / "episodes.parquet") if (out / "episodes.parquet").exists() else None


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    out = tmp_path_factory.mktemp("taught")
    return out, collected(out, teacher_share=SHARE)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory):
    out = tmp_path_factory.mktemp("untaught")
    return out, collected(out)


def players(table):
    """``[N, 2]`` names of buyer and seller."""
    return np.stack([np.array(table[f"{seat}_strategy"].to_pylist()) for seat in ("buyer", "seller")], axis=1)


def taught_by(names):
    return np.char.startswith(names, "target_seeking(")


def test_a_share_of_the_seats_is_taught_each_by_itself(taught):
    seats = taught_by(players(taught[1]))
    assert seats.mean(axis=0) == pytest.approx([SHARE] * 2, abs=0.04)
    assert seats.all(axis=1).mean() == pytest.approx(SHARE**2, abs=0.025)
    labels = players(taught[1])[seats]
    assert len(set(labels)) == len(labels), "every seat draws its own"
    targets = np.array([agents.describe(label).defaults["target"] for label in labels.tolist()])
    assert np.histogram(targets, bins=10, range=(0, 1))[0].min() > 0.07 * len(labels)
    assert all(agents.describe(label).may_train for label in labels.tolist())


def test_the_other_seats_are_played_by_whom_they_were(taught, untaught):
    names, before = players(taught[1]), players(untaught[1])
    seats = taught_by(names)
    assert not taught_by(before).any()
    assert (names[~seats] == before[~seats]).all()
    zoo = set(agents.list_strategies(split="train"))
    assert all(set(names[~seats[:, k], k]) == zoo for k in (0, 1)), "who teaches says nothing of who would have played"
    same = ["seed", "scenario_id", "buyer_max", "seller_min", "starter"]
    assert taught[1].select(same).equals(untaught[1].select(same))


def test_a_larger_share_keeps_the_teachers_of_a_smaller():
    games = be.sample("paper", 200, seed=5)
    nobody = np.full((200, 2), "fair", dtype=object)
    few, many, all_ = (teachers.seated(nobody, games, share) for share in (0.2, 0.6, 1.0))
    assert 40 < (few != nobody).sum() < 120
    assert (few == many)[few != nobody].all()
    assert (many != nobody).sum() > 200
    assert (all_ != nobody).all()
    assert (teachers.seated(nobody, games, 0.0) == nobody).all()


def test_the_settlements_are_spread_more_evenly(taught, untaught):
    shares = []
    for _, table in (untaught, taught):
        rho = table["rho"].to_numpy()
        counts = np.histogram(rho[rho != be.IMPASSE_RHO], bins=10, range=(0, 1))[0]
        shares.append(counts / counts.sum())
    sparse = shares[0] < 0.08
    assert 3 <= sparse.sum() <= 8
    assert shares[1][sparse].sum() > 1.15 * shares[0][sparse].sum()
    assert shares[1].std() < 0.8 * shares[0].std()


def test_impasses_are_among_them(taught):
    seats, rho = taught_by(players(taught[1])), taught[1]["rho"].to_numpy()
    both = seats.all(axis=1)
    assert 0.2 < (rho[both] == be.IMPASSE_RHO).mean() < 0.8
    assert 0.02 < (rho[seats.any(axis=1) & ~both] == be.IMPASSE_RHO).mean() < 0.3


def test_games_are_played_again_from_their_names(taught):
    steps = pq.read_table(taught[0] / "steps.parquet")
    table = taught[1].filter(taught_by(players(taught[1])).any(axis=1)).slice(0, 60)
    names, ids = players(table), table["scenario_id"].to_numpy()
    games = be.sample("paper", ids=ids, seed=5)
    result = be.play(games, *(pairs.by_name(names[:, seat], PRESETS["paper"]) for seat in (0, 1)))
    np.testing.assert_array_equal(np.where(result.agreement, result.rho, be.IMPASSE_RHO), table["rho"].to_numpy())
    by_id = {}
    for name, price in zip(steps["trajectory_id"].to_pylist(), steps["target_price"].to_pylist(), strict=True):
        by_id.setdefault(name, []).append(price)
    for row, name in enumerate(table["trajectory_id"].to_pylist()):
        recorded = [np.nan if price is None else price for price in by_id[name]]
        np.testing.assert_array_equal(result.prices[row, : len(recorded)], recorded)


@pytest.mark.parametrize("shard", [1, 7])
def test_neither_run_nor_shard_changes_a_byte(tmp_path, shard):
    for name, options in {"a": {}, "b": {"shard": shard}, "c": {"seed": 6}, "d": {"teacher_share": 0.5}}.items():
        collected(tmp_path / name, **{"episodes": 40, "teacher_share": SHARE, **options})
    for file in sorted((tmp_path / "a").iterdir()):
        again, seed, share = ((tmp_path / name / file.name).read_bytes() for name in "bcd")
        assert file.read_bytes() not in (seed, share)
        assert file.read_bytes() == again


def test_without_teachers_a_collection_is_what_it_always_was(tmp_path):
    collected(tmp_path, episodes=300, scenario="hidden", format="jsonl")
    log = hashlib.sha256((tmp_path / "episodes.jsonl").read_bytes()).hexdigest()
    assert log == "a765a37983fe30bd6b2759573b25ce4f47d1f0b310084f5e8ec01665cce08e10"
    manifest = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    collected(tmp_path / "zero", episodes=300, scenario="hidden", format="jsonl", teacher_share=0.0)
    assert hashlib.sha256((tmp_path / "zero" / "manifest.json").read_bytes()).hexdigest() == manifest
    assert "teacher_share" not in json.loads((tmp_path / "manifest.json").read_text())["settings"]


def test_runs_of_other_shares_share_no_name(taught, untaught):
    found = [table["trajectory_id"][0].as_py().split("-")[1] for _, table in (taught, untaught)]
    assert found[0] != found[1]
    assert json.loads((taught[0] / "manifest.json").read_text())["settings"]["teacher_share"] == SHARE


def test_prepare_keeps_what_teachers_played(taught, tmp_path):
    manifest = prepare.run(prepare.Settings(taught[0], tmp_path, strict=True, quiet=True))
    assert manifest["episodes"] == N
    assert taught_by(players(pq.read_table(tmp_path / "episodes.parquet"))).mean() == pytest.approx(SHARE, abs=0.04)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_no_share(tmp_path, share):
    with pytest.raises(InputError, match=r"--teacher-share .* must lie in \[0, 1\]"):
        collected(tmp_path, teacher_share=share)
    with pytest.raises(InputError, match="--teacher-share"):
        pipeline.run(pipeline.Settings(tmp_path / "run", teacher_share=share, quiet=True))
    assert not list(tmp_path.iterdir())


def test_the_pipeline_takes_the_share_through(tmp_path, monkeypatch):
    def first(row, console):
        stages.run_stages(list(row)[:2], console)

    monkeypatch.setattr(pipeline, "run_stages", first)
    for share in (0.0, 0.5):
        out = tmp_path / str(share)
        pipeline.run(pipeline.Settings(out, episodes=60, teacher_share=share, threads=1, quiet=True))
        names = players(pq.read_table(out / "ready" / "episodes.parquet"))
        assert taught_by(names).mean() == pytest.approx(share, abs=0.15)
        assert json.loads((out / pipeline.SETTINGS).read_text())["teacher_share"] == share
    with pytest.raises(InputError, match="other settings"):
        pipeline.run(pipeline.Settings(out, episodes=60, teacher_share=0.2, quiet=True))


def test_the_model_card_says_so():
    known = {"episodes": 1, "base_steps": 1, "batch_size": 1, "adapter_steps": 1, "scenario": "paper"}
    cards = [nano_card.nano_card({**known, "teacher_share": share}) for share in (0.0, 0.3)]
    assert "teachers" not in cards[0]
    assert "30 % of their seats played by target-seeking teachers" in " ".join(cards[1].split())
    assert "--teacher-share 0.3" in cards[1]
