"""`experiments.collect` and the log: labels by hand, the same bytes however the games are cut up, refusals."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import agents
from bargain_env import MoveKind, Moves, Seat, play, sample
from bargain_env.errors import InputError
from experiments import collect
from experiments.corpus import records
from experiments.corpus.game_rows import rows_of_games
from experiments.corpus.step_rows import steps_table

ROOT = Path(__file__).resolve().parents[1]
STEPS, EPISODES, LOG = "steps/part-00000.parquet", "episodes/part-00000.parquet", "log/part-00000.jsonl"


class Wasteful:
    """Wastes its first move, then offers its limit, then accepts."""

    def __init__(self, assumed_zopa_width=None):
        self.name = "wasteful"

    def reset(self, games):
        pass

    def act(self, view):
        price = np.full(len(view), np.nan) if view.turn <= 2 else view.games.reservation
        return Moves(accept=(view.turn > 4) & ~np.isnan(view.standing), price=price)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    collect.run(collect.Settings(episodes=300, seed=5, out=out, jsonl=True, quiet=True))
    return out


def test_tables_have_the_documented_schemas(raw):
    for name, schema in ((STEPS, records.STEPS), (EPISODES, records.EPISODES)):
        found = pq.read_schema(raw / name)
        assert found.names == schema.names
        assert found.types == schema.types
        assert all(field.metadata[b"description"] for field in found)


def test_labels_recomputed_by_hand(raw):
    episodes = {e["trajectory_id"]: e for e in pq.read_table(raw / EPISODES).to_pylist()}
    games = {}
    for step in pq.read_table(raw / STEPS).to_pylist():
        games.setdefault(step["trajectory_id"], []).append(step)
    assert len(games) == len(episodes) == 300
    assert {e["agreement"] for e in episodes.values()} == {True, False}
    for name, steps in games.items():
        check_game(steps, episodes[name])


def check_game(steps, episode):
    offers = []
    limits = {"buyer": episode["buyer_max"], "seller": episode["seller_min"]}
    for turn, step in enumerate(steps, start=1):
        assert (step["turn"], step["turns_remaining"]) == (turn, 20 - turn)
        assert step["role"] == (("buyer", "seller") * 2)[["buyer", "seller"].index(episode["starter"]) + (turn - 1) % 2]
        assert step["reservation_price"] == limits[step["role"]]
        assert step["last_offer_price"] == (offers[-1][1] if offers else None)
        assert step["history_roles"] == [role for role, _ in offers[-8:]]
        assert step["history_prices"] == [price for _, price in offers[-8:]]
        assert step["strategy"] == episode[f"{step['role']}_strategy"]
        assert (step["target_price"] is None) == (step["target_action"] == "ACCEPT")
        offers.append((step["role"], step["target_price"]))
    deal = steps[-1]["target_action"] == "ACCEPT"
    assert deal or len(steps) == 20
    price = steps[-1]["last_offer_price"] if deal else None
    rho = (price - limits["seller"]) / (limits["buyer"] - limits["seller"]) if deal else -1.0
    assert all(step["rho_train"] == rho and step["success"] == deal for step in steps)
    assert (episode["agreement"], episode["price"], episode["turns"]) == (deal, price, len(steps))
    assert episode["rho"] == rho
    assert episode["seller_utility"] == pytest.approx(rho if deal else 0.0)
    assert episode["buyer_utility"] == pytest.approx(1 - rho if deal else 0.0)


def test_log_says_what_the_tables_say(raw):
    steps = pq.read_table(raw / STEPS).to_pylist()
    log = [json.loads(line) for line in (raw / LOG).open()]
    assert len(log) == len(steps)
    for record, step in zip(log, steps, strict=True):
        state, meta = record["state"], record["meta"]
        assert record["trajectory_id"] == step["trajectory_id"]
        assert record["agent"] == {"strategy": step["strategy"], "strategy_params": {}}
        assert record["action"] == {"type": step["target_action"], "price": step["target_price"]}
        assert [p for _, p in state["offer_history"]][-8:] == step["history_prices"]
        assert len(state["offer_history"]) == step["turn"] - 1
        assert record["rho"] == step["rho_train"]
        last = step["target_action"] == "ACCEPT" or step["turns_remaining"] == 0
        assert record["is_terminal"] == last
        accepted = step["last_offer_price"] if step["target_action"] == "ACCEPT" else None
        assert meta["accepted_price"] == accepted
        assert meta["zopa_width"] == meta["buyer_max"] - meta["seller_min"]


def test_another_seed_gives_other_games(raw, tmp_path):
    collect.run(collect.Settings(episodes=300, seed=6, out=tmp_path, quiet=True))
    assert (raw / STEPS).read_bytes() != (tmp_path / STEPS).read_bytes()


def test_pairs_cover_the_square(raw):
    episodes = pq.read_table(raw / EPISODES)
    names = set(agents.list_strategies(split="train"))
    assert set(episodes["buyer_strategy"].to_pylist()) == names
    assert set(episodes["seller_strategy"].to_pylist()) == names


def test_runs_of_other_settings_share_no_id(raw, tmp_path):
    ids = set(pq.read_table(raw / EPISODES)["trajectory_id"].to_pylist())
    for k, options in enumerate(({"seed": 6}, {"scenario": "paper"}, {"max_turns": 19}, {"strategies": "fair"})):
        collect.run(
            collect.Settings(**{"episodes": 300, "seed": 5, "out": tmp_path / str(k), "quiet": True, **options})
        )
        assert not ids & set(pq.read_table(tmp_path / str(k) / EPISODES)["trajectory_id"].to_pylist())


def test_wasted_turns_make_no_row():
    result = play(sample("paper", 4, seed=0), Wasteful(), Wasteful())
    assert (result.kinds[:, :2] == MoveKind.INVALID).all()
    table = steps_table(rows_of_games(result, "0-000000", ["a"] * 4, ["b"] * 4)).to_pylist()
    first = [step for step in table if step["trajectory_id"] == "0-000000-000001"]
    limits = result.scenarios.seller_min[1], result.scenarios.buyer_max[1]
    assert [(s["turn"], s["role"], s["target_price"]) for s in first[:2]] == [
        (3, Seat.SELLER.label, limits[0]),
        (4, Seat.BUYER.label, limits[1]),
    ]
    assert [s["starter"] for s in first] == ["seller"] * len(first)
    assert [s["last_offer_price"] for s in first] == [None, *limits][: len(first)]


def test_games_with_invalid_moves_are_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.registry._REGISTRY", dict(agents.registry._REGISTRY))
    agents.register("wasteful", Wasteful)
    names = "wasteful,linear_standard"
    manifest = collect.run(collect.Settings(episodes=40, strategies=names, out=tmp_path, quiet=True))
    assert manifest["episodes"] + manifest["left_out_for_invalid_moves"] == 40
    assert set(pq.read_table(tmp_path / STEPS)["strategy"].to_pylist()) == {"linear_standard"}


def test_held_out_strategies_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.registry._REGISTRY", dict(agents.registry._REGISTRY))
    agents.register("secret", Wasteful, split="held_out")
    with pytest.raises(InputError, match="secret are held out"):
        collect.run(collect.Settings(episodes=4, strategies="secret,linear_standard", out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_only_what_trains_is_collected(tmp_path, monkeypatch):
    """Whatever else a split should come to be called."""
    known = dict(agents.registry._REGISTRY)
    known["odd"] = dataclasses.replace(known["fair"], name="odd", split="test")
    known["sly"] = dataclasses.replace(known["fair"], name="sly", cheating=True)
    monkeypatch.setattr("agents.registry._REGISTRY", known)
    for name in ("odd", "sly"):
        with pytest.raises(InputError, match=f"{name} are held out of training data"):
            collect.run(collect.Settings(episodes=4, strategies=f"{name},fair", out=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "--episodes 0"),
        ({"scenario": "hiden"}, "did you mean 'hidden'"),
        ({"strategies": "boulware_frim"}, "did you mean 'boulware_firm'"),
        ({"strategies": ","}, "--strategies is empty"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_settings(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        collect.run(collect.Settings(out=tmp_path, **options))


def test_runs_as_a_file_from_anywhere(tmp_path):
    script = str(ROOT / "experiments" / "collect.py")
    options = ["--episodes", "5", "--max_turns", "6", "--out", str(tmp_path / "raw"), "--json"]
    done = subprocess.run([sys.executable, script, *options], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["episodes"] == 5
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["episodes", "manifest.json", "steps"]
    bad = subprocess.run([sys.executable, script, "--episodes", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2
    assert len(bad.stderr.splitlines()) == 1
