"""`experiments.collect --teacher-share`: who teaches, that names play again, and that without teachers nothing changed."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_teachers import folder, saved

import agents
import bargain_env as be
from agents.teacher import Teacher
from agents.validation import OPPONENTS as VALIDATION
from bargain_env import PRESETS
from bargain_env.errors import InputError
from experiments import collect, pipeline, prepare
from experiments.corpus import records, teachers
from experiments.match import pairs

N = 1500
SHARE = 0.3


def collected(out, **options):
    usual = {"episodes": N, "scenario": "paper", "seed": 5, "out": out, "quiet": True}
    collect.run(collect.Settings(**{**usual, **options}))
    return pq.read_table(out / "episodes")


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
    steps = pq.read_table(taught[0] / "steps")
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


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_whatever_is_played_together(tmp_path, monkeypatch, together, usual, others):
    """Parts of seven games, played four at a time or otherwise; and none is the same in other collections."""
    monkeypatch.setattr(records, "PART_GAMES", 7)
    whole = tmp_path / "whole"
    collected(whole, **usual)
    monkeypatch.setattr(collect, "TOGETHER", together)
    collected(tmp_path / "cut", **usual)
    found = files(whole)
    assert len(found) == 13, "six parts of two files, and the manifest"
    for k, options in enumerate(others):
        collected(tmp_path / str(k), **{**usual, **options})
        other = files(tmp_path / str(k))
        assert other.keys() == found.keys()
        assert not [name for name in found if other[name] == found[name]]
    assert files(tmp_path / "cut") == found


@pytest.mark.parametrize("together", [1, 3])
def test_neither_run_nor_what_is_played_together_changes_a_byte(tmp_path, monkeypatch, together):
    usual = {"episodes": 40, "teacher_share": SHARE}
    same_whatever_is_played_together(tmp_path, monkeypatch, together, usual, [{"seed": 6}, {"teacher_share": 0.5}])


def test_without_teachers_a_collection_is_what_it_always_was(tmp_path):
    collected(tmp_path, episodes=300, scenario="hidden", jsonl=True)
    lines = [json.loads(line) for line in (tmp_path / "log" / "part-00000.jsonl").open()]
    log = hashlib.sha256("".join(f"{json.dumps(line)}\n" for line in lines).encode()).hexdigest()
    assert log == "a765a37983fe30bd6b2759573b25ce4f47d1f0b310084f5e8ec01665cce08e10"
    manifest = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    collected(tmp_path / "zero", episodes=300, scenario="hidden", jsonl=True, teacher_share=0.0)
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


# ── trained teachers, several presets ─────────────────────────────────────────────────────────────────────────────────

BOTH_PRESETS = ("paper", "hidden")
SAID = ["buyer_max", "seller_min", "starter", "buyer_strategy", "seller_strategy", "rho", "turns"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder of teachers that learned nothing, one for each preset."""
    return folder(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def mixed(networks, tmp_path_factory):
    """Games of two presets, half of the seats taught, and some of the others played by drawn members."""
    out = tmp_path_factory.mktemp("mixed")
    chosen = {"teacher_share": 0.5, "teacher": networks, "scenario": "paper,hidden"}
    return out, collected(out, episodes=600, strategies="train,population:9@train", **chosen)


def test_who_is_asked_is_known(mixed, untaught):
    names = players(mixed[1])
    asked = teachers.asked_rho(names.ravel().astype(object)).reshape(names.shape)
    seats = np.char.startswith(names, "teacher(target=")
    assert (np.isnan(asked) == ~seats).all()
    assert seats.mean(axis=0) == pytest.approx([0.5] * 2, abs=0.06)
    assert not taught_by(names).any(), "no scripted ones beside them"
    assert np.histogram(asked[seats], bins=10, range=(0, 1))[0].min() > 0.06 * seats.sum()
    others = set(names[~seats].tolist())
    assert len([name for name in others if "(" in name]) == 9
    assert others >= set(agents.list_strategies(split="train"))


def test_trained_ones_sit_where_scripted_ones_would():
    games = be.sample("paper", 200, seed=5)
    nobody = np.full((200, 2), "fair", dtype=object)
    scripted, trained = (teachers.seated(nobody, games, 0.4, trained=kind) for kind in (False, True))
    assert 100 < (trained != nobody).sum() < 220
    assert ((scripted != nobody) == (trained != nobody)).all()
    assert (scripted != trained)[trained != nobody].all()


def test_what_was_asked_is_read_from_names():
    names = ["teacher(target=0.3712)", None, "fair", "target_seeking(target=0.4)", "teacher(target=1.0)",
             "teacher(target=0.0)", "teacher(target=x)", "teacher(target=1.5)", "my teacher(target=0.1)",
             "teacher(target=0.1, more=1)", "teacher", "teacher(target=-0.1)", "teacher(target=nan)"]  # fmt: skip
    found = teachers.asked_rho(np.array(names, dtype=object))
    np.testing.assert_array_equal(found, [0.3712, np.nan, np.nan, np.nan, 1.0, 0.0, *[np.nan] * 7])


def test_every_name_that_is_given_can_be_read():
    games = be.sample("paper", 20_000, seed=9)
    names = teachers.seated(np.full((20_000, 2), "fair", dtype=object), games, 1.0, trained=True)
    asked = teachers.asked_rho(names.ravel())
    assert 0 <= asked.min() < 0.001
    assert 0.999 < asked.max() <= 1
    assert (asked.round(teachers.DIGITS) == asked).all()


def test_each_preset_has_games_of_both_starters(mixed):
    ids, starter = (mixed[1][name].to_numpy() for name in ("scenario_id", "starter"))
    paper = np.isclose((mixed[1]["buyer_max"].to_numpy() - mixed[1]["seller_min"].to_numpy()), 500.0)
    assert ids.tolist() == list(range(600))
    assert (paper == (ids // 2 % 2 == 0)).all()
    for some in (paper, ~paper):
        assert (starter[some] == "buyer").mean() == 0.5


def test_a_games_presets_are_no_matter_to_it(mixed, networks, tmp_path):
    """It is the game that it would be in a collection of its preset alone."""
    ids = mixed[1]["scenario_id"].to_numpy()
    rest = {"episodes": 600, "teacher_share": 0.5, "teacher": networks, "strategies": "train,population:9@train"}
    alone = {name: collected(tmp_path / name, scenario=name, **rest) for name in BOTH_PRESETS}
    for k, name in enumerate(BOTH_PRESETS):
        mine = ids // 2 % 2 == k
        assert mixed[1].filter(mine).select(SAID).equals(alone[name].filter(mine).select(SAID))
        assert not mixed[1].filter(~mine).select(SAID).equals(alone[name].filter(~mine).select(SAID))


def record(table, path, preset):
    """What the seats were asked for, the games and ``[B, 20]`` the recorded offers, NaN where there was none."""
    names = players(table)
    asked = teachers.asked_rho(names.ravel().astype(object)).reshape(names.shape)
    games = be.sample(preset, ids=table["scenario_id"].to_numpy(), seed=5)
    steps = pq.read_table(path / "steps").to_pylist()
    by_id = {}
    for step in steps:
        by_id.setdefault(step["trajectory_id"], []).append(step["target_price"] or np.nan)
    recorded = np.full((len(table), 20), np.nan)
    for row, name in enumerate(table["trajectory_id"].to_pylist()):
        recorded[row, : len(by_id[name])] = by_id[name]
    return asked, games, recorded


class Recorded:
    """Plays what was recorded: an offer, or acceptance where there is none."""

    name = "recorded"

    def __init__(self, prices):
        self.prices = prices

    def reset(self, games):
        pass

    def act(self, view):
        price = self.prices[view.rows, view.turn - 1]
        return be.Moves(np.isnan(price), price)


def test_names_and_file_play_the_teachers_again(mixed, networks):
    """Against the recorded moves of everybody else."""
    for k, preset in enumerate(BOTH_PRESETS):
        table = mixed[1].filter(mixed[1]["scenario_id"].to_numpy() // 2 % 2 == k)
        asked, games, recorded = record(table, mixed[0], preset)
        taught = np.flatnonzero(~np.isnan(asked[:, 0]))
        assert len(taught) > 100
        script, goal = Recorded(recorded[taught]), asked[taught, 0]
        files = [networks / f"{name}.safetensors" for name in (preset, BOTH_PRESETS[1 - k])]
        again, other = (be.play(games.take(taught), Teacher(file, goal), script) for file in files)
        np.testing.assert_array_equal(again.prices, recorded[taught])
        assert (again.turns == table["turns"].to_numpy()[taught]).all()
        assert not np.array_equal(other.prices, again.prices, equal_nan=True), "of the other preset's network"
        elsewhere = be.play(games.take(taught), Teacher(files[0], 1 - goal), script)
        assert not np.array_equal(elsewhere.prices, again.prices, equal_nan=True), "asked for something else"


@pytest.mark.parametrize("together", [1, 3])
def test_nor_with_trained_teachers(tmp_path, monkeypatch, networks, together):
    other = folder(tmp_path / "other", seed=40)
    usual = {"episodes": 40, "scenario": "paper,hidden", "teacher_share": 0.5, "teacher": networks}
    same_whatever_is_played_together(tmp_path, monkeypatch, together, usual, [{"teacher": other}, {"teacher": None}])


def test_runs_of_other_teachers_share_no_name(mixed, networks, tmp_path):
    manifest = json.loads((mixed[0] / "manifest.json").read_text())["settings"]
    digests = {
        name: hashlib.sha256((networks / f"{name}.safetensors").read_bytes()).hexdigest() for name in BOTH_PRESETS
    }
    assert manifest["teachers_sha256"] == digests
    usual = {"episodes": 4, "scenario": "paper", "teacher_share": 0.5}
    tables = [collected(tmp_path / str(k), teacher=saved(tmp_path / f"t{k}", k), **usual) for k in range(2)]
    runs = [table["trajectory_id"][0].as_py().rpartition("-")[0] for table in tables]
    assert runs[0] != runs[1]


def test_prepare_keeps_what_trained_teachers_played(mixed, tmp_path):
    prepare.run(prepare.Settings(mixed[0], tmp_path, strict=True, quiet=True))
    kept = pq.read_table(tmp_path / "episodes.parquet")
    assert sorted(kept["buyer_strategy"].to_pylist()) == sorted(mixed[1]["buyer_strategy"].to_pylist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_share": 0.0}, "--teacher has nobody to teach without --teacher-share"),
        ({"scenario": "paper,no_deal"}, r"no teacher at '.*no_deal.safetensors'; .* `python -m experiments.teacher`"),
        ({"scenario": "paper,hiden"}, "did you mean 'hidden'"),
        ({"scenario": ","}, "--scenario is empty"),
        ({"strategies": "population:5@held_out"}, "are held out of training data"),
        ({"strategies": f"train,{VALIDATION[3]}"}, "are held out of training data"),
        ({"strategies": "population:x@train"}, "is not population:N"),
        ({"strategies": "train,fiar"}, "did you mean 'fair'"),
    ],
)
def test_collections_that_cannot_be(tmp_path, networks, options, message):
    usual = {"episodes": 4, "scenario": "paper", "teacher_share": 0.5, "teacher": networks}
    with pytest.raises(InputError, match=message):
        collected(tmp_path / "out", **{**usual, **options})
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_teacher(tmp_path):
    (tmp_path / "t").write_text("weights")
    with pytest.raises(InputError, match="cannot be played"):
        collected(tmp_path / "out", teacher_share=0.5, teacher=tmp_path / "t")
