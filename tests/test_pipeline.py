"""`experiments.pipeline`: its stages and what they are told, with trained teachers, scripted ones and none; its card."""

import json

import pyarrow.parquet as pq
import pytest
from made_teachers import saved

from bargain_env.errors import InputError
from experiments import calibrate, collect, nano_card, pipeline, stages
from hyperlora.data import read_steps

FIRST = ["collect", "prepare"]
ROUND = ["on-policy 1", "train on 1"]
REST = ["pretrain", "train", "publish", "calibrate", "tournament"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the stages up to ``prepare``, with teachers that learned nothing; gives all of them and what was trained."""
    row, taught = [], []

    def first(some, console):
        row.extend(some)
        stages.run_stages([stage for stage in some if stage.name in FIRST or stage.name == "teacher"], console)

    def teach(chosen):
        taught.append(chosen)
        saved(chosen.out)

    monkeypatch.setattr(pipeline, "run_stages", first)
    monkeypatch.setattr(stages.teacher, "run", teach)

    def run(name="run", **changes):
        row.clear()
        taught.clear()
        pipeline.run(pipeline.Settings(tmp_path / name, **{"episodes": 60, "threads": 1, "quiet": True, **changes}))
        return [stage.name for stage in row], list(taught)

    return run


def players(out):
    table = pq.read_table(out / "ready" / "episodes.parquet")
    return table["buyer_strategy"].to_pylist() + table["seller_strategy"].to_pylist()


def share_of(out, kind):
    names = players(out)
    return sum(name.startswith(f"{kind}(") for name in names) / len(names)


def trained_on(monkeypatch, run, **changes):
    """What the adapter is trained with."""
    found, usual = [], pipeline.adapter_settings
    monkeypatch.setattr(pipeline, "adapter_settings", lambda *a, **o: found.append(usual(*a, **o)) or found[-1])
    run(**changes)
    [chosen] = found
    return chosen


def test_one_teacher_for_all_presets(run, tmp_path):
    names, taught = run(teacher_rounds=7, teacher_share=0.5, seed=3)
    assert names == ["teacher", *FIRST, "pretrain", "train", *ROUND, *REST[2:]]
    assert [(t.out, t.scenario, t.rounds, t.seed, t.threads) for t in taught] == [
        (tmp_path / "run" / stages.TEACHER, "paper,hidden", 7, 3, 1)
    ]
    sparring = [name for name in players(tmp_path / "run") if not name.startswith("teacher(")].count("sparring")
    assert sparring / 120 == pytest.approx(0.5 * stages.SPARRING_SHARE, abs=0.12)
    assert share_of(tmp_path / "run", "teacher") == pytest.approx(0.5, abs=0.15)
    assert share_of(tmp_path / "run", "target_seeking") == 0
    manifest = json.loads((tmp_path / "run/raw/manifest.json").read_text())["settings"]
    assert manifest["scenario"] == "paper,hidden"
    assert set(manifest["teachers_sha256"]) == {"paper", "hidden"}
    assert manifest["seed"] == 1_000_003, "its games are not those of tournaments of small seeds"
    assert len([name for name in manifest["strategies"] if "(" in name]) == 60
    table = read_steps(tmp_path / "run/ready")
    assert set(table["seed"].to_pylist()) == {1_000_003}


def test_scripted_teachers_and_none(run, tmp_path):
    for share in (0.0, 0.5):
        names, taught = run(str(share), teacher_rounds=0, teacher_share=share)
        assert names == [*FIRST, *REST]
        assert not taught
        assert share_of(tmp_path / str(share), "target_seeking") == pytest.approx(share, abs=0.15)
        assert share_of(tmp_path / str(share), "teacher") == 0
        assert "sparring" not in players(tmp_path / str(share))
        assert json.loads((tmp_path / str(share) / pipeline.SETTINGS).read_text())["teacher_share"] == share
    names, taught = run("nobody", teacher_rounds=7, teacher_share=0.0, scenario="paper")
    assert (names, taught) == ([*FIRST, *REST], []), "nobody would play what was trained"


def test_the_adapter_learns_what_trained_teachers_were_asked(run, monkeypatch):
    asked = trained_on(monkeypatch, run, name="a", teacher_rounds=1, teacher_share=0.5)
    assert (asked.labels, asked.rho_jitter, asked.opening_weight, asked.closing_weight) == ("asked", 0.0, 3.0, 3.0)


@pytest.mark.parametrize("changes", [{"teacher_rounds": 0, "teacher_share": 0.5}, {"teacher_share": 0.0}])
def test_or_what_games_reached(run, monkeypatch, changes):
    outcome = trained_on(monkeypatch, run, **changes)
    assert (outcome.labels, outcome.rho_jitter) == ("outcome", 0.03)
    assert (outcome.opening_weight, outcome.closing_weight) == (1.0, 1.0)


def test_stages_that_are_not_wanted(run):
    chosen = {"teacher_share": 0.0}
    assert run("a", **chosen, games=0)[0] == [*FIRST, *REST[:-1]]
    assert run("b", **chosen, calibration_games=0)[0] == [*FIRST, *REST[:3], REST[4]]
    assert run("c", **chosen, calibration_games=0, games=0)[0] == [*FIRST, *REST[:3]]
    taught = {"teacher_share": 0.5, "teacher_rounds": 1, "scenario": "paper"}
    assert run("d", **taught, on_policy_rounds=0)[0] == ["teacher", *FIRST, *REST]
    assert run("e", **taught, on_policy_rounds=2)[0] == [
        "teacher", *FIRST, "pretrain", "train", *ROUND, "on-policy 2", "train on 2", *REST[2:]
    ]  # fmt: skip


def test_what_is_complete_is_not_done_again(run, tmp_path, capsys):
    chosen = {"teacher_rounds": 1, "teacher_share": 0.5, "scenario": "hidden"}
    assert len(run(**chosen)[1]) == 1
    before = (tmp_path / "run/raw/manifest.json").stat().st_mtime_ns
    assert run(**chosen, games=0)[1] == [], "the closing tournament is no part of the model"
    assert run(**chosen, workers=3)[1] == [], "nor are those who play"
    assert (tmp_path / "run/raw/manifest.json").stat().st_mtime_ns == before
    for change in ({"teacher_rounds": 2}, {"teacher_share": 0.4}, {"scenario": "paper"}, {"calibration_games": 3}):
        with pytest.raises(InputError, match="other settings"):
            run(**{**chosen, **change})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "paper,hiden"}, "did you mean 'hidden'"),
        ({"scenario": ","}, "--scenario is empty"),
        ({"teacher_rounds": -1}, "--teacher-rounds -1"),
        ({"calibration_games": -1}, "--calibration-games -1"),
        ({"workers": 0}, "--workers 0"),
        ({"teacher_share": 2.0}, "--teacher-share"),
    ],
)
def test_settings_that_cannot_be(run, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(**changes)
    assert not list(tmp_path.iterdir())


def test_the_dial_is_fitted_on_the_games_it_learned_on(tmp_path, monkeypatch):
    """And what was found is kept beside the model."""
    chosen = []
    monkeypatch.setattr(calibrate, "run", lambda some: chosen.append(some) or {"dial": 1})
    told = pipeline.Settings(tmp_path, calibration_games=6, threads=1, workers=3, quiet=True)
    pipeline._calibrate(told, tmp_path / "janus-nano", tmp_path)
    [some] = chosen
    assert (some.adapter, some.games, some.scenario, some.workers, some.out) == (
        str(tmp_path / "janus-nano"), 6, "paper,hidden", 3, None,
    )  # fmt: skip
    assert json.loads((tmp_path / pipeline.CALIBRATION).read_text()) == {"dial": 1}


def card(**changes):
    return " ".join(nano_card.nano_card(pipeline.identity(pipeline.Settings(out="x", **changes))).split())


def test_the_model_card_says_what_was_done():
    usual = card(teacher_share=0.3, teacher_rounds=300, episodes=1234)
    for part in (
        "1,234 of the presets `paper` and `hidden` in turn",
        "30 % of the seats are played by a teacher that was told which ρ to reach, and learned by playing them "
        "(300 rounds), 35 % of the others by sparring partners",
        "trained on the decisions of the teachers, each with the ρ that the teacher was asked to reach",
        "a monotone map for each seat and preset, fitted to what the adapter reached against the validation opponents on "
        "`paper` and",
        "--scenario paper,hidden --episodes 1234 --teacher-share 0.3 --teacher-rounds 300",
        "Then 1 round on-policy: it played 6,000 games of each preset, the teacher said what it would have done, and "
        "training went on with that (6,000 steps)",
        "--agents janus-nano --scenario paper`. Decode with `median`",
        "**Limits**",
    ):
        assert part in usual


def test_the_model_card_says_nothing_else():
    scripted, none = card(teacher_share=0.3, teacher_rounds=0), card(teacher_share=0.0)
    assert "30 % of the seats are played by scripted target-seeking teachers" in scripted
    assert "learned by playing" not in scripted + none
    assert "teachers" not in none
    for text in (scripted, none):
        assert "asked to reach" not in text
        assert "on-policy:" not in text
        assert "sparring" not in text
        assert "with the ρ that each of them reached" in text
    assert "on-policy:" not in card(on_policy_rounds=0)
    assert "Then 2 rounds on-policy" in card(on_policy_rounds=2)
    raw = card(calibration_games=0, scenario="hidden")
    assert "**Dial**: raw" in raw
    assert "map" not in raw
    assert "of preset `hidden`," in raw
    assert "`paper`" not in raw
    assert "--workers" not in card(workers=3)


def test_the_games_are_those_that_collect_is_told(run, monkeypatch):
    told, usual = [], collect.run
    monkeypatch.setattr(stages.collect, "run", lambda chosen: told.append(chosen) or usual(chosen))
    run(teacher_rounds=1, teacher_share=1.0, scenario="paper")
    [chosen] = told
    assert (chosen.scenario, chosen.teacher_share, chosen.teacher.name) == ("paper", 1.0, stages.TEACHER)
    assert chosen.strategies == "train,population:60@train"
