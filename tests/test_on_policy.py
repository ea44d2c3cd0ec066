"""`experiments.on_policy`: an adapter plays, a teacher answers; and training that begins with an adapter."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_teachers import saved
from test_train_command import settings

import agents
import bargain_env as be
from agents.teacher import Teacher
from bargain_env import Seat
from bargain_env.errors import InputError
from experiments import collect, on_policy, prepare, train, verify
from experiments.corpus import records
from experiments.corpus.teachers import asked_rho
from hyperlora.checkpoint import read_state
from hyperlora.data import read_steps

BOTH = (Seat.BUYER, Seat.SELLER)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two teachers that disagree: the one plays, the other is asked."""
    out = tmp_path_factory.mktemp("teachers")
    return saved(out / "plays.safetensors", 3), saved(out / "asked.safetensors", 18)


@pytest.fixture
def played_by_a_teacher(files, monkeypatch):
    """In place of a language model, which would be slow, another teacher plays; its guard and its dial are noted."""
    told = []

    def agent(adapter, goal, **options):
        told.append((adapter, options))
        return Teacher(files[0], goal)

    monkeypatch.setattr(on_policy, "JanusAgent", agent)
    return told


def run(out, files, **changes):
    usual = {"adapter": "some/adapter", "teacher": files[1], "games": 40, "drawn": 5, "quiet": True}
    return pq.read_table(on_policy.run(on_policy.Settings(**{**usual, "out": out, **changes})) / "steps.parquet")


@pytest.mark.parametrize("seat", BOTH)
def test_it_plays_as_the_player_and_notes_what_the_teacher_would_do(seat, files):
    games = be.sample("paper", 30, seed=1)
    goal = np.linspace(0, 1, 30)
    watched = on_policy.Watched(Teacher(files[0], goal), Teacher(files[1], goal), 20)
    alone = Teacher(files[0], goal)
    rivals = [agents.make("linear_standard", assumed_zopa_width=500.0) for _ in range(2)]
    results = [
        be.play(games, *((player, rival) if seat == Seat.BUYER else (rival, player)))
        for player, rival in zip((watched, alone), rivals, strict=True)
    ]
    np.testing.assert_array_equal(results[0].prices, results[1].prices)
    np.testing.assert_array_equal(results[0].kinds, results[1].kinds)
    decided = (results[0].sides() == seat) & (results[0].kinds != be.MoveKind.NONE)
    noted = watched.accept | ~np.isnan(watched.price)
    np.testing.assert_array_equal(noted, decided)
    own = np.where(results[0].kinds == be.MoveKind.OFFER, results[0].prices, np.nan)
    assert (watched.price != own)[decided].mean() > 0.2, "they disagree"

    same = on_policy.Watched(Teacher(files[0], goal), Teacher(files[0], goal), 20)
    rival = agents.make("linear_standard", assumed_zopa_width=500.0)
    result = be.play(games, *((same, rival) if seat == Seat.BUYER else (rival, same)))
    np.testing.assert_array_equal(same.accept[decided], (result.kinds == be.MoveKind.ACCEPT)[decided])
    offered = decided & ~same.accept
    np.testing.assert_array_equal(same.price[offered], result.prices[offered])


def test_rows_are_the_players_decisions_with_the_teachers_answers(tmp_path, files, played_by_a_teacher):
    table = run(tmp_path / "out", files)
    assert table.schema.equals(records.STEPS)
    assert {name for name, _ in played_by_a_teacher} == {"some/adapter"}
    assert all(options == {"guard": "monotone", "raw_dial": True} for _, options in played_by_a_teacher)
    asked = asked_rho(table["strategy"].to_numpy())
    assert not np.isnan(asked).any()
    assert len(set(asked)) == 80, "every game of both presets has its own request"
    assert set(table["role"].to_pylist()) == {"buyer", "seller"}
    assert set(table["split"].to_pylist()) == {"train"}
    offers = np.array(table["target_action"].to_pylist()) == "OFFER"
    assert (np.array(table["target_price"].is_null().to_pylist()) == ~offers).all()
    assert 0 < (~offers).sum() < len(offers)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["added"], manifest["steps"]) == (table.num_rows, table.num_rows)

    assert verify.run(verify.Settings(tmp_path / "out", quiet=True))["problems"] == []
    itself = run(tmp_path / "itself", (files[0], files[0]))
    moves = ["trajectory_id", "turn", "history_prices", "last_offer_price"]
    assert itself.select(moves).equals(table.select(moves)), "whoever is asked, the adapter plays"
    answers = ["target_action", "target_price"]
    assert not itself.select(answers).equals(table.select(answers))
    later = {(row["trajectory_id"], row["turn"]): row for row in table.to_pylist()}
    compared = 0
    for row in itself.to_pylist():  # what the player did on a turn is what its next decision remembers
        after = later.get((row["trajectory_id"], row["turn"] + 2))
        if after is not None and row["target_action"] == "OFFER":
            assert after["history_prices"][-2] == row["target_price"]
            compared += 1
    assert compared > 100


