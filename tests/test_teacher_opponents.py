"""Whom `experiments.teacher` meets: nobody who measures, others every few rounds, and more often who costs more."""

import numpy as np
import pytest

import agents
import bargain_env as be
from agents.validation import OPPONENTS as VALIDATION
from bargain_env.errors import InputError
from experiments import teacher
from experiments.corpus.teachers import SPARRING
from experiments.match import pairs
from experiments.teacher import opponents_of
from experiments.teacher_opponents import registered


def chosen(**changes):
    return teacher.Settings(**{"drawn": 3, "seekers": 1, **changes})


def rounds(settings, n):
    opponents = opponents_of(settings)
    return [list(opponents.start(index)) for index in range(n)]


def test_nobody_is_held_out_or_validates():
    names = {name for seed in range(12) for some in rounds(teacher.Settings(seed=seed), 9) for name in some}
    assert len(names) > 12 * 3 * 15, "others every few rounds, and of every seed"
    assert all(agents.describe(name).may_train for name in names - {SPARRING})
    assert not any(agents.is_held_out(name) for name in names - {SPARRING})
    assert not names & set(VALIDATION)
    assert not any(agents.describe(name).may_train for name in VALIDATION), "it would be seen"
    assert set(agents.list_strategies(split="train")) <= names


def test_opponents_change_every_few_rounds():
    found = rounds(chosen(redraw_every=4, drawn=5, seekers=2), 9)
    assert found[0] == found[3] != found[4] == found[7] != found[8]
    zoo = agents.list_strategies(split="train")
    for names in found:
        assert names[: len(zoo)] == zoo
        assert len(names) == len(zoo) + 5 + 2 + 1
        assert all(name.startswith("target_seeking(") for name in names[-3:-1])
        assert names[-1] == SPARRING
    assert rounds(chosen(drawn=0, seekers=0), 1) == [[*zoo, SPARRING]]


def test_these_are_whom_it_plays(tmp_path, monkeypatch):
    """In both seats, in games that nobody else plays."""
    seated, sampled = [], []
    usual, games = pairs.routed, be.sample

    def routed(names, choice, preset):
        seated.append({names[k] for k in choice})
        return usual(names, choice, preset)

    def sample(*args, **options):
        sampled.append(games(*args, **options))
        return sampled[-1]

    monkeypatch.setattr(teacher.pairs, "routed", routed)
    monkeypatch.setattr(teacher.bargain_env, "sample", sample)
    tiny = {"out": tmp_path / "t", "games": 64, "hidden": 8, "threads": 1, "quiet": True}
    settings = chosen(**tiny, rounds=5, seed=6, scenario="hidden,paper", sparring=0.5)
    teacher.run(settings)
    allowed = rounds(settings, 5)
    assert len(seated) == len(sampled) == 5 * 4, "each preset in each seat"
    assert all(SPARRING in names and names <= set(allowed[k // 4]) for k, names in enumerate(seated))
    widths = [np.ptp(some.buyer_max - some.seller_min) > 1 for some in sampled]
    assert widths == [True, True, False, False] * 5
    assert not set.union(*seated) & set(VALIDATION)
    ids = np.concatenate([some.id for some in sampled])
    assert len(set(ids.tolist())) == 5 * 64
    assert ids.min() >= teacher.FIRST_ID
    seated.clear()
    teacher.run(chosen(**tiny, rounds=1, scenario="paper", sparring=0.0))
    assert not any(SPARRING in names for names in seated)


def shares(opponents, n=40_000):
    """How often each is met."""
    met = opponents.choose(np.random.default_rng(0), n)
    return np.bincount(met, minlength=len(opponents.start(0))) / n


def test_whose_games_cost_more_is_met_more_often():
    """Four that are named, and four drawn: half of the games are against either, whatever they cost."""
    names = ["fair", "micro_fine", "linear_standard", "tit_for_tat"]
    opponents = opponents_of(
        chosen(opponents=",".join(names), drawn=4, seekers=0, sparring=0.2, redraw_every=2, priority=3.0)
    )
    opponents.start(0)
    assert shares(opponents) == pytest.approx([0.1] * 8 + [0.2], abs=0.01)
    met = np.array([0, 0, 1, 1, 2, 2, 5, 8])  # nobody meets the last of the four
    opponents.note(met, np.array([0.1, 0.1, 0.3, 0.5, 0.2, 0.0, 0.9, 0.9]))
    opponents.start(1)
    assert shares(opponents)[:4] == pytest.approx([0.1] * 4, abs=0.01), "until others are drawn"
    opponents.start(2)
    costs = np.array([0.1, 0.4, 0.1, 0.2])
    often = 1 + 3 * costs / costs.mean()
    found = shares(opponents)
    assert found[:4] == pytest.approx(0.4 * often / often.sum(), abs=0.01)
    assert found[4:] == pytest.approx([0.1] * 4 + [0.2], abs=0.01)
    opponents.start(4)
    assert shares(opponents)[:4] == pytest.approx(0.4 * often / often.sum(), abs=0.01), "nothing new was noted"


def test_without_priority_all_are_alike():
    opponents = opponents_of(chosen(drawn=0, seekers=0, sparring=0.0, redraw_every=1, priority=0.0))
    opponents.start(0)
    opponents.note(np.array([0, 1]), np.array([0.0, 1.0]))
    opponents.start(1)
    zoo = len(agents.list_strategies(split="train"))
    assert shares(opponents)[:-1] == pytest.approx([1 / zoo] * zoo, abs=0.01)


def test_what_opponents_are():
    opponents = opponents_of(chosen(drawn=30, seekers=2))
    names = opponents.start(0)
    kinds = opponents.kind(np.arange(len(names)))
    assert (kinds.sum(axis=1) == 1).all()
    told = [opponents.kinds[k] for k in kinds.argmax(axis=1)]
    zoo = agents.list_strategies(split="train")
    assert told[: len(zoo)] == zoo
    assert told[-3:] == ["a target_seeking", "a target_seeking", SPARRING]
    for name, kind in zip(names[len(zoo) : -3], told[len(zoo) : -3], strict=True):
        assert kind == f"a {agents.describe(name).family}"


def test_those_that_are_named():
    assert registered("fair, micro_fine,fair") == ["fair", "micro_fine"]
    held_out = agents.list_strategies(split="held_out")[0]
    with pytest.raises(InputError, match=f"{held_out} are held out of training; drop them from --opponents"):
        registered(f"fair,{held_out}")
