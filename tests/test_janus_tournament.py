"""Janus in a tournament: the options that reach it, and the columns that tell what it had decided."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from janus_worlds import Fixed, Hostile, small_adapter, write_adapter, write_base

import agents
from agents import registry
from agents.janus import JanusAgent
from agents.janus_models import clear_models
from bargain_env import PRESETS, Moves, Seat, play, sample
from bargain_env.errors import InputError
from experiments import tournament
from experiments.match import contestants, results
from experiments.match.arena import Plan, run_tournament, same_grid
from experiments.match.contestants import Contestant, JanusOptions


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two bases, and an adapter of the first."""
    root = tmp_path_factory.mktemp("world")
    base, other = (write_base(root / name, seed) for name, seed in (("base", 1), ("other", 2)))
    yield base, other, write_adapter(root / "adapter", base)
    clear_models()


# ── the options of a tournament ───────────────────────────────────────────────────────────────────────────────────────


def built(monkeypatch, text, **options):
    """The arguments that each contestant's agent is built with."""
    seen = []

    def fake(adapter, rho, **given):
        seen.append((adapter, given))

    monkeypatch.setattr(agents, "JanusAgent", fake, raising=False)
    for one in contestants.resolve_agents(text, JanusOptions(**options)):
        one.build(np.array([0.5]), PRESETS["paper"])
    return seen


def test_bases_are_for_adapters_given_by_path(world, monkeypatch):
    _, other, folder = world
    told = {"decode": "median", "guard": "monotone", "batch_size": 256, "scenario": "paper"}
    text = f"janus-nano,janus:{folder},base:{folder},shuffled"
    plain = built(monkeypatch, text, decode="median", guard="monotone")
    assert plain == [
        ("janus-nano", told),
        (str(folder), told),
        (str(folder), {**told, "base_only": True}),
        ("janus-nano", told),
    ]
    options = {
        "decode": "median",
        "guard": "monotone",
        "base": str(other),
        "allow_base_mismatch": True,
        "precision": "nf4",
    }
    elsewhere = {**told, "precision": "nf4", "base": str(other), "allow_base_mismatch": True}
    assert built(monkeypatch, text, **options) == [
        ("janus-nano", {**told, "precision": "nf4"}),
        (str(folder), elsewhere),
        (str(folder), {**elsewhere, "base_only": True}),
        ("janus-nano", {**told, "precision": "nf4"}),
    ]


def test_a_base_is_found_from_where_the_command_runs(world, monkeypatch):
    _, other, folder = world
    monkeypatch.chdir(other)
    assert built(monkeypatch, f"janus:{folder}", base="../other")[0][1]["base"] == str(other.resolve())
    assert built(monkeypatch, f"janus:{folder}", base="Qwen/Qwen2-7B")[0][1]["base"] == "Qwen/Qwen2-7B"


@pytest.mark.parametrize("changes", [{"base": "janus-nano"}, {"allow_base_mismatch": True}])
def test_a_base_that_nobody_plays_on_is_refused(tmp_path, changes):
    for agents_ in ("janus-nano", "script:linear_standard", "base,shuffled"):
        with pytest.raises(InputError, match="janus:PATH, base:PATH, shuffled:PATH; name one of these in --agents"):
            tournament.prepare(tournament.Settings(agents=agents_, out=tmp_path, **changes))


def command(out, folder, **changes):
    chosen = {"agents": f"janus:{folder}", "rho": "0.2,0.8", "opponents": "linear_standard", "games": 3, "threads": 1}
    return tournament.Settings(**{**chosen, "scenario": "paper", "out": out, "quiet": True, **changes})


def test_a_tournament_on_another_base(world, tmp_path):
    _, other, folder = world
    with pytest.raises(InputError, match="allow the mismatch"):
        tournament.run(command(tmp_path / "no", folder, base=str(other)))
    assert not list((tmp_path / "no").glob("*"))
    own = tournament.run(command(tmp_path / "own", folder))
    there = tournament.run(command(tmp_path / "there", folder, base=str(other), allow_base_mismatch=True))
    assert own["settings"]["base"] is None
    assert (there["settings"]["base"], there["settings"]["allow_base_mismatch"]) == (str(other), True)
    tables = [pq.read_table(tmp_path / name / "episodes.parquet") for name in ("own", "there")]
    assert tables[0]["offers"] != tables[1]["offers"]


# ── the columns of a tournament ───────────────────────────────────────────────────────────────────────────────────────


class Tempter:
    """Asks for much and accepts nothing."""

    name = "tempter"

    def __init__(self, assumed_zopa_width=None):
        self.memoryless = True

    def reset(self, games):
        pass

    def act(self, view):
        price = view.games.reservation - view.games.sign * 600.0
        return Moves(np.zeros(len(view), dtype=bool), np.clip(price, 200.0, 1500.0))


@pytest.fixture
def opponents(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {})
    agents.register("tempter", Tempter)
    agents.register("other", Tempter)
    return "tempter", "other"