def test_nobody_is_met_who_is_held_out_or_validates(tmp_path, files, played_by_a_teacher):
    table = run(tmp_path / "out", files, games=400, drawn=30)
    rivals = set(table["opponent_strategy"].to_pylist())
    assert "sparring" in rivals
    assert len(rivals) > 40
    assert all(agents.describe(name).may_train for name in rivals)
    share = np.mean(np.array(table["opponent_strategy"].to_pylist()) == "sparring")
    assert 0.2 < share < 0.5
    assert "sparring" not in set(run(tmp_path / "none", files, sparring=0.0)["opponent_strategy"].to_pylist())


def test_half_of_the_scripted_opponents_are_the_strategies_themselves(tmp_path, files, played_by_a_teacher):
    named = set(agents.list_strategies(split="train"))

    def share(**changes):
        rivals = run(tmp_path / str(len(played_by_a_teacher)), files, games=600, scenario="paper", **changes)
        games = rivals.group_by(["trajectory_id", "opponent_strategy"]).aggregate([])["opponent_strategy"].to_pylist()
        scripted = [name for name in games if name != "sparring"]
        return np.mean([name in named for name in scripted])

    assert 0.42 < share(drawn=30) < 0.58
    assert 0.8 < share(drawn=30, named=0.9) < 1.0
    assert share(drawn=0, named=0.1) == 1.0, "there is nobody else"


def test_the_same_settings_give_the_same_bytes_and_another_seed_other_games(tmp_path, files, played_by_a_teacher):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        run(path, files, seed=seed)
    first, again, other = ((path / "steps.parquet").read_bytes() for path in paths)
    assert first == again
    assert first != other


@pytest.fixture(scope="module")
def taught(tmp_path_factory, files):
    out = tmp_path_factory.mktemp("taught")
    collect.run(collect.Settings(episodes=60, scenario="paper", teacher_share=0.5, teacher=files[1], out=out / "raw",
                                 quiet=True))  # fmt: skip
    prepare.run(prepare.Settings(out / "raw", out / "ready", quiet=True))
    return out / "ready"


def test_what_was_there_is_kept(tmp_path, files, taught, played_by_a_teacher):
    new, both = run(tmp_path / "new", files), run(tmp_path / "both", files, data=taught)
    old = pq.read_table(taught / "steps.parquet")
    assert both.slice(0, old.num_rows).equals(old)
    assert both.slice(old.num_rows).equals(new)
    assert read_steps(tmp_path / "both").num_rows > new.num_rows


def test_a_real_adapter_plays_and_is_trained_on(tmp_path, files, taught, tiny_base):
    """The whole round: train, play and ask, go on training from where it was."""
    usual = {"labels": "asked", "max_steps": 2, "eval_every": 0, "lr": 1e-2, "warmup_steps": 0}
    first = train.run(settings(taught, tiny_base, tmp_path / "first", **usual))
    on_policy.run(on_policy.Settings(str(first), files[1], taught, tmp_path / "round", scenario="paper", games=4, drawn=0,
                                     threads=1, quiet=True))  # fmt: skip
    again = {name: train.run(settings(tmp_path / "round", tiny_base, tmp_path / name, **{**usual, "lr": 1e-9}, start=start))
             for name, start in (("on", first), ("anew", None))}  # fmt: skip
    before, on, anew = (read_state(path) for path in (first, again["on"], again["anew"]))
    apart = {name: max(float((state[k] - before[k]).abs().max()) for k in before) for name, state in
             (("on", on), ("anew", anew))}  # fmt: skip
    assert apart["on"] < 1e-6 < 1e-3 < apart["anew"]
    assert all(torch.isfinite(value).all() for value in on.values())


def test_an_adapter_of_another_shape_is_no_start(tmp_path, taught, tiny_base):
    first = train.run(settings(taught, tiny_base, tmp_path / "first", max_steps=1, eval_every=0))
    with pytest.raises(InputError, match=r"its rank is \d+, not 3; give the options that it was trained with"):
        train.run(settings(taught, tiny_base, tmp_path / "other", max_steps=1, eval_every=0, rank=3, start=first))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"games": 1}, "--games 1 must be at least 2"),
        ({"drawn": -1}, "--drawn -1 must be at least 0"),
        ({"sparring": 1.5}, r"--sparring 1.5 must lie in \[0, 1\]"),
        ({"named": -0.1}, r"--named -0.1 must lie in \[0, 1\]"),
        ({"scenario": "papre"}, "unknown scenario preset 'papre'"),
    ],
)
def test_bad_settings_are_refused(tmp_path, files, changes, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", files, **changes)
    assert not (tmp_path / "out").exists()


def test_absent_files_are_named(tmp_path, files):
    with pytest.raises(InputError, match="no teacher at"):
        run(tmp_path / "out", (None, tmp_path / "nobody.safetensors"))
    with pytest.raises(InputError, match=r"holds no steps.parquet"):
        run(tmp_path / "out", files, data=tmp_path)
    with pytest.raises(InputError, match="nothing does not exist"):
        run(tmp_path / "out", files, data=tmp_path / "nothing")