def episodes(opponents, scorer, guard, **options):
    """A tournament of a Janus that decides what ``scorer`` says."""
    loaded = small_adapter()

    def build(rho, _preset):
        agent = JanusAgent(loaded, rho, guard=guard)
        agent.scorer = scorer
        return agent

    plan = Plan(opponents, same_grid((0.2, 0.8)), 4, tuple(Seat), PRESETS["paper"], **options)
    return run_tournament([Contestant("made-up", takes_rho=True, build=build), contestants.script("other")], plan)


@pytest.mark.parametrize("guard", ["ir", "monotone", "none"])
def test_columns_tell_what_was_decided_beside_what_was_played(opponents, guard):
    table = episodes(opponents, Hostile(1), guard)
    table.validate(full=True)
    assert table.schema.equals(results.SCHEMA, check_metadata=True)
    rows = [row for row in table.to_pylist() if row["agent"] == "made-up"]
    for row in rows:
        raw = list(zip(row["raw_turns"], row["raw_accepts"], row["raw_prices"], strict=True))
        offers = dict(zip(row["offer_turns"], row["offers"], strict=True))
        limit = row["buyer_max"] if row["agent_seat"] == "buyer" else row["seller_min"]
        assert len(raw) == row["guard_moves"] + row["fallback_moves"]
        assert sorted(row["raw_turns"]) == row["raw_turns"]
        for turn, accepts, price in raw:
            assert (turn % 2 == 1) == (row["starter"] == row["agent_seat"])
            assert accepts or price != offers[turn]
            assert price is not None or (not accepts and offers[turn] == limit)
        assert sum(price is None for *_, price in raw) == row["fallback_moves"]
    assert sum(row["fallback_moves"] for row in rows) > 5
    assert (sum(row["guard_moves"] for row in rows) > 5) == (guard != "none")
    scripts = [row for row in table.to_pylist() if row["agent"] == "script:other"]
    told = {(row["fallback_moves"], row["raw_turns"], row["raw_accepts"], row["raw_prices"]) for row in scripts}
    assert told == {(0, None, None, None)}


def table_of(played, seat):
    return results.table(played, [results.Cell("x", seat, 0.5, "x", "x")], np.zeros(len(played), dtype=int))


def test_who_tells_nothing_has_null_lists_beside_who_does(opponents):
    games = sample("paper", 20, seed=1)
    janus = JanusAgent(small_adapter(), guard="ir")
    janus.scorer = Hostile(1)
    played = play(games, janus, Tempter())
    tables = [table_of(played, seat) for seat in Seat]
    assert tables[Seat.BUYER]["raw_turns"].null_count == 0
    assert sum(tables[Seat.BUYER]["fallback_moves"].to_pylist()) > 0
    for name in ("raw_turns", "raw_accepts", "raw_prices"):
        assert tables[Seat.SELLER][name].null_count == 20
    assert set(tables[Seat.SELLER]["fallback_moves"].to_pylist()) == {0}


def test_two_that_tell_are_kept_apart():
    games, pair = sample("paper", 20, seed=1), [JanusAgent(small_adapter(), guard="ir") for _ in Seat]
    for seat, janus in enumerate(pair):
        janus.scorer = Hostile(seat)
    played = play(games, *pair)
    for seat in Seat:
        for row in table_of(played, seat).to_pylist():
            assert len(row["raw_turns"]) == row["guard_moves"] + row["fallback_moves"]
            assert all((turn % 2 == 1) == (row["starter"] == seat.label) for turn in row["raw_turns"])


def test_a_janus_that_is_never_overruled_has_empty_lists(opponents):
    rows = episodes(opponents, Fixed(0.3), "none").to_pylist()
    assert {str(row["raw_turns"]) for row in rows if row["agent"] == "made-up"} == {"[]"}


def test_a_bad_deal_by_hand(opponents):
    rows = episodes(opponents, Fixed(0.0, accept=True), "ir", max_turns=4).to_pylist()
    for row in rows:
        if row["agent"] == "made-up" and row["agent_seat"] == "buyer":
            mine = [2, 4] if row["starter"] == "seller" else [1, 3]
            assert row["guard_moves"] == (len(mine) if mine[0] == 2 else 1)  # on turn 1 nothing stands: a wasted turn
            assert row["raw_turns"] == [turn for turn in mine if turn > 1]
            assert row["raw_accepts"] == [True] * len(row["raw_turns"])
            assert row["raw_prices"] == [200.0] * len(row["raw_turns"])


def test_files_are_the_same_bytes_twice_and_older_ones_can_be_read(opponents, tmp_path):
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(results.write(episodes(opponents, Hostile(1), "monotone"), tmp_path / name))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    table = results.read(tmp_path / "a")
    assert table.schema.names[-4:] == ["fallback_moves", "raw_turns", "raw_accepts", "raw_prices"]
    pq.write_table(table.drop_columns(list(table.schema.names[-4:])), paths[1])
    older = results.read(tmp_path / "b")
    assert older.select(table.schema.names[:-4]).equals(table.select(table.schema.names[:-4]))
    assert set(older["fallback_moves"].to_pylist()) == {0}
    assert older["raw_turns"].null_count == len(older)
    assert older.schema.names == results.SCHEMA.names
    pq.write_table(pa.table({"agent": ["x"]}), paths[1])
    with pytest.raises(InputError, match="lacks columns episode_id"):
        results.read(tmp_path / "b")
